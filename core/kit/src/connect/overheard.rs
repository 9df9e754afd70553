//! What a server said that should have spoken TLS and did not: a master that is full says so before the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Kept of an answer that is no TLS: a status line and the headers that matter.
const KEPT_BYTES: usize = 256;
/// The types of TLS records (RFC 8446, section 5.1).
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 20..=23;
/// Nobody has proved that it may send us away, so it may not for longer than the master itself would.
const BELIEVED: Duration = crate::admission::LONGEST;

/// A connection, and the beginning of what came over it if that was no TLS.
#[derive(Debug)]
pub(crate) struct Overheard {
    stream: TcpStream,
    /// Came before the first read.
    early: Bytes,
    head: Vec<u8>,
    is_tls: bool,
}

impl Overheard {
    pub(super) fn new(stream: TcpStream, early: Bytes) -> Self {
        Self { stream, early, head: Vec::new(), is_tls: false }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How long the server asked us to stay away, if that is what it said.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let head = std::str::from_utf8(&self.head).ok()?;
        let mut lines = head.strip_prefix("HTTP/1.1 503 ")?.split("\r\n");
        let seconds = lines.find_map(|line| line.strip_prefix("Retry-After: "))?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(BELIEVED))
    }

    fn overhear(&mut self, came: &[u8]) {
        if self.head.is_empty() && came.first().is_some_and(|first| TLS_RECORDS.contains(first)) {
            self.is_tls = true;
        }
        if !self.is_tls {
            let room = KEPT_BYTES - self.head.len();
            self.head.extend_from_slice(&came[..came.len().min(room)]);
        }
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = if self.early.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        } else {
            let count = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..count]);
            self.early.advance(count);
            Poll::Ready(Ok(()))
        };
        if !self.is_tls {
            self.overhear(&buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
