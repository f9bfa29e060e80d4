// SPDX-License-Identifier: EUPL-1.2
//! Conditions: their types, their reasons, and the shape they have in a status (`metav1.Condition`).
//!
//! Positive polarity, except `Stalled`, `Reconciling` and `UpdateBlocked`. The reasons are one closed set, stable across
//! releases; metric labels, gRPC codes and texts of the web client are derived from the same names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

choice! {
    /// What a condition speaks of.
    pub enum ConditionType {
        /// The object does what it is there for.
        Ready,
        /// Work on the present generation is going on.
        Reconciling,
        /// Somebody has to change something before work can go on.
        Stalled,
        /// The tenant's namespace is there, and Kubernetes counts its quota.
        NamespaceReady,
        /// All keys and issuers of the tenant can be used.
        CredentialsValid,
        /// The control plane has stored what was declared.
        Published,
        /// Tenant: its conferences may open. Conference: somebody is in.
        Active,
        /// The tenant's usage is below its limits.
        WithinLimits,
        /// The conference fits into its tenant's quota.
        Admitted,
        /// Capacity is held for the coming window.
        CapacityReserved,
        /// The room has a media node.
        Placed,
        /// The pool has room for more.
        CapacityAvailable,
        /// Every node of the pool has an address that it can offer.
        AddressesResolved,
        /// An update of the pool waits for something.
        UpdateBlocked,
        /// Kubernetes evicts pods of the pool once they have drained, because one budget alone selects them.
        Evictable,
        /// The media node takes new rooms.
        Accepting,
        /// The media node has no rooms and takes none.
        Drained,
    }
}

choice! {
    /// Why a condition is as it is.
    pub enum Reason {
        /// Everything declared is in effect.
        Reconciled,
        /// Work is going on.
        Progressing,
        /// Prepared before `activeFrom`.
        Prepared,
        /// `activeFrom` lies ahead.
        NotYetActive,
        /// Suspended by the specification.
        Suspended,
        /// Paused by the specification.
        Paused,
        /// The specification is being deleted.
        Deleting,
        /// Rooms are active; the deletion waits.
        RoomsActive,
        /// A namespace may not be adopted.
        NamespaceNotAdoptable,
        /// A namespace belongs to no tenant.
        NamespaceWithoutTenant,
        /// A referenced tenant does not exist.
        TenantNotFound,
        /// A referenced class does not exist, or there is no default.
        ClassNotFound,
        /// A referenced pool does not exist.
        PoolNotFound,
        /// A pool does not allow the tenant.
        PoolNotAllowed,
        /// A referenced Secret does not exist.
        SecretNotFound,
        /// A Secret lacks a key, or has the wrong type or a value out of bounds.
        SecretInvalid,
        /// Two Secrets hold the same API key.
        KeyReused,
        /// A group needs an issuer, and the tenant has none.
        IssuerMissing,
        /// An issuer cannot be reached or does not answer as it should.
        IssuerUnavailable,
        /// Nobody may open the conference.
        NoOpeners,
        /// Two conferences of one tenant have one room name.
        RoomNameTaken,
        /// A given password is too short or known to be weak.
        PasswordTooWeak,
        /// A given password is used by another conference of the tenant.
        PasswordReused,
        /// The conference admits guests, its tenant does not.
        GuestsForbiddenByTenant,
        /// The conference or its class records, its class or tenant forbids it.
        RecordingForbidden,
        /// The media policy is weaker than the tenant's.
        PolicyTooWeak,
        /// A retention period is longer than its bound.
        RetentionTooLong,
        /// A schedule cannot be evaluated.
        ScheduleInvalid,
        /// A limit would be exceeded.
        LimitExceeded,
        /// A wanted site is not allowed or does not exist.
        UnknownSite,
        /// No capacity within the constraints.
        NoCapacity,
        /// Capacity is there.
        CapacityHeld,
        /// A disruption budget of somebody else selects media pods: Kubernetes evicts none that two budgets select.
        ForeignBudget,
        /// A setting makes drains slow or impossible.
        TooFewNodes,
        /// No source yields an address that can be offered.
        NoPublicAddress,
        /// A socket buffer is smaller than wanted.
        SocketBufferSmall,
        /// The pod of a media node is gone.
        PodLost,
        /// The pod is not ready yet.
        PodNotReady,
        /// The media node has not registered.
        NodeNotRegistered,
        /// The media node was told to take no new rooms.
        Unschedulable,
        /// The media node drains.
        Draining,
        /// The media node has no rooms left.
        Empty,
        /// Nobody asked for a drain.
        NotDraining,
        /// Participants were told that their rooms end or move.
        DrainAnnounced,
        /// The rooms of a media node move to others.
        RoomsMoving,
        /// The deadline came before there was a place for every room.
        DeadlinePassed,
        /// A drain was taken back before it was announced.
        DrainCancelled,
        /// No machine takes the pod.
        PodUnschedulable,
        /// The pod's container does not start: image, certificate or command.
        ContainerFailed,
        /// The API server refuses the pod: a policy, a quota, or the profile of its namespace.
        PodRefused,
        /// The pod was made.
        PodCreated,
        /// The pod was removed after its node was drained.
        PodRemoved,
        /// Another one's labels, budget or port are in the way.
        Conflict,
        /// An open window holds the step back.
        WindowOpen,
        /// A window lies ahead.
        WindowAhead,
        /// A window will not come again.
        WindowOver,
        /// A freeze forbids the step.
        Frozen,
        /// A window was announced too late.
        AnnouncedTooLate,
        /// The control plane cannot be reached.
        ControlPlaneUnreachable,
        /// The control plane's store is away.
        StoreUnavailable,
        /// The window of the schedule has not begun.
        Scheduled,
        /// An opener has joined.
        Opened,
        /// The room is empty.
        NobodyPresent,
        /// The conference is over.
        Ended,
    }
}

choice! {
    /// Whether a condition holds.
    pub enum ConditionStatus {
        /// It holds.
        True,
        /// It does not.
        False,
        /// Nobody can tell.
        Unknown,
    }
}

/// One aspect of the observed state.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition speaks of, such as `Ready`; docs/conditions.md lists all types and reasons.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
    /// Whether what the type says holds: `True`, `False`, or `Unknown` when nobody can tell.
    pub status: ConditionStatus,
    /// Generation of the specification that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When the status changed last; a new reason or message alone does not change it.
    pub last_transition_time: Time,
    /// Why the status is as it is, in one word of a closed set, for programs.
    #[schemars(
        length(min = 1, max = 128),
        pattern(r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,
    /// Why the status is as it is and what to do, in words for people.
    #[schemars(length(max = 512))]
    pub message: String,
}

impl Condition {
    /// A condition as seen at a moment; [`set`] keeps the earlier moment when the status is the same.
    #[must_use]
    pub fn new(
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
        generation: Option<i64>,
        now: Time,
    ) -> Self {
        let mut message: String = message.into();
        if let Some((cut, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(cut);
        }
        Self {
            type_: type_.as_str().to_owned(),
            status,
            observed_generation: generation,
            last_transition_time: now,
            reason: reason.as_str().to_owned(),
            message,
        }
    }
}

/// Puts a condition into a list, in place of the one of its type. Says whether the list changed in more than the moment.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// The condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// Longest message; with at most eight conditions an object stays far below its 10 kB.
const MESSAGE_CHARS_MAX: usize = 512;
