// SPDX-License-Identifier: EUPL-1.2
//! Why the gateway says no. One enum: HTTP status, Twirp code, reason and text derive from the variant, here and nowhere else.
//!
//! SDKs in browsers give up for good on 401, 403 and 404, during a reconnect too; they come back on 503. So the former are for what is
//! certain, and whatever may pass is 503 with `Retry-After`.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use control_core::grant::GrantRefusal;
use control_core::quota::QuotaRefusal;
use hyper::ext::ReasonPhrase;

use crate::auth::TokenRefusal;
use crate::hosts::HostError;
use crate::plane::PlaceError;

/// Names the reason beside texts that are for people.
const REASON: HeaderName = HeaderName::from_static("plenum-reason");

/// A limit that is reached, as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// CamelCase name.
    pub limit: &'static str,
    /// In use; egress in kbit/s.
    pub used: u64,
    /// At most.
    pub max: u64,
}

/// A typed no.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The token.
    #[error("{0}")]
    Token(TokenRefusal),
    /// The token lacks a grant.
    #[error("the token does not grant `{0}`")]
    NotGranted(&'static str),
    /// The token is for another room.
    #[error("the token is for another room")]
    OtherRoom,
    /// A parameter or body cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// The body is too long.
    #[error("the request body is longer than {0} bytes")]
    BodyTooLong(usize),
    /// The body did not come.
    #[error("the request body did not arrive in time")]
    BodyTooSlow,
    /// The token has no identity.
    #[error("the token has no identity: `sub` is empty")]
    NoIdentity,
    /// The token names no room.
    #[error("the token names no room")]
    NoRoom,
    /// Nothing under this address.
    #[error("no conference under this link")]
    UnknownConference,
    /// An ad-hoc room that nobody created; LiveKit's words, SDKs look for them.
    #[error("requested room does not exist")]
    RoomUnknown,
    /// Records have not arrived yet.
    #[error("this server is still starting")]
    NotLoaded,
    /// The tenant is gone or suspended.
    #[error("the organisation's service is suspended")]
    TenantSuspended,
    /// The conference is suspended.
    #[error("the conference is suspended")]
    ConferenceSuspended,
    /// Outside its time.
    #[error("the conference's time has not come")]
    NotYetTime,
    /// Its last window is over.
    #[error("the conference is over")]
    Ended,
    /// No opener has come.
    #[error("conference has not been opened yet")]
    NotOpened,
    /// The person's role or standing.
    #[error("{0}")]
    Grant(GrantRefusal),
    /// The room has no place, or not yet.
    #[error("{0}")]
    Place(Box<PlaceError>),
    /// A call to the room's node failed.
    #[error("{0}")]
    Host(Box<HostError>),
    /// The room's first frame did not come in time, or the room is on its way to another node.
    #[error("the room does not answer")]
    NodeAway,
    /// The room refused in its own words; they may pass.
    #[error("{message}")]
    RoomRetry {
        /// CamelCase reason of the room.
        reason: String,
        /// Its words.
        message: String,
    },
    /// The room refused in its own words, for good.
    #[error("{message}")]
    RoomRefused {
        /// CamelCase reason of the room.
        reason: String,
        /// Its words.
        message: String,
    },
    /// Participant or track.
    #[error("{0}")]
    NotFound(String),
    /// The room says the caller may not.
    #[error("{0}")]
    PermissionDenied(String),
    /// The room says an argument is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// Too many failures.
    #[error("too many failed attempts")]
    Throttled(Duration),
    /// The password is wrong.
    #[error("the password is wrong")]
    WrongPassword,
    /// A password is needed.
    #[error("this conference asks for a password")]
    PasswordRequired,
    /// The opener key is wrong.
    #[error("this key opens nothing here; ask for the current link")]
    WrongOpenerKey,
    /// No usable name.
    #[error("a name of 1 to 64 characters is needed")]
    InvalidName,
    /// A notice was not acknowledged.
    #[error("a notice that needs consent was not acknowledged")]
    AcknowledgementRequired,
    /// This process has too much to do.
    #[error("this server is busy")]
    Busy,
    /// Bad luck on our side.
    #[error("internal error")]
    Internal,
}

impl From<TokenRefusal> for Refusal {
    fn from(refusal: TokenRefusal) -> Self {
        Self::Token(refusal)
    }
}

impl From<PlaceError> for Refusal {
    fn from(error: PlaceError) -> Self {
        Self::Place(Box::new(error))
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        Self::Host(Box::new(error))
    }
}

impl From<GrantRefusal> for Refusal {
    fn from(refusal: GrantRefusal) -> Self {
        Self::Grant(refusal)
    }
}

/// Codes of Twirp v7 that occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwirpCode {
    /// Argument.
    InvalidArgument,
    /// Body that does not decode.
    Malformed,
    /// Not there.
    NotFound,
    /// No such route.
    BadRoute,
    /// May not.
    PermissionDenied,
    /// Who?
    Unauthenticated,
    /// Bound.
    ResourceExhausted,
    /// State.
    FailedPrecondition,
    /// Not built.
    Unimplemented,
    /// Bug.
    Internal,
    /// Try again.
    Unavailable,
}

