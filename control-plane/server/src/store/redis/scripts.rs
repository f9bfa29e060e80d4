// SPDX-License-Identifier: EUPL-1.2
//! The Lua scripts: one per operation, each one atomic step. What they share is put before each of them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::keys::Family;

/// A script, known to the server by its hash.
pub struct Script {
    /// As in traces and metrics.
    pub name: &'static str,
    /// What it works on first of all.
    pub(super) family: Family,
    text: LazyLock<Loaded>,
}

struct Loaded {
    text: String,
    hash: String,
}

impl Script {
    /// What the server runs.
    pub(super) fn text(&self) -> &str {
        &self.text.text
    }

    /// Its name at the server.
    pub(super) fn hash(&self) -> &str {
        &self.text.hash
    }
}

fn load(parts: &[&str]) -> Loaded {
    // The first line names the engine: without it the server would let a script begin that must not write, and stop it half-way.
    let mut text = String::from("#!lua\n");
    for part in parts {
        text.push_str(part);
        text.push('\n');
    }
    let hash = redis::Script::new(&text).get_hash().to_owned();
    Loaded { text, hash }
}

macro_rules! scripts {
    ($($id:ident = $file:literal $family:ident [$($shared:literal)*];)*) => {
        $(
            pub(super) static $id: Script = Script {
                name: $file,
                family: Family::$family,
                text: LazyLock::new(|| load(&[
                    include_str!("lua/lib.lua"),
                    $(include_str!(concat!("lua/", $shared, ".lua")),)*
                    include_str!(concat!("lua/", $file, ".lua")),
                ])),
            };
        )*

        /// All of them.
        #[must_use]
        pub fn all() -> Vec<&'static Script> {
            vec![$(&$id),*]
        }
    };
}

scripts! {
    PLACE = "place" Room ["ledger"];
    UNDO_PLACE = "undo_place" Room [];
    RESERVE = "reserve" Seats ["ledger"];
    RELEASE = "release" Seats ["ledger"];
    HOLD = "hold" Seats ["ledger"];
    DROP_HOLD = "drop_hold" Seats ["ledger"];
    ROOM = "room" Room [];
    REPORT_ROOMS = "report_rooms" Room ["ledger"];
    CLOSE_ROOM = "close_room" Room ["ledger"];
    USAGE = "usage" Use ["ledger"];
    REFRESH_NODES = "refresh_nodes" Node [];
    MARK_ACCEPTING = "mark_accepting" Closed [];
    NODE = "node" Node [];
    FAILURES = "failures" Failures [];
    PUT_RECORD = "put_record" Records [];
    RECORD = "record" Records [];
    RECORDS = "records" Records [];
    CLAIM = "claim" Claim [];
    PUSH_EVENT = "push_event" Events ["queue"];
    EVENTS = "events" Events ["queue"];
    EVENT_DONE = "event_done" Events ["queue"];
    PING = "ping" Seats [];
}

/// Commands that the scripts call, in lower case.
#[must_use]
pub fn commands() -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    for script in all() {
        // call('family', 'COMMAND', …
        for rest in script.text().split("call('").skip(1) {
            let Some((_, rest)) = rest.split_once("', '") else {
                continue;
            };
            if let Some((command, _)) = rest.split_once('\'') {
                commands.insert(command.to_ascii_lowercase());
            }
        }
    }
    commands
}
