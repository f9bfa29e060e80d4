// SPDX-License-Identifier: EUPL-1.2
//! At which address others see this node: asked of STUN servers, where the pool names some. The node asks, because only its own way out
//! crosses the translator in question; what comes of it the operator offers, or not.
//!
//! Off unless a server is named. The port is not asked for: a translator that does not keep it cannot be used anyway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Servers that may be named.
pub const SERVERS_MAX: usize = 8;
/// STUN magic cookie (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// First wait for an answer; it doubles with each request.
const WAIT: Duration = Duration::from_millis(500);
/// Requests to one server.
const REQUESTS: u32 = 4;
/// Longest look-up of a name.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How often the address is asked for again.
const AGAIN: Duration = Duration::from_secs(60);
/// How soon while it is not known.
const SOON: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 576;

/// Where others see the node, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenAt {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl SeenAt {
    /// As it is reported.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let v4 = self.v4.map(|ip| ip.to_string());
        v4.into_iter()
            .chain(self.v6.map(|ip| ip.to_string()))
            .collect()
    }
}

/// Why a server did not say it.
#[derive(Debug, thiserror::Error)]
pub enum StunError {
    /// Its name could not be looked up.
    #[error("{server} cannot be looked up: {source}")]
    LookUp {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The look-up took too long.
    #[error("{0} was not looked up in time")]
    LookUpLate(String),
    /// No socket, no way, or nobody there.
    #[error("{server} cannot be asked: {source}")]
    Socket {
        /// The server.
        server: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer to any request.
    #[error("{0} does not answer")]
    Silent(SocketAddr),
    /// It answered with an error.
    #[error("{0} refuses to answer")]
    Refused(SocketAddr),
    /// Its answer names no address.
    #[error("the answer of {0} names no address")]
    NoAddress(SocketAddr),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Random,
}

impl StunError {
    /// CamelCase reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LookUp { .. } => "LookUpFailed",
            Self::LookUpLate(_) => "LookUpLate",
            Self::Socket { .. } => "Unreachable",
            Self::Silent(_) => "Silent",
            Self::Refused(_) => "Refused",
            Self::NoAddress(_) => "NoAddress",
            Self::Random => "NoRandomness",
        }
    }
}

/// Asks again and again, the servers in their order, each family by itself. What is known stays while nobody answers.
pub async fn follow(servers: Vec<String>, seen: watch::Sender<SeenAt>) {
    let mut complained = None;
    loop {
        let before = *seen.borrow();
        let mut now = before;
        let mut failure = None;
        let (mut v4, mut v6) = (false, false);
        for server in &servers {
            let addresses = match look_up(server).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            for is_v4 in [true, false] {
                let done = if is_v4 { &mut v4 } else { &mut v6 };
                let address = addresses.iter().find(|address| address.is_ipv4() == is_v4);
                let Some(address) = address.filter(|_| !*done) else {
                    continue;
                };
                match ask(*address).await {
                    Ok(IpAddr::V4(ip)) if is_v4 => (now.v4, *done) = (Some(ip), true),
                    Ok(IpAddr::V6(ip)) if !is_v4 => (now.v6, *done) = (Some(ip), true),
                    Ok(_) => failure = Some(StunError::NoAddress(*address)),
                    Err(error) => failure = Some(error),
                }
            }
            if v4 && v6 {
                break;
            }
        }
        if now != before {
            tracing::info!(event = "NodeSeenAt", v4 = ?now.v4, v6 = ?now.v6, "a STUN server said where others see this node");
            seen.send_replace(now);
        }
        let found = v4 || v6;
        match failure.filter(|_| !found) {
            Some(error) => {
                // Once per reason.
                let reason = error.reason();
                if complained.replace(reason) != Some(reason) {
                    tracing::warn!(event = "NodeNotSeen", reason, %error, "no STUN server says where others see this node; it is asked again");
                }
            }
            None => complained = None,
        }
        sleep(if found { AGAIN } else { SOON }).await;
    }
}

