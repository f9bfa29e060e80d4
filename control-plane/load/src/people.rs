// SPDX-License-Identifier: EUPL-1.2
//! People: tokens as a tenant's backend signs them, and the shortest honest WebSocket client. Its cost is not what is measured, so it
//! allocates one buffer and speaks no more of RFC 6455 than a session needs.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// SDKs give up when nothing has come after 5 s; the gateway itself says no before that. A machine that is loaded on purpose has longer.
const FIRST: Duration = Duration::from_secs(20);
/// What cannot be done at the moment is tried again, as SDKs do: a room whose place is not known yet waits for one lease period.
const TRIES: u32 = 12;
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A close that is not answered by then is not waited for.
const CLOSE: Duration = Duration::from_secs(2);
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Addresses of the machine that connections come from: each has a range of ports of its own, and a closed connection keeps its port for a
/// minute.
const SOURCES: u32 = 48;

/// Signs tokens of one API key.
pub(crate) struct Backend {
    key: String,
    secret: hmac::Key,
}

impl Backend {
    pub(crate) fn new(key: &str, secret: &[u8]) -> Self {
        Self {
            key: key.to_owned(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// A join token for a person and a room, valid for six hours.
    pub(crate) fn token(&self, room: &str, identity: &str, now_unix_s: i64) -> String {
        let claims = serde_json::json!({
            "iss": self.key, "sub": identity, "name": "Someone", "nbf": now_unix_s - 5, "exp": now_unix_s + 21_600,
            "video": {"roomJoin": true, "room": room, "canPublish": true, "canSubscribe": true},
        });
        let mut token = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#),
            BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
        );
        let signature = hmac::sign(&self.secret, token.as_bytes());
        token.push('.');
        BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
        token
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        Ok(match self {
            Self::Plain(stream) => stream.read_buf(buffer).await?,
            Self::Tls(stream) => stream.read_buf(buffer).await?,
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await?,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }
}

/// How a gateway is reached.
#[derive(Clone)]
pub(crate) struct Gateway {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// With what it is spoken to; `None` = plaintext.
    pub(crate) tls: Option<TlsConnector>,
}

/// An open session.
pub(crate) struct Session {
    wire: Wire,
    buffer: Vec<u8>,
    /// Bytes of that frame.
    pub(crate) first_bytes: usize,
}

/// One frame of the server.
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

const BINARY: u8 = 2;
const CLOSE_FRAME: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

impl Session {
    /// Joins by one gateway after the other until one lets it in; how many times it tried. `number` chooses the first, and the source
    /// address.
    pub(crate) async fn join_patiently(
        gateways: &[Gateway],
        token: &str,
        number: usize,
    ) -> Result<(Self, u32)> {
        let mut tries = 1;
        loop {
            let gateway = &gateways[(number + tries as usize) % gateways.len()];
            match Self::join(gateway, token, number as u32).await {
                Ok(session) => return Ok((session, tries)),
                Err(error) if tries >= TRIES => return Err(error),
                Err(_) => {
                    tries += 1;
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Dials, upgrades with a token and waits for the first frame. `number` chooses the source address.
    async fn join(gateway: &Gateway, token: &str, number: u32) -> Result<Self> {
        timeout(FIRST, Self::begin(gateway, token, number))
            .await
            .context("no first frame within 20 s")?
    }

    async fn begin(gateway: &Gateway, token: &str, number: u32) -> Result<Self> {
        let stream = dial(gateway.address, number).await?;
        let wire = match &gateway.tls {
            None => Wire::Plain(stream),
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                Wire::Tls(Box::new(connector.connect(name, stream).await?))
            }
        };
        let mut session = Self {
            wire,
            buffer: Vec::with_capacity(2_048),
            first_bytes: 0,
        };
        let request = format!(
            "GET /rtc?access_token={token}&auto_subscribe=1&sdk=js&version=2.15.7&protocol=16&adaptive_stream=1&os=linux&browser=firefox \
             HTTP/1.1\r\nHost: {}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0\r\n\
             Origin: https://meet.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            gateway.address
        );
        session.wire.write(request.as_bytes()).await?;
        session.upgraded().await?;
        loop {
            let frame = session.frame().await?;
            match frame.opcode {
                BINARY => {
                    session.first_bytes = frame.payload.len();
                    return Ok(session);
                }
                PING => session.send(PONG, &frame.payload).await?,
                CLOSE_FRAME => bail!("closed before the first frame"),
                _ => {}
            }
        }
    }

    async fn upgraded(&mut self) -> Result<()> {
        let end = loop {
            if let Some(end) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end;
            }
            if self.buffer.len() > HEAD_BYTES_MAX || self.wire.read(&mut self.buffer).await? == 0 {
                bail!("no answer to the upgrade");
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            // What follows the head says why.
            let _ = timeout(Duration::from_millis(200), self.wire.read(&mut self.buffer)).await;
            let why = String::from_utf8_lossy(&self.buffer[end + 4..]).into_owned();
            let status = head.lines().next().unwrap_or_default();
            bail!("{status}: {}", why.trim());
        }
        self.buffer.drain(..end + 4);
        Ok(())
    }

    async fn frame(&mut self) -> Result<Frame> {
        loop {
            if let Some((frame, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                return Ok(frame);
            }
            if self.wire.read(&mut self.buffer).await? == 0 {
                bail!("the connection ended");
            }
        }
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        // A client masks (RFC 6455 §5.3); the key 0 leaves the payload as it is.
        let length = u8::try_from(payload.len().min(125)).unwrap_or(125);
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(&payload[..length.into()]);
        self.wire.write(&frame).await
    }

    /// Answers pings until the server ends the session.
    pub(crate) async fn hold(&mut self) -> Result<()> {
        self.buffer.shrink_to_fit();
        loop {
            let frame = self.frame().await?;
            match frame.opcode {
                PING => self.send(PONG, &frame.payload).await?,
                CLOSE_FRAME => bail!("the server closed the session"),
                _ => {}
            }
        }
    }

    /// Leaves in good order.
    pub(crate) async fn leave(mut self) {
        let code = 1_000_u16.to_be_bytes();
        if self.send(CLOSE_FRAME, &code).await.is_ok() {
            let _ = timeout(CLOSE, async {
                while matches!(self.wire.read(&mut self.buffer).await, Ok(read) if read > 0) {
                    self.buffer.clear();
                }
            })
            .await;
        }
    }
}

async fn dial(address: SocketAddr, number: u32) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = u32::from(Ipv4Addr::new(127, 0, 1, 1)) + number % SOURCES;
    socket.bind(SocketAddrV4::new(Ipv4Addr::from(source), 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The first whole frame of `bytes` and how long it is; servers do not mask.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (start, length): (usize, usize) = match second & 0x7f {
        126 => (
            4,
            u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(),
        ),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            (10, usize::try_from(length).ok()?)
        }
        length => (2, length.into()),
    };
    let payload = bytes.get(start..start.checked_add(length)?)?.to_vec();
    Some((
        Frame {
            opcode: first & 0x0f,
            payload,
        },
        start + length,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_it_is_whole() {
        let mut bytes = vec![0x82, 126, 1, 0];
        bytes.extend([7; 256]);
        bytes.extend([0x89, 0]);
        assert!(parse(&bytes[..100]).is_none());
        let (frame, used) = parse(&bytes).expect("whole");
        assert_eq!(
            (frame.opcode, frame.payload.len(), used),
            (BINARY, 256, 260)
        );
        let (ping, used) = parse(&bytes[used..]).expect("whole");
        assert_eq!((ping.opcode, used), (PING, 2));
    }
}
