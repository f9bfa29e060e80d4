// SPDX-License-Identifier: EUPL-1.2
//! Where people go, and who they are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use crate::operator::{self, TENANTS};
use crate::people::{Backend, Gateway};

/// Gateways, as arguments of a child.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// A gateway; may be repeated.
    #[arg(long = "gateway", required = true)]
    pub(crate) gateways: Vec<SocketAddr>,
    /// CA of the gateways; without it they speak plaintext.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
}

impl Target {
    /// The same as arguments.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args: Vec<String> = self
            .gateways
            .iter()
            .flat_map(|gateway| ["--gateway".to_owned(), gateway.to_string()])
            .collect();
        if let Some(ca) = &self.ca {
            args.extend(["--ca".to_owned(), ca.display().to_string()]);
        }
        args
    }

    /// Ready to be dialled.
    pub(crate) fn gateways(&self) -> Result<Vec<Gateway>> {
        let tls = self.ca.as_deref().map(connector).transpose()?;
        Ok(self
            .gateways
            .iter()
            .map(|&address| Gateway {
                address,
                tls: tls.clone(),
            })
            .collect())
    }
}

fn connector(ca: &std::path::Path) -> Result<TlsConnector> {
    let ca = CertificateDer::from_pem_file(ca).context("the CA cannot be read")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Everybody comes from a machine of their own: nobody resumes a handshake.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What signs, by number of the tenant.
pub(crate) fn backends() -> Vec<Backend> {
    (0..TENANTS).map(operator::backend).collect()
}

/// Somebody who joins a room.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// Number of their tenant.
    pub(crate) tenant: usize,
    /// Name of the room.
    pub(crate) room: String,
    /// Identity.
    pub(crate) identity: String,
}

impl Person {
    /// The person with a number, in the room with a number.
    pub(crate) fn of(prefix: &str, room: usize, number: usize) -> Self {
        Self {
            tenant: room % TENANTS,
            room: format!("{prefix}-{room}"),
            identity: format!("{prefix}-person-{number}"),
        }
    }

    /// A fresh token.
    pub(crate) fn token(&self, backends: &[Backend]) -> String {
        backends[self.tenant].token(&self.room, &self.identity, now_unix_s())
    }
}

fn now_unix_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// People in the order in which they come: every one once, rooms spread over the whole time, so that at each moment some open a room and
/// others find one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    people: usize,
    per_room: usize,
    step: usize,
}

impl Arrivals {
    /// `people` in `rooms`.
    pub(crate) fn new(people: usize, rooms: usize) -> Self {
        let people = people.max(1);
        // A step without a common divisor visits everybody; near the golden section it visits them far from each other.
        let mut step = (people as f64 * 0.618) as usize | 1;
        while gcd(step, people) != 1 {
            step += 1;
        }
        Self {
            people,
            per_room: people.div_ceil(rooms.max(1)),
            step,
        }
    }

    /// Who comes as number `turn`: number of the room, number of the person.
    pub(crate) fn at(&self, turn: usize) -> (usize, usize) {
        let person = ((turn as u128 * self.step as u128) % self.people as u128) as usize;
        (person / self.per_room, person)
    }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_comes_once_and_all_rooms_are_used() {
        for (people, rooms) in [(1, 1), (30, 10), (1_000, 333), (997, 100)] {
            let arrivals = Arrivals::new(people, rooms);
            let (mut persons, mut used) = (BTreeSet::new(), BTreeSet::new());
            for turn in 0..people {
                let (room, person) = arrivals.at(turn);
                persons.insert(person);
                used.insert(room);
            }
            assert_eq!(persons.len(), people);
            assert!(used.len() <= rooms, "{people} {rooms}: {}", used.len());
        }
    }
}
