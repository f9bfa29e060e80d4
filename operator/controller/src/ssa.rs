// SPDX-License-Identifier: EUPL-1.2
//! Server-side apply that does not write what stands there already: an idle cluster gets no writes.

use std::fmt::Debug;

use kube::{
    Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams, Request},
};
use operator_core::digest;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Annotation: hash of what was applied last. A field that is no longer wanted can be seen by it alone.
pub const ANNOTATION_APPLIED: &str = "plenum.dev/applied";

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or is away.
    #[error("{verb} {kind} {name}: {source}")]
    Api {
        /// What was asked.
        verb: &'static str,
        /// Kind.
        kind: String,
        /// Namespace and name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object is no JSON.
    #[error("{kind} {name} cannot be written: {source}")]
    Encode {
        /// Kind.
        kind: String,
        /// Namespace and name.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// What a failed call on an object of this kind comes to; `name` as in `namespace/name`.
    pub fn api<K: Resource<DynamicType = ()>>(
        verb: &'static str,
        name: String,
    ) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api {
            verb,
            kind: K::kind(&()).into_owned(),
            name: name.clone(),
            source: Box::new(source),
        }
    }

    /// CamelCase reason for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => api_reason(source),
            Self::Encode { .. } => "Encoding",
        }
    }

    /// Whether the API server said that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.is_not_found()))
    }
}

/// A call to the API server other than an apply failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct CallError {
    /// What was asked.
    call: &'static str,
    /// Why.
    #[source]
    source: Box<kube::Error>,
}

impl CallError {
    /// What failure of this call means to an error that holds one.
    pub fn of<E: From<Self>>(call: &'static str) -> impl Fn(kube::Error) -> E {
        move |source| {
            E::from(Self {
                call,
                source: Box::new(source),
            })
        }
    }

    /// CamelCase reason for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        api_reason(&self.source)
    }

    /// Whether the API server said that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.is_not_found())
    }
}

/// CamelCase reason of what a call to the API server came to; one of a small number.
#[must_use]
pub fn api_reason(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "Invalid",
            429 => "TooManyRequests",
            500..=599 => "ApiServerError",
            _ => "ApiError",
        },
        // The own client refuses it; the API server may be well.
        kube::Error::Service(error) if is_not_leading(&**error) => "NotLeading",
        _ => "ApiServerUnreachable",
    }
}

/// Layers between the fence and the caller may wrap what it says.
fn is_not_leading(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<crate::client::NotLeading>())
}

/// Brings a child into the declared shape, by force: nobody else writes the fields that are named. Reads it first, and writes only when
/// something differs.
///
/// # Errors
/// [`ApplyError`].
pub async fn apply_child<K>(client: &Client, desired: &K, manager: &str) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let current = get::<K>(client, desired.namespace().as_deref(), &desired.name_any()).await?;
    apply_child_over(client, current.as_ref(), desired, manager).await
}

/// As [`apply_child`], where the present state is known, from a store say.
///
/// # Errors
/// [`ApplyError`].
pub async fn apply_child_over<K>(
    client: &Client,
    current: Option<&K>,
    desired: &K,
    manager: &str,
) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let (kind, name) = (K::kind(&()).into_owned(), full_name(desired));
    let encode = |source| ApplyError::Encode {
        kind: kind.clone(),
        name: name.clone(),
        source,
    };
    let mut wanted = serde_json::to_value(desired).map_err(encode)?;
    wanted["apiVersion"] = json!(K::api_version(&()));
    wanted["kind"] = json!(kind);
    let hash = digest::revision(&wanted);
    wanted["metadata"]["annotations"][ANNOTATION_APPLIED] = json!(hash);
    if let Some(current) = current {
        let is = serde_json::to_value(current).map_err(encode)?;
        if holds(&is, &wanted) {
            return Ok(current.clone());
        }
    }
    patch::<K>(
        client,
        desired.namespace().as_deref(),
        &desired.name_any(),
        None,
        &wanted,
        manager,
    )
    .await
}

