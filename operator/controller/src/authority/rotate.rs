// SPDX-License-Identifier: EUPL-1.2
//! The Secret of the authority, and how a new authority takes the place of the former one: step by step, each written down in the Secret
//! before anything follows from it, so that whoever leads goes on where another stopped.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, ResourceExt as _, api::PostParams};
use operator_core::{
    labels,
    rotation::{Phase, Seen, Step, step},
};
use plenum_api::names::{self, MANAGER_OPERATOR};
use plenum_publish::issuer::{self, Issuer};

use super::{
    CA_LIFE,
    keep::{CA, CONTROL_PLANE, GATEWAY, KeepError, Keeper, in_time, text},
};

/// Somebody asks for a new authority.
const ASKED: &str = "plenum.dev/rotate-authority";
/// Since when all Secrets carry what the phase wants.
const SPREAD_SINCE: &str = "plenum.dev/authority-spread-since";
/// The authority that is trusted and signs nothing yet.
const NEXT_CERT: &str = "next.crt";
/// Its key.
const NEXT_KEY: &str = "next.key";
/// The authority that signed before, and is still trusted.
const FORMER_CERT: &str = "former.crt";
/// What parts are to trust: everything above.
const TRUSTED: &str = "ca.crt";
/// Secrets of media nodes that are looked at at a time.
const READS_AT_A_TIME: usize = 16;

/// What the Secret holds.
pub(super) struct Kept {
    pub(super) cert: String,
    pub(super) key: String,
    next: Option<(String, String)>,
    former: Option<String>,
    spread_since: Option<Timestamp>,
    asked: bool,
    /// The operator made it, and may replace it.
    own: bool,
}

impl Kept {
    pub(super) fn of(secret: &Secret) -> Self {
        let value = |key: &str| Some(text(secret, key)).filter(|value| !value.is_empty());
        let annotation = |key: &str| secret.annotations().get(key);
        Self {
            cert: text(secret, "tls.crt"),
            key: text(secret, "tls.key"),
            next: value(NEXT_CERT).zip(value(NEXT_KEY)),
            former: value(FORMER_CERT),
            spread_since: annotation(SPREAD_SINCE).and_then(|at| at.parse().ok()),
            asked: annotation(ASKED).is_some(),
            own: secret.labels().get(labels::MANAGED_BY).map(String::as_str)
                == Some(MANAGER_OPERATOR),
        }
    }

    /// What every certificate comes with. The one that signs is the first, so that each phase has a text of its own.
    pub(super) fn trusted(&self) -> String {
        let next = self.next.iter().map(|(cert, _)| cert);
        let mut all = String::new();
        for cert in std::iter::once(&self.cert).chain(next).chain(&self.former) {
            all.push_str(cert);
            if !all.ends_with('\n') {
                all.push('\n');
            }
        }
        // One authority is written as it stands.
        if self.next.is_none() && self.former.is_none() {
            return self.cert.clone();
        }
        all
    }

    pub(super) fn phase(&self) -> Phase {
        match (&self.next, &self.former) {
            (Some(_), _) => Phase::Introducing,
            (None, Some(_)) => Phase::Replacing,
            (None, None) => Phase::Steady,
        }
    }

    /// As it is to stand in the Secret that was read.
    fn write_over(&self, secret: &mut Secret) {
        let value = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = BTreeMap::from([
            ("tls.crt".to_owned(), value(&self.cert)),
            ("tls.key".to_owned(), value(&self.key)),
            (TRUSTED.to_owned(), value(&self.trusted())),
        ]);
        if let Some((cert, key)) = &self.next {
            data.insert(NEXT_CERT.to_owned(), value(cert));
            data.insert(NEXT_KEY.to_owned(), value(key));
        }
        if let Some(former) = &self.former {
            data.insert(FORMER_CERT.to_owned(), value(former));
        }
        secret.data = Some(data);
        let annotations = secret.annotations_mut();
        if !self.asked {
            annotations.remove(ASKED);
        }
        match self.spread_since {
            Some(since) => annotations.insert(SPREAD_SINCE.to_owned(), since.to_string()),
            None => annotations.remove(SPREAD_SINCE),
        };
    }
}

