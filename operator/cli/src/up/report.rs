// SPDX-License-Identifier: EUPL-1.2
//! What `plenum up` tells on standard output: blocks for people, or one JSON object per line for programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

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
        println!("{fields}");
    }

    /// The system is ready.
    pub(crate) fn ready(self, ready: &Ready<'_>) {
        let seconds = ready.took.as_secs_f64();
        if self.output == Output::Json {
            return self.line(
                "ready",
                json!({
                    "url": ready.url,
                    "seconds": (seconds * 1000.0).round() / 1000.0,
                    "stateDir": ready.state_dir,
                    "ca": ready.fingerprint.map(|fingerprint| json!({ "file": ready.ca, "sha256": fingerprint })),
                    "conferences": ready.conferences,
                    "sdk": ready.sdk,
                }),
            );
        }
        println!("\nPlenum is ready after {seconds:.2} s at {}", ready.url);
        if let Some(fingerprint) = ready.fingerprint {
            println!("  CA           {}", ready.ca);
            println!("  SHA-256      {fingerprint}");
            println!(
                "  Browsers take the address once this CA is trusted; compare the fingerprint first."
            );
        }
        for access in ready.conferences {
            print_access(access);
        }
        if !ready.sdk.is_empty() {
            println!("\nRooms for SDKs");
            for sdk in ready.sdk {
                println!(
                    "  {:<12} {}  key {}  ({})",
                    sdk.tenant,
                    sdk.url,
                    sdk.api_keys.join(", "),
                    sdk.opens
                );
            }
        }
        println!("\nSaving a manifest applies it. Stop with Ctrl-C or `plenum down`.");
    }

    /// A set of manifests is in effect.
    pub(crate) fn applied(self, changes: &[String], added: &[Access]) {
        if self.output == Output::Json {
            return self.line(
                "applied",
                json!({ "changes": changes, "conferences": added }),
            );
        }
        println!("\napplied: {}", changes.join("; "));
        for access in added {
            print_access(access);
        }
    }

    /// A set of manifests is wrong, and nothing of it is in effect.
    pub(crate) fn rejected(self, report: &Report, files: usize) {
        if self.output == Output::Json {
            return self.line("rejected", json!(report));
        }
        println!();
        crate::validate::print_report(report, files);
        println!("nothing was changed");
    }

    /// The files cannot be read, or the like.
    pub(crate) fn failed(self, message: &str) {
        match self.output {
            Output::Json => self.line("failed", json!({ "message": message })),
            Output::Text => println!("\n{message}\nnothing was changed"),
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
        println!(
            "\n{name} died ({how}); it starts again in {:.1} s",
            again_in.as_secs_f64()
        );
        for line in tail.lines() {
            println!("    {line}");
        }
    }

    /// A child runs again.
    pub(crate) fn back(self, name: &str, starts: u64) {
        match self.output {
            Output::Json => self.line("restarted", json!({ "process": name, "starts": starts })),
            Output::Text => println!("{name} runs again"),
        }
    }

    /// Everything is being stopped.
    pub(crate) fn stopping(self, why: &str) {
        match self.output {
            Output::Json => self.line("stopping", json!({ "why": why })),
            Output::Text => println!("\nstopping: {why}"),
        }
    }
}

fn print_access(access: &Access) {
    println!(
        "\n{}  ({}/{})",
        access.display_name, access.namespace, access.name
    );
    println!("  state        {}", access.state_text);
    println!("  guest link   {}", access.guest_link);
    for link in &access.opener_links {
        println!("  opener link  {link}");
    }
    println!("  password     {}", access.password);
}
