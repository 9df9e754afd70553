//! Streams within a session: the frames of messages, and further streams for interactive use and bulk, each with
//! a header of four bytes that tells its class and kind, and each obeying its class's rate grant.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use muster_wire::{WireError, frame};

use crate::class::TrafficClass;
use crate::error::CloseReason;
use crate::pacer::Pacer;
use crate::quic::{RecvStream, SendStream, read_error};
use crate::usage::{Traffic, Usage};

const HEADER_BYTES: usize = 4;

/// What goes to QUIC at once, so that a rate grant is obeyed in small steps.
const CHUNK_BYTES: usize = 16 * 1024;

/// Code of RESET_STREAM and STOP_SENDING for a header that is not understood.
const NOT_UNDERSTOOD: u32 = 1;

/// How a stream introduces itself: class, a reserved zero, and its kind in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    pub class: TrafficClass,
    /// What the two ends' owners agree on: a remote shell, a transfer.
    pub kind: u16,
}

/// Why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("a frame that is refused: {0}")]
    Frame(#[from] WireError),
    #[error("a stream that ended within a frame or header")]
    Truncated,
    #[error("a stream of the unknown traffic class {0}")]
    Class(u8),
    #[error("a stream that was reset")]
    Reset,
    #[error("a session that ended: {0}")]
    Session(CloseReason),
}

impl From<CloseReason> for StreamError {
    fn from(reason: CloseReason) -> Self {
        Self::Session(reason)
    }
}

/// Both directions of one stream.
#[derive(Debug)]
pub struct Stream {
    pub header: StreamHeader,
    pub send: Sender,
    pub recv: Receiver,
}

#[derive(Debug)]
pub struct Sender {
    stream: SendStream,
    class: TrafficClass,
    pacer: Arc<Pacer>,
    usage: Arc<Usage>,
}

#[derive(Debug)]
pub struct Receiver {
    stream: RecvStream,
    class: TrafficClass,
    usage: Arc<Usage>,
}

impl Sender {
    /// Sends all of it, as fast as the class's grant and the peer allow.
    ///
    /// # Errors
    /// The peer stopped the stream, or the session ended.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.pacer.admit(self.class, chunk.len()).await;
            self.stream.write_all(chunk).await.map_err(|_| StreamError::Reset)?;
            self.usage.sent(Traffic::Stream(self.class), chunk.len());
        }
        Ok(())
    }

    /// Nothing more will come.
    pub fn finish(&mut self) {
        // An error says that the stream is closed already, which is what was asked for.
        let _ = self.stream.finish();
    }
}

impl Receiver {
    /// What came, at most `limit` bytes; `None` at the end.
    ///
    /// # Errors
    /// The peer reset the stream, or the session ended.
    pub async fn read(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        let bytes = self.stream.read_chunk(limit).await.map_err(read_error)?;
        if let Some(bytes) = &bytes {
            self.usage.received(Traffic::Stream(self.class), bytes.len());
        }
        Ok(bytes)
    }
}

pub(crate) async fn open(
    header: StreamHeader,
    mut send: SendStream,
    recv: RecvStream,
    pacer: Arc<Pacer>,
    usage: Arc<Usage>,
) -> Result<Stream, StreamError> {
    let [high, low] = header.kind.to_be_bytes();
    send.write_all(&[header.class.number(), 0, high, low]).await.map_err(|_| StreamError::Reset)?;
    Ok(stream(header, send, recv, pacer, usage))
}

pub(crate) async fn accept(
    mut send: SendStream,
    mut recv: RecvStream,
    pacer: Arc<Pacer>,
    usage: Arc<Usage>,
) -> Result<Stream, StreamError> {
    let mut bytes = [0; HEADER_BYTES];
    if !fill(&mut recv, &mut bytes).await? {
        return Err(StreamError::Truncated);
    }
    let [class, _reserved, high, low] = bytes;
    let Some(class) = TrafficClass::from_number(class) else {
        // Errors say that the peer was faster in giving the stream up.
        let _ = send.reset(NOT_UNDERSTOOD.into());
        let _ = recv.stop(NOT_UNDERSTOOD.into());
        return Err(StreamError::Class(class));
    };
    let header = StreamHeader { class, kind: u16::from_be_bytes([high, low]) };
    Ok(stream(header, send, recv, pacer, usage))
}

fn stream(
    header: StreamHeader,
    send: SendStream,
    recv: RecvStream,
    pacer: Arc<Pacer>,
    usage: Arc<Usage>,
) -> Stream {
    let class = header.class;
    // An error says that the stream is closed, and so will the first write.
    let _ = send.set_priority(class.priority());
    Stream {
        header,
        send: Sender { stream: send, class, pacer, usage: Arc::clone(&usage) },
        recv: Receiver { stream: recv, class, usage },
    }
}

/// The next frame; `None` where the peer ended the stream between two. Its length is checked before anything is
/// allocated, and no more is allocated than has come.
pub(crate) async fn read_frame(recv: &mut RecvStream) -> Result<Option<Bytes>, StreamError> {
    let mut header = [0; frame::HEADER_BYTES];
    if !fill(recv, &mut header).await? {
        return Ok(None);
    }
    let length = frame::length(header)?;
    let mut bytes = BytesMut::with_capacity(length.min(CHUNK_BYTES));
    while bytes.len() < length {
        match recv.read_chunk(length - bytes.len()).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Err(StreamError::Truncated),
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(Some(bytes.freeze()))
}

pub(crate) async fn write_frame(send: &mut SendStream, message: &[u8]) -> Result<(), StreamError> {
    let frame = frame::framed(message)?;
    send.write_all(&frame).await.map_err(|_| StreamError::Reset)
}

/// `false`: the stream ended before the first byte.
async fn fill(recv: &mut RecvStream, buffer: &mut [u8]) -> Result<bool, StreamError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match recv.read(&mut buffer[filled..]).await {
            Ok(Some(count)) => filled += count,
            Ok(None) if filled == 0 => return Ok(false),
            Ok(None) => return Err(StreamError::Truncated),
            Err(error) => return Err(read_error(error)),
        }
    }
    Ok(true)
}
