// SPDX-License-Identifier: EUPL-1.2
//! What the node knows about itself: facts from the operator, whether it takes rooms, whom it is attached to.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use media_core::time::Timestamp;
use plenum_proto::v1::{AcceptingOrder, Address, NodeFacts};
use tokio::sync::watch;

/// The node's own standing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Facts, once they arrived.
    pub facts: Option<NodeFacts>,
    /// Does the operator want rooms here?
    pub wanted: bool,
    /// Is the process on its way out?
    pub stopping: bool,
    /// When it gives up what is still there, if its rooms may end or move first.
    pub leaves_at: Option<Timestamp>,
}

impl Standing {
    /// Are new rooms taken? Never before the facts (`decisions.md` §2.7).
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.facts.is_some() && self.wanted && !self.stopping
    }

    /// Milliseconds until the process gives up what is still there; 0 if it stays.
    #[must_use]
    pub fn leaves_in(&self, now: Timestamp) -> u64 {
        let millis = |at: Timestamp| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
        self.leaves_at.map_or(0, |at| millis(at).max(1))
    }
}

/// Why an order was not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// For somebody else.
    #[error("the order is for another node")]
    OtherNode,
    /// From an earlier life of the operator's view.
    #[error("the order is older than what is known")]
    Stale,
    /// Out of bounds.
    #[error("the facts break a bound")]
    Invalid,
}

/// Shared standing with change notice, and the set of attached replicas.
pub struct State {
    uid: String,
    standing: watch::Sender<Standing>,
    attached: watch::Sender<BTreeSet<String>>,
    closing: watch::Sender<bool>,
}

/// Addresses of a node that become candidates.
const ADDRESSES_MAX: usize = 16;

impl State {
    /// Of a node that has heard nothing yet.
    #[must_use]
    pub fn new(uid: String) -> Self {
        Self {
            uid,
            standing: watch::Sender::new(Standing::default()),
            attached: watch::Sender::new(BTreeSet::new()),
            closing: watch::Sender::new(false),
        }
    }

