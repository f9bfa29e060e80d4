// SPDX-License-Identifier: EUPL-1.2
//! What whoever runs a process asks it over plain HTTP: does it live (`/livez`), may traffic come (`/readyz`), what has it counted
//! (`/metrics`). One small request per connection, few at a time, each within a time limit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at a time; whoever comes then waits in the kernel.
const CONNECTIONS_MAX: usize = 32;
/// Time for one.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after a connection that could not be taken, which is a limit of the system.
const PAUSE: Duration = Duration::from_millis(50);

/// What a process says of itself.
pub trait Source: Send + Sync + 'static {
    /// Does it make progress? Depends on nothing outside the process: a restart must help.
    ///
    /// # Errors
    /// What stands still.
    fn alive(&self) -> Result<(), String>;

    /// May traffic come?
    ///
    /// # Errors
    /// What is missing.
    fn ready(&self) -> Result<(), String>;

    /// Its counters as OpenMetrics text; `None` when they cannot be written.
    fn metrics(&self) -> Option<String>;
}

/// Binds a listener. `[::]` takes IPv4 as well; on a machine without IPv6 it means `0.0.0.0`, so that one configuration fits all.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_missing(&error) => {
            let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            TcpListener::bind(any).await
        }
        bound => bound,
    }
}

/// Is the address family not there?
fn is_missing(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT` of Linux, for which std has no kind.
    const FAMILY: i32 = 97;
    error.raw_os_error() == Some(FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        // An error concerns the one connection, or a limit of the system: the listener goes on.
        let Ok((connection, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(ANSWER, one(connection, &*source)).await {
                tracing::debug!(%error, "a probe broke off");
            }
            drop(place);
        });
    }
}

async fn one(mut connection: TcpStream, source: &dyn Source) -> io::Result<()> {
    let head = read_head(&mut connection).await?;
    connection
        .write_all(answer(&head, source).as_bytes())
        .await?;
    connection.shutdown().await
}

/// Reads up to the empty line after the header fields, or to the bound.
async fn read_head(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if connection.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// The response to a request's head (RFC 9112 §3: method, target, version).
fn answer(head: &[u8], source: &dyn Source) -> String {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let response = |status: &str, kind: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let (Some(b"GET"), Some(target)) = (words.next(), words.next()) else {
        return response("400 Bad Request", PLAIN, "only GET is answered here\n");
    };
    let well = |state: Result<(), String>| match state {
        Ok(()) => response("200 OK", PLAIN, "ok\n"),
        Err(what) => response("503 Service Unavailable", PLAIN, &format!("{what}\n")),
    };
    match target.split(|byte| *byte == b'?').next() {
        Some(b"/livez") => well(source.alive()),
        Some(b"/readyz") => well(source.ready()),
        Some(b"/metrics") => match source.metrics() {
            Some(text) => response(
                "200 OK",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                &text,
            ),
            None => response("500 Internal Server Error", PLAIN, ""),
        },
        _ => response(
            "404 Not Found",
            PLAIN,
            "/livez, /readyz and /metrics are here\n",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Process(bool);

    impl Source for Process {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            self.0.then_some(()).ok_or_else(|| "too early".to_owned())
        }

        fn metrics(&self) -> Option<String> {
            self.0.then(|| "# EOF\n".to_owned())
        }
    }

    #[test]
    fn each_path_has_its_answer_and_nothing_else_is_answered() {
        let status = |head: &str, ready| {
            let answer = answer(head.as_bytes(), &Process(ready));
            answer[9..12].to_owned()
        };
        assert_eq!(
            status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", true),
            "200"
        );
        assert_eq!(status("GET /metrics?x=1 HTTP/1.0\r\n\r\n", true), "200");
        assert_eq!(status("GET /metrics HTTP/1.1\r\n\r\n", false), "500");
        assert_eq!(status("GET /livez HTTP/1.1\r\n\r\n", false), "200");
        assert_eq!(status("GET /readyz HTTP/1.1\r\n\r\n", false), "503");
        assert_eq!(status("GET /readyz HTTP/1.1\r\n\r\n", true), "200");
        assert_eq!(status("GET /metrics/ HTTP/1.1\r\n\r\n", true), "404");
        for head in [
            "POST /metrics HTTP/1.1\r\n\r\n",
            "",
            "GET",
            "\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(status(head, true), "400", "{head:?}");
        }
    }

    #[test]
    fn who_is_not_ready_says_why() {
        let answer = answer(b"GET /readyz HTTP/1.1\r\n\r\n", &Process(false));
        assert!(answer.ends_with("\r\n\r\ntoo early\n"), "{answer}");
    }

    #[tokio::test]
    async fn connections_that_say_nothing_do_not_keep_a_probe_from_its_answer() {
        let listener = bind("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("bound");
        let at = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, Arc::new(Process(true))));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(at).await.expect("connected"));
        }
        let asked = async {
            let mut probe = TcpStream::connect(at).await?;
            probe.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await?;
            let mut text = String::new();
            probe.read_to_string(&mut text).await?;
            io::Result::Ok(text)
        };
        let text = timeout(Duration::from_secs(120), asked)
            .await
            .expect("answered")
            .expect("read");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }

    #[tokio::test]
    async fn all_addresses_means_ipv4_too_whether_or_not_the_machine_has_ipv6() {
        let listener = bind("[::]:0".parse().expect("an address"))
            .await
            .expect("bound");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(serve(listener, Arc::new(Process(true))));
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("connected");
    }
}
