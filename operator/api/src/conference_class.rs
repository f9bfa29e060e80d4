// SPDX-License-Identifier: EUPL-1.2
//! `ConferenceClass`: what a kind of conference has in common, permissions first of all.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    conference::{Capacity, ContentRetention, Lifecycle, Lobby, Media, Opener},
    names,
    shared::{LocalText, Selector},
    tenant::{Guests, Recording},
};

/// Defaults and bounds for conferences.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "ConferenceClass",
    plural = "conferenceclasses",
    shortname = "confclass",
    category = "plenum",
    status = "ConferenceClassStatus",
    derive = "PartialEq",
    doc = "What a kind of conference has in common: permissions per role, lobby, notices, defaults and bounds.",
    printcolumn(name = "Preset", type_ = "string", json_path = ".spec.preset"),
    printcolumn(name = "Lobby", type_ = "string", json_path = ".spec.lobby"),
    printcolumn(name = "Recording", type_ = "string", json_path = ".spec.recording"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.openers) || self.openers.all(o, o.type != 'Key')")
    .message("openers of a class are subjects or groups; a key belongs to one conference"))]
pub struct ConferenceClassSpec {
    /// Name of the class as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// Table of permissions to begin with; `permissions` changes single cells of it.
    pub preset: Preset,
    /// Overrides of single cells of the preset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["role".into()]))]
    pub permissions: Vec<Permission>,
    /// Added to the openers of every conference of the class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub openers: Vec<Opener>,
    /// Who waits until a moderator lets them in; default from the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lobby: Option<Lobby>,
    /// Whether people without an account of the tenant's issuer may come, where the conference does not say.
    #[serde(default)]
    pub guests: Guests,
    /// Recording: the default and the upper bound.
    #[serde(default)]
    pub recording: Recording,
    /// Notices that are shown before those of the conference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub notices: Vec<ClassNotice>,
    /// Upper bounds of the periods, never longer than the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ContentRetention>,
    /// How many people may come and send, where the conference does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Quality, bit rate and encryption of media, where the conference does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// When an empty or long meeting ends, where the conference does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Labels of the media pools that suit the class; all pools without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_selector: Option<Selector>,
}

choice! {
    /// Permissions to begin with.
    pub enum Preset {
        /// Teachers lead, pupils talk, muted on entry; lobby for guests, 12 publishers.
        Classroom,
        /// Everybody talks and presents; lobby for guests.
        Meeting,
        /// Few present, the others watch; no lobby, 20 publishers.
        Webinar,
    }
}

choice! {
    /// Roles, strongest first.
    pub enum Role {
        /// Moderates; openers are moderators.
        Moderator,
        /// Presents.
        Presenter,
        /// Takes part.
        Participant,
        /// Has no account.
        Guest,
    }
}

/// Overrides of single cells of the preset for one role.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.role != 'Guest' || ((!has(self.moderate) || !self.moderate) && (!has(self.record) || !self.record))")
    .message("a guest never moderates or records"))]
pub struct Permission {
    /// The role whose cells of the preset are changed.
    pub role: Role,
    /// Whether the role may send its microphone; the preset decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microphone: Option<bool>,
    /// Whether the role may send its camera; the preset decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<bool>,
    /// Whether the role may share its screen; the preset decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen_share: Option<bool>,
    /// Whom the chat of the role reaches; the preset decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Chat>,
    /// May mute, remove, admit and change roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moderate: Option<bool>,
    /// Whether the role may record; a guest never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<bool>,
    /// Whether one enters live or muted; the preset decides without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_entry: Option<OnEntry>,
}

choice! {
    /// Whom the chat of a role reaches.
    pub enum Chat {
        /// Everyone.
        Everyone,
        /// Moderators.
        Moderators,
        /// Nobody.
        Off,
    }
}

choice! {
    /// Whether one enters live or muted.
    pub enum OnEntry {
        /// With microphone and camera as chosen.
        Live,
        /// Muted.
        Muted,
    }
}

/// A notice of a class.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassNotice {
    /// Name of the notice, by which consent to it is recorded.
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub id: String,
    /// The text that is shown before entry, once per language.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["lang".into()]))]
    pub texts: Vec<LocalText<1000>>,
    /// Nobody gets in without having agreed to the notice.
    #[serde(default)]
    pub acknowledge: bool,
}

/// Observed state of a class.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConferenceClassStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Hash of the specification; a conference records the one it was opened with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What a role may do, complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permissions {
    /// May send the microphone.
    pub microphone: bool,
    /// May send the camera.
    pub camera: bool,
    /// May share the screen.
    pub screen_share: bool,
    /// Whom the chat of a role reaches.
    pub chat: Chat,
    /// May mute, remove, admit and change roles.
    pub moderate: bool,
    /// May record.
    pub record: bool,
    /// Whether one enters live or muted.
    pub on_entry: OnEntry,
}

impl Preset {
    /// The preset's row for a role. Recording is in no preset: it takes an override.
    #[must_use]
    pub const fn permissions(self, role: Role) -> Permissions {
        use {Chat::*, OnEntry::*, Preset::*, Role::*};
        let (microphone, camera, screen_share, chat, moderate, on_entry) = match (self, role) {
            (_, Moderator) => (true, true, true, Everyone, true, Live),
            (Classroom | Webinar, Presenter) => (true, true, true, Everyone, false, Muted),
            (Meeting, Presenter) => (true, true, true, Everyone, false, Live),
            (Classroom, Participant) => (true, true, false, Everyone, false, Muted),
            (Classroom, Guest) => (true, false, false, Moderators, false, Muted),
            (Meeting, Participant) => (true, true, true, Everyone, false, Muted),
            (Meeting, Guest) => (true, true, false, Everyone, false, Muted),
            (Webinar, Participant | Guest) => (false, false, false, Moderators, false, Muted),
        };
        Permissions {
            microphone,
            camera,
            screen_share,
            chat,
            moderate,
            record: false,
            on_entry,
        }
    }

    /// Lobby that comes with the preset.
    #[must_use]
    pub const fn lobby(self) -> Lobby {
        match self {
            Preset::Classroom | Preset::Meeting => Lobby::Guests,
            Preset::Webinar => Lobby::Off,
        }
    }

    /// Most publishers that come with the preset; `None` leaves it to the tenant.
    #[must_use]
    pub const fn max_publishers(self) -> Option<u32> {
        match self {
            Preset::Classroom => Some(12),
            Preset::Meeting => None,
            Preset::Webinar => Some(20),
        }
    }
}

impl ConferenceClassSpec {
    /// What a role may do: the preset with the overrides of the class.
    #[must_use]
    pub fn permissions(&self, role: Role) -> Permissions {
        let mut cells = self.preset.permissions(role);
        for over in self.permissions.iter().filter(|over| over.role == role) {
            let Permission {
                role: _,
                microphone,
                camera,
                screen_share,
                chat,
                moderate,
                record,
                on_entry,
            } = over;
            cells.microphone = microphone.unwrap_or(cells.microphone);
            cells.camera = camera.unwrap_or(cells.camera);
            cells.screen_share = screen_share.unwrap_or(cells.screen_share);
            cells.chat = chat.unwrap_or(cells.chat);
            cells.moderate = moderate.unwrap_or(cells.moderate);
            cells.record = record.unwrap_or(cells.record);
            cells.on_entry = on_entry.unwrap_or(cells.on_entry);
        }
        if role == Role::Guest {
            // The CEL rule refuses it already; an object stored before the rule existed must not get through either.
            cells.moderate = false;
            cells.record = false;
        }
        cells
    }
}
