// SPDX-License-Identifier: EUPL-1.2
//! A CA of one's own, and the certificates of all parts. The clock comes in as an argument; where keys are kept is the caller's business.

use std::{fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_parser::pem::Pem as ParsedPem;

/// A certificate with its key and its CA, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The CA's certificates.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Pem {
    /// Without the key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pem")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA cannot be used.
    #[error("the CA's certificate and key cannot be used: {0}")]
    Ca(#[source] rcgen::Error),
    /// The certificate could not be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// For messages.
    pub name: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// SPIFFE id; without one nobody takes it as a part of the system.
    pub spiffe: Option<String>,
}

/// A CA that signs.
pub struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
    /// What certificates come with: itself, and what else is to be trusted.
    trusted: String,
}

/// Clocks differ: certificates hold from a day earlier.
const EARLIER: Duration = Duration::from_secs(24 * 60 * 60);

impl Issuer {
    /// A new CA; gives its key as PEM besides.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn make(
        common_name: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<(Self, String), IssueError> {
        let make = |source| IssueError::Make {
            name: "the CA".to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = organisation();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        set_validity(&mut params, now, life);
        let pem = params.self_signed(&key).map_err(make)?.pem();
        let key_pem = key.serialize_pem();
        let issuer = rcgen::Issuer::new(params, key);
        let trusted = pem.clone();
        Ok((
            Self {
                issuer,
                pem,
                trusted,
            },
            key_pem,
        ))
    }

    /// A CA that was kept, or that somebody else supplies.
    ///
    /// # Errors
    /// [`IssueError::Ca`].
    pub fn read(cert: &str, key: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key).map_err(IssueError::Ca)?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(cert, key).map_err(IssueError::Ca)?;
        Ok(Self {
            issuer,
            pem: cert.to_owned(),
            trusted: cert.to_owned(),
        })
    }

    /// The same, whose certificates come with these authorities to trust.
    #[must_use]
    pub fn trusting(self, trusted: String) -> Self {
        Self { trusted, ..self }
    }

    /// The authorities that its certificates come with.
    #[must_use]
    pub fn trusted(&self) -> &str {
        &self.trusted
    }

