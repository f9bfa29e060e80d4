// SPDX-License-Identifier: EUPL-1.2
//! Signalling over LiveKit's WebSocket, and the tokens it asks for.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// Messages on their way each way.
const QUEUE: usize = 256;

/// Why a session does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The gateway answered with another status than 101; its text is the reason.
    #[error("the gateway answered {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Body.
        text: String,
    },
    /// No WebSocket.
    #[error("no WebSocket to the gateway")]
    Socket(#[source] Box<SocketError>),
}

/// A join token (HS256) for `identity` in `room`, valid for six hours from `now` (seconds since 1970).
#[must_use]
pub fn token(key: &str, secret: &str, room: &str, identity: &str, now: u64) -> String {
    let claims = serde_json::json!({
        "iss": key,
        "sub": identity,
        "name": identity,
        "nbf": now.saturating_sub(60),
        "exp": now + 6 * 3600,
        "video": { "roomJoin": true, "room": room, "canPublish": true, "canSubscribe": true, "canPublishData": true },
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&serde_json::json!({ "alg": "HS256", "typ": "JWT" })),
        part(&claims)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// The two ends of a session: requests go in, responses come out.
pub type Session = (
    mpsc::Sender<proto::SignalRequest>,
    mpsc::Receiver<proto::SignalResponse>,
);

/// Opens `/rtc` of the gateway at `url` (`ws://…`). The socket is carried by a task that ends with either end.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(url: &str, token: &str) -> Result<Session, ConnectError> {
    open(url, token, "").await
}

/// As [`connect`], for a participant that the node still holds.
///
/// # Errors
/// [`ConnectError`].
pub async fn resume(url: &str, token: &str, sid: &str) -> Result<Session, ConnectError> {
    open(
        url,
        token,
        &format!("&reconnect=1&sid={sid}&reconnect_reason=1"),
    )
    .await
}

async fn open(url: &str, token: &str, more: &str) -> Result<Session, ConnectError> {
    let url = format!(
        "{}/rtc?access_token={token}&protocol=15&auto_subscribe=1&sdk=plenum-load&version=0{more}",
        url.trim_end_matches('/')
    );
    let (socket, _) = connect_async(url).await.map_err(|error| match error {
        SocketError::Http(response) => ConnectError::Refused {
            status: response.status().as_u16(),
            text: response
                .body()
                .as_deref()
                .map(|body| String::from_utf8_lossy(body).into_owned())
                .unwrap_or_default(),
        },
        other => ConnectError::Socket(Box::new(other)),
    })?;
    let (mut sink, mut stream) = socket.split();
    let (requests, mut outgoing) = mpsc::channel::<proto::SignalRequest>(QUEUE);
    let (incoming, responses) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                request = outgoing.recv() => {
                    let Some(request) = request else {
                        let _ = sink.close().await;
                        return;
                    };
                    if sink.send(Message::Binary(request.encode_to_vec().into())).await.is_err() {
                        return;
                    }
                }
                message = stream.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        let Ok(response) = proto::SignalResponse::decode(bytes) else { continue };
                        if incoming.send(response).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
    });
    Ok((requests, responses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_by_its_secret_over_its_claims() {
        let token = token("devkey", "secret", "room", "me", 1_700_000_000);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        hmac::verify(&key, signed.as_bytes(), &signature).expect("its signature");
        let claims = URL_SAFE_NO_PAD
            .decode(signed.rsplit_once('.').expect("two parts").1)
            .expect("base64");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims["video"]["room"], "room");
        assert_eq!(claims["iss"], "devkey");
    }
}
