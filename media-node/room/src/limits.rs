// SPDX-License-Identifier: EUPL-1.2
//! Every bound of a room in one place. Reaching one is a typed refusal or a counted drop, never growth.

use std::time::Duration;

/// People in one room, whatever the policy says: each takes two of a shard's 4,096 transports.
pub const PARTICIPANTS_MAX: usize = 1_000;
/// People at the door.
pub const LOBBY_MAX: usize = 500;
/// Published tracks of one participant.
pub const TRACKS_PER_PARTICIPANT_MAX: usize = media_core::limits::PUBLICATIONS_PER_TRANSPORT_MAX;
/// Largest signalling frame, as at the gateway.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a publisher's offer; answers to many sections may be longer.
pub const OFFER_BYTES_MAX: usize = 192 * 1024;
/// Sections of a publisher's offer: every track ever published and the data channels.
pub const OFFER_SECTIONS_MAX: usize = 128;
/// Sections of an offer to a subscriber; further tracks wait until one is free.
pub const SUBSCRIBER_SECTIONS_MAX: usize = 254;
/// Bytes of a participant's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a participant's metadata.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all attributes of a participant.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;
/// Attributes of a participant.
pub const ATTRIBUTES_MAX: usize = 256;
/// Bytes of a room's metadata.
pub const ROOM_METADATA_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a webhook event; a longer one goes without metadata, attributes and the list of tracks.
pub const EVENT_BYTES_MAX: usize = 48 * 1024;
/// Bytes of a track's name, cid and the like.
pub const TRACK_TEXT_BYTES_MAX: usize = 256;
/// Entries of lists in requests: SIDs, destinations, permissions.
pub const LIST_MAX: usize = 1_024;
/// Text streams of one sender whose kind is remembered.
pub const STREAMS_MAX: usize = 64;
/// Nonces of one sender that are remembered.
pub const NONCES_MAX: usize = 64;
/// Bytes held for a participant whose data channel is not open yet.
pub const HELD_DATA_BYTES_MAX: usize = 100_000;
/// Removed people whose tokens are refused; the oldest gives way.
pub const REVOKED_MAX: usize = 4_096;
/// People admitted from the lobby; the oldest gives way.
pub const ADMITTED_MAX: usize = 4_096;
/// Roles changed in the room; the oldest gives way.
pub const ROLE_CHANGES_MAX: usize = 4_096;

/// Signalling may be away for this long while media lives.
pub const SIGNAL_AWAY: Duration = Duration::from_secs(120);
/// And for this long while it does not.
pub const SIGNAL_AND_MEDIA_AWAY: Duration = Duration::from_secs(15);
/// Time from joining to the first connected transport.
pub const BECOME_ACTIVE: Duration = Duration::from_secs(60);
/// A client that closed its connection leaves properly within this time.
pub const CLOSED_GRACE: Duration = Duration::from_secs(2);
/// Microphones published this soon after joining begin muted where the role says so.
pub const ON_ENTRY: Duration = Duration::from_secs(5);
/// A room that came from another node lets its people go on talking when they return within this time.
pub const RETURN: Duration = Duration::from_secs(60);
/// A client whose signalling stands answers an offer within this time.
pub const ANSWER: Duration = Duration::from_secs(20);
/// Pace of refreshed tokens.
pub const TOKEN_REFRESH: Duration = Duration::from_secs(300);
/// Pace of statistics and connection quality.
pub const QUALITY_INTERVAL: Duration = Duration::from_secs(5);
/// A publisher is told to send less after nobody wanted more for this long.
pub const DYNACAST_DEBOUNCE: Duration = Duration::from_secs(5);
/// In rooms of more than [`PROMPT_UPDATES_MAX`] people updates of those who publish nothing are gathered for this long.
pub const UPDATE_BATCH: Duration = Duration::from_millis(500);
/// Up to here every update goes out at once.
pub const PROMPT_UPDATES_MAX: usize = 32;
