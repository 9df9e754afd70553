//! Noise IK by `snow`: the one place that names it. An opener knows the answerer's key; both bind theirs to a node id
//! by a ticket in the encrypted payload.

use bytes::Bytes;
use muster_proto::trust::v1::Envelope;
use muster_types::{NetworkId, NodeId};
use prost::Message;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, StatelessTransportState};
use x25519_dalek::{PublicKey, StaticSecret};

use super::challenge::{mac, mac1_key, mac2};
use super::flight::OPENING_PAYLOAD;
use super::frame::{self, MAC_BYTES};
use super::peer::{Mark, NoiseKey, mark_of};

use muster_types::limits::DATAGRAM_BYTES;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// Before the network's id: a handshake of one network, or one version, is none of another.
const PROLOGUE: &[u8] = b"muster sealed datagrams v1";

/// This node's own key and ticket.
pub struct Own {
    pub(super) node: NodeId,
    pub(super) public: NoiseKey,
    pub(super) ticket: Bytes,
    pub(super) mark: Mark,
    secret: [u8; 32],
    prologue: Vec<u8>,
    params: Option<NoiseParams>,
}

impl Own {
    /// `secret` is the X25519 key whose public half `ticket` binds to `node`.
    pub fn new(network: NetworkId, node: NodeId, secret: [u8; 32], ticket: &Envelope) -> Self {
        let public = *PublicKey::from(&StaticSecret::from(secret)).as_bytes();
        let ticket = Bytes::from(ticket.encode_to_vec());
        let prologue = [PROLOGUE, network.as_bytes()].concat();
        let (mark, params) = (mark_of(&ticket), PATTERN.parse().ok());
        Self { node, public, mark, ticket, secret, prologue, params }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What others need to open a session with this node.
    pub fn public_key(&self) -> NoiseKey {
        self.public
    }

    fn builder(&self) -> Option<Builder<'_>> {
        Builder::new(self.params.clone()?).prologue(&self.prologue).ok()?.local_private_key(&self.secret).ok()
    }

    /// The whole first datagram to the holder of `to`, and what waits for its reply. `None`: the key is no key.
    pub(super) fn open(
        &self,
        to: &NoiseKey,
        sender: u32,
        payload: &[u8],
    ) -> Option<(HandshakeState, Vec<u8>)> {
        let state = self.builder()?.remote_public_key(to).ok()?.build_initiator().ok()?;
        open_with(state, to, sender, payload)
    }

    /// Reads a first message: the state, the opener's key, its payload.
    pub(super) fn opened(&self, noise: &[u8]) -> Option<(HandshakeState, NoiseKey, Vec<u8>)> {
        let mut state = self.builder()?.build_responder().ok()?;
        let mut payload = vec![0; noise.len()];
        let length = state.read_message(noise, &mut payload).ok()?;
        payload.truncate(length);
        let key = state.get_remote_static()?.try_into().ok()?;
        (length == OPENING_PAYLOAD).then_some((state, key, payload))
    }
}

fn open_with(
    mut state: HandshakeState,
    to: &NoiseKey,
    sender: u32,
    payload: &[u8],
) -> Option<(HandshakeState, Vec<u8>)> {
    let mut datagram = frame::opening_header(sender);
    append(&mut state, payload, &mut datagram)?;
    let mac1 = mac(&mac1_key(to), &datagram);
    datagram.extend(mac1);
    datagram.extend([0; MAC_BYTES]);
    (datagram.len() == DATAGRAM_BYTES).then_some((state, datagram))
}

/// The same opening, with the cookie that its receiver asked for.
pub(super) fn with_cookie(opening: &[u8], cookie: &[u8; MAC_BYTES]) -> Vec<u8> {
    let mut datagram = opening.to_vec();
    let covered = datagram.len().saturating_sub(2 * MAC_BYTES);
    let end = covered + MAC_BYTES;
    let mac2 = mac2(cookie, &datagram[..covered]);
    datagram.truncate(end);
    datagram.extend(mac2);
    datagram
}

/// The whole second datagram, and the keys that both ends have from then on.
pub(super) fn reply(
    mut state: HandshakeState,
    opener: &NoiseKey,
    (sender, receiver): (u32, u32),
    payload: &[u8],
) -> Option<(StatelessTransportState, Vec<u8>)> {
    let mut datagram = frame::reply_header(sender, receiver);
    append(&mut state, payload, &mut datagram)?;
    let mac1 = mac(&mac1_key(opener), &datagram);
    datagram.extend(mac1);
    Some((state.into_stateless_transport_mode().ok()?, datagram))
}

/// Reads a second message. `None`: it does not belong to this handshake, which stays as it was.
pub(super) fn read_reply(state: &mut HandshakeState, noise: &[u8]) -> Option<Vec<u8>> {
    let mut payload = vec![0; noise.len()];
    let length = state.read_message(noise, &mut payload).ok()?;
    payload.truncate(length);
    Some(payload)
}

pub(super) fn finish(state: HandshakeState) -> Option<StatelessTransportState> {
    state.into_stateless_transport_mode().ok()
}

fn append(state: &mut HandshakeState, payload: &[u8], datagram: &mut Vec<u8>) -> Option<()> {
    let header = datagram.len();
    datagram.resize(DATAGRAM_BYTES + header, 0);
    let length = state.write_message(payload, &mut datagram[header..]).ok()?;
    datagram.truncate(header + length);
    Some(())
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Own({:?})", self.node)
    }
}
