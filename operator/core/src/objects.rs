// SPDX-License-Identifier: EUPL-1.2
//! The declared objects as one value, and the Secrets they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base64::Engine as _;
use plenum_api::{Conference, ConferenceClass, MaintenanceWindow, MediaPool, Tenant, names};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{limits, problem::Problem};

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name {
    /// Namespace; empty for kinds of cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// A name in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            out.write_str(&self.name)
        } else {
            write!(out, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object among all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind.
    pub kind: String,
    /// Namespace and name.
    pub name: Name,
}

/// A value that is not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Confidential<T>(pub T);

impl<T> fmt::Debug for Confidential<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(confidential)")
    }
}

impl<T: Serialize> Serialize for Confidential<T> {
    /// For revisions, which are hashes over everything; nothing else serialises records.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Content of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretData {
    /// `type` of the Secret.
    pub type_: String,
    /// Values by key, decoded.
    pub data: BTreeMap<String, Confidential<Vec<u8>>>,
    /// Keys that were written under `data`; the others stand under `stringData`.
    pub encoded: BTreeSet<String>,
}

impl SecretData {
    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(|value| value.0.as_slice())
    }

    /// JSON pointer of a key, as it was written.
    #[must_use]
    pub fn pointer(&self, key: &str) -> String {
        let member = if self.encoded.contains(key) {
            "data"
        } else {
            "stringData"
        };
        format!("/{member}/{}", key.replace('~', "~0").replace('/', "~1"))
    }

    /// The value of a key as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.value(key)?).ok()
    }
}

/// All declared objects. Maps are ordered, so that everything derived from them is too.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Tenants by name.
    pub tenants: BTreeMap<String, Tenant>,
    /// Classes by name.
    pub classes: BTreeMap<String, ConferenceClass>,
    /// Conferences.
    pub conferences: BTreeMap<Name, Conference>,
    /// Pools.
    pub pools: BTreeMap<Name, MediaPool>,
    /// Maintenance windows by name.
    pub windows: BTreeMap<String, MaintenanceWindow>,
    /// Secrets.
    pub secrets: BTreeMap<Name, SecretData>,
    /// Objects that exist but could not be read: whoever refers to them is not at fault.
    pub unreadable: BTreeSet<ObjectKey>,
}

impl Objects {
    /// Takes an object in that schema and rules have accepted, with its defaults filled in.
    ///
    /// # Errors
    /// What cannot be read as its kind; the object then counts as unreadable.
    pub fn insert(&mut self, value: &Value) -> Result<(), Box<Problem>> {
        let key = key_of(value);
        let wrong = |pointer: &str, rule: &str, message: String, remedy: &str| Problem {
            object: key.clone(),
            pointer: pointer.to_owned(),
            rule: rule.to_owned(),
            message,
            remedy: remedy.to_owned(),
        };
        let result = if self.count() >= limits::OBJECTS_MAX {
            Err(wrong(
                "",
                "count",
                format!("more than {} objects", limits::OBJECTS_MAX),
                "declare fewer objects",
            ))
        } else {
            self.insert_as(&key, value)
                .map_err(|Unreadable { pointer, message }| {
                    wrong(
                        &pointer,
                        "type",
                        message,
                        "write it as the kind wants it; text belongs under stringData",
                    )
                })
        };
        if result.is_err() {
            self.unreadable.insert(key);
        }
        result.map_err(Box::new)
    }

    fn insert_as(&mut self, key: &ObjectKey, value: &Value) -> Result<(), Unreadable> {
        let name = key.name.clone();
        match key.kind.as_str() {
            "Tenant" => drop(self.tenants.insert(name.name, read(value)?)),
            "ConferenceClass" => drop(self.classes.insert(name.name, read(value)?)),
            "Conference" => drop(self.conferences.insert(name, read(value)?)),
            "MediaPool" => drop(self.pools.insert(name, read(value)?)),
            "MaintenanceWindow" => drop(self.windows.insert(name.name, read(value)?)),
            "Secret" => drop(self.secrets.insert(name, read_secret(value)?)),
            _ => {}
        }
        Ok(())
    }

    /// Number of objects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tenants.len()
            + self.classes.len()
            + self.conferences.len()
            + self.pools.len()
            + self.windows.len()
            + self.secrets.len()
    }

    /// Whether an object exists that could not be read.
    #[must_use]
    pub(crate) fn is_unreadable(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.unreadable.contains(&ObjectKey {
            kind: kind.to_owned(),
            name: Name::new(namespace, name),
        })
    }

    /// The tenant that a namespace belongs to.
    #[must_use]
    pub fn tenant_of(&self, namespace: &str) -> Option<(&str, &Tenant)> {
        self.tenants
            .iter()
            .find(|(name, tenant)| namespace_of(name, tenant) == namespace)
            .map(|(name, tenant)| (name.as_str(), tenant))
    }
}

/// Namespace of a tenant.
#[must_use]
pub fn namespace_of(name: &str, tenant: &Tenant) -> String {
    let given = tenant.spec.namespace.name.clone();
    given.unwrap_or_else(|| names::tenant_namespace(name))
}

/// Kind, namespace and name of an object; what is absent is empty, and the namespace of a namespaced kind `default`, as
/// an API server has it. Kinds of cluster scope have none, whatever is written.
#[must_use]
pub fn key_of(value: &Value) -> ObjectKey {
    let text = |pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let kind = text("/kind");
    let namespace = if CLUSTER_KINDS.contains(&kind.as_str()) {
        String::new()
    } else {
        Some(text("/metadata/namespace"))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned())
    };
    ObjectKey {
        kind,
        name: Name {
            namespace,
            name: text("/metadata/name"),
        },
    }
}

/// Kinds that stand in no namespace.
pub const CLUSTER_KINDS: &[&str] = &["Tenant", "ConferenceClass", "MaintenanceWindow"];

struct Unreadable {
    pointer: String,
    message: String,
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Unreadable> {
    T::deserialize(value).map_err(|error| Unreadable {
        pointer: "/spec".to_owned(),
        message: error.to_string(),
    })
}

fn read_secret(value: &Value) -> Result<SecretData, Unreadable> {
    let mut data = BTreeMap::new();
    let mut encoded = BTreeSet::new();
    for (member, decode) in [
        ("data", from_base64 as fn(&str) -> Option<Vec<u8>>),
        // As an API server does: stringData wins over data.
        ("stringData", |text: &str| Some(text.as_bytes().to_vec())),
    ] {
        let Some(entries) = value.get(member) else {
            continue;
        };
        let map = entries.as_object().ok_or_else(|| Unreadable {
            pointer: format!("/{member}"),
            message: format!("{member} is no map of strings"),
        })?;
        for (key, entry) in map {
            let decoded = entry.as_str().and_then(decode).ok_or_else(|| Unreadable {
                pointer: format!("/{member}/{}", key.replace('~', "~0").replace('/', "~1")),
                message: format!(
                    "the value is no {}",
                    if member == "data" {
                        "base64 text"
                    } else {
                        "string"
                    }
                ),
            })?;
            if member == "data" {
                encoded.insert(key.clone());
            } else {
                encoded.remove(key);
            }
            data.insert(key.clone(), Confidential(decoded));
        }
    }
    let type_ = value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("Opaque");
    Ok(SecretData {
        type_: type_.to_owned(),
        data,
        encoded,
    })
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .ok()
}

/// The key of an object of a kind.
pub(crate) fn key(kind: &str, name: &Name) -> ObjectKey {
    ObjectKey {
        kind: kind.to_owned(),
        name: name.clone(),
    }
}