impl TwirpCode {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::BadRoute => "bad_route",
            Self::PermissionDenied => "permission_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Status that Twirp's specification assigns.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::BadRoute => StatusCode::NOT_FOUND,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Refusal {
    /// CamelCase reason for people's pages: what differs for operators only goes by one name.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::RoomRetry { reason, .. } | Self::RoomRefused { reason, .. } => reason,
            Self::NotLoaded | Self::NodeAway | Self::Busy => "Unavailable",
            Self::TenantSuspended | Self::ConferenceSuspended => "Suspended",
            other => other.label(),
        }
    }

    /// The limit that refused, if one did.
    #[must_use]
    pub fn limit(&self) -> Option<Reached> {
        match self {
            Self::Place(error) => match **error {
                PlaceError::Quota(QuotaRefusal::Reached { limit, used, max }) => Some(Reached {
                    limit: limit.reason(),
                    used,
                    max,
                }),
                _ => None,
            },
            _ => None,
        }
    }

    /// Label of a metric: a fixed set, whatever rooms say.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Token(refusal) => refusal.reason(),
            Self::Grant(refusal) => refusal.reason(),
            Self::Place(error) => error.reason(),
            Self::Host(error) => error.reason(),
            Self::RoomRetry { .. } => "RoomRetry",
            Self::RoomRefused { .. } => "RoomRefused",
            Self::NotLoaded => "NotLoaded",
            Self::NodeAway => "NodeAway",
            Self::Busy => "Busy",
            Self::TenantSuspended => "TenantSuspended",
            Self::ConferenceSuspended => "ConferenceSuspended",
            Self::NotGranted(_) => "NotGranted",
            Self::OtherRoom => "OtherRoom",
            Self::BadRequest(_) => "BadRequest",
            Self::BodyTooLong(_) => "BodyTooLong",
            Self::BodyTooSlow => "BodyTooSlow",
            Self::NoIdentity => "NoIdentity",
            Self::NoRoom => "NoRoom",
            Self::UnknownConference => "UnknownConference",
            Self::RoomUnknown => "RoomUnknown",
            Self::NotYetTime => "NotYetTime",
            Self::Ended => "Ended",
            Self::NotOpened => "NotOpened",
            Self::NotFound(_) => "NotFound",
            Self::PermissionDenied(_) => "PermissionDenied",
            Self::InvalidArgument(_) => "InvalidArgument",
            Self::Throttled(_) => "Throttled",
            Self::WrongPassword => "WrongPassword",
            Self::PasswordRequired => "PasswordRequired",
            Self::WrongOpenerKey => "WrongOpenerKey",
            Self::InvalidName => "InvalidName",
            Self::AcknowledgementRequired => "AcknowledgementRequired",
            Self::Internal => "Internal",
        }
    }

    /// HTTP status outside Twirp.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Place(error) => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Host(error) => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::NotGranted(_)
            | Self::OtherRoom
            | Self::Grant(_)
            | Self::TenantSuspended
            | Self::ConferenceSuspended
            | Self::Ended
            | Self::RoomRefused { .. }
            | Self::WrongPassword
            | Self::WrongOpenerKey
            | Self::PermissionDenied(_) => StatusCode::FORBIDDEN,
            Self::PasswordRequired | Self::InvalidName | Self::AcknowledgementRequired => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::BadRequest(_) | Self::NoIdentity | Self::NoRoom | Self::InvalidArgument(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::BodyTooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownConference | Self::RoomUnknown | Self::NotFound(_) => {
                StatusCode::NOT_FOUND
            }
            Self::NotLoaded
            | Self::NotYetTime
            | Self::NotOpened
            | Self::NodeAway
            | Self::RoomRetry { .. }
            | Self::Throttled(_)
            | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When to come again, for what may pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(wait) => Some(*wait),
            Self::NotYetTime => Some(Duration::from_secs(30)),
            Self::NotOpened => Some(Duration::from_secs(5)),
            Self::NotLoaded | Self::NodeAway | Self::RoomRetry { .. } | Self::Busy => {
                Some(Duration::from_secs(1))
            }
            Self::Place(error) => error
                .retry_after_s()
                .map(|seconds| Duration::from_secs(seconds.into())),
            Self::Host(error) => Some(Duration::from_secs(error.retry_after_s().into())),
            _ => None,
        }
    }

    /// Code towards callers of the RoomService.
    #[must_use]
    pub fn twirp(&self) -> TwirpCode {
        match self {
            Self::Token(_) => TwirpCode::Unauthenticated,
            Self::NotGranted(_)
            | Self::OtherRoom
            | Self::Grant(_)
            | Self::TenantSuspended
            | Self::RoomRefused { .. }
            | Self::WrongPassword
            | Self::WrongOpenerKey
            | Self::PermissionDenied(_) => TwirpCode::PermissionDenied,
            Self::PasswordRequired | Self::InvalidName | Self::AcknowledgementRequired => {
                TwirpCode::InvalidArgument
            }
            Self::Place(error) => match **error {
                PlaceError::TenantSuspended(_) => TwirpCode::PermissionDenied,
                PlaceError::Invalid { .. } => TwirpCode::InvalidArgument,
                PlaceError::Quota(_) | PlaceError::NoCapacity(_) | PlaceError::StoreFull => {
                    TwirpCode::ResourceExhausted
                }
                _ => TwirpCode::Unavailable,
            },
            Self::BadRequest(_) => TwirpCode::Malformed,
            Self::NoIdentity | Self::NoRoom | Self::InvalidArgument(_) | Self::BodyTooLong(_) => {
                TwirpCode::InvalidArgument
            }
            Self::UnknownConference | Self::RoomUnknown | Self::NotFound(_) => TwirpCode::NotFound,
            Self::ConferenceSuspended | Self::Ended | Self::NotYetTime | Self::NotOpened => {
                TwirpCode::FailedPrecondition
            }
            Self::Throttled(_) => TwirpCode::ResourceExhausted,
            Self::NotLoaded
            | Self::Host(_)
            | Self::NodeAway
            | Self::RoomRetry { .. }
            | Self::Busy
            | Self::BodyTooSlow => TwirpCode::Unavailable,
            Self::Internal => TwirpCode::Internal,
        }
    }

    /// Seconds of `Retry-After`, rounded up.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after()
            .map(|wait| wait.as_millis().div_ceil(1000).max(1) as u64)
    }

    /// Answer of the signalling endpoints: plain text, as SDKs show it.
    #[must_use]
    pub fn into_text(self) -> Response {
        self.with_retry((self.status(), format!("{self}\n")).into_response())
    }

    /// Answer of the API: `{"error": {reason, message}}`, with `limit: {name, used, max}` where one is reached.
    #[must_use]
    pub fn into_json(self) -> Response {
        let mut error = json!({"reason": self.reason(), "message": self.to_string()});
        if let Some(Reached { limit, used, max }) = self.limit() {
            error["limit"] = json!({"name": limit, "used": used, "max": max});
        }
        self.with_retry((self.status(), Json(json!({"error": error}))).into_response())
    }

    /// Adds to an answer about this refusal its reason and `Retry-After`.
    #[must_use]
    pub fn with_retry(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.retry_after_seconds() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Ok(reason) = HeaderValue::from_str(self.reason()) {
            response.headers_mut().insert(REASON, reason);
        }
        // LiveKit's SDK for browsers hands nothing of a 503 on but the status and this phrase.
        if response.status() == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(phrase) = ReasonPhrase::try_from(self.reason().as_bytes())
        {
            response.extensions_mut().insert(phrase);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_reached_is_named_wherever_a_client_reads() {
        let refusal = || {
            Refusal::from(PlaceError::Quota(QuotaRefusal::Reached {
                limit: control_core::quota::Limit::TenantParticipants,
                used: 20,
                max: 20,
            }))
        };
        let reached = Reached {
            limit: "TenantParticipants",
            used: 20,
            max: 20,
        };
        assert_eq!(refusal().limit(), Some(reached));
        assert_eq!(refusal().twirp(), TwirpCode::ResourceExhausted);
        for response in [refusal().into_text(), refusal().into_json()] {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[REASON], "TenantParticipants");
            let phrase = response.extensions().get::<ReasonPhrase>();
            assert_eq!(phrase.expect("a phrase").as_bytes(), b"TenantParticipants");
        }
    }

    #[test]
    fn what_may_pass_is_503_with_a_time_and_what_is_certain_has_none() {
        let passing = [
            Refusal::NotLoaded,
            Refusal::NotYetTime,
            Refusal::NotOpened,
            Refusal::NodeAway,
            Refusal::Place(Box::new(PlaceError::NotLoaded)),
            Refusal::Place(Box::new(PlaceError::NoCapacity(Default::default()))),
            Refusal::RoomRetry {
                reason: "RoomFull".to_owned(),
                message: "full".to_owned(),
            },
            Refusal::Throttled(Duration::from_millis(1)),
            Refusal::Busy,
        ];
        for refusal in passing {
            let response = refusal.clone().into_text();
            assert_eq!(
                response.status(),
                StatusCode::SERVICE_UNAVAILABLE,
                "{refusal:?}"
            );
            assert!(
                response.headers()[RETRY_AFTER]
                    .to_str()
                    .expect("text")
                    .parse::<u64>()
                    .expect("seconds")
                    >= 1,
                "{refusal:?}"
            );
        }
        for refusal in [
            Refusal::Token(TokenRefusal::Expired),
            Refusal::NotGranted("roomJoin"),
            Refusal::RoomUnknown,
            Refusal::Ended,
        ] {
            assert!(
                refusal.status().is_client_error() && refusal.retry_after().is_none(),
                "{refusal:?}"
            );
        }
    }
}
