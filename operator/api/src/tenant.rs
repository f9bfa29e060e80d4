// SPDX-License-Identifier: EUPL-1.2
//! `Tenant`: an organisation with its limits, keys, policy and retention.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    names,
    shared::{GoDuration, GroupRef, LANG, NameRef, Period, PoolRef, SecretRef},
};

/// What an organisation may do, who administers it, and how its data is kept.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "tn",
    category = "plenum",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "An organisation: its limits, keys, policy, retention and look.",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace"),
    printcolumn(name = "Isolation", type_ = "string", json_path = ".spec.isolation"),
    printcolumn(name = "Rooms", type_ = "integer", json_path = ".status.usage.rooms"),
    printcolumn(name = "Participants", type_ = "integer", json_path = ".status.usage.participants"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Sites", type_ = "string", json_path = ".spec.sites.allowed", priority = 1),
    printcolumn(name = "Protection", type_ = "string", json_path = ".spec.protectionNeed", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 56").message("a tenant's name has at most 56 characters, because tenant-<name> is a namespace")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.protectionNeed != 'High' || (self.isolation != 'SharedPool' && self.policy.e2ee == 'Required' && self.policy.recording == 'Forbidden')")
        .message("protectionNeed High requires dedicated nodes or pool, e2ee Required and recording Forbidden"),
    validation = Rule::new("self.isolation != 'DedicatedPool' || (has(self.pools) && size(self.pools) > 0)")
        .message("DedicatedPool needs at least one pool"),
    validation = Rule::new("!has(oldSelf.__namespace__) || !has(oldSelf.__namespace__.name) || (has(self.__namespace__) && has(self.__namespace__.name) && self.__namespace__.name == oldSelf.__namespace__.name)")
        .message("namespace.name is immutable once set"),
    validation = Rule::new("!has(self.webhooks) || self.webhooks.all(w, !has(w.signingKeyRef) || (has(self.auth.apiKeySecretRefs) && self.auth.apiKeySecretRefs.exists(k, k.name == w.signingKeyRef.name)))")
        .message("a webhook's signingKeyRef must be one of auth.apiKeySecretRefs")
)]
pub struct TenantSpec {
    /// Name of the organisation. Not of a person.
    #[schemars(length(min = 1, max = 128))]
    pub display_name: String,
    /// One technical and one functional contact, for notices, error and maintenance pages.
    #[schemars(length(min = 2, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub contacts: Vec<Contact>,
    /// The only group that may order through the control plane's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orderers: Option<GroupRef>,
    /// Kubernetes groups that administer the tenant's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub admins: Vec<String>,
    /// Everything is prepared at once, but no conference opens earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_from: Option<Time>,
    /// Protection need of what is said in the tenant's conferences.
    #[serde(default)]
    pub protection_need: ProtectionNeed,
    /// Namespace of the tenant's conferences and Secrets: its name, and who makes and removes it.
    #[serde(default)]
    pub namespace: TenantNamespace,
    /// How far the tenant's media is kept apart from others'.
    #[serde(default)]
    pub isolation: Isolation,
    /// Allowed media pools, the first is the default; the pool must allow the tenant as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub pools: Vec<PoolRef>,
    /// Where the tenant's media may be processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<TenantSites>,
    /// Limits; an absent one means the ceiling of the platform, 0 means none.
    #[serde(default)]
    pub limits: Limits,
    /// Who may sign tokens for the tenant.
    #[serde(default)]
    pub auth: Auth,
    /// What conferences may do; a class or conference can only narrow it.
    #[serde(default)]
    pub policy: Policy,
    /// Rooms that are opened without a Conference, by an API call or a token.
    #[serde(default)]
    pub ad_hoc: AdHoc,
    /// How long each class of data is kept.
    #[serde(default)]
    pub retention: Retention,
    /// Name, colour and texts that people see before they enter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branding: Option<Branding>,
    /// Addresses that are told of events, as LiveKit's webhooks are; no other host is ever called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub webhooks: Vec<Webhook>,
    /// Service level; default the one annotated as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub service_level_name: Option<String>,
    /// Lets no room of the tenant open; `suspendMode` says what becomes of those that run.
    #[serde(default)]
    pub suspended: bool,
    /// What suspending does to rooms that run: they go on, or end.
    #[serde(default)]
    pub suspend_mode: SuspendMode,
}

