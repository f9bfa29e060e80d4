// SPDX-License-Identifier: EUPL-1.2
//! The socket in the state directory: only its owner gets there, because the directory is theirs alone.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::protocol::{Answer, REQUEST_BYTES_MAX, Request};

/// A request, the way for its answer, and what ends the connection when it is dropped.
pub(crate) struct Call {
    /// What is asked.
    pub(crate) request: Request,
    /// Takes the answer.
    pub(crate) answer: oneshot::Sender<Answer>,
    /// The connection stays open until this is dropped.
    pub(crate) hold: mpsc::Sender<()>,
}

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// Begins to listen. The directory may have been there before, open to others; the socket is not.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves calls for ever.
pub(crate) async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve_one(stream, calls.clone()))),
            // Out of descriptors, for a moment; a busy loop would not help.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_one(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let read = timeout(
        PATIENCE,
        BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line),
    )
    .await;
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    let (hold, mut held) = mpsc::channel(1);
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, wait) = oneshot::channel();
            if calls
                .send(Call {
                    request,
                    answer,
                    hold,
                })
                .await
                .is_err()
            {
                return;
            }
            wait.await.unwrap_or_else(|_| {
                Answer::refused("the system is stopping", "start it again with plenum up")
            })
        }
        Err(error) => Answer::refused(error.to_string(), "use a plenum of the same version"),
    };
    let mut text = serde_json::to_vec(&answer).expect("invariant: answers are plain data");
    text.push(b'\n');
    // The caller may have gone; nothing is lost.
    let _ = write.write_all(&text).await;
    let _ = held.recv().await;
}
