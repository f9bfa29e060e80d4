// SPDX-License-Identifier: EUPL-1.2
//! Tells when the store cannot be reached. Nobody waits for it: replicas serve without it, and say in their logs what they
//! miss.

use std::time::Duration;

use tokio::{net::TcpStream, sync::mpsc, time::sleep, time::timeout};

/// How often it is dialled.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Port of Redis where a URL names none.
const PORT: u16 = 6379;

/// Something to tell about the store.
#[derive(Debug)]
pub(crate) enum StoreNews {
    /// It cannot be reached, for this reason.
    Away(String),
    /// It can be reached again.
    Back,
}

/// Dials the servers of a URL for ever and tells of changes; at first only of a failure.
pub(crate) async fn watch(url: String, news: mpsc::Sender<StoreNews>) {
    let servers = servers(&url);
    let mut away = false;
    while !servers.is_empty() && !news.is_closed() {
        let why = reach(&servers).await.err();
        let changed = match why {
            Some(why) if !away => Some(StoreNews::Away(why)),
            None if away => Some(StoreNews::Back),
            _ => None,
        };
        if let Some(changed) = changed {
            away = !away;
            // The machine may be stopping.
            let _ = news.send(changed).await;
        }
        sleep(PERIOD).await;
    }
}

/// One server that answers is enough.
async fn reach(servers: &[String]) -> Result<(), String> {
    let mut why = String::new();
    for server in servers {
        why = match timeout(CONNECT, TcpStream::connect(server)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => format!("{server}: {error}"),
            Err(_) => format!("{server}: no answer"),
        };
    }
    Err(why)
}

/// `host:port` of each server that a URL names, without the user and the password.
fn servers(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    let one = |host: &str| {
        let bare = host.rsplit(']').next().unwrap_or(host);
        if bare.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:{PORT}")
        }
    };
    hosts
        .split(',')
        .filter(|host| !host.is_empty())
        .map(one)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_without_what_is_secret() {
        assert_eq!(servers("redis://127.0.0.1:7001"), ["127.0.0.1:7001"]);
        assert_eq!(
            servers("rediss://user:pa@ss@store.example/0"),
            ["store.example:6379"]
        );
        assert_eq!(servers("redis://[::1]/"), ["[::1]:6379"]);
        assert_eq!(servers("redis://[::1]:7/"), ["[::1]:7"]);
        assert_eq!(servers("redis+sentinel://:p@a:1,b/main"), ["a:1", "b:6379"]);
        assert!(servers("redis://").is_empty());
    }
}