/// Whom to turn to. What belongs to a person stays in the Secret.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// Which of the two contacts this is; both must be there.
    #[serde(rename = "type")]
    pub type_: ContactType,
    /// The group of people behind the contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRef>,
    /// Address of a role mailbox, never of a person.
    #[schemars(length(min = 3, max = 254), pattern(r"^[^@\s]+@[^@\s]+$"))]
    pub mailbox: String,
    /// Number of a service, never of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), pattern(r"^[0-9+() /-]+$"))]
    pub phone: Option<String>,
    /// Secret with what belongs to a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details_secret_ref: Option<SecretRef>,
}

choice! {
    /// Kinds of contact; both are mandatory.
    pub enum ContactType {
        /// For technical questions.
        Technical,
        /// For questions of content and orders.
        Functional,
    }
}

choice! {
    /// Protection need.
    #[derive(Default)]
    pub enum ProtectionNeed {
        /// The built-in notice says that data of raised protection need does not belong here.
        #[default]
        Normal,
        /// Needs dedicated nodes or pool, end-to-end encryption and no recording.
        High,
    }
}

/// The tenant's namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantNamespace {
    /// Name, immutable once set; default `tenant-<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub name: Option<String>,
    /// Whether it is made or taken over.
    #[serde(default)]
    pub mode: NamespaceMode,
    /// What happens to it when the tenant goes.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

choice! {
    /// Where a namespace comes from.
    #[derive(Default)]
    pub enum NamespaceMode {
        /// The operator makes it.
        #[default]
        Create,
        /// It exists and carries the label `plenum.dev/adoptable=<tenant>`.
        Adopt,
    }
}

choice! {
    /// What happens to the namespace of a deleted tenant.
    #[derive(Default)]
    pub enum DeletionPolicy {
        /// It stays.
        #[default]
        Retain,
        /// It goes with everything in it.
        Delete,
    }
}

choice! {
    /// How far media is kept apart.
    #[derive(Default)]
    pub enum Isolation {
        /// Nodes are shared with other tenants.
        #[default]
        SharedPool,
        /// Nodes carry one tenant at a time.
        DedicatedNodes,
        /// Only the pools named.
        DedicatedPool,
    }
}

/// Where media may be processed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.preferred) || (has(self.allowed) && self.preferred.all(s, s in self.allowed))")
    .message("every preferred site must also be allowed"))]
pub struct TenantSites {
    /// Sites in which rooms of the tenant may run; no room runs elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed: Vec<String>,
    /// Order in which allowed sites are tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub preferred: Vec<String>,
    /// Second hard filter: ISO 3166 codes; a country admits all its subdivisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(max = 6), pattern(r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub jurisdictions: Vec<String>,
}

/// Limits of a tenant. Limits per room are exact always, limits of the tenant exact with the store.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.participantsPerRoom) || !has(self.participants) || self.participantsPerRoom <= self.participants")
        .message("participantsPerRoom must not exceed participants"),
    validation = Rule::new("!has(self.publishersPerRoom) || !has(self.publishers) || self.publishersPerRoom <= self.publishers")
        .message("publishersPerRoom must not exceed publishers")
)]
pub struct Limits {
    /// Most rooms that are open at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub concurrent_rooms: Option<u32>,
    /// Participants at a time, in all rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub participants: Option<u32>,
    /// Most people in one room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub participants_per_room: Option<u32>,
    /// Most people that send media in one room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub publishers_per_room: Option<u32>,
    /// Publishers at a time, in all rooms; new ones are refused when it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub publishers: Option<u32>,
    /// Most media that all rooms of the tenant send, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub egress_mbps: Option<u32>,
    /// Declared conferences; also a quota of the namespace.
    #[serde(default = "default_conferences")]
    #[schemars(range(min = 0, max = 1_500))]
    pub conferences: u32,
}

fn default_conferences() -> u32 {
    200
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_rooms: None,
            participants: None,
            participants_per_room: None,
            publishers_per_room: None,
            publishers: None,
            egress_mbps: None,
            conferences: default_conferences(),
        }
    }
}

