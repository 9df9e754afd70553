//! One session: the keys of both directions, the counter of what was sent, the window of what came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::Instant;
use snow::StatelessTransportState;

use super::frame::{self, TAG_BYTES};
use super::peer::Peer;
use super::replay::Replay;

/// From this age on the next request begins a new session.
const REKEY_AFTER: Duration = Duration::from_secs(3600);

/// How long an old session still takes what is on its way.
const GRACE: Duration = Duration::from_secs(60);

pub(super) struct Session {
    pub(super) peer: Arc<Peer>,
    /// The peer's index, into which we send.
    pub(super) remote: u32,
    pub(super) used: Instant,
    /// Where the peer has shown that it receives.
    pub(super) proven: Option<SocketAddr>,
    /// Where the reply of the handshake went: what comes from there after it proves that it arrived.
    pub(super) replied_to: Option<SocketAddr>,
    /// A request went unanswered: the peer may have forgotten this session.
    pub(super) doubtful: bool,
    transport: StatelessTransportState,
    sent: u64,
    replay: Replay,
    opened: Instant,
    ends: Instant,
}

impl Session {
    /// `ticket_left`: for how long the peer's ticket is good.
    pub(super) fn new(
        transport: StatelessTransportState,
        peer: Arc<Peer>,
        remote: u32,
        now: Instant,
        ticket_left: Duration,
    ) -> Self {
        let ends = now + ticket_left.min(REKEY_AFTER + GRACE);
        let (used, opened, replay) = (now, now, Replay::default());
        let (proven, replied_to) = (None, None);
        Self {
            peer,
            remote,
            used,
            proven,
            replied_to,
            doubtful: false,
            transport,
            sent: 0,
            replay,
            opened,
            ends,
        }
    }

    /// Whether new requests may go by it.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        !self.doubtful && now < self.ends && now.since(self.opened) < REKEY_AFTER
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    /// Whether this counter was ever sent.
    pub(super) fn has_sent(&self, counter: u64) -> bool {
        counter < self.sent
    }

    pub(super) fn seal(&mut self, plaintext: &[u8], now: Instant) -> Option<Bytes> {
        let counter = self.sent;
        self.sent += 1;
        self.used = now;
        let header = frame::sealed_header(self.remote, counter);
        let mut datagram = vec![0; header.len() + plaintext.len() + TAG_BYTES];
        datagram[..header.len()].copy_from_slice(&header);
        let length = self.transport.write_message(counter, plaintext, &mut datagram[header.len()..]).ok()?;
        datagram.truncate(header.len() + length);
        Some(datagram.into())
    }

    /// `None`: forged, or seen before.
    pub(super) fn open(&mut self, counter: u64, ciphertext: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut plaintext = vec![0; ciphertext.len()];
        let length = self.transport.read_message(counter, ciphertext, &mut plaintext).ok()?;
        if !self.replay.take(counter) {
            return None;
        }
        self.used = now;
        plaintext.truncate(length);
        Some(plaintext)
    }

    /// Notes where an authentic datagram came from.
    pub(super) fn came_from(&mut self, from: SocketAddr) {
        if self.replied_to == Some(from) {
            self.proven = self.replied_to.take();
        }
    }
}
