// SPDX-License-Identifier: EUPL-1.2
//! What a node needs: a finalizer, a certificate, and once in its life a pod.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
};
use operator_core::{
    calendar::Place,
    media_node::{
        drain::PodState,
        pod::{PodSettings, avoiding, owner, pod_of},
    },
    media_pool::labels,
};
use plenum_api::{
    MediaNode, Reason,
    names::{self, FINALIZER_NODE, LABEL_NODE, MANAGER_OPERATOR, SECRET_KEY_CA},
};
use plenum_publish::issuer;
use serde_json::json;

use super::{NodeError, look::Pass};
use crate::ssa::{self, ApplyError, CallError, apply_child};

impl Pass {
    /// Whoever deletes the node asks for a drain; the finalizer holds it for so long.
    pub(super) async fn hold(&mut self) -> Result<(), NodeError> {
        let finalizers = self.node.finalizers();
        if self.node.metadata.deletion_timestamp.is_some()
            || finalizers.iter().any(|name| name == FINALIZER_NODE)
        {
            return Ok(());
        }
        let mut wanted = finalizers.to_vec();
        wanted.push(FINALIZER_NODE.to_owned());
        let patch = json!({ "metadata": {
            "resourceVersion": self.node.metadata.resource_version,
            "finalizers": wanted,
        } });
        self.patch_node(&patch, MANAGER_OPERATOR, "hold the media node")
            .await
    }

    pub(super) async fn patch_node(
        &mut self,
        patch: &serde_json::Value,
        manager: &str,
        call: &'static str,
    ) -> Result<(), NodeError> {
        let api = Api::<MediaNode>::namespaced(self.context.client.clone(), &self.name.namespace);
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        self.node = api
            .patch(&self.name.name, &params, &Patch::Merge(patch))
            .await
            .map_err(CallError::of::<NodeError>(call))?;
        Ok(())
    }

    /// The certificate, kept fresh as long as there is a pod; and the pod, if there was none yet.
    pub(super) async fn make(&mut self) -> Result<(), NodeError> {
        let wanted = self.wants_pod();
        if wanted || matches!(self.pod_state, PodState::There) {
            self.certify().await?;
        }
        if !wanted {
            return Ok(());
        }
        let pool = self.pool_name();
        let site = self.context.settings.site.clone();
        if let Some(window) = self.calendar.closes(&pool, &site) {
            self.held_by = Some(window.to_owned());
            if let Some(moment) = self.calendar.changes_at() {
                self.look_again_at(moment);
            }
            return Ok(());
        }
        // The caches may be behind, and a second pod must never be: ask whether this node had one, or was asked to go.
        let namespace = Some(self.name.namespace.as_str());
        let fresh = ssa::get::<MediaNode>(&self.context.client, namespace, &self.name.name).await?;
        match fresh {
            Some(fresh) if fresh.uid().as_deref() == Some(&self.uid) => self.node = fresh,
            _ => return Ok(()),
        }
        if self.pod_uid().is_some() || !self.wants_pod() {
            return Ok(());
        }
        self.make_pod().await
    }

    fn wants_pod(&self) -> bool {
        self.pod_state == PodState::NotMade
            && self.fault.is_none()
            && self.node.metadata.deletion_timestamp.is_none()
            && self.node.spec.drain.is_none()
            && self.drain.is_none()
            && self.pool.is_some()
    }

    async fn make_pod(&mut self) -> Result<(), NodeError> {
        let Some(pool) = self.pool.clone() else {
            return Ok(());
        };
        let settings = &self.context.settings;
        let pod = pod_of(
            &pool,
            &self.node,
            &PodSettings {
                image: &settings.media_image,
                control_plane: &settings.control_plane,
                site: &settings.site,
                version: env!("CARGO_PKG_VERSION"),
            },
        );
        let pod = avoiding(pod, &self.machines_to_avoid());
        match apply_child::<Pod>(&self.context.client, &pod, MANAGER_OPERATOR).await {
            Ok(pod) => {
                self.pod_state = PodState::There;
                self.pod = Some(pod);
                // At once: it says that there was a pod, whatever happens next.
                self.report().await?;
                self.context
                    .events
                    .publish(&self.node, Reason::PodCreated, "the pod was made")
                    .await;
                Ok(())
            }
            Err(error) => self.refused(error),
        }
    }

    /// What the API server will not take is said where people look, and tried again later.
    fn refused(&mut self, error: ApplyError) -> Result<(), NodeError> {
        let ApplyError::Api { source, .. } = &error else {
            return Err(error.into());
        };
        match &**source {
            kube::Error::Api(status) if matches!(status.code, 403 | 422) => {
                self.fault = Some((Reason::PodRefused, status.message.clone()));
                self.look_again_at(super::later(self.now, REFUSED_AGAIN));
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    /// Machines of the pool that an open window empties: a pod there would have to go at once.
    fn machines_to_avoid(&self) -> Vec<String> {
        let pool = self.pool_name();
        let mut names: Vec<String> = self
            .context
            .stores
            .nodes
            .all()
            .iter()
            .filter(|machine| {
                let place = Place {
                    pool: &pool,
                    site: &self.context.settings.site,
                    machine: machine.metadata.labels.as_ref(),
                };
                self.calendar.draining(place).is_some()
            })
            .map(|machine| machine.name_any())
            .collect();
        names.sort();
        names
    }

    async fn certify(&mut self) -> Result<(), NodeError> {
        let ca = self.context.authority.ca();
        let due = self.memory.certificate_due;
        if due.is_some_and(|due| self.now < due) && self.memory.ca == ca {
            return Ok(());
        }
        let secret_name = names::node_tls_secret(&self.name.name);
        let namespace = Some(self.name.namespace.as_str());
        let kept = ssa::get::<Secret>(&self.context.client, namespace, &secret_name).await?;
        let kept = kept
            .as_ref()
            .and_then(|kept| Some((text_in(kept, SECRET_KEY_CA)?, text_in(kept, "tls.crt")?)));
        let authority = &self.context.authority;
        let subject = authority.node(&self.uid, &[], &[]);
        let due = match kept {
            Some((ca, cert)) if !authority.is_due(&ca, &cert, &subject) => issuer::renewal(&cert),
            _ => {
                let pem = authority.issue(&subject)?;
                let data = [
                    (SECRET_KEY_CA, pem.ca),
                    ("tls.crt", pem.cert.clone()),
                    ("tls.key", pem.key),
                ];
                let mut all = labels(&self.node.spec.pool_ref.name);
                all.insert(LABEL_NODE.to_owned(), self.name.name.clone());
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(secret_name),
                        namespace: Some(self.name.namespace.clone()),
                        labels: Some(all),
                        owner_references: Some(vec![owner(&self.node)]),
                        ..ObjectMeta::default()
                    },
                    type_: Some("kubernetes.io/tls".to_owned()),
                    data: Some(BTreeMap::from(data.map(|(key, value)| {
                        (key.to_owned(), ByteString(value.into_bytes()))
                    }))),
                    ..Secret::default()
                };
                apply_child(&self.context.client, &secret, MANAGER_OPERATOR).await?;
                issuer::renewal(&pem.cert)
            }
        };
        self.memory.certificate_due = due;
        self.memory.ca = ca;
        if let Some(due) = due {
            self.look_again_at(due);
        }
        Ok(())
    }
}

fn text_in(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok()
}

const REFUSED_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
