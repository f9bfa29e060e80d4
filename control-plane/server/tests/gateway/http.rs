// SPDX-License-Identifier: EUPL-1.2
//! A client of a few lines, so that tests see the bytes that the server sends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Generous: a test that waits longer has found a hang.
pub(crate) const LIVE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// A request under way.
pub(crate) struct Request<'a> {
    pub(crate) to: SocketAddr,
    /// Address the client comes from: all of 127/8 is this machine.
    pub(crate) from: Ipv4Addr,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(to: SocketAddr, method: &'a str, path: &'a str) -> Self {
        Self {
            to,
            from: Ipv4Addr::LOCALHOST,
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn from(mut self, last: u8) -> Self {
        self.from = Ipv4Addr::new(127, 0, 0, last);
        self
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("Content-Type", "application/json")
    }

    pub(crate) fn body(mut self, kind: &str, body: Vec<u8>) -> Self {
        self.body = body;
        self.header("Content-Type", kind)
    }

    /// Sends it; the stream behind the answer's head.
    pub(crate) async fn open(self) -> Stream {
        timeout(LIVE, async {
            let socket = TcpSocket::new_v4().expect("socket");
            socket.bind(SocketAddr::from((self.from, 0))).expect("bind");
            let mut stream = socket.connect(self.to).await.expect("connect");
            let mut head = format!(
                "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
                self.method, self.path, self.to
            );
            for (name, value) in &self.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            if !self.body.is_empty() || self.method == "POST" {
                head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await.expect("write");
            // A server that refuses early may close before it has read everything.
            let _ = stream.write_all(&self.body).await;
            Stream::read_head(stream).await
        })
        .await
        .expect("an answer")
    }

    pub(crate) async fn send(self) -> Answer {
        let mut stream = self.open().await;
        let mut body = Vec::new();
        timeout(LIVE, async {
            while let Some(chunk) = stream.chunk().await {
                body.extend(chunk)
            }
        })
        .await
        .expect("a body");
        Answer {
            status: stream.status,
            headers: stream.headers,
            body,
        }
    }
}

/// An answer whose body is still coming.
pub(crate) struct Stream {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    chunked: bool,
    text: String,
}

impl Stream {
    async fn read_head(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("status line");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("status line {line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).await.expect("header");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let chunked = headers
            .iter()
            .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        Self {
            status,
            headers,
            reader,
            chunked,
            text: String::new(),
        }
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        if !self.chunked {
            let mut rest = Vec::new();
            self.reader.read_to_end(&mut rest).await.expect("body");
            return (!rest.is_empty()).then_some(rest);
        }
        let mut line = String::new();
        self.reader.read_line(&mut line).await.expect("chunk size");
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or_default();
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The next server-sent event: name and data.
    pub(crate) async fn event(&mut self) -> Option<(String, serde_json::Value)> {
        timeout(LIVE, async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let block: String = self.text.drain(..end + 2).collect();
                    let field = |name: &str| {
                        block
                            .lines()
                            .find_map(|line| line.strip_prefix(name))
                            .map(str::trim)
                    };
                    if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                        return Some((name.to_owned(), serde_json::from_str(data).expect("JSON")));
                    }
                    continue;
                }
                let chunk = self.chunk().await?;
                self.text
                    .push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        })
        .await
        .expect("an event")
    }

    /// The next event, which has this name.
    pub(crate) async fn expect(&mut self, name: &str) -> serde_json::Value {
        let (got, data) = self
            .event()
            .await
            .unwrap_or_else(|| panic!("the stream ended before {name}"));
        assert_eq!(got, name, "{data}");
        data
    }
}
