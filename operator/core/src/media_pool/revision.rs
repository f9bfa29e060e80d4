// SPDX-License-Identifier: EUPL-1.2
//! Revision of a pool: a hash of what its pods are rendered from, so that equal pods have equal revisions.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use plenum_api::{
    MediaNode, MediaPool,
    media_node::{MediaNodeSpec, NodePorts},
    names,
    shared::NameRef,
};
use serde::Serialize;
use serde_json::Value;

use super::port_count;
use crate::digest;

/// Hash of a rendered template.
///
/// *Shape*: the first 24 bits of SHA-256 over the JSON with sorted keys, in hexadecimal. What says which version of Plenum
/// rendered it is left out: an upgrade of the operator alone replaces no pod.
#[must_use]
pub fn revision(rendered: &impl Serialize) -> String {
    let mut tree = serde_json::to_value(rendered).unwrap_or_default();
    forget_version(&mut tree);
    let mut text = String::new();
    write_sorted(&tree, &mut text);
    let mut hash = HEXLOWER.encode(&digest::sha256(text.as_bytes()));
    hash.truncate(REVISION_CHARS);
    hash
}

/// A node as the pool would make it, without anything that differs between nodes: its pod is the template.
#[must_use]
pub fn specimen(pool: &MediaPool) -> MediaNode {
    let mut node = MediaNode::new(
        "specimen",
        MediaNodeSpec {
            pool_ref: NameRef {
                name: pool.metadata.name.clone().unwrap_or_default(),
            },
            revision: String::from("specimen"),
            ports: NodePorts {
                base: PORT_SPECIMEN,
                count: port_count(&pool.spec),
            },
            unschedulable: false,
            drain: None,
        },
    );
    node.metadata.namespace.clone_from(&pool.metadata.namespace);
    node.metadata.uid = Some(String::from("00000000-0000-0000-0000-000000000000"));
    node
}

fn forget_version(tree: &mut Value) {
    for metadata in ["/metadata/labels", "/labels"] {
        if let Some(labels) = tree.pointer_mut(metadata).and_then(Value::as_object_mut) {
            labels.remove(LABEL_VERSION);
            labels.remove(names::LABEL_REVISION);
        }
    }
}

/// JSON with the keys of every object in order, no blanks, and no member that is null or absent.
fn write_sorted(tree: &Value, text: &mut String) {
    match tree {
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            members.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                _ = write!(text, "{}:", Value::from(key.as_str()));
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_sorted(item, text);
            }
            text.push(']');
        }
        leaf => _ = write!(text, "{leaf}"),
    }
}

/// As in the names of nodes. 24 bits: a pool has two or three revisions at a time, never thousands.
pub const REVISION_CHARS: usize = 6;
const LABEL_VERSION: &str = "app.kubernetes.io/version";
/// Any port; the ports of a node are its own and no part of the template.
const PORT_SPECIMEN: u16 = 20_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_and_what_is_null_do_not_matter() {
        let one = json!({ "a": 1, "b": { "c": [1, 2], "d": null } });
        let other = json!({ "b": { "c": [1, 2] }, "a": 1 });
        assert_eq!(revision(&one), revision(&other));
        assert_ne!(
            revision(&one),
            revision(&json!({ "a": 1, "b": { "c": [2, 1] } }))
        );
    }

    #[test]
    fn a_hash_stays_what_it_is() {
        // Golden: if this changes, every pool of every cluster is replaced at the next upgrade.
        let pod = json!({
            "metadata": { "labels": { "plenum.dev/pool": "a", "app.kubernetes.io/version": "0.1.0" } },
            "spec": { "containers": [{ "name": "media-node", "image": "registry.example/media-node@sha256:00" }] },
        });
        assert_eq!(revision(&pod), "22b554");
    }

    #[test]
    fn the_version_of_the_operator_does_not_matter() {
        let pod = |version: &str| json!({ "metadata": { "labels": { "a": "b", "app.kubernetes.io/version": version } }, "spec": {} });
        assert_eq!(revision(&pod("0.1.0")), revision(&pod("0.2.0")));
    }
}
