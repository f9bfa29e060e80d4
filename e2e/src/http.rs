// SPDX-License-Identifier: EUPL-1.2
//! As much of HTTP as tests need.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("JSON: {}", self.body))
    }
}

/// Asks with GET.
///
/// # Errors
/// No answer.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    ask(address, "GET", path, None, "").await
}

/// Sends JSON with POST, with a bearer token.
///
/// # Errors
/// No answer.
pub async fn post(address: SocketAddr, path: &str, token: &str, body: &Value) -> Result<Answer> {
    ask(address, "POST", path, Some(token), &body.to_string()).await
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> Result<Answer> {
    let bearer = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{bearer}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    })
    .await
    .with_context(|| format!("{method} {path} at {address} is answered in time"))??;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("a status line: {answer}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut answer = Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body).context("the chunks of an answer")?;
    }
    Ok(answer)
}

/// Puts a body of chunks together; none where it does not end as it should. Counts bytes, so the text must be read from UTF-8 without loss.
fn unchunked(body: &str) -> Option<String> {
    let mut whole = String::new();
    let mut rest = body;
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_one_body() {
        assert_eq!(
            unchunked("4\r\nPlen\r\n3;x=y\r\num!\r\n0\r\n\r\n").as_deref(),
            Some("Plenum!")
        );
        for cut in ["", "4\r\nPlen", "ff\r\nshort\r\n0\r\n\r\n", "x\r\n"] {
            assert_eq!(unchunked(cut), None, "{cut:?}");
        }
    }
}
