// SPDX-License-Identifier: EUPL-1.2
//! What `plenum up` tells on standard output: blocks for people, or one JSON object per line for programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::view::ReplicaProcess;
use crate::{args::Output, validate::Report};

/// How people and programs get into a conference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Access {
    /// Namespace of the object.
    pub(crate) namespace: String,
    /// Name of the object.
    pub(crate) name: String,
    /// Tenant.
    pub(crate) tenant: String,
    /// Name as shown.
    pub(crate) display_name: String,
    /// Name of the room, for SDKs.
    pub(crate) room_name: String,
    /// Id of the room in links.
    pub(crate) room_id: String,
    /// Phase.
    pub(crate) state: String,
    /// For people: what the phase means now.
    pub(crate) state_text: String,
    /// With the password.
    pub(crate) guest_link: String,
    /// With an opener key each.
    pub(crate) opener_links: Vec<String>,
    /// The password.
    pub(crate) password: String,
}

/// A tenant whose backends may open rooms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SdkAccess {
    /// Tenant.
    pub(crate) tenant: String,
    /// Address for SDKs.
    pub(crate) url: String,
    /// API keys; their secrets stand in the manifests.
    pub(crate) api_keys: Vec<String>,
    /// What opens a room.
    pub(crate) opens: &'static str,
}

/// Everything that is told once the system is ready.
pub(crate) struct Ready<'a> {
    /// Base address.
    pub(crate) url: &'a str,
    /// Time from the start.
    pub(crate) took: Duration,
    /// SHA-256 of the CA, where pages are served with TLS.
    pub(crate) fingerprint: Option<&'a str>,
    /// File with the CA.
    pub(crate) ca: &'a str,
    /// State directory.
    pub(crate) state_dir: &'a str,
    /// Conferences.
    pub(crate) conferences: &'a [Access],
    /// Tenants with ad-hoc rooms.
    pub(crate) sdk: &'a [SdkAccess],
    /// Replicas of the control plane.
    pub(crate) replicas: &'a [ReplicaProcess],
}

/// Where and how it is told.
#[derive(Clone, Copy)]
pub(crate) struct Reporter {
    output: Output,
}

impl Reporter {
    /// In a form.
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    fn line(self, event: &str, mut fields: Value) {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("event".to_owned(), event.into());
        }
        sayln!("{fields}");
    }

    /// The system is ready.
    pub(crate) fn ready(self, ready: &Ready<'_>) {
        if self.output == Output::Json {
            let seconds = ready.took.as_secs_f64();
            return self.line(
                "ready",
                json!({
                    "url": ready.url,
                    "seconds": (seconds * 1000.0).round() / 1000.0,
                    "stateDir": ready.state_dir,
                    "ca": ready.fingerprint.map(|fingerprint| json!({ "file": ready.ca, "sha256": fingerprint })),
                    "conferences": ready.conferences,
                    "sdk": ready.sdk,
                    "replicas": ready.replicas,
                }),
            );
        }
        say!("{}", ready_text(ready));
    }

    /// A set of manifests is in effect.
    pub(crate) fn applied(self, changes: &[String], added: &[Access]) {
        if self.output == Output::Json {
            return self.line(
                "applied",
                json!({ "changes": changes, "conferences": added }),
            );
        }
        sayln!("\napplied: {}", changes.join("; "));
        for access in added {
            say!("{}", access_text(access));
        }
    }

    /// A set of manifests is wrong, and nothing of it is in effect.
    pub(crate) fn rejected(self, report: &Report, files: usize, nothing: &str) {
        if self.output == Output::Json {
            return self.line("rejected", json!(report));
        }
        sayln!();
        crate::validate::print_report(report, files);
        sayln!("{nothing}");
    }

    /// The files cannot be read, or the like.
    pub(crate) fn failed(self, message: &str) {
        match self.output {
            Output::Json => self.line("failed", json!({ "message": message })),
            Output::Text => sayln!("\n{message}\nnothing was changed"),
        }
    }

    /// A child died.
    pub(crate) fn died(self, name: &str, how: &str, again_in: Duration, tail: &str) {
        if self.output == Output::Json {
            let millis = u64::try_from(again_in.as_millis()).unwrap_or(u64::MAX);
            return self.line(
                "died",
                json!({ "process": name, "how": how, "againInMs": millis }),
            );
        }
        sayln!(
            "\n{name} died ({how}); it starts again in {:.1} s",
            again_in.as_secs_f64()
        );
        for line in tail.lines() {
            sayln!("    {line}");
        }
    }

    /// A child runs again.
    pub(crate) fn back(self, name: &str, starts: u64) {
        match self.output {
            Output::Json => self.line("restarted", json!({ "process": name, "starts": starts })),
            Output::Text => sayln!("{name} runs again"),
        }
    }

    /// The store cannot be reached.
    pub(crate) fn store_away(self, why: &str) {
        let message = format!(
            "--redis: {why}; conferences work without it, and what it keeps is written as soon as it answers"
        );
        match self.output {
            Output::Json => self.line("storeAway", json!({ "message": message })),
            Output::Text => sayln!("\n{message}"),
        }
    }

    /// It can be reached again.
    pub(crate) fn store_back(self) {
        match self.output {
            Output::Json => self.line("storeBack", json!({})),
            Output::Text => sayln!("--redis: the store answers again"),
        }
    }

    /// Everything is being stopped.
    pub(crate) fn stopping(self, why: &str) {
        match self.output {
            Output::Json => self.line("stopping", json!({ "why": why })),
            Output::Text => sayln!("\nstopping: {why}"),
        }
    }
}

