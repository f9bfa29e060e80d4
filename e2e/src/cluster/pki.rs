// SPDX-License-Identifier: EUPL-1.2
//! Certificates of a cluster, made for it and gone with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// A certificate and its key in files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Certificate, PEM.
    pub(crate) cert: PathBuf,
    /// Private key, PEM.
    pub(crate) key: PathBuf,
}

/// The cluster's authority.
pub(crate) struct Pki {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes one, with its certificate in a folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "test cluster");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
            .context("a certificate authority is made")?;
        let pki = Self {
            folder: folder.to_owned(),
            issuer,
        };
        std::fs::write(pki.authority().cert, pki.issuer.pem())?;
        std::fs::write(pki.authority().key, pki.issuer.key().serialize_pem())?;
        Ok(pki)
    }

    /// The authority's own pair.
    pub(crate) fn authority(&self) -> Pair {
        self.pair("ca")
    }

    fn pair(&self, file: &str) -> Pair {
        Pair {
            cert: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        }
    }

    /// Issues a certificate for a user of some groups, or a server under some names, which is used by both sides of a connection.
    pub(crate) fn issue(
        &self,
        file: &str,
        user: &str,
        groups: &[&str],
        names: &[&str],
    ) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate()?;
        let cert = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("a certificate for {user} is issued"))?;
        let pair = self.pair(file);
        std::fs::write(&pair.cert, cert.pem())?;
        std::fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }

    /// A pair of keys without a certificate: the first file holds the public one.
    pub(crate) fn keys(&self, file: &str) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let pair = Pair {
            cert: self.folder.join(format!("{file}.pub")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&pair.cert, key.public_key_pem())?;
        std::fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}
