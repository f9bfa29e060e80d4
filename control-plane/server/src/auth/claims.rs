// SPDX-License-Identifier: EUPL-1.2
//! What tokens say, as LiveKit's access tokens spell it.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

/// Seconds since 1970; fractions, which RFC 7519 allows, are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericDate(pub i64);

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        number
            .as_i64()
            .or_else(|| {
                number
                    .as_f64()
                    .filter(|seconds| seconds.abs() < 9.0e15)
                    .map(|seconds| seconds as i64)
            })
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a time"))
    }
}

/// Claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// API key, or `plenum:<tenant>`.
    #[serde(deserialize_with = "nullable")]
    pub iss: String,
    /// Identity.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub sub: String,
    /// Identity where `sub` is missing.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub jti: String,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<NumericDate>,
    /// Begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<NumericDate>,
    /// Time of issue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<NumericDate>,
    /// Name to show.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// `standard`, `agent`, …; empty = standard.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// Metadata of the participant.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub metadata: String,
    /// Attributes of the participant.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub attributes: BTreeMap<String, String>,
    /// Grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// Settings of a room that this participant's join creates; protojson of `RoomConfiguration`, kept as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<serde_json::Value>,
    /// Hash of a webhook's body.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub sha256: String,
    /// Own tokens: where they stem from.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub src: String,
    /// Own tokens that stem from an API key: a keyed hash of its secret, so that another secret under the same key ends them.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub srcp: String,
    /// Own tokens: what this installation knows about the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plenum: Option<OwnClaims>,
}

/// The `video` claim. `None` in a tri-state field = not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// Create and delete rooms.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// List rooms.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// Record.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub room_record: bool,
    /// Administer `room`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// Enter `room`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub room_join: bool,
    /// Name of the room.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub room: String,
    /// Room to move or forward participants to.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub destination_room: String,
    /// Publish; not said = yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Subscribe; not said = yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// Send data; not said = as `can_publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio`; empty = all.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// Change own name, metadata and attributes; not said = no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Ingress.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    /// Not shown to others.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// A recorder.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// An agent.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub agent: bool,
}

/// Sources that tokens may name.
const SOURCES: [&str; 4] = ["camera", "microphone", "screen_share", "screen_share_audio"];

impl VideoGrant {
    /// Grants with the defaults for what is not said.
    ///
    /// An empty list of sources means all of them on the wire, so a list that names no known source takes publishing away altogether.
    #[must_use]
    pub fn to_grants(&self) -> plenum_proto::v1::Grants {
        let named: Vec<String> = self
            .can_publish_sources
            .iter()
            .map(|source| source.to_ascii_lowercase())
            .collect();
        let known: Vec<String> = named
            .iter()
            .filter(|source| SOURCES.contains(&source.as_str()))
            .cloned()
            .collect();
        let narrowed_to_nothing = !named.is_empty() && known.is_empty();
        let said_publish = self.can_publish.unwrap_or(true);
        plenum_proto::v1::Grants {
            room_join: self.room_join,
            room_admin: self.room_admin,
            can_publish: said_publish && !narrowed_to_nothing,
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish_data: self.can_publish_data.unwrap_or(said_publish),
            can_publish_sources: known,
            can_update_own_metadata: self.can_update_own_metadata.unwrap_or(false),
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
        }
    }

    /// The claim for `grants` in `room`: everything is said.
    #[must_use]
    pub fn from_grants(grants: &plenum_proto::v1::Grants, room: &str) -> Self {
        Self {
            room_join: grants.room_join,
            room_admin: grants.room_admin,
            room: room.to_owned(),
            can_publish: Some(grants.can_publish),
            can_subscribe: Some(grants.can_subscribe),
            can_publish_data: Some(grants.can_publish_data),
            can_publish_sources: grants.can_publish_sources.clone(),
            can_update_own_metadata: Some(grants.can_update_own_metadata),
            hidden: grants.hidden,
            recorder: grants.recorder,
            agent: grants.agent,
            ..Self::default()
        }
    }
}

/// Role as written into tokens and attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleName {
    /// Opens, admits, mutes, removes.
    Moderator,
    /// Presents.
    Presenter,
    /// Takes part.
    Participant,
    /// Came by link.
    Guest,
}

impl RoleName {
    /// From the wire; `None` = no role.
    #[must_use]
    pub const fn from_proto(role: plenum_proto::v1::Role) -> Option<Self> {
        use plenum_proto::v1::Role;
        match role {
            Role::Moderator => Some(Self::Moderator),
            Role::Presenter => Some(Self::Presenter),
            Role::Participant => Some(Self::Participant),
            Role::Guest => Some(Self::Guest),
            Role::Unspecified => None,
        }
    }

    /// To the wire.
    #[must_use]
    pub const fn to_proto(self) -> plenum_proto::v1::Role {
        use plenum_proto::v1::Role;
        match self {
            Self::Moderator => Role::Moderator,
            Self::Presenter => Role::Presenter,
            Self::Participant => Role::Participant,
            Self::Guest => Role::Guest,
        }
    }

    /// As in the attribute `plenum.role`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moderator => "Moderator",
            Self::Presenter => "Presenter",
            Self::Participant => "Participant",
            Self::Guest => "Guest",
        }
    }
}

/// What own tokens say beyond LiveKit's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnClaims {
    /// Role in a declared conference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// Came by link.
    #[serde(skip_serializing_if = "is_false")]
    pub guest: bool,
    /// May open.
    #[serde(skip_serializing_if = "is_false")]
    pub opener: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// `null` is what Go's encoder writes for an absent value.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
