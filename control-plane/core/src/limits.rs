// SPDX-License-Identifier: EUPL-1.2
//! Every bound of the control plane's core. Reaching one is a typed refusal.

use std::time::Duration;

/// Most tenants of a publication.
pub const TENANTS_MAX: usize = 2_000;
/// Most declared conferences, twice what one cluster is meant to hold.
pub const CONFERENCES_MAX: usize = 20_000;
/// Most media nodes.
pub const NODES_MAX: usize = 2_000;
/// Most API keys of a tenant.
pub const API_KEYS_MAX: usize = 64;
/// Shortest secret of an API key: an HMAC-SHA256 key of half the hash's length.
pub const API_SECRET_BYTES_MIN: usize = 16;
/// Longest secret of an API key.
pub const API_SECRET_BYTES_MAX: usize = 512;
/// Most openers of a conference.
pub const OPENERS_MAX: usize = 256;
/// Most role rules of a conference, and most names in one.
pub const ROLE_RULES_MAX: usize = 256;
/// Most subjects and groups of one role rule.
pub const ROLE_NAMES_MAX: usize = 1_024;
/// Most notices of a conference.
pub const NOTICES_MAX: usize = 32;
/// Most texts of one notice, one per language.
pub const TEXTS_MAX: usize = 64;
/// Longest text for people.
pub const TEXT_BYTES_MAX: usize = 8_192;
/// Longest name as shown.
pub const DISPLAY_NAME_BYTES_MAX: usize = 512;
/// Most pools of a tenant.
pub const POOLS_MAX: usize = 64;
/// Most sites of a tenant or conference.
pub const SITES_MAX: usize = 64;
/// Most jurisdictions of a tenant.
pub const JURISDICTIONS_MAX: usize = 64;
/// Most webhooks of a tenant.
pub const WEBHOOKS_MAX: usize = 16;
/// Most names of events of one webhook.
pub const WEBHOOK_EVENTS_MAX: usize = 32;
/// Longest address of a webhook.
pub const WEBHOOK_URL_BYTES_MAX: usize = 512;
/// Longest certificates of a webhook, as PEM.
pub const WEBHOOK_CA_BYTES_MAX: usize = 16 * 1024;
/// A webhook's event that waited for longer than this is given up; the store keeps it somewhat longer, so that the loss is counted.
pub const WEBHOOK_AGE_MAX: Duration = Duration::from_secs(5 * 3_600);
/// Events read from the head of a receiver's queue at once.
pub const WEBHOOK_WINDOW: usize = 256;
/// Requests under way to one receiver, each of another room.
pub const WEBHOOK_CONCURRENT: usize = 8;
/// First wait after a failure; it doubles with each further one.
pub const WEBHOOK_BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after failures.
pub const WEBHOOK_BACK_OFF_MAX: Duration = Duration::from_secs(120);
/// Longest wait that a receiver may ask for.
pub const WEBHOOK_RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// An event that was refused so often is given up: after about twenty minutes.
pub const WEBHOOK_REFUSALS_MAX: u32 = 16;
/// Delivered ids that are remembered of a receiver.
pub const WEBHOOK_GONE_MAX: usize = 1_024;
/// Most codecs of a policy.
pub const CODECS_MAX: usize = 32;
/// Most addresses of a node.
pub const ADDRESSES_MAX: usize = 16;
/// Longest room metadata (`decisions.md` §2.1).
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Most revocations, admissions and role changes each that are kept of a room; what a room may hold is bounded by the node.
pub const FACT_ENTRIES_MAX: usize = 20_000;

/// A publication's epoch is compared with streams heard within this time (`decisions.md` §2.3).
pub const PUBLICATION_FENCE: Duration = Duration::from_secs(300);

/// A node that is silent for this long is suspect: it gets no new rooms.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// A lease lives this long without being refreshed.
pub const LEASE: Duration = Duration::from_secs(5);
/// One tick of a replica adds at most this to the silence it has observed: a paused process wakes up believing nobody dead.
pub const SILENCE_PER_TICK_MAX: Duration = Duration::from_secs(1);
/// Failed dials that complete the own witness of a death.
pub const REDIALS_FAILED_MIN: u32 = 2;

/// A reservation that nobody turned into a participant expires.
pub const RESERVATION: Duration = Duration::from_secs(15);
/// Egress that one participant is expected to draw when nobody declares it: nine thumbnails and one picture, as a room of ten shows.
pub const PARTICIPANT_EGRESS_KBPS: u32 = 1_500;

/// Wrong passwords from one address that cost nothing but their hash.
pub const FAILURES_FREE_PER_ADDRESS: u32 = 8;
/// Wrong passwords of one conference, over all addresses, that cost nothing but their hash.
pub const FAILURES_FREE_PER_CONFERENCE: u32 = 300;
/// First wait beyond the free failures; it doubles with each further one.
pub const THROTTLE_FIRST: Duration = Duration::from_secs(5);
/// Longest wait.
pub const THROTTLE_MAX: Duration = Duration::from_secs(300);
/// Failures are forgotten this long after the last one.
pub const FAILURES_EXPIRY: Duration = Duration::from_secs(900);
