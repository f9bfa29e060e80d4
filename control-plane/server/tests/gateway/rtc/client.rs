// SPDX-License-Identifier: EUPL-1.2
//! A client of `/rtc`.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use livekit_protocol::SignalResponse;
pub(crate) use livekit_protocol::signal_response::Message as Signal;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::http::LIVE;

/// A signalling connection.
pub(crate) struct Client(WebSocketStream<TcpStream>);

/// A no before the upgrade.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) retry_after: Option<String>,
}

pub(crate) async fn connect(to: SocketAddr, query: &str) -> Result<Client, Refused> {
    connect_with(to, &format!("/rtc?{query}"), None).await
}

pub(crate) async fn connect_with(
    to: SocketAddr,
    path: &str,
    bearer: Option<&str>,
) -> Result<Client, Refused> {
    let stream = TcpStream::connect(to).await.expect("connect");
    let mut request = format!("ws://{to}{path}")
        .into_client_request()
        .expect("request");
    if let Some(token) = bearer {
        request.headers_mut().insert(
            "Authorization",
            format!("Bearer {token}").parse().expect("header"),
        );
    }
    match timeout(LIVE, client_async(request, stream))
        .await
        .expect("an answer")
    {
        Ok((socket, _)) => Ok(Client(socket)),
        Err(WsError::Http(response)) => Err(Refused {
            status: response.status().as_u16(),
            text: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default())
                .trim()
                .to_owned(),
            retry_after: response
                .headers()
                .get("retry-after")
                .map(|value| value.to_str().expect("text").to_owned()),
        }),
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let message = timeout(LIVE, self.0.next())
                .await
                .expect("a message")
                .expect("an open socket")
                .expect("a whole message");
            if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                return message;
            }
        }
    }

    pub(crate) async fn signal(&mut self) -> Signal {
        let response = match self.next().await {
            Message::Binary(bytes) => SignalResponse::decode(bytes).expect("protobuf"),
            Message::Text(text) => serde_json::from_str(text.as_str()).expect("protojson"),
            other => panic!("{other:?}"),
        };
        response.message.expect("a message")
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.expect("sent");
    }

    pub(crate) async fn close(&mut self) {
        self.0.close(None).await.expect("closed");
    }
}
