// SPDX-License-Identifier: EUPL-1.2
//! Keeps the Secrets with the CA and with the certificates of the control plane and of the gateway, and the own certificate in memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use operator_core::{labels, rotation::Phase};
use plenum_publish::issuer::{IssueError, Issuer};
use plenum_shell::identity::CONTROL_PLANE_DNS;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Authority, AuthorityError, CA_LIFE, Pem, Subject, rotate::Kept};
use crate::{context::Settings, lease::Role, ssa::api_reason, stores::Stores};
use plenum_api::names::MANAGER_OPERATOR;

/// Secret with the CA.
pub(super) const CA: &str = "plenum-ca";
/// Secret with the certificate of the control plane.
pub(super) const CONTROL_PLANE: &str = "plenum-control-plane-tls";
/// Secret with the certificate of the gateway.
pub(super) const GATEWAY: &str = "plenum-gateway-tls";
/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How soon at the earliest while a CA takes the place of another.
const RETRY_ROTATING: Duration = Duration::from_millis(500);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Longest call.
const CALL: Duration = Duration::from_secs(10);

/// Why the Secrets are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// The API server.
    #[error("Secret {name}: {source}")]
    Api {
        name: &'static str,
        #[source]
        source: kube::Error,
    },
    /// No answer in time.
    #[error("Secret {0}: the API server did not answer in time")]
    Late(&'static str),
    /// There is none, and another process makes it.
    #[error("Secret {CA} is not there yet; the leader makes it")]
    Absent,
    /// A new one is wanted, and parts trust what others wrote.
    #[error(
        "a new CA is wanted, and the control plane's certificate is not the operator's (controlPlane.tls.existingSecret): replace the CA together with that Secret"
    )]
    Foreign,
    /// What it holds cannot be used.
    #[error("Secret {CA} has no usable tls.crt and tls.key: {0}; remove it, and a new CA is made")]
    Unusable(String),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl KeepError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => api_reason(source),
            Self::Late(_) => "ApiServerUnreachable",
            Self::Absent => "CaAbsent",
            Self::Foreign => "CaForeign",
            Self::Unusable(_) => "CaUnusable",
            Self::Issue(_) => "CertificateNotMade",
            Self::Authority(error) => error.reason(),
        }
    }
}

/// Keeps them.
pub struct Keeper {
    /// Client.
    pub client: Client,
    /// Surroundings.
    pub settings: Settings,
    /// Media nodes, whose certificates have to follow before a CA goes.
    pub stores: Arc<Stores>,
    /// The issuer.
    pub authority: Authority,
    /// Only a leader writes.
    pub roles: watch::Receiver<Role>,
    /// The own certificate.
    pub credentials: watch::Sender<Option<Arc<Pem>>>,
}

