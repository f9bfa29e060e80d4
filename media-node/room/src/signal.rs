// SPDX-License-Identifier: EUPL-1.2
//! Signalling frames: protobuf or protojson, bounded.

use livekit_protocol as proto;
use prost::Message;

use crate::api::Frame;
use crate::limits::FRAME_BYTES_MAX;

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("the frame is too long")]
    TooLong,
    /// Neither protobuf nor protojson of a request.
    #[error("the frame cannot be read")]
    Malformed,
}

/// Reads a request. `Ok(None)`: a request of a kind that is not known here, to be ignored.
///
/// # Errors
/// [`FrameError`].
pub fn decode(frame: &Frame) -> Result<Option<proto::signal_request::Message>, FrameError> {
    let request: proto::SignalRequest = match frame {
        Frame::Binary(bytes) | Frame::Text(bytes) if bytes.len() > FRAME_BYTES_MAX => {
            return Err(FrameError::TooLong);
        }
        Frame::Binary(bytes) => {
            proto::SignalRequest::decode(bytes.as_slice()).map_err(|_| FrameError::Malformed)?
        }
        Frame::Text(bytes) => serde_json::from_slice(bytes).map_err(|_| FrameError::Malformed)?,
    };
    Ok(request.message)
}

/// Writes a response in the form the client used last.
#[must_use]
pub fn encode(text: bool, message: proto::signal_response::Message) -> Frame {
    let response = proto::SignalResponse {
        message: Some(message),
    };
    if text && let Ok(json) = serde_json::to_vec(&response) {
        return Frame::Text(json);
    }
    Frame::Binary(response.encode_to_vec())
}

/// A `leave` as clients of every protocol understand it.
#[must_use]
pub fn leave(
    reason: proto::DisconnectReason,
    action: proto::leave_request::Action,
) -> proto::signal_response::Message {
    proto::signal_response::Message::Leave(proto::LeaveRequest {
        can_reconnect: action != proto::leave_request::Action::Disconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    })
}