    /// The CA's certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate with a new key.
    ///
    /// # Errors
    /// [`IssueError::Make`].
    pub fn issue(
        &self,
        subject: &Subject,
        now: Timestamp,
        life: Duration,
    ) -> Result<Pem, IssueError> {
        let make = |source| IssueError::Make {
            name: subject.name.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = CertificateParams::new(subject.dns.clone()).map_err(make)?;
        params
            .subject_alt_names
            .extend(subject.ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(id) = &subject.spiffe {
            let uri = id.as_str().try_into().map_err(make)?;
            params.subject_alt_names.push(SanType::URI(uri));
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = organisation();
        set_validity(&mut params, now, life);
        let cert = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Pem {
            ca: self.trusted.clone(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn organisation() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Plenum");
    name
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let since_1970 = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let moment = date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = moment - EARLIER;
    params.not_after = moment + life;
}

/// From when to when a certificate holds; `None` where it cannot be read.
#[must_use]
pub fn validity(cert: &str) -> Option<(Timestamp, Timestamp)> {
    with_certificate(cert, |certificate| {
        let validity = certificate.validity();
        let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp());
        Some((
            moment(validity.not_before).ok()?,
            moment(validity.not_after).ok()?,
        ))
    })
}

/// Whether a certificate is to be replaced: two thirds of its life are over, or it cannot be read.
#[must_use]
pub fn is_due(cert: &str, now: Timestamp) -> bool {
    renewal(cert).is_none_or(|at| at <= now)
}

/// When a certificate is to be replaced: after two thirds of its life, not counting the day it was antedated by.
#[must_use]
pub fn renewal(cert: &str) -> Option<Timestamp> {
    let (from, until) = validity(cert)?;
    let (from, until) = (
        from.as_second() + EARLIER.as_secs().cast_signed(),
        until.as_second(),
    );
    Timestamp::from_second(from + (until - from).max(0) / 3 * 2).ok()
}

/// Whether a certificate is for all these names and addresses.
#[must_use]
pub fn covers(cert: &str, subject: &Subject) -> bool {
    let names = with_certificate(cert, |certificate| {
        let names = certificate.subject_alternative_name().ok().flatten()?;
        let names = names.value.general_names.iter();
        Some(names.filter_map(text_of).collect::<Vec<String>>())
    });
    let ips = subject.ips.iter().map(ToString::to_string);
    let wanted = subject
        .dns
        .iter()
        .chain(&subject.spiffe)
        .cloned()
        .chain(ips);
    names.is_some_and(|names| wanted.into_iter().all(|name| names.contains(&name)))
}

/// Whether a certificate was signed by a CA's key.
#[must_use]
pub fn is_signed_by(cert: &str, ca: &str) -> bool {
    let signed = with_certificate(ca, |ca| {
        let key = ca.public_key();
        with_certificate(cert, |cert| Some(cert.verify_signature(Some(key)).is_ok()))
    });
    signed.unwrap_or(false)
}

fn text_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn with_certificate<T>(
    cert: &str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> Option<T>,
) -> Option<T> {
    let pem = ParsedPem::iter_from_buffer(cert.as_bytes()).next()?.ok()?;
    read(&pem.parse_x509().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn node() -> Subject {
        Subject {
            name: "u".into(),
            dns: vec!["u.node.plenum.internal".into()],
            ips: vec![IpAddr::from([10, 0, 0, 7])],
            spiffe: Some("spiffe://plenum.internal/node/u".into()),
        }
    }

    #[test]
    fn a_certificate_is_due_after_two_thirds_of_its_life() {
        let now = Timestamp::from_second(1_800_000_000).expect("a moment");
        let (ca, _) = Issuer::make("test", now, DAY * 3650).expect("a CA");
        let pem = ca.issue(&node(), now, DAY * 90).expect("a certificate");
        assert!(!is_due(&pem.cert, now + DAY * 59));
        assert!(is_due(&pem.cert, now + DAY * 60));
        assert!(is_due("no certificate", now));
    }

    #[test]
    fn a_certificate_covers_what_it_was_made_for_and_nothing_else() {
        let now = Timestamp::now();
        let (ca, _) = Issuer::make("test", now, DAY).expect("a CA");
        let pem = ca.issue(&node(), now, DAY).expect("a certificate");
        assert!(covers(&pem.cert, &node()));
        for other in [
            Subject {
                dns: vec!["v.node.plenum.internal".into()],
                ..node()
            },
            Subject {
                ips: vec![IpAddr::from([10, 0, 0, 8])],
                ..node()
            },
            Subject {
                spiffe: Some("spiffe://plenum.internal/operator".into()),
                ..node()
            },
        ] {
            assert!(!covers(&pem.cert, &other), "{other:?}");
        }
    }

    #[test]
    fn a_kept_ca_signs_as_the_one_that_was_made() {
        let now = Timestamp::now();
        let (made, key) = Issuer::make("test", now, DAY).expect("a CA");
        let kept = Issuer::read(made.pem(), &key).expect("the same CA");
        let pem = kept.issue(&node(), now, DAY).expect("a certificate");
        let ca = ParsedPem::iter_from_buffer(made.pem().as_bytes())
            .next()
            .expect("one")
            .expect("PEM");
        let ca = ca.parse_x509().expect("a certificate");
        let is_signed = with_certificate(&pem.cert, |leaf| Some(leaf.issuer() == ca.subject()));
        assert_eq!(is_signed, Some(true));
        assert!(Issuer::read(made.pem(), "no key").is_err());
        assert!(
            !format!("{pem:?}").contains("PRIVATE"),
            "keys are not printed"
        );
    }
}