async fn look_up(server: &str) -> Result<Vec<SocketAddr>, StunError> {
    match timeout(LOOK_UP, lookup_host(server)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(source)) => Err(StunError::LookUp {
            server: server.to_owned(),
            source,
        }),
        Err(_) => Err(StunError::LookUpLate(server.to_owned())),
    }
}

/// Where a server sees this machine. Requests are repeated, and whatever is no answer to one of them is not heard.
///
/// # Errors
/// [`StunError`].
pub async fn ask(server: SocketAddr) -> Result<IpAddr, StunError> {
    let failed = |source| StunError::Socket { server, source };
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = Arc::new(UdpSocket::bind(any).await.map_err(failed)?);
    socket.connect(server).await.map_err(failed)?;
    let mut transaction = [0; 12];
    rand::fill(&mut transaction).map_err(|_| StunError::Random)?;
    let mut request = vec![0x00, 0x01, 0x00, 0x00];
    request.extend_from_slice(&COOKIE);
    request.extend_from_slice(&transaction);
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut refused_by_machine = None;
    for number in 0..REQUESTS {
        if let Err(error) = socket.send(&request).await {
            refused_by_machine = Some(error);
        }
        let until = Instant::now() + WAIT * 2_u32.pow(number);
        while let Ok(received) = timeout_at(until, socket.recv(&mut answer)).await {
            match received {
                Ok(length) => match read(&answer[..length], transaction) {
                    Answer::Address(ip) => return Ok(ip),
                    Answer::Refused => return Err(StunError::Refused(server)),
                    Answer::Nothing => return Err(StunError::NoAddress(server)),
                    Answer::Other => {}
                },
                // Nobody listens there now; the next request may find somebody.
                Err(error) => {
                    refused_by_machine = Some(error);
                    sleep(until.saturating_duration_since(Instant::now())).await;
                }
            }
        }
    }
    Err(match refused_by_machine {
        Some(source) => failed(source),
        None => StunError::Silent(server),
    })
}

enum Answer {
    Address(IpAddr),
    Refused,
    /// An answer without an address.
    Nothing,
    /// No answer to this request.
    Other,
}

fn read(packet: &[u8], transaction: [u8; 12]) -> Answer {
    if packet.get(4..8) != Some(&COOKIE) || packet.get(8..20) != Some(&transaction) {
        return Answer::Other;
    }
    match packet.get(..2) {
        Some([0x01, 0x01]) => {}
        Some([0x01, 0x11]) => return Answer::Refused,
        _ => return Answer::Other,
    }
    let mut plain = None;
    let mut rest = packet.get(20..).unwrap_or_default();
    while let [a, b, c, d, more @ ..] = rest {
        let (kind, length) = (
            u16::from_be_bytes([*a, *b]),
            usize::from(u16::from_be_bytes([*c, *d])),
        );
        let Some(value) = more.get(..length) else {
            break;
        };
        match kind {
            XOR_MAPPED => {
                if let Some(ip) = address(value, Some(transaction)) {
                    return Answer::Address(ip);
                }
            }
            MAPPED => plain = address(value, None),
            _ => {}
        }
        rest = more.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    plain.map_or(Answer::Nothing, Answer::Address)
}

/// `MAPPED-ADDRESS`, of servers that are older than the other one.
const MAPPED: u16 = 0x0001;
const XOR_MAPPED: u16 = 0x0020;

fn address(value: &[u8], transaction: Option<[u8; 12]>) -> Option<IpAddr> {
    let mut mask = [0; 16];
    if let Some(transaction) = transaction {
        mask[..4].copy_from_slice(&COOKIE);
        mask[4..].copy_from_slice(&transaction);
    }
    let (family, bytes) = (value.get(1)?, value.get(4..)?);
    match family {
        1 => {
            let mut ip = <[u8; 4]>::try_from(bytes).ok()?;
            ip.iter_mut()
                .zip(mask)
                .for_each(|(byte, mask)| *byte ^= mask);
            Some(Ipv4Addr::from(ip).into())
        }
        2 => {
            let mut ip = <[u8; 16]>::try_from(bytes).ok()?;
            ip.iter_mut()
                .zip(mask)
                .for_each(|(byte, mask)| *byte ^= mask);
            Some(Ipv6Addr::from(ip).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
