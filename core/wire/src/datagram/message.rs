//! What is inside a sealed datagram, and what the machine tells its owner.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_types::NodeId;
use muster_types::limits::DATAGRAM_BYTES;

use super::frame::SEALED_OVERHEAD;
use super::peer::Peer;
use super::reader::Reader;

/// Kind and number of the request.
const HEADER: usize = 1 + 4;

/// What an answer may have once a session stands.
pub(super) const ROOM: usize = DATAGRAM_BYTES - SEALED_OVERHEAD - HEADER;

/// What a request may have: it must fit into a proof.
pub(super) const REQUEST_ROOM: usize = ROOM - 8 - 2;

/// A datagram that asks for a proof; never longer than what it answers.
pub(super) const PROVE_BYTES: usize = SEALED_OVERHEAD + HEADER + 8;

const REQUEST: u8 = 0;
const ANSWER: u8 = 1;
const PROVE: u8 = 2;
const PROOF: u8 = 3;

/// An own request that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u32);

/// What the owner does with one request of a peer.
#[derive(Debug)]
pub struct Reply {
    pub(super) way: Way,
    pub(super) room: usize,
}

impl Reply {
    /// How long the answer may be.
    pub fn room(&self) -> usize {
        self.room
    }
}

#[derive(Debug)]
pub(super) enum Way {
    /// With the handshake that waits under this index.
    Handshake(u32),
    Session {
        index: u32,
        request: u32,
        at: SocketAddr,
    },
}

/// What comes out of the machine.
#[derive(Debug)]
pub enum Event {
    Send {
        to: SocketAddr,
        datagram: Bytes,
    },
    Request {
        from: Arc<Peer>,
        at: SocketAddr,
        body: Bytes,
        reply: Reply,
    },
    Answer {
        request: RequestId,
        from: Arc<Peer>,
        at: SocketAddr,
        body: Bytes,
    },
    /// The request will not be answered: whoever has this key is not the node that was asked for.
    Stranger {
        request: RequestId,
        actual: Option<NodeId>,
    },
}

/// Why a request cannot go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a request has {actual} bytes; 1 to {REQUEST_ROOM} are possible")]
    Size { actual: usize },
    #[error("{limit} requests wait for their answers already")]
    TooMany { limit: usize },
    #[error("the handshake with {0:?} cannot begin: its key or this node's ticket is not good")]
    Key(NodeId),
}

/// The plaintext of a sealed datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<B> {
    Request {
        number: u32,
        body: B,
    },
    Answer {
        number: u32,
        body: B,
    },
    /// The source is new: the request must come again as [`Message::Proof`], as long as the longest answer.
    Prove {
        number: u32,
        token: u64,
    },
    Proof {
        number: u32,
        token: u64,
        body: B,
    },
}

impl Message<&[u8]> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = |kind: u8, number: &u32| [&[kind][..], &number.to_be_bytes()].concat();
        match self {
            Self::Request { number, body } => [&head(REQUEST, number)[..], body].concat(),
            Self::Answer { number, body } => [&head(ANSWER, number)[..], body].concat(),
            Self::Prove { number, token } => [&head(PROVE, number)[..], &token.to_be_bytes()].concat(),
            Self::Proof { number, token, body } => {
                let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
                let mut bytes = [&head(PROOF, number)[..], &token.to_be_bytes(), &length, body].concat();
                bytes.resize(bytes.len().max(DATAGRAM_BYTES - SEALED_OVERHEAD), 0);
                bytes
            }
        }
    }
}

impl Message<Bytes> {
    pub(super) fn parse(plaintext: Vec<u8>) -> Option<Self> {
        let plaintext = Bytes::from(plaintext);
        let mut reader = Reader::new(&plaintext);
        let (kind, number) = (reader.u8()?, reader.u32()?);
        Some(match kind {
            REQUEST => Self::Request { number, body: plaintext.slice(reader.rest()) },
            ANSWER => Self::Answer { number, body: plaintext.slice(reader.rest()) },
            PROVE => Self::Prove { number, token: reader.u64()? },
            PROOF => Self::Proof { number, token: reader.u64()?, body: plaintext.slice(reader.counted()?) },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_a_proof_is_as_long_as_any_answer() {
        let request = Message::Request { number: 7, body: &b"body"[..] }.encode();
        let body = Bytes::from_static(b"body");
        assert_eq!(Message::parse(request), Some(Message::Request { number: 7, body: body.clone() }));
        let proof = Message::Proof { number: 7, token: 9, body: &b"body"[..] }.encode();
        assert_eq!(proof.len() + SEALED_OVERHEAD, DATAGRAM_BYTES);
        assert_eq!(Message::parse(proof), Some(Message::Proof { number: 7, token: 9, body }));
        let prove = Message::Prove { number: 7, token: 9 }.encode();
        assert_eq!(Message::parse(prove), Some(Message::Prove { number: 7, token: 9 }));
    }

    #[test]
    fn what_is_cut_short_or_of_a_later_version_is_refused() {
        for bytes in [&b""[..], b"\0\0\0\0", b"\x02\0\0\0\0\0", b"\x09\0\0\0\0"] {
            assert_eq!(Message::parse(bytes.to_vec()), None, "{bytes:?}");
        }
    }
}
