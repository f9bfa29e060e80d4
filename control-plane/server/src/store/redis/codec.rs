// SPDX-License-Identifier: EUPL-1.2
//! Values as bytes, and answers of scripts as types. Whatever does not fit is broken; nothing is taken on trust.

use std::time::Duration;

use control_core::ids::{Epoch, NodeId, Pool, Site};
use control_core::lease::RoomLease;
use control_core::quota::{Limit, QuotaRefusal, Usage};
use control_core::record::{RoomFacts, RoomPolicy};
use plenum_proto::v1 as wire;
use prost::Message;
use redis::Value;

use crate::convert;
use crate::store::RoomRecord;

/// Version of the rules and facts of rooms.
const VERSION: u8 = 1;

pub(super) fn policy_out(policy: &RoomPolicy) -> Vec<u8> {
    versioned(&convert::policy_out(policy))
}

pub(super) fn facts_out(facts: &RoomFacts) -> Vec<u8> {
    versioned(&convert::facts_out(facts))
}

fn versioned(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    bytes.extend(message.encode_to_vec());
    bytes
}

fn message<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let (version, rest) = bytes.split_first()?;
    (*version == VERSION).then(|| M::decode(rest).ok())?
}

fn policy(bytes: &[u8]) -> Option<RoomPolicy> {
    convert::policy(message::<wire::RoomPolicy>(bytes)?).ok()
}

pub(super) fn facts(bytes: &[u8]) -> Option<RoomFacts> {
    convert::facts(message::<wire::RoomFacts>(bytes)?).ok()
}

/// Elements of an array.
pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    bytes(value).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

pub(super) fn number<N: TryFrom<u64>>(value: &Value) -> Option<N> {
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok()?,
        value => text(value)?.parse().ok()?,
    };
    N::try_from(number).ok()
}

pub(super) fn millis(value: &Value) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

pub(super) fn lease(epoch: &Value, site: &Value, node: &Value) -> Option<RoomLease> {
    Some(RoomLease {
        site: Site::parse(text(site)?).ok()?,
        node: NodeId::parse(text(node)?).ok()?,
        epoch: Epoch(number(epoch)?),
    })
}

/// Epoch, site, node, age, pool, policy, facts.
pub(super) fn record(value: &Value) -> Option<RoomRecord> {
    let Value::Array(values) = value else {
        return None;
    };
    let [epoch, site, node, age, pool, rules, known] = values.as_slice() else {
        return None;
    };
    let pool = match text(pool)? {
        "-" => None,
        pool => Some(Pool::parse(pool).ok()?),
    };
    Some(RoomRecord {
        lease: lease(epoch, site, node)?,
        policy: policy(bytes(rules)?)?,
        pool,
        facts: facts(bytes(known)?)?,
        age: millis(age)?,
    })
}

/// Name of a limit with what is used and its ceiling.
pub(super) fn refusal(value: &Value) -> Option<QuotaRefusal> {
    let Value::Array(values) = value else {
        return None;
    };
    match values.as_slice() {
        [_, waiting] => Some(QuotaRefusal::TooManyReservations(number(waiting)?)),
        [name, used, max] => {
            let name = text(name)?;
            let limit = Limit::ALL
                .into_iter()
                .find(|limit| limit.reason() == name)?;
            Some(QuotaRefusal::Reached {
                limit,
                used: number(used)?,
                max: number(max)?,
            })
        }
        _ => None,
    }
}

/// Rooms, participants, publishers, egress.
pub(super) fn usage(value: &Value) -> Option<Usage> {
    let Value::Array(values) = value else {
        return None;
    };
    let [rooms, participants, publishers, egress] = values.as_slice() else {
        return None;
    };
    Some(Usage {
        rooms: number(rooms)?,
        participants: number(participants)?,
        publishers: number(publishers)?,
        egress_kbps: number(egress)?,
    })
}
