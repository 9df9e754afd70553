//! Whether what is sent arrives: the kernel knows, and ends a connection whose peer has not acknowledged anything for a while.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// This system can be told when to give a connection up.
pub(super) const IS_SEEN: bool = cfg!(target_os = "linux");

/// TCP's own time-out, a quarter of an hour by default (RFC 5482: user time-out).
#[cfg(target_os = "linux")]
pub(super) fn end_after(silence: Duration, stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(silence))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn end_after(_: Duration, _: &TcpStream) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