/// Who may sign tokens.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Identity providers; the first is the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub issuers: Vec<Issuer>,
    /// Secrets of type `plenum.dev/api-key` in the tenant's namespace; two at once are a rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub api_key_secret_refs: Vec<NameRef>,
}

/// An OpenID Connect provider.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// Name by which groups and subjects refer to it.
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub name: String,
    /// The `iss` claim of the provider's tokens, an https URL.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() == 'https'").message("issuer must be an https URL"))]
    pub issuer: String,
    /// The `aud` claim that the provider's tokens must have.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
    /// Where the public keys of the provider come from.
    pub jwks: Jwks,
    /// Name of the claim with the groups.
    #[serde(default = "default_groups_claim")]
    #[schemars(length(min = 1, max = 63))]
    pub groups_claim: String,
}

fn default_groups_claim() -> String {
    "groups".to_owned()
}

/// Where the keys of a provider come from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'Url') == has(self.url) && (self.type == 'Secret') == has(self.secretRef)")
        .message("set exactly the member that type names: url for Url, secretRef for Secret"),
    validation = Rule::new("!has(self.url) || (isURL(self.url) && url(self.url).getScheme() == 'https')")
        .message("url must be an https URL")
)]
pub struct Jwks {
    /// Which of the other members is set: `Url` or `Secret`.
    #[serde(rename = "type")]
    pub type_: JwksType,
    /// Address of the key set, an https URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub url: Option<String>,
    /// Secret with the key set, for sites without a route to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

choice! {
    /// Where a key set comes from.
    pub enum JwksType {
        /// From the provider.
        Url,
        /// From a Secret.
        Secret,
    }
}

/// What conferences may do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Whether media must, may or must not be encrypted from participant to participant.
    #[serde(default)]
    pub e2ee: E2ee,
    /// Whether conferences of the tenant may be recorded at all.
    #[serde(default)]
    pub recording: Recording,
    /// Whether people without an account of the tenant's issuer may come at all.
    #[serde(default)]
    pub guests: Guests,
    /// Codecs that may be used, in order of preference; the platform's list without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub codecs: Vec<Codec>,
}

choice! {
    /// Whether media are encrypted from participant to participant.
    #[derive(Default)]
    pub enum E2ee {
        /// Always.
        Required,
        /// As the conference wants.
        #[default]
        Allowed,
        /// Never.
        Disabled,
    }
}

choice! {
    /// Recording.
    #[derive(Default)]
    pub enum Recording {
        /// Never.
        #[default]
        Forbidden,
        /// With notice before entry and announcement to everybody.
        Allowed,
    }
}

choice! {
    /// People without an account of the tenant's issuer.
    #[derive(Default)]
    pub enum Guests {
        /// May come; they are marked as guests.
        #[default]
        Allowed,
        /// May not come.
        Forbidden,
    }
}

choice! {
    /// A codec.
    pub enum Codec {
        /// Opus
        Opus,
        /// Redundant audio (RFC 2198) over Opus
        RED,
        /// VP8
        VP8,
        /// VP9
        VP9,
        /// H.264
        H264,
        /// AV1
        AV1,
    }
}

/// Rooms that are no object. A name equal to a declared `roomName` always gets the declared policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdHoc {
    /// What opens such a room: nothing, an API call, or a valid token as well.
    #[serde(default)]
    pub rooms: AdHocRooms,
    /// ConferenceClass that supplies the rules of such rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub class_name: Option<String>,
    /// Such a room ends after this time, whoever is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<GoDuration>,
}

choice! {
    /// What opens a room that is no object.
    #[derive(Default)]
    pub enum AdHocRooms {
        /// Nothing.
        #[default]
        Forbidden,
        /// The call `CreateRoom`, signed with one of the tenant's API keys.
        OnCreate,
        /// A valid join token too.
        OnJoin,
    }
}

