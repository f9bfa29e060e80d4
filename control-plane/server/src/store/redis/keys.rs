// SPDX-License-Identifier: EUPL-1.2
//! Every key that Plenum keeps in Redis: family, shape, lifetime. `docs/store.md` shows this table; a test compares the two.

use std::fmt;

use control_core::ids::{NodeId, RoomKey, TenantName};

use crate::store::{EventQueue, FailureScope};

/// Everything begins with this, so that an ACL can allow it and nothing else.
const PREFIX: &str = "plenum";

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Lease, rules and facts of a room.
    Room,
    /// What counts for rooms.
    Seats,
    /// When what counts for a room runs out.
    Due,
    /// Sums of nodes and tenants.
    Use,
    /// Lease of a node.
    Node,
    /// A node takes no rooms.
    Closed,
    /// Wrong passwords.
    Failures,
    /// A role of one replica.
    Claim,
    /// Published records.
    Records,
    /// Events that wait for a receiver.
    Events,
}

/// A row of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Key, with NAME for the namespace.
    pub key: &'static str,
    /// Type and content of the value, version 1.
    pub value: &'static str,
    /// How long it lives, or who owns it.
    pub lifetime: &'static str,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Room,
        Self::Seats,
        Self::Due,
        Self::Use,
        Self::Node,
        Self::Closed,
        Self::Failures,
        Self::Claim,
        Self::Records,
        Self::Events,
    ];

    /// Its name in errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Seats => "seats",
            Self::Due => "due",
            Self::Use => "use",
            Self::Node => "node",
            Self::Closed => "closed",
            Self::Failures => "failures",
            Self::Claim => "claim",
            Self::Records => "records",
            Self::Events => "events",
        }
    }

    /// From the name that a script gives.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }

    /// What is written about it.
    #[must_use]
    pub const fn shape(self) -> &'static [Shape] {
        match self {
            Self::Room => &[Shape {
                key: "plenum:{NAME}:room:TENANT/ROOM",
                value: "hash: `head` (version, epoch, site, node, given, life, request, pool), `policy` and `facts` (version byte, protobuf)",
                lifetime: "the room's empty timeout, at least 120 s, and 30 s more after the last report; its node's primary replica reports it every 30 s",
            }],
            Self::Seats => &[Shape {
                key: "plenum:{NAME}:seats",
                value: "hash, TENANT/ROOM → MessagePack (version, reported, reserved, held)",
                lifetime: "reservations 15 s, counts as long as the room's record, holds as asked; the key up to 60 s longer than the last of them",
            }],
            Self::Due => &[Shape {
                key: "plenum:{NAME}:due",
                value: "sorted set, TENANT/ROOM by the time at which the first part of its seat runs out",
                lifetime: "as seats",
            }],
            Self::Use => &[Shape {
                key: "plenum:{NAME}:use",
                value: "hash, n:NODE, t:TENANT and `reservations` → version, rooms, participants, publishers, egress in kbit/s",
                lifetime: "as seats",
            }],
            Self::Node => &[Shape {
                key: "plenum:{NAME}:node:NODE",
                value: "string: version, epoch, site, accepting",
                lifetime: "5 s; its primary replica refreshes it with each report",
            }],
            Self::Closed => &[Shape {
                key: "plenum:{NAME}:closed:NODE",
                value: "string: version",
                lifetime: "1 h after the last refreshing of the node's lease",
            }],
            Self::Failures => &[Shape {
                key: "plenum:{NAME}:failures:UID[/ADDRESS]",
                value: "string: version, count, time of the last one",
                lifetime: "15 min after the last failure",
            }],
            Self::Claim => &[Shape {
                key: "plenum:{NAME}:claim:ROLE",
                value: "string: version, holder",
                lifetime: "as the holder asks; it asks again",
            }],
            Self::Records => &[
                Shape {
                    key: "plenum:{NAME:records}:values",
                    value: "hash, KIND/UID → MessagePack (version, epoch, revision, value as the caller sealed it); the empty field has the sum of bytes",
                    lifetime: "until the operator drops the record",
                },
                Shape {
                    key: "plenum:{NAME:records}:index",
                    value: "sorted set of KIND/UID, so that they can be read in pages",
                    lifetime: "as values",
                },
                Shape {
                    key: "plenum:{NAME:records}:fence",
                    value: "string: version, highest epoch that wrote lately",
                    lifetime: "5 min after the last write",
                },
            ],
            Self::Events => &[
                Shape {
                    key: "plenum:{NAME:TENANT}:events:RECEIVER",
                    value: "hash, =ID → MessagePack (version, name, queued, body, time); the empty field has the sum of bytes",
                    lifetime: "6 h after the last event",
                },
                Shape {
                    key: "plenum:{NAME:TENANT}:order:RECEIVER",
                    value: "sorted set of =ID by the order of arrival",
                    lifetime: "as events",
                },
            ],
        }
    }
}

/// What an installation's keys are named after: lower-case letters, digits and inner dashes. Installations that share a Redis differ here.
#[derive(Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Namespace {
    /// Checks a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        // Nothing in it may mean something in a key, a hash tag or an ACL pattern; a site is named by the same rule.
        control_core::ids::Site::parse(name)
            .ok()
            .map(|site| Self(site.as_str().to_owned()))
    }

    /// Patterns of all keys, for an ACL.
    #[must_use]
    pub fn patterns(&self) -> [String; 2] {
        let name = &self.0;
        [
            format!("{PREFIX}:{{{name}}}:*"),
            format!("{PREFIX}:{{{name}:*"),
        ]
    }

    fn placement(&self, rest: fmt::Arguments<'_>) -> String {
        format!("{PREFIX}:{{{}}}:{rest}", self.0)
    }

    pub(super) fn room(&self, key: &RoomKey) -> String {
        self.placement(format_args!("room:{key}"))
    }

    /// The three keys of the ledger, in the order that scripts expect.
    pub(super) fn ledger(&self) -> [String; 3] {
        [Family::Seats, Family::Due, Family::Use]
            .map(|family| self.placement(format_args!("{}", family.as_str())))
    }

    pub(super) fn node(&self, node: &NodeId) -> String {
        self.placement(format_args!("node:{node}"))
    }

    pub(super) fn closed(&self, node: &NodeId) -> String {
        self.placement(format_args!("closed:{node}"))
    }

    pub(super) fn failures(&self, scope: &FailureScope) -> String {
        match scope {
            FailureScope::Conference(uid) => self.placement(format_args!("failures:{uid}")),
            FailureScope::Address(uid, ip) => self.placement(format_args!("failures:{uid}/{ip}")),
        }
    }

    pub(super) fn claim(&self, role: &str) -> String {
        self.placement(format_args!("claim:{role}"))
    }

    /// Fence, index and values of the records.
    pub(super) fn records(&self) -> [String; 3] {
        ["fence", "index", "values"].map(|part| format!("{PREFIX}:{{{}:records}}:{part}", self.0))
    }

    /// Order and events of a queue.
    pub(super) fn queue(&self, queue: &EventQueue) -> [String; 2] {
        let tag = |tenant: &TenantName| format!("{PREFIX}:{{{}:{tenant}}}", self.0);
        ["order", "events"].map(|part| format!("{}:{part}:{}", tag(&queue.tenant), queue.receiver))
    }
}