impl Keeper {
    /// Goes one step on, where one is due. Only a leader does.
    pub(super) async fn rotate(&self, mut secret: Secret) -> Result<Secret, KeepError> {
        let mut kept = Kept::of(&secret);
        if !kept.own {
            return Ok(secret);
        }
        let now = (self.authority.now)();
        let phase = kept.phase();
        let seen = Seen {
            phase,
            wanted: kept.asked || issuer::is_due(&kept.cert, now),
            foreign: !self.settings.issue_control_plane_certificate,
            spread: phase != Phase::Steady && self.is_spread(&kept.trusted()).await?,
            spread_since: kept.spread_since,
            patience: self.settings.authority_spread,
            now,
        };
        let step = step(&seen);
        match step {
            Step::Rest | Step::Wait(_) => return Ok(secret),
            Step::Refuse => return Err(KeepError::Foreign),
            Step::Introduce => {
                let name = format!("Plenum {}", self.settings.site);
                let (next, key) = Issuer::make(&name, now, CA_LIFE)?;
                kept.next = Some((next.pem().to_owned(), key));
                (kept.spread_since, kept.asked) = (None, false);
            }
            Step::Note(since) => kept.spread_since = since,
            Step::Sign => {
                if let Some((cert, key)) = kept.next.take() {
                    kept.former = Some(std::mem::replace(&mut kept.cert, cert));
                    kept.key = key;
                }
                kept.spread_since = None;
            }
            Step::Retire => (kept.former, kept.spread_since) = (None, None),
        }
        kept.write_over(&mut secret);
        // With the version that was read: whoever wrote meanwhile wins.
        let params = PostParams::default();
        let written = in_time(CA, self.api().replace(CA, &params, &secret)).await?;
        match step {
            Step::Introduce => {
                tracing::info!(
                    event = "AuthorityIntroduced",
                    "a new CA is trusted and signs nothing yet"
                );
            }
            Step::Sign => tracing::info!(
                event = "AuthorityReplaced",
                "the new CA signs; the former one is still trusted"
            ),
            Step::Retire => tracing::info!(
                event = "AuthorityRetired",
                "the former CA is trusted no more"
            ),
            _ => {}
        }
        Ok(written)
    }

    /// Whether every certificate comes with exactly this to trust, and so was issued in this phase.
    async fn is_spread(&self, trusted: &str) -> Result<bool, KeepError> {
        let carries = |secret: &Secret| text(secret, TRUSTED) == trusted;
        let mut own = Vec::new();
        if self.settings.issue_control_plane_certificate {
            own.push(CONTROL_PLANE);
        }
        if self.settings.issue_gateway_certificate {
            own.push(GATEWAY);
        }
        for name in own {
            let secret = self.read(name).await?;
            let theirs = |secret: &Secret| {
                secret.labels().get(labels::MANAGED_BY).map(String::as_str)
                    != Some(MANAGER_OPERATOR)
            };
            // The gateway's may be somebody's own: no part of the system trusts it, or is shown what it trusts.
            let spread = secret
                .is_some_and(|secret| carries(&secret) || (name == GATEWAY && theirs(&secret)));
            if !spread {
                return Ok(false);
            }
        }
        let nodes = self.stores.media_nodes.all();
        let mut all = stream::iter(nodes)
            .map(|node| async move {
                let namespace = node.namespace().unwrap_or_default();
                let api = Api::<Secret>::namespaced(self.client.clone(), &namespace);
                let name = names::node_tls_secret(&node.name_any());
                in_time("of a media node", api.get_opt(&name)).await
            })
            .buffer_unordered(READS_AT_A_TIME);
        while let Some(secret) = all.next().await {
            // A node without one has no pod yet, or none any more.
            if secret?.is_some_and(|secret| !carries(&secret)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_says_how_far_a_rotation_is_and_keeps_what_it_does_not_know() {
        let mut secret: Secret = serde_json::from_value(serde_json::json!({
            "metadata": {
                "labels": { labels::MANAGED_BY: MANAGER_OPERATOR },
                "annotations": { ASKED: "now", "theirs": "kept" },
            },
        }))
        .expect("a Secret");
        let mut kept = Kept {
            cert: "old\n".to_owned(),
            key: "old-key".to_owned(),
            ..Kept::of(&secret)
        };
        assert!(kept.asked && kept.own);
        assert_eq!(
            (kept.phase(), kept.trusted()),
            (Phase::Steady, "old\n".to_owned())
        );
        kept.next = Some(("new\n".to_owned(), "new-key".to_owned()));
        (kept.asked, kept.spread_since) = (false, Some(Timestamp::UNIX_EPOCH));
        kept.write_over(&mut secret);
        let mut kept = Kept::of(&secret);
        assert_eq!(
            (kept.phase(), kept.trusted()),
            (Phase::Introducing, "old\nnew\n".to_owned())
        );
        assert_eq!(text(&secret, TRUSTED), "old\nnew\n");
        assert_eq!(
            (kept.asked, kept.spread_since),
            (false, Some(Timestamp::UNIX_EPOCH))
        );
        assert_eq!(secret.annotations()["theirs"], "kept");
        let (cert, key) = kept.next.take().expect("the next");
        kept.former = Some(std::mem::replace(&mut kept.cert, cert));
        kept.key = key;
        kept.spread_since = None;
        kept.write_over(&mut secret);
        let kept = Kept::of(&secret);
        assert_eq!(
            (kept.phase(), kept.trusted(), kept.spread_since),
            (Phase::Replacing, "new\nold\n".to_owned(), None)
        );
        assert_eq!(text(&secret, NEXT_KEY), "", "the key stands in one place");
    }
}