impl Keeper {
    /// Keeps them for ever.
    pub async fn run(mut self) {
        let mut failing = None;
        loop {
            let role = *self.roles.borrow_and_update();
            let wait = match self.look(matches!(role, Role::Leading { .. })).await {
                Ok(Phase::Steady) => {
                    failing = None;
                    LOOK
                }
                Ok(_) => {
                    failing = None;
                    (self.settings.authority_spread / 20).clamp(RETRY_ROTATING, LOOK / 2)
                }
                Err(error) => {
                    let reason = error.reason();
                    // Once per reason; a follower waits for the leader without a word.
                    if failing.replace(reason) != Some(reason)
                        && !matches!(error, KeepError::Absent)
                    {
                        tracing::warn!(event = "CertificatesNotKept", reason, error = %crate::driver::chain(&error), "certificates could not be looked after");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.roles.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn look(&self, leads: bool) -> Result<Phase, KeepError> {
        let (phase, blocked) = self.ca(leads).await?;
        let own = Subject {
            name: "the operator".to_owned(),
            spiffe: Some(self.authority.spiffe("operator")),
            ..Subject::default()
        };
        let known = self.credentials.borrow().clone();
        if known.is_none_or(|pem| self.authority.is_due(&pem.ca, &pem.cert, &own)) {
            let pem = self.authority.issue(&own)?;
            self.credentials.send_replace(Some(Arc::new(pem)));
        }
        if leads {
            let control_plane = Subject {
                name: CONTROL_PLANE.to_owned(),
                dns: vec![CONTROL_PLANE_DNS.to_owned()],
                spiffe: Some(self.authority.spiffe("control-plane")),
                ..Subject::default()
            };
            if self.settings.issue_control_plane_certificate {
                self.certificate(CONTROL_PLANE, &control_plane).await?;
            }
            if self.settings.issue_gateway_certificate {
                let gateway = gateway(&self.settings);
                self.certificate(GATEWAY, &gateway).await?;
            }
        }
        blocked.map_or(Ok(phase), Err)
    }

    /// How far the CA is, and what keeps a new one from coming.
    async fn ca(&self, leads: bool) -> Result<(Phase, Option<KeepError>), KeepError> {
        let mut secret = match self.read(CA).await? {
            Some(secret) => secret,
            None if leads => self.make_ca().await?,
            None => return Err(KeepError::Absent),
        };
        let mut blocked = None;
        if leads {
            match self.rotate(secret.clone()).await {
                Ok(rotated) => secret = rotated,
                // The present one serves on.
                Err(error) => blocked = Some(error),
            }
        }
        let kept = Kept::of(&secret);
        let (phase, trusted) = (kept.phase(), kept.trusted());
        let known = |known: String| known == trusted;
        if self.authority.ca().is_some_and(known) {
            return Ok((phase, blocked));
        }
        let issuer = Issuer::read(&kept.cert, &kept.key)
            .map_err(|error| KeepError::Unusable(crate::driver::chain(&error)))?;
        self.authority.use_ca(issuer.trusting(trusted));
        tracing::info!(
            event = "AuthorityReady",
            "the CA of the installation is in use"
        );
        Ok((phase, blocked))
    }

    async fn make_ca(&self) -> Result<Secret, KeepError> {
        let name = format!("Plenum {}", self.settings.site);
        let (issuer, key) = Issuer::make(&name, (self.authority.now)(), CA_LIFE)?;
        let pem = Pem {
            ca: issuer.pem().to_owned(),
            cert: issuer.pem().to_owned(),
            key,
        };
        let secret = self.secret(CA, &pem);
        match in_time(CA, self.api().create(&PostParams::default(), &secret)).await {
            Ok(secret) => {
                tracing::info!(
                    event = "AuthorityMade",
                    "a CA was made for the installation"
                );
                Ok(secret)
            }
            // Somebody was faster: theirs holds.
            Err(KeepError::Api {
                source: kube::Error::Api(status),
                ..
            }) if status.is_already_exists() => self.read(CA).await?.ok_or(KeepError::Absent),
            Err(error) => Err(error),
        }
    }

    /// Makes or replaces a certificate; one that somebody else put there is left alone.
    async fn certificate(&self, name: &'static str, subject: &Subject) -> Result<(), KeepError> {
        let old = match self.read(name).await {
            Ok(old) => old,
            // Values may name another Secret; then this one is not the operator's to read.
            Err(KeepError::Api {
                source: kube::Error::Api(status),
                ..
            }) if status.is_forbidden() => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(old) = &old {
            let managed = old.labels().get(labels::MANAGED_BY).map(String::as_str);
            let due = || {
                self.authority
                    .is_due(&text(old, "ca.crt"), &text(old, "tls.crt"), subject)
            };
            if managed != Some(MANAGER_OPERATOR) || !due() {
                return Ok(());
            }
        }
        let pem = self.authority.issue(subject)?;
        let mut secret = self.secret(name, &pem);
        let params = PostParams::default();
        match old {
            None => in_time(name, self.api().create(&params, &secret)).await?,
            Some(old) => {
                // With the version that was read: whoever wrote meanwhile wins.
                secret.metadata.resource_version = old.resource_version();
                in_time(name, self.api().replace(name, &params, &secret)).await?
            }
        };
        tracing::info!(
            event = "CertificateIssued",
            secret = name,
            "a certificate was issued"
        );
        Ok(())
    }

    pub(super) fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    pub(super) async fn read(&self, name: &'static str) -> Result<Option<Secret>, KeepError> {
        in_time(name, self.api().get_opt(name)).await
    }

    fn secret(&self, name: &str, pem: &Pem) -> Secret {
        let value = |text: &str| ByteString(text.as_bytes().to_vec());
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.settings.namespace.clone()),
                labels: Some(labels::recommended("operator", [])),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from([
                ("ca.crt".to_owned(), value(&pem.ca)),
                ("tls.crt".to_owned(), value(&pem.cert)),
                ("tls.key".to_owned(), value(&pem.key)),
            ])),
            ..Secret::default()
        }
    }
}

/// Whom the gateway's certificate is for: browsers. It names no part of the system, so nobody takes its bearer for one.
fn gateway(settings: &Settings) -> Subject {
    let (ips, mut dns): (Vec<_>, Vec<_>) = settings
        .gateway_dns
        .iter()
        .cloned()
        .partition(|name| name.parse::<std::net::IpAddr>().is_ok());
    let service = format!("plenum-gateway.{}.svc", settings.namespace);
    dns.push(format!("{service}.{}", settings.cluster_domain));
    dns.push(service);
    dns.sort();
    dns.dedup();
    Subject {
        name: GATEWAY.to_owned(),
        dns,
        ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        spiffe: None,
    }
}

pub(super) fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.map_or_else(String::new, |value| {
        String::from_utf8_lossy(&value.0).into_owned()
    })
}

pub(super) async fn in_time<T>(
    name: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KeepError> {
    match timeout(CALL, call).await {
        Ok(outcome) => outcome.map_err(|source| KeepError::Api { name, source }),
        Err(_) => Err(KeepError::Late(name)),
    }
}