/// Writes the status where it differs in more than the moments of its conditions. Says whether it wrote.
///
/// # Errors
/// [`ApplyError`].
pub async fn apply_status<K, S>(client: &Client, object: &K, status: &S) -> Result<bool, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    S: Serialize,
{
    let (kind, name) = (K::kind(&()).into_owned(), full_name(object));
    let encode = |source| ApplyError::Encode {
        kind: kind.clone(),
        name: name.clone(),
        source,
    };
    let status = serde_json::to_value(status).map_err(encode)?;
    let old = serde_json::to_value(object).map_err(encode)?;
    if timeless(old.get("status").unwrap_or(&Value::Null)) == timeless(&status) {
        return Ok(false);
    }
    let mut metadata = json!({ "name": object.name_any() });
    if let Some(namespace) = object.namespace() {
        metadata["namespace"] = json!(namespace);
    }
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        "metadata": metadata,
        "status": status,
    });
    patch::<K>(
        client,
        object.namespace().as_deref(),
        &object.name_any(),
        Some("status"),
        &body,
        plenum_api::names::MANAGER_STATUS,
    )
    .await?;
    Ok(true)
}

/// The object of a name, if there is one.
///
/// # Errors
/// [`ApplyError`].
pub async fn get<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<K>, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let failed = ApplyError::api::<K>("get", named(namespace, name));
    let request = Request::new(K::url_path(&(), namespace))
        .get(name, &kube::api::GetParams::default())
        .map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    match client.request::<K>(request).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Deletes an object; that it is gone already is no error.
///
/// # Errors
/// [`ApplyError`].
pub async fn delete<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    params: &kube::api::DeleteParams,
) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let failed = ApplyError::api::<K>("delete", named(namespace, name));
    let request = Request::new(K::url_path(&(), namespace))
        .delete(name, params)
        .map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    match client.request_status::<K>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

async fn patch<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    subresource: Option<&str>,
    body: &Value,
    manager: &str,
) -> Result<K, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let failed = ApplyError::api::<K>("apply", named(namespace, name));
    let params = PatchParams::apply(manager).force();
    let request = Request::new(K::url_path(&(), namespace));
    let request = match subresource {
        Some(part) => request.patch_subresource(part, name, &params, &Patch::Apply(body)),
        None => request.patch(name, &params, &Patch::Apply(body)),
    };
    let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
    client.request::<K>(request).await.map_err(failed)
}

fn full_name<K: Resource>(object: &K) -> String {
    named(object.meta().namespace.as_deref(), &object.name_any())
}

fn named(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Whether everything that is wanted stands there. What is there besides comes from the API server's defaults, or from others.
#[must_use]
pub fn holds(is: &Value, wanted: &Value) -> bool {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            // Whoever reads an object may find its empty members left out.
            is.get(key)
                .map_or_else(|| is_empty(value), |found| holds(found, value))
        }),
        (Value::Array(is), Value::Array(wanted)) => {
            is.len() == wanted.len() && is.iter().zip(wanted).all(|(is, wanted)| holds(is, wanted))
        }
        (is, wanted) => is == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().all(is_empty),
        Value::Array(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Without the moments of conditions.
fn timeless(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions.iter_mut() {
            if let Some(members) = condition.as_object_mut() {
                members.remove("lastTransitionTime");
            }
        }
        // A list map: the order says nothing.
        conditions.sort_by_key(|condition| condition["type"].to_string());
    }
    without_empty(status)
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_empty(value)))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference_and_what_others_change_is() {
        let wanted = json!({ "spec": { "ports": [{ "port": 1 }], "labels": {} } });
        let mut is =
            json!({ "spec": { "ports": [{ "port": 1, "protocol": "UDP" }], "type": "ClusterIP" } });
        assert!(holds(&is, &wanted));
        is["spec"]["ports"][0]["port"] = json!(2);
        assert!(!holds(&is, &wanted));
        is["spec"]["ports"] = json!([{ "port": 1 }, { "port": 2 }]);
        assert!(!holds(&is, &wanted));
        is["spec"] = json!({});
        assert!(!holds(&is, &wanted));
    }

    #[test]
    fn a_write_that_is_not_begun_is_not_laid_on_the_api_server() {
        let service = |error| api_reason(&kube::Error::Service(error));
        assert_eq!(service(Box::new(crate::client::NotLeading)), "NotLeading");
        let away = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(service(Box::new(away)), "ApiServerUnreachable");
    }

    #[test]
    fn moments_and_the_order_of_conditions_are_no_difference() {
        let status = |time: &str, ready: &str| {
            json!({ "conditions": [
                { "type": "Ready", "status": ready, "lastTransitionTime": time },
                { "type": "Stalled", "status": "False", "lastTransitionTime": time },
            ] })
        };
        let mut turned = status("b", "True");
        turned["conditions"]
            .as_array_mut()
            .expect("a list")
            .reverse();
        assert_eq!(timeless(&status("a", "True")), timeless(&turned));
        assert_ne!(
            timeless(&status("a", "True")),
            timeless(&status("a", "False"))
        );
    }
}
