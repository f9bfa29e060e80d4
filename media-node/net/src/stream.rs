// SPDX-License-Identifier: EUPL-1.2
//! Socket options of an ICE-TCP connection.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

/// Bytes the kernel keeps for a slow receiver: half a second of 4 Mbit/s. Left to itself it grows to megabytes, and media that old are
/// of no use.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Unacknowledged data older than this end the connection, as lost consent does on UDP (RFC 7675).
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes a stream fit for media: non-blocking, nothing held back, little kept.
///
/// # Errors
/// When the stream is gone already.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