/// Periods for which data is kept, per class of data.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// How long records of the platform's administration and of changes to objects are kept.
    pub infrastructure: Period,
    /// How long records of processes, hosts and base software are kept; they name no person.
    pub system: Period,
    /// How long records of accesses that changed something are kept.
    pub audit: Period,
    /// How long records of control plane, media nodes and operator are kept.
    pub application: Period,
    /// How long it is kept what a user did, in detail.
    pub user_actions: Period,
    /// How long addresses, candidate types, devices and times of connections are kept.
    pub connections: Period,
    /// How long aggregated usage is kept.
    pub usage: Period,
    /// How long aggregated figures for billing are kept.
    pub billing: Period,
    /// How long chat of a conference is kept; `P0D` ends with the conference.
    pub chat: Period,
    /// How long files of a conference are kept; `P0D` ends with the conference.
    pub files: Period,
    /// How long it is kept who was in a conference; `P0D` ends with the conference.
    pub attendance: Period,
    /// How long recordings of a conference are kept; `P0D` ends with the conference.
    pub recordings: Period,
}

impl Default for Retention {
    fn default() -> Self {
        let period = |text: &str| Period::new(text);
        Self {
            infrastructure: period("P12M"),
            system: period("P1M"),
            audit: period("P12M"),
            application: period("P3M"),
            user_actions: period("P10D"),
            connections: period("P10D"),
            usage: period("P2Y"),
            billing: period("P2Y"),
            chat: period("P0D"),
            files: period("P0D"),
            attendance: period("P0D"),
            recordings: period("P0D"),
        }
    }
}

/// What people see before they enter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Branding {
    /// Name of the organisation as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,
    /// Background colour, `#rrggbb`; the foreground is derived from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7), pattern(r"^#[0-9a-fA-F]{6}$"))]
    pub colour: Option<String>,
    /// Own texts in place of the built-in ones, per place and language.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into(), "lang".into()]))]
    pub texts: Vec<BrandingText>,
}

/// An own text.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrandingText {
    /// Place on the page where the text stands.
    pub key: BrandingKey,
    /// Language of the text as a BCP 47 tag, such as `de`.
    #[schemars(length(max = 16), pattern(LANG))]
    pub lang: String,
    /// The text as it is shown, without markup.
    #[schemars(length(min = 1, max = 500))]
    pub text: String,
}

choice! {
    /// Where an own text stands.
    pub enum BrandingKey {
        /// Before entry.
        Welcome,
        /// While waiting.
        Waiting,
        /// After the end.
        Ended,
        /// Who is responsible.
        Imprint,
        /// How data is processed.
        Privacy,
        /// Where help is to be had.
        Help,
    }
}

/// A host that is told of events; only hosts named here are ever called.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Name of the receiver, for status and metrics.
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub name: String,
    /// Address that events are sent to, an https URL.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() == 'https'").message("a webhook's url must be an https URL"))]
    pub url: String,
    /// Events to tell; none named means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<WebhookEvent>,
    /// Key that signs, one of `auth.apiKeySecretRefs`; default the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_ref: Option<NameRef>,
    /// Secret with the CA of the host, where the system's do not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

choice! {
    /// An event, named as LiveKit's webhooks name it.
    #[allow(non_camel_case_types, reason = "the names on the wire")]
    pub enum WebhookEvent {
        /// A room started.
        room_started,
        /// A room ended.
        room_finished,
        /// Somebody joined.
        participant_joined,
        /// Somebody left.
        participant_left,
        /// A connection was lost for good.
        participant_connection_aborted,
        /// A track was published.
        track_published,
        /// A track is gone.
        track_unpublished,
        /// An egress started.
        egress_started,
        /// An egress changed.
        egress_updated,
        /// An egress ended.
        egress_ended,
        /// An ingress started.
        ingress_started,
        /// An ingress ended.
        ingress_ended,
    }
}

choice! {
    /// What suspending does to running rooms.
    #[derive(Default)]
    pub enum SuspendMode {
        /// They go on to their end.
        #[default]
        KeepRunning,
        /// They are closed in good order.
        Terminate,
    }
}

/// Observed state of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Namespace that the tenant has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Number of Conference objects in the tenant's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub conferences: Option<u32>,
    /// Rooms and people at present, in coarse steps, so that the status is rarely written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TenantUsage>,
    /// Hash of what the control plane has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub policy_revision: Option<String>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Usage, in buckets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantUsage {
    /// Number of rooms that are open, in coarse steps, so that the status is rarely written.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rooms: u32,
    /// Number of people in all rooms, in coarse steps, so that the status is rarely written.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub participants: u32,
    /// When rooms and people were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_at: Option<Time>,
}
