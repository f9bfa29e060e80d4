// SPDX-License-Identifier: EUPL-1.2
//! Certificates as `plenum up` makes them: one CA, names and SPIFFE ids by role.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use media_node::identity::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use super::UID;

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    ControlPlane,
    Node,
    Operator,
}

pub(crate) struct Pki {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "Test CA");
        let ca = params.self_signed(&key).expect("signed").pem();
        Self {
            ca,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, role: Role) -> (String, String) {
        let (dns, uri) = match role {
            Role::ControlPlane => (
                "control-plane.plenum.internal".to_owned(),
                "spiffe://plenum.internal/control-plane".to_owned(),
            ),
            Role::Node => (
                format!("{UID}.node.plenum.internal"),
                format!("spiffe://plenum.internal/node/{UID}"),
            ),
            Role::Operator => (
                "operator.plenum.internal".to_owned(),
                "spiffe://plenum.internal/operator".to_owned(),
            ),
        };
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![dns, "localhost".to_owned()]).expect("params");
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().expect("ascii")));
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// For the node's own code.
    pub(crate) fn tls(&self, role: Role) -> Tls {
        let (certificate, key) = self.issue(role);
        Tls::from_pem(&self.ca, &certificate, &key).expect("certificates")
    }

    /// As `--tls-dir` of a process.
    pub(crate) fn write(&self, role: Role, directory: &Path) {
        let (certificate, key) = self.issue(role);
        for (name, text) in [
            ("ca.crt", &self.ca),
            ("tls.crt", &certificate),
            ("tls.key", &key),
        ] {
            std::fs::write(directory.join(name), text).expect("writable");
        }
    }

    pub(crate) fn server(&self, role: Role) -> ServerTlsConfig {
        let (certificate, key) = self.issue(role);
        ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// `None`: a client without a certificate.
    pub(crate) fn client(&self, role: Option<Role>, dns_name: &str) -> ClientTlsConfig {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(dns_name);
        match role {
            Some(role) => {
                let (certificate, key) = self.issue(role);
                config.identity(Identity::from_pem(certificate, key))
            }
            None => config,
        }
    }
}
