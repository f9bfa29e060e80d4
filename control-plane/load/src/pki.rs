// SPDX-License-Identifier: EUPL-1.2
//! One CA, and a certificate for everybody who speaks mTLS. Nodes share a key, not a certificate: thousands of keys would measure the
//! generator.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// DNS name of every replica.
pub(crate) const CONTROL_PLANE: &str = "control-plane.plenum.internal";

/// The CA.
pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    shared: KeyPair,
}

impl Pki {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "CA of a load run");
        Ok(Self {
            ca: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            shared: KeyPair::generate()?,
        })
    }

    fn issue(&self, dns: &[&str], role: &str) -> Result<rcgen::Certificate> {
        let names: Vec<String> = dns.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        let uri = format!("spiffe://plenum.internal/{role}").try_into()?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params.signed_by(&self.shared, &self.ca)?)
    }

    /// Writes `ca.crt`, `tls.crt` and `tls.key`, as a replica reads them.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let certificate = self.issue(&[CONTROL_PLANE, "localhost"], "control-plane")?;
        for (name, text) in [
            ("ca.crt", self.ca.pem()),
            ("tls.crt", certificate.pem()),
            ("tls.key", self.shared.serialize_pem()),
        ] {
            std::fs::write(folder.join(name), text)
                .with_context(|| format!("{name} of a replica"))?;
        }
        Ok(())
    }

    fn client(&self, dns: &str, role: &str) -> Result<ClientTlsConfig> {
        let certificate = self.issue(&[dns], role)?;
        Ok(ClientTlsConfig::new()
            .identity(Identity::from_pem(
                certificate.pem(),
                self.shared.serialize_pem(),
            ))
            .ca_certificate(Certificate::from_pem(self.ca.pem()))
            .domain_name(CONTROL_PLANE))
    }

    /// How the operator dials a replica.
    pub(crate) fn operator(&self) -> Result<ClientTlsConfig> {
        self.client("operator.plenum.internal", "operator")
    }

    /// How a node dials a replica.
    pub(crate) fn node(&self, uid: &str) -> Result<ClientTlsConfig> {
        self.client(&node_dns(uid), &format!("node/{uid}"))
    }

    /// What a node shows to a replica that dials it.
    pub(crate) fn node_server(&self, uid: &str) -> Result<Arc<CertifiedKey>> {
        let certificate = self.issue(&[&node_dns(uid)], &format!("node/{uid}"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.shared.serialize_der()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Ok(Arc::new(CertifiedKey::from_der(
            vec![certificate.der().clone()],
            key,
            &provider,
        )?))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone())?;
        Ok(Arc::new(roots))
    }

    /// For servers of nodes: only parts of the installation get through the handshake.
    pub(crate) fn verifier(&self) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(WebPkiClientVerifier::builder_with_provider(self.roots()?, provider).build()?)
    }

    /// The CA as PEM.
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }
}

/// DNS name of a node.
pub(crate) fn node_dns(uid: &str) -> String {
    format!("{uid}.node.plenum.internal")
}
