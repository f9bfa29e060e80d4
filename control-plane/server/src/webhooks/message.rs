// SPDX-License-Identifier: EUPL-1.2
//! What a receiver gets: a protojson `WebhookEvent`, and a token whose claim `sha256` is the hash of the body.

use aws_lc_rs::{digest, hmac};
use control_core::ids::RoomKey;
use data_encoding::{BASE32_NOPAD, BASE64};
use serde_json::Value;

use crate::auth::{Claims, claims::NumericDate, sign_with};

/// The token holds for this long: a receiver checks it at once.
const VALID_S: i64 = 300;
/// Clocks of receivers may be behind by this much.
const BEFORE_S: i64 = 60;

/// The room and the number of an event; equal for every replica that takes it, different for every other event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number {
    pub(super) key: RoomKey,
    /// `RM_…`: epochs begin anew with a room of the same name.
    pub(super) sid: String,
    pub(super) epoch: u64,
    pub(super) seq: u64,
}

impl Number {
    /// As receivers see it.
    pub(super) fn id(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [
            self.key.tenant.as_str(),
            self.key.name.as_str(),
            self.sid.as_str(),
        ] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.update(&self.epoch.to_be_bytes());
        context.update(&self.seq.to_be_bytes());
        let hash = context.finish();
        let mut id = BASE32_NOPAD.encode(&hash.as_ref()[..15]);
        id.make_ascii_lowercase();
        format!("EV_{id}")
    }
}

/// The event is not what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is a JSON object with its own name in `event`")]
pub(super) struct NotAnEvent;

/// The node's body with `id`, and with `numDropped` where events were lost before.
pub(super) fn compose(
    body: &[u8],
    name: &str,
    id: &str,
    dropped: u32,
) -> Result<Vec<u8>, NotAnEvent> {
    let mut value: Value = serde_json::from_slice(body).map_err(|_| NotAnEvent)?;
    let object = value.as_object_mut().ok_or(NotAnEvent)?;
    if object.get("event").and_then(Value::as_str) != Some(name) {
        return Err(NotAnEvent);
    }
    object.insert("id".into(), id.into());
    add_dropped(object, dropped);
    serde_json::to_vec(&value).map_err(|_| NotAnEvent)
}

/// A queued body that tells of further losses.
pub(super) fn with_dropped(body: &[u8], dropped: u32) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    add_dropped(value.as_object_mut()?, dropped);
    serde_json::to_vec(&value).ok()
}

fn add_dropped(object: &mut serde_json::Map<String, Value>, dropped: u32) {
    let before = object
        .get("numDropped")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let sum = before
        .saturating_add(u64::from(dropped))
        .min(i32::MAX as u64);
    if sum > 0 {
        object.insert("numDropped".into(), sum.into());
    }
}

/// What receivers call the resource: the room of a queued body.
pub(super) fn room_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Event {
        #[serde(default)]
        room: Option<Room>,
    }
    #[derive(serde::Deserialize)]
    struct Room {
        #[serde(default)]
        sid: String,
    }
    serde_json::from_slice::<Event>(body)
        .ok()
        .and_then(|event| event.room)
        .map(|room| room.sid)
        .unwrap_or_default()
}

/// The value of `Authorization`: a token without "Bearer".
pub(super) fn authorization(key: &str, secret: &[u8], body: &[u8], now_unix_s: i64) -> String {
    let hash = digest::digest(&digest::SHA256, body);
    let claims = Claims {
        iss: key.to_owned(),
        iat: Some(NumericDate(now_unix_s)),
        nbf: Some(NumericDate(now_unix_s.saturating_sub(BEFORE_S))),
        exp: Some(NumericDate(now_unix_s.saturating_add(VALID_S))),
        sha256: BASE64.encode(hash.as_ref()),
        ..Claims::default()
    };
    sign_with(&hmac::Key::new(hmac::HMAC_SHA256, secret), &claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(seq: u64) -> Number {
        Number {
            key: RoomKey::parse("school", "council").expect("key"),
            sid: "RM_x".into(),
            epoch: 1,
            seq,
        }
    }

    #[test]
    fn ids_tell_events_apart_and_are_the_same_everywhere() {
        let id = number(1).id();
        assert_eq!(id, number(1).id());
        assert_eq!(id.len(), 27, "{id}");
        let others = [
            number(2),
            Number {
                epoch: 2,
                ..number(1)
            },
            Number {
                sid: "RM_y".into(),
                ..number(1)
            },
            Number {
                key: RoomKey::parse("schoolc", "ouncil").expect("key"),
                ..number(1)
            },
        ];
        for other in others {
            assert_ne!(id, other.id(), "{other:?}");
        }
    }

    #[test]
    fn a_body_gets_its_id_and_the_number_of_those_lost_before() {
        let body = br#"{"event":"room_started","room":{"sid":"RM_x"},"createdAt":"7"}"#;
        let composed = compose(body, "room_started", "EV_1", 3).expect("an event");
        let value: Value = serde_json::from_slice(&composed).expect("JSON");
        assert_eq!(
            (&value["id"], &value["numDropped"], &value["createdAt"]),
            (&"EV_1".into(), &3.into(), &"7".into())
        );
        assert_eq!(room_of(&composed), "RM_x");
        let again = with_dropped(&composed, 2).expect("an event");
        let value: Value = serde_json::from_slice(&again).expect("JSON");
        assert_eq!(value["numDropped"], 5);
        let none = compose(body, "room_started", "EV_1", 0).expect("an event");
        assert!(!String::from_utf8_lossy(&none).contains("numDropped"));
    }

    #[test]
    fn what_is_no_event_or_another_one_is_refused() {
        for body in [
            &b""[..],
            b"{}",
            b"[]",
            b"{\"event\":\"x\"} ",
            b"{\"event\":7}",
            &[0xff, 0xfe],
        ] {
            assert_eq!(compose(body, "room_started", "EV_1", 0), Err(NotAnEvent));
        }
    }
}