/// The block for people: what runs, who gets in where, and how it ends.
fn ready_text(ready: &Ready<'_>) -> String {
    let mut text = format!(
        "\nPlenum is ready after {:.2} s at {}\n",
        ready.took.as_secs_f64(),
        ready.url
    );
    if let Some(fingerprint) = ready.fingerprint {
        text.push_str(&format!(
            "  CA           {}\n  SHA-256      {fingerprint}\n",
            ready.ca
        ));
        text.push_str(
            "  Browsers take the address once this CA is trusted; compare the fingerprint first.\n",
        );
    }
    for access in ready.conferences {
        text.push_str(&access_text(access));
    }
    if !ready.sdk.is_empty() {
        text.push_str("\nRooms for SDKs\n");
        for sdk in ready.sdk {
            let keys = sdk.api_keys.join(", ");
            text.push_str(&format!(
                "  {:<12} {}  key {keys}  ({})\n",
                sdk.tenant, sdk.url, sdk.opens
            ));
        }
    }
    if ready.replicas.len() > 1 {
        text.push_str("\nReplicas of the control plane\n");
        for replica in ready.replicas {
            text.push_str(&format!(
                "  {:<16} alone at {}\n",
                replica.name, replica.http
            ));
        }
    }
    text.push_str("\nSaving a manifest applies it. Stop with Ctrl-C or `plenum down`.\n");
    text
}

fn access_text(access: &Access) -> String {
    let mut text = format!(
        "\n{}  ({}/{})\n",
        access.display_name, access.namespace, access.name
    );
    let mut line =
        |heading: &str, value: &str| text.push_str(&format!("  {heading:<12} {value}\n"));
    line("state", &access.state_text);
    line("guest link", &access.guest_link);
    for link in &access.opener_links {
        line("opener link", link);
    }
    line("password", &access.password);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_has_all_that_people_need_to_get_in() {
        let access = Access {
            namespace: "tenant-town".into(),
            name: "council".into(),
            tenant: "town".into(),
            display_name: "Council".into(),
            room_name: "council".into(),
            room_id: "abc".into(),
            state: "Open".into(),
            state_text: "waits for somebody with the opener link".into(),
            guest_link: "https://192.0.2.2:7880/c/abc#p=badu".into(),
            opener_links: vec!["https://192.0.2.2:7880/c/abc#k=key".into()],
            password: "badu".into(),
        };
        let sdk = SdkAccess {
            tenant: "lab".into(),
            url: "wss://192.0.2.2:7880".into(),
            api_keys: vec!["devkey".into()],
            opens: "rooms open on join",
        };
        let text = ready_text(&Ready {
            url: "https://192.0.2.2:7880",
            took: Duration::from_millis(900),
            fingerprint: Some("AB:CD"),
            ca: "/state/ca.crt",
            state_dir: "/state",
            conferences: &[access],
            sdk: &[sdk],
            replicas: &[],
        });
        let wanted = "
Plenum is ready after 0.90 s at https://192.0.2.2:7880
  CA           /state/ca.crt
  SHA-256      AB:CD
  Browsers take the address once this CA is trusted; compare the fingerprint first.

Council  (tenant-town/council)
  state        waits for somebody with the opener link
  guest link   https://192.0.2.2:7880/c/abc#p=badu
  opener link  https://192.0.2.2:7880/c/abc#k=key
  password     badu

Rooms for SDKs
  lab          wss://192.0.2.2:7880  key devkey  (rooms open on join)

Saving a manifest applies it. Stop with Ctrl-C or `plenum down`.
";
        assert_eq!(text, wanted);
    }
}
