// SPDX-License-Identifier: EUPL-1.2
//! Names that stand in metadata: group, labels, annotations, finalizers, field managers, types and keys of Secrets.

/// API group of all kinds.
pub const GROUP: &str = "plenum.dev";
/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all kinds.
pub const API_VERSION: &str = "plenum.dev/v1alpha1";
/// Category of all kinds, for `kubectl get plenum`.
pub const CATEGORY: &str = "plenum";

/// Label on a namespace: the tenant it belongs to. Written by the operator alone.
pub const LABEL_TENANT: &str = "plenum.dev/tenant";
/// Label: the media pool an object was made for.
pub const LABEL_POOL: &str = "plenum.dev/pool";
/// Label: the media node an object was made for.
pub const LABEL_NODE: &str = "plenum.dev/node";
/// Label: the site an object stands in.
pub const LABEL_SITE: &str = "plenum.dev/site";
/// Label: hash of the template a media node was made from.
pub const LABEL_REVISION: &str = "plenum.dev/revision";
/// Label on media pods that the disruption budget protects.
pub const LABEL_PROTECTED: &str = "plenum.dev/protected";
/// Label on a namespace: the tenant that may adopt it.
pub const LABEL_ADOPTABLE: &str = "plenum.dev/adoptable";
/// Label on a namespace that may hold media nodes with ports of the host.
pub const LABEL_MEDIA: &str = "plenum.dev/media";

/// Annotation: the class of conferences that name none.
pub const ANNOTATION_DEFAULT_CLASS: &str = "plenum.dev/is-default-class";
/// Annotation: the service level of tenants that name none.
pub const ANNOTATION_DEFAULT_SERVICE_LEVEL: &str = "plenum.dev/is-default-service-level";
/// Annotation: deletes a tenant although rooms are active.
pub const ANNOTATION_FORCE_DELETE: &str = "plenum.dev/force-delete";

/// Finalizer of a tenant.
pub const FINALIZER_TENANT: &str = "plenum.dev/tenant";
/// Finalizer of a media pool: it stays until the last media node is gone.
pub const FINALIZER_POOL: &str = "plenum.dev/pool";
/// Finalizer of a media node: it stays until the node is drained.
pub const FINALIZER_NODE: &str = "plenum.dev/node";

/// Field manager of children and their specifications.
pub const MANAGER_OPERATOR: &str = "plenum-operator";
/// Field manager of the status.
pub const MANAGER_STATUS: &str = "plenum-operator-status";
/// Field manager of `spec.replicas`.
pub const MANAGER_AUTOSCALER: &str = "plenum-autoscaler";
/// Field manager of `MediaNode.spec.drain`.
pub const MANAGER_DRAIN: &str = "plenum-drain";

/// Type of a Secret with an API key: `apiKey` and `apiSecret`.
pub const SECRET_TYPE_API_KEY: &str = "plenum.dev/api-key";
/// Type of a Secret whose bearer may open a conference: `key`.
pub const SECRET_TYPE_OPENER_KEY: &str = "plenum.dev/opener-key";
/// Key of an API-key Secret: the public part, `iss` of its tokens.
pub const SECRET_KEY_API_KEY: &str = "apiKey";
/// Key of an API-key Secret: the signing part.
pub const SECRET_KEY_API_SECRET: &str = "apiSecret";
/// Default key of a Secret with the certificates of a CA.
pub const SECRET_KEY_CA: &str = "ca.crt";
/// Default key of an opener-key Secret.
pub const SECRET_KEY_OPENER: &str = "key";
/// Default key of a password Secret.
pub const SECRET_KEY_PASSWORD: &str = "password";
/// Least length of an API secret in bytes; HS256 wants as much key as its hash has output (RFC 7518 §3.2).
pub const API_SECRET_BYTES_MIN: usize = 32;
/// Least length of an opener key in bytes: 128 bits.
pub const OPENER_KEY_BYTES_MIN: usize = 16;
/// Least length of a given conference password in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;

/// Pattern of a DNS label (RFC 1123).
pub const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
/// Pattern of an object name (RFC 1123 subdomain).
pub const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Pattern of an opaque subject id: the `sub` claim. No `@`, no blanks, so that no e-mail address ends up in an object.
pub const SUBJECT_ID: &str = r"^[A-Za-z0-9._:|/+=-]{1,255}$";

/// Default namespace of a tenant.
#[must_use]
pub fn tenant_namespace(tenant: &str) -> String {
    format!("tenant-{tenant}")
}

/// Name of the Secret with the generated password of a conference.
#[must_use]
pub fn password_secret(conference: &str) -> String {
    format!("{conference}-password")
}

/// Name of the Secret with the certificate of a media node.
#[must_use]
pub fn node_tls_secret(node: &str) -> String {
    format!("{node}-tls")
}
