// SPDX-License-Identifier: EUPL-1.2
//! The CA of a state directory and the certificates of all parts. The CA is kept, so that its fingerprint stays the same;
//! certificates are made anew at each start.

use std::{path::PathBuf, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use plenum_publish::issuer::{IssueError, Issuer, Pem, Subject};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::state_dir::{StateDir, StateError};

/// The CA.
pub(crate) struct Authority {
    issuer: Issuer,
    now: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// The directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kept CA cannot be used.
    #[error("{path}: {source}; remove ca.crt and ca.key, and a new CA is made")]
    Kept {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: IssueError,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Make(#[from] IssueError),
}

/// Id of a part by its path; the parts know each other by it, the domain is a name only.
pub(crate) fn spiffe(path: &str) -> Option<String> {
    Some(format!("spiffe://plenum.internal/{path}"))
}

impl Authority {
    /// The kept CA, or a new one.
    pub(crate) fn open(dir: &StateDir, now: Timestamp) -> Result<Self, PkiError> {
        if let (Some(pem), Some(key)) = (dir.read("ca.crt")?, dir.read("ca.key")?) {
            let (pem, key) = (
                String::from_utf8_lossy(&pem).into_owned(),
                String::from_utf8_lossy(&key).into_owned(),
            );
            let issuer = Issuer::read(&pem, &key).map_err(|source| PkiError::Kept {
                path: dir.path().to_owned(),
                source,
            })?;
            return Ok(Self { issuer, now });
        }
        let (issuer, key) = Issuer::make("Plenum on one machine", now, days(CA_DAYS))?;
        dir.write("ca.key", key.as_bytes())?;
        dir.write("ca.crt", issuer.pem().as_bytes())?;
        Ok(Self { issuer, now })
    }

    /// The CA's certificate.
    pub(crate) fn pem(&self) -> &str {
        self.issuer.pem()
    }

    /// SHA-256 of the CA's certificate as browsers show it.
    pub(crate) fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.pem().as_bytes())
            .map(|der| der.to_vec())
            .unwrap_or_default();
        let hex: Vec<String> = digest(&SHA256, &der)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        hex.join(":")
    }

    /// Makes a certificate.
    pub(crate) fn make(&self, subject: &Subject) -> Result<Pem, PkiError> {
        Ok(self.issuer.issue(subject, self.now, days(LEAF_DAYS))?)
    }

    /// Makes a certificate and writes `ca.crt`, `tls.crt` and `tls.key`; gives the directory.
    pub(crate) fn issue(&self, dir: &StateDir, subject: &Subject) -> Result<PathBuf, PkiError> {
        let Pem { ca, cert, key } = self.make(subject)?;
        let folder = format!("tls/{}", subject.name);
        let path = dir.folder(&folder)?;
        for (file, content) in [("tls.key", key), ("tls.crt", cert), ("ca.crt", ca)] {
            dir.write(&format!("{folder}/{file}"), content.as_bytes())?;
        }
        Ok(path)
    }
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 60 * 60)
}

const CA_DAYS: u64 = 3650;
/// Below the 398 days that browsers take; a system that runs longer is started anew before.
const LEAF_DAYS: u64 = 390;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_outlives_a_start_and_signs_for_the_names_given() {
        let base = std::env::temp_dir().join(format!("plenum-pki-{}", std::process::id()));
        let dir = StateDir::open(&base).expect("a directory");
        let now = Timestamp::now();
        let first = Authority::open(&dir, now).expect("a new CA");
        let again = Authority::open(&dir, now).expect("the kept CA");
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        let subject = Subject {
            name: "node".into(),
            dns: vec!["u.node.plenum.internal".into()],
            spiffe: spiffe("node/u"),
            ..Subject::default()
        };
        let path = again.issue(&dir, &subject).expect("a certificate");
        let roots = rustls::RootCertStore::from_iter([webpki_anchor(&first)]);
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .build()
        .expect("a verifier");
        let leaf = CertificateDer::from_pem_file(path.join("tls.crt")).expect("a certificate");
        let verify = |name: &str| {
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                verifier.as_ref(),
                &leaf,
                &[],
                &name.to_owned().try_into().expect("a name"),
                &[],
                rustls::pki_types::UnixTime::now(),
            )
        };
        verify("u.node.plenum.internal").expect("signed by the CA");
        assert!(verify("v.node.plenum.internal").is_err());
        drop(dir);
        std::fs::remove_dir_all(&base).expect("gone");
    }

    fn webpki_anchor(authority: &Authority) -> rustls::pki_types::TrustAnchor<'static> {
        let der =
            CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate");
        let mut store = rustls::RootCertStore::empty();
        store.add(der).expect("an anchor");
        store.roots[0].clone()
    }
}
