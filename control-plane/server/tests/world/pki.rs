// SPDX-License-Identifier: EUPL-1.2
//! A CA and the certificates of all parts.

use control_plane::identity::Tls;
use plenum_shell::tls;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tonic::transport::Channel;

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn issue(&self, dns: &str, spiffe_path: &str) -> Tls {
        let (ca, certificate, key) = self.pem_of(dns, spiffe_path);
        Tls::from_pem(&ca, &certificate, &key).expect("certificates")
    }

    /// CA, certificate and key as PEM.
    pub fn pem_of(&self, dns: &str, spiffe_path: &str) -> (String, String, String) {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![dns.to_owned()]).expect("params");
        let uri = format!("spiffe://plenum.internal/{spiffe_path}")
            .try_into()
            .expect("ascii");
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (self.pem.clone(), certificate.pem(), key.serialize_pem())
    }

    pub fn control_plane(&self) -> Tls {
        self.issue("control-plane.plenum.internal", "control-plane")
    }

    pub fn operator(&self) -> Tls {
        self.issue("operator.plenum.internal", "operator")
    }

    pub fn node(&self, uid: &str) -> Tls {
        self.issue(
            &format!("{uid}.node.plenum.internal"),
            &format!("node/{uid}"),
        )
    }
}

/// Dials the replica as a part with this certificate does.
pub async fn dial(address: &str, tls: &Tls) -> Result<Channel, tonic::transport::Error> {
    connector(tls).connect(&tls::endpoint(address)?).await
}

/// As media nodes dial: a peer that does not answer is given up after 4 s.
pub async fn dial_with_keep_alive(
    address: &str,
    tls: &Tls,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = tls::endpoint(address)?
        .http2_keep_alive_interval(std::time::Duration::from_secs(1))
        .keep_alive_timeout(std::time::Duration::from_secs(3));
    connector(tls).connect(&endpoint).await
}

fn connector(tls: &Tls) -> tls::Connector {
    tls.connector("control-plane.plenum.internal")
        .expect("a name")
}
