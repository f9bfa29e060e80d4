// SPDX-License-Identifier: EUPL-1.2
//! The CA of a state directory and the certificates of all parts. The CA is kept, so that its fingerprint stays the same;
//! certificates are made anew at each start.

use std::{net::IpAddr, path::PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::state_dir::{StateDir, StateError};

/// The CA.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
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
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// Whom a certificate is for.
#[derive(Default)]
pub(crate) struct Subject {
    /// Directory below the state directory that it is written to.
    pub(crate) folder: String,
    /// DNS names.
    pub(crate) dns: Vec<String>,
    /// Addresses.
    pub(crate) ips: Vec<IpAddr>,
    /// Path of the SPIFFE id; without one nobody takes it as a part of the system.
    pub(crate) spiffe: Option<String>,
}

impl Authority {
    /// The kept CA, or a new one.
    pub(crate) fn open(dir: &StateDir, now: Timestamp) -> Result<Self, PkiError> {
        let kept = |path: &str, source| PkiError::Kept {
            path: dir.path().join(path),
            source,
        };
        if let (Some(pem), Some(key)) = (dir.read("ca.crt")?, dir.read("ca.key")?) {
            let (pem, key) = (
                String::from_utf8_lossy(&pem).into_owned(),
                String::from_utf8_lossy(&key).into_owned(),
            );
            let key = KeyPair::from_pem(&key).map_err(|source| kept("ca.key", source))?;
            // Signing takes the CA's name and usages, which are always the same.
            return Ok(Self {
                issuer: Issuer::new(ca_params(now), key),
                pem,
                now,
            });
        }
        let name = "the CA".to_owned();
        let make = |source| PkiError::Make {
            name: name.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let params = ca_params(now);
        let certificate = params.self_signed(&key).map_err(make)?;
        let pem = certificate.pem();
        dir.write("ca.key", key.serialize_pem().as_bytes())?;
        dir.write("ca.crt", pem.as_bytes())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            now,
        })
    }

    /// The CA's certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA's certificate as browsers show it.
    pub(crate) fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes())
            .map(|der| der.to_vec())
            .unwrap_or_default();
        let hex: Vec<String> = digest(&SHA256, &der)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        hex.join(":")
    }

    /// Makes a certificate and writes `ca.crt`, `tls.crt` and `tls.key`; gives the directory.
    pub(crate) fn issue(&self, dir: &StateDir, subject: &Subject) -> Result<PathBuf, PkiError> {
        let Subject {
            folder,
            dns,
            ips,
            spiffe,
        } = subject;
        let make = |source| PkiError::Make {
            name: folder.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = CertificateParams::new(dns.clone()).map_err(make)?;
        params
            .subject_alt_names
            .extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(path) = spiffe {
            let uri = format!("spiffe://{TRUST_DOMAIN}/{path}")
                .try_into()
                .map_err(make)?;
            params.subject_alt_names.push(SanType::URI(uri));
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Plenum");
        set_validity(&mut params, self.now, LEAF_DAYS);
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        let path = dir.folder(&format!("tls/{folder}"))?;
        for (file, content) in [
            ("tls.key", key.serialize_pem()),
            ("tls.crt", certificate.pem()),
            ("ca.crt", self.pem.clone()),
        ] {
            dir.write(&format!("tls/{folder}/{file}"), content.as_bytes())?;
        }
        Ok(path)
    }
}

fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Plenum");
    params
        .distinguished_name
        .push(DnType::CommonName, "Plenum on one machine");
    set_validity(&mut params, now, CA_DAYS);
    params
}

/// From yesterday, because clocks differ, for a number of days.
fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i32) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |offset: i32| {
        let date = today.saturating_add(offset.days());
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

/// The parts know each other by path; the domain is a name only.
const TRUST_DOMAIN: &str = "plenum.internal";
const CA_DAYS: i32 = 3650;
/// Below the 398 days that browsers take; a system that runs longer is started anew before.
const LEAF_DAYS: i32 = 390;

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
            folder: "node".into(),
            dns: vec!["u.node.plenum.internal".into()],
            spiffe: Some("node/u".into()),
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
        let der = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
        let mut store = rustls::RootCertStore::empty();
        store.add(der).expect("an anchor");
        store.roots[0].clone()
    }
}