    /// Uid of the node's MediaNode object.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Present standing.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// To wait for changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Facts from a replica; several replicas send the same ones.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn apply_facts(&self, facts: NodeFacts) -> Result<(), OrderRefusal> {
        if facts.uid != self.uid {
            return Err(OrderRefusal::OtherNode);
        }
        let valid_id = |text: &str| {
            !text.is_empty()
                && text.len() <= 16
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let valid_site = !facts.site.is_empty()
            && facts.site.len() <= 63
            && facts
                .site
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let offerable = |address: &Address| {
            u16::try_from(address.port).is_ok()
                && address
                    .ip
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| !ip.is_unspecified() && !ip.is_multicast())
        };
        let valid_addresses =
            facts.addresses.len() <= ADDRESSES_MAX && facts.addresses.iter().all(offerable);
        if !valid_id(&facts.node_id) || !valid_site || !valid_addresses {
            return Err(OrderRefusal::Invalid);
        }
        if self
            .standing
            .borrow()
            .facts
            .as_ref()
            .is_some_and(|known| known.epoch > facts.epoch)
        {
            return Err(OrderRefusal::Stale);
        }
        self.standing.send_if_modified(|standing| {
            let changed = standing.facts.as_ref() != Some(&facts);
            if changed {
                standing.wanted = facts.accepting;
                standing.facts = Some(facts);
            }
            changed
        });
        Ok(())
    }

    /// The operator wants rooms here or not.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn apply_accepting(&self, order: &AcceptingOrder) -> Result<(), OrderRefusal> {
        if order.node_uid != self.uid {
            return Err(OrderRefusal::OtherNode);
        }
        if self
            .standing
            .borrow()
            .facts
            .as_ref()
            .is_some_and(|known| known.epoch > order.epoch && order.epoch != 0)
        {
            return Err(OrderRefusal::Stale);
        }
        self.standing.send_if_modified(|standing| {
            let changed = standing.wanted != order.accepting;
            standing.wanted = order.accepting;
            changed
        });
        Ok(())
    }

    /// From here on no room is taken.
    pub fn stop(&self) {
        self.standing
            .send_modify(|standing| standing.stopping = true);
    }

    /// From here on no room is taken, and those that are there have until then to end or move.
    pub fn leave(&self, at: Timestamp) {
        self.standing.send_modify(|standing| {
            standing.stopping = true;
            standing.leaves_at = Some(at);
        });
    }

    /// All is said that was to be said: control streams end once they have passed it on.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// To wait for [`Self::close`].
    #[must_use]
    pub fn watch_closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// A stream to `endpoint` stands.
    pub fn attach(&self, endpoint: &str) {
        self.attached.send_modify(|attached| {
            attached.insert(endpoint.to_owned());
        });
    }

    /// It broke.
    pub fn detach(&self, endpoint: &str) {
        self.attached.send_modify(|attached| {
            attached.remove(endpoint);
        });
    }

    /// To wait for changes of the attached replicas.
    #[must_use]
    pub fn watch_attached(&self) -> watch::Receiver<BTreeSet<String>> {
        self.attached.subscribe()
    }

    /// Is `endpoint` the replica that writes this node's lease? Rendezvous over the attached ones, so that nodes spread.
    #[must_use]
    pub fn is_primary(&self, endpoint: &str) -> bool {
        let score = |replica: &str| {
            let mut hasher = DefaultHasher::new();
            (self.uid.as_str(), replica).hash(&mut hasher);
            (hasher.finish(), replica.to_owned())
        };
        // A stream that is being set up counts itself already: its first message says what holds once it stands.
        let own = score(endpoint);
        self.attached
            .borrow()
            .iter()
            .all(|replica| score(replica) <= own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(epoch: u64) -> NodeFacts {
        NodeFacts {
            uid: "u".into(),
            node_id: "n1".into(),
            site: "site-a".into(),
            epoch,
            accepting: true,
            ..Default::default()
        }
    }

    #[test]
    fn nothing_is_accepted_before_facts_nor_when_stopping() {
        let state = State::new("u".into());
        assert!(!state.standing().accepts());
        assert_eq!(
            state.apply_facts(NodeFacts {
                uid: "other".into(),
                ..facts(1)
            }),
            Err(OrderRefusal::OtherNode)
        );
        assert_eq!(
            state.apply_facts(NodeFacts {
                node_id: "a-b".into(),
                ..facts(1)
            }),
            Err(OrderRefusal::Invalid)
        );
        for (ip, port) in [("somewhere", 1), ("0.0.0.0", 1), ("192.0.2.1", 65_536)] {
            let address = Address {
                ip: ip.into(),
                port,
            };
            let facts = NodeFacts {
                addresses: vec![address],
                ..facts(1)
            };
            assert_eq!(
                state.apply_facts(facts),
                Err(OrderRefusal::Invalid),
                "{ip} {port}"
            );
        }
        state.apply_facts(facts(2)).expect("own");
        assert!(state.standing().accepts());
        assert_eq!(state.apply_facts(facts(1)), Err(OrderRefusal::Stale));
        let order = AcceptingOrder {
            node_uid: "u".into(),
            epoch: 2,
            accepting: false,
            reason: String::new(),
        };
        state.apply_accepting(&order).expect("own");
        assert!(!state.standing().accepts());
        state.apply_facts(facts(2)).expect("the same facts again");
        assert!(
            !state.standing().accepts(),
            "repeated facts do not undo an order"
        );
        state
            .apply_accepting(&AcceptingOrder {
                accepting: true,
                ..order
            })
            .expect("own");
        state.stop();
        assert!(!state.standing().accepts());
    }

    #[test]
    fn exactly_one_attached_replica_is_primary() {
        let state = State::new("u".into());
        assert!(state.is_primary("a:1"), "the first to attach");
        for replica in ["a:1", "b:1", "c:1"] {
            state.attach(replica);
        }
        let primary = |replicas: &[&'static str]| {
            let marked: Vec<&str> = replicas
                .iter()
                .copied()
                .filter(|replica| state.is_primary(replica))
                .collect();
            assert_eq!(marked.len(), 1, "{marked:?}");
            marked[0]
        };
        let replicas = ["a:1", "b:1", "c:1"];
        let first = primary(&replicas);
        state.detach(first);
        let left: Vec<&'static str> = replicas
            .into_iter()
            .filter(|replica| *replica != first)
            .collect();
        let second = primary(&left);
        assert_ne!(first, second);
    }
}
