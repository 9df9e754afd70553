//! What a program writes, as numbered chunks: its head live, of what follows only the tail, at the end.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use muster_proto::task::v1::OutputStream;
use muster_types::limits::{OUTPUT_CHUNK_BYTES, OUTPUT_KEPT_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::tasks::reporter::Reporter;

/// Output is gathered for so long, so that a program that writes byte by byte does not make a report of each.
/// The first bytes after a pause go out at once.
const GATHERING: Duration = Duration::from_millis(100);

const HEAD: u64 = (OUTPUT_KEPT_BYTES / 2) as u64;
const TAIL: usize = OUTPUT_KEPT_BYTES / 2;

/// One stream of one program.
pub(super) struct Capture<R> {
    stream: OutputStream,
    reader: Option<R>,
    buffer: BytesMut,
    /// Position of the first byte in `gathered`.
    offset: u64,
    gathered: BytesMut,
    sent_at: Instant,
    tail: VecDeque<u8>,
    total: u64,
}

/// How much there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) truncated: bool,
}

impl<R: AsyncRead + Unpin> Capture<R> {
    pub(super) fn new(stream: OutputStream, reader: Option<R>) -> Self {
        Self {
            stream,
            reader,
            buffer: BytesMut::with_capacity(OUTPUT_CHUNK_BYTES),
            offset: 0,
            gathered: BytesMut::new(),
            sent_at: Instant::now() - GATHERING,
            tail: VecDeque::new(),
            total: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// Waits for bytes, and takes them in. To be dropped at any moment.
    pub(super) async fn read(&mut self) {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        match reader.read_buf(&mut self.buffer).await {
            Ok(0) => self.reader = None,
            Ok(_) => self.take_in(),
            Err(error) => {
                tracing::debug!(%error, "a program's output ended with an error");
                self.reader = None;
            }
        }
    }

    fn take_in(&mut self) {
        let mut bytes = self.buffer.split();
        let head = usize::try_from(HEAD.saturating_sub(self.total)).unwrap_or(usize::MAX).min(bytes.len());
        self.total += bytes.len() as u64;
        self.gathered.extend_from_slice(&bytes.split_to(head));
        self.tail.extend(bytes.iter());
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.buffer.reserve(OUTPUT_CHUNK_BYTES);
    }

    /// When what was gathered should go out, in the past if it should have; `None` if there is nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.gathered.len() {
            0 => None,
            OUTPUT_CHUNK_BYTES.. => Some(self.sent_at),
            _ => Some(self.sent_at + GATHERING),
        }
    }

    /// Sends what was gathered.
    pub(super) async fn flush(&mut self, reporter: &mut Reporter) {
        while !self.gathered.is_empty() {
            let chunk = self.gathered.split_to(self.gathered.len().min(OUTPUT_CHUNK_BYTES)).freeze();
            self.send(chunk, reporter).await;
        }
        self.sent_at = Instant::now();
    }

    /// Sends the rest, tail and all.
    pub(super) async fn finish(mut self, reporter: &mut Reporter) -> Amount {
        self.flush(reporter).await;
        self.offset = self.total - self.tail.len() as u64;
        let tail = Bytes::from(Vec::from(std::mem::take(&mut self.tail)));
        for chunk in tail.chunks(OUTPUT_CHUNK_BYTES) {
            self.send(tail.slice_ref(chunk), reporter).await;
        }
        Amount { bytes: self.total, truncated: self.total > OUTPUT_KEPT_BYTES as u64 }
    }

    async fn send(&mut self, chunk: Bytes, reporter: &mut Reporter) {
        let offset = self.offset;
        self.offset += chunk.len() as u64;
        reporter.output(self.stream, offset, chunk).await;
    }
}
