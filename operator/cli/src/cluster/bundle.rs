// SPDX-License-Identifier: EUPL-1.2
//! The support bundle as a value: files, what was left out and why, the index, the archive. Whatever is added is redacted here,
//! so that nothing gets in past it.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{redact, tar};

/// Bytes of all files together, before compression.
pub(super) const BYTES_MAX: usize = 96 << 20;

/// One file.
#[derive(Debug)]
struct File {
    path: String,
    content: String,
    about: String,
}

/// Files in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    files: Vec<File>,
    left_out: Vec<String>,
    bytes: usize,
}

impl Bundle {
    /// Adds objects as YAML. Secrets are left out whatever asked for them, ConfigMaps too: both hold what others put there.
    pub(super) fn objects(&mut self, path: &str, about: &str, objects: Vec<Value>) {
        let before = objects.len();
        let mut kept: Vec<Value> = objects
            .into_iter()
            .filter(|object| !matches!(object["kind"].as_str(), Some("Secret" | "ConfigMap")))
            .collect();
        if kept.len() < before {
            self.missing(format!("{path}: Secrets and ConfigMaps are never taken"));
        }
        kept.iter_mut().for_each(redact::object);
        let about = format!("{about} ({})", kept.len());
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": kept });
        match serde_saphyr::to_string(&list) {
            Ok(yaml) => self.push(path, &about, yaml),
            Err(error) => self.missing(format!("{path}: {error}")),
        }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, path: &str, about: &str, text: &str) {
        self.push(path, about, redact::text(text));
    }

    /// Says that something is not in it.
    pub(super) fn missing(&mut self, why: impl Into<String>) {
        self.left_out.push(redact::text(&why.into()));
    }

    fn push(&mut self, path: &str, about: &str, content: String) {
        if self.bytes + content.len() > BYTES_MAX {
            self.missing(format!(
                "{path}: the bundle would exceed {} MiB; narrow it with --namespace, --since or --log-bytes",
                BYTES_MAX >> 20
            ));
            return;
        }
        self.bytes += content.len();
        self.files.push(File {
            path: path.to_owned(),
            content,
            about: about.to_owned(),
        });
    }

    /// What is in it, one line each, and what is not.
    pub(super) fn index(&self) -> String {
        let mut rows = vec![vec![
            "FILE".to_owned(),
            "BYTES".to_owned(),
            "WHAT".to_owned(),
        ]];
        rows.extend(self.files.iter().map(|file| {
            vec![
                file.path.clone(),
                file.content.len().to_string(),
                file.about.clone(),
            ]
        }));
        let mut text = crate::table::align(&rows);
        if !self.left_out.is_empty() {
            text.push_str("\nNot in it:\n");
            for why in &self.left_out {
                text.push_str(&format!("- {why}\n"));
            }
        }
        text
    }

    /// The archive: everything below one folder.
    pub(super) fn archive(&self, folder: &str, modified: i64) -> Result<Vec<u8>, String> {
        let mut tar = tar::Tar::default();
        tar.add(
            &format!("{folder}/INDEX.txt"),
            self.index().as_bytes(),
            modified,
        )?;
        for file in &self.files {
            tar.add(
                &format!("{folder}/{}", file.path),
                file.content.as_bytes(),
                modified,
            )?;
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed
            .write_all(&tar.finish())
            .and_then(|()| packed.finish())
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpacked(bundle: &Bundle) -> String {
        let archive = bundle.archive("b", 0).expect("an archive");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(archive.as_slice())
            .read_to_end(&mut text)
            .expect("gzip");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn secrets_never_get_in_by_any_way() {
        let mut bundle = Bundle::default();
        bundle.objects(
            "objects/all.yaml",
            "everything",
            vec![
                json!({ "kind": "Secret", "metadata": { "name": "s" }, "data": { "apiSecret": "c2VjcmV0LWJ5dGVz" } }),
                json!({ "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "x": "config-value" } }),
                json!({ "kind": "Tenant", "metadata": { "name": "city" }, "spec": { "password": "plain-password" } }),
            ],
        );
        bundle.text("logs/a.log", "a log", "access_token=eyJsecret rest\n");
        bundle.missing("password=plain-reason");
        let text = unpacked(&bundle);
        for gone in [
            "c2VjcmV0",
            "config-value",
            "plain-password",
            "eyJsecret",
            "plain-reason",
        ] {
            assert!(!text.contains(gone), "{gone}");
        }
        assert!(text.contains("name: city"), "{text}");
        assert!(text.contains("Secrets and ConfigMaps are never taken"));
        assert!(text.contains("b/INDEX.txt"));
    }

    #[test]
    fn a_bundle_has_a_bound_and_says_what_it_left_out() {
        let mut bundle = Bundle::default();
        let big = "x".repeat(BYTES_MAX - 10);
        bundle.text("logs/big.log", "a log", &big);
        bundle.text("logs/more.log", "a log", "one more line");
        let index = bundle.index();
        assert!(index.contains("logs/big.log"));
        assert!(
            index.contains("- logs/more.log: the bundle would exceed 96 MiB"),
            "{index}"
        );
    }
}
