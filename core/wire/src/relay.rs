//! How a relay's packets look in UDP, and the tickets that it takes.
//!
//! Bind (mark, token, counter, proof) and its answer (mark, counter) tie an address to a session. Who does not prove yet
//! that it hears at that address is told the proof there (mark, proof), and binds again. Data is mark, channel, packet. A
//! packet keeps its length on its way through a relay, so that whole bursts pass at once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use muster_overlay::relay::Channel;
use muster_proto::payload_type::RELAY_TICKET;
use muster_proto::trust::v1::{self, Envelope};
use muster_types::{NodeId, Timestamp};
use prost::Message;
use ring::hmac;

use crate::envelope::EnvelopeError;
use crate::ticket::TicketError;
use crate::trust::TrustStore;

/// First bytes of a relay's datagrams; 0x80 to 0xBF are ours on a shared socket.
pub const BIND: u8 = 0xb0;
pub const BOUND: u8 = 0xb1;
pub const DATA: u8 = 0xb2;
pub const PROVE: u8 = 0xb3;

/// Mark and channel.
pub const HEADER: usize = 3;

/// What a packet may be: an Ethernet frame's less the headers of IP and UDP.
pub const PACKET_BYTES: usize = 1_472;

/// The longest that a ticket may be valid.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(600);

const TOKEN_BYTES: usize = 16;

/// Names a session in bind datagrams; drawn by the relay, told over TLS.
pub type UdpToken = [u8; TOKEN_BYTES];

/// Shows that whoever binds an address hears there, as RFC 9000's tokens do (section 8.1). Zeros: not known yet.
pub type AddressProof = [u8; 8];

/// A relay's datagram, told apart by its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    Bind { token: UdpToken, counter: u64, proof: AddressProof },
    Bound { counter: u64 },
    Prove { proof: AddressProof },
    Data(Channel),
}

/// Makes the proofs of one relay, and keeps none: each is a code over session and address.
pub struct AddressProver(hmac::Key);

impl AddressProver {
    /// `key`: drawn at the relay's start.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    pub fn proof(&self, token: &UdpToken, address: SocketAddr) -> AddressProof {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(token);
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&address.port().to_be_bytes());
        let mut proof = AddressProof::default();
        proof.copy_from_slice(&context.sign().as_ref()[..size_of::<AddressProof>()]);
        proof
    }
}

/// Reads a datagram's head. `None`: it is no relay's.
pub fn decode(bytes: &[u8]) -> Option<Datagram> {
    let (mark, rest) = bytes.split_first()?;
    match *mark {
        BIND => {
            let (token, rest) = rest.split_first_chunk::<TOKEN_BYTES>()?;
            let (counter, proof) = rest.split_first_chunk::<8>()?;
            let counter = u64::from_be_bytes(*counter);
            Some(Datagram::Bind { token: *token, counter, proof: proof.try_into().ok()? })
        }
        BOUND => Some(Datagram::Bound { counter: u64::from_be_bytes(rest.try_into().ok()?) }),
        PROVE => Some(Datagram::Prove { proof: rest.try_into().ok()? }),
        DATA => {
            let (channel, _) = rest.split_first_chunk::<2>()?;
            Some(Datagram::Data(Channel(u16::from_be_bytes(*channel))))
        }
        _ => None,
    }
}

pub fn bind(token: &UdpToken, counter: u64, proof: &AddressProof) -> Bytes {
    [&[BIND], &token[..], &counter.to_be_bytes(), proof].concat().into()
}

/// Shorter than what it answers: a forged sender's address amplifies nothing.
pub fn bound(counter: u64) -> [u8; 9] {
    let mut datagram = [BOUND; 9];
    datagram[1..].copy_from_slice(&counter.to_be_bytes());
    datagram
}

/// Shorter than what it answers, too.
pub fn prove(proof: &AddressProof) -> [u8; 9] {
    let mut datagram = [PROVE; 9];
    datagram[1..].copy_from_slice(proof);
    datagram
}

/// The head of a data datagram.
pub fn header(Channel(channel): Channel) -> [u8; HEADER] {
    let [high, low] = channel.to_be_bytes();
    [DATA, high, low]
}

/// One node's right to send through one relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTicket {
    pub node: NodeId,
    pub certificate_serial: Bytes,
    /// `None`: any node of the network.
    pub peer: Option<NodeId>,
    pub relay: String,
    pub bytes_per_second: u64,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// Why a ticket opens no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayTicketError {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the ticket is another node's or another certificate's")]
    NotYours,
    #[error("the ticket is for relay {0:?}")]
    OtherRelay(String),
    #[error("the ticket is for another peer")]
    OtherPeer,
    #[error("the ticket is valid for longer than {TICKET_LIFETIME:?}")]
    TooLong,
}

/// Whoever shows a ticket: the node and certificate that TLS has proved, at this relay, asking for this peer.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    pub node: NodeId,
    pub certificate_serial: &'a [u8],
    pub relay: &'a str,
    pub peer: NodeId,
}

impl RelayTicket {
    /// Opens a ticket and checks that it is meant for this very session, relay and peer.
    ///
    /// # Errors
    /// Not signed by a signer, malformed, not valid at `now`, or somebody else's.
    pub fn open(
        sealed: &Envelope,
        bearer: &Bearer<'_>,
        trust: &TrustStore,
        now: Timestamp,
    ) -> Result<Self, RelayTicketError> {
        let ticket = Self::parse(&trust.open(sealed, RELAY_TICKET).map_err(TicketError::from)?)?;
        if ticket.node != bearer.node || ticket.certificate_serial != bearer.certificate_serial {
            return Err(RelayTicketError::NotYours);
        }
        if ticket.relay != bearer.relay {
            return Err(RelayTicketError::OtherRelay(ticket.relay));
        }
        if ticket.peer.is_some_and(|peer| peer != bearer.peer) {
            return Err(RelayTicketError::OtherPeer);
        }
        if ticket.expires.since(ticket.issued) > TICKET_LIFETIME {
            return Err(RelayTicketError::TooLong);
        }
        if now > ticket.expires {
            let Self { node, issued: not_before, expires: not_after, .. } = ticket;
            return Err(TicketError::NotNow { node, not_before, not_after }.into());
        }
        Ok(ticket)
    }

    fn parse(payload: &[u8]) -> Result<Self, TicketError> {
        let wire = v1::RelayTicket::decode(payload)
            .map_err(|error| EnvelopeError::Payload("relay ticket", error.to_string()))?;
        let node = |bytes: &[u8], field| NodeId::try_from(bytes).map_err(|_| TicketError::Field(field));
        let date =
            |wire: Option<_>, field| wire.and_then(crate::time::from_wire).ok_or(TicketError::Field(field));
        Ok(Self {
            node: node(&wire.node_id, "node_id")?,
            peer: (!wire.peer_id.is_empty()).then(|| node(&wire.peer_id, "peer_id")).transpose()?,
            certificate_serial: wire.certificate_serial,
            relay: wire.relay,
            bytes_per_second: wire.bytes_per_second,
            issued: date(wire.issue_time, "issue_time")?,
            expires: date(wire.expire_time, "expire_time")?,
        })
    }

    /// What auth is asked to sign.
    pub fn to_payload(&self) -> Bytes {
        let wire = v1::RelayTicket {
            node_id: Bytes::copy_from_slice(self.node.as_bytes()),
            certificate_serial: self.certificate_serial.clone(),
            peer_id: self.peer.map_or_else(Bytes::new, |peer| Bytes::copy_from_slice(peer.as_bytes())),
            relay: self.relay.clone(),
            bytes_per_second: self.bytes_per_second,
            issue_time: Some(crate::time::to_wire(self.issued)),
            expire_time: Some(crate::time::to_wire(self.expires)),
        };
        wire.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, TestNetwork};

    const NODE: NodeId = NodeId([1; 20]);
    const PEER: NodeId = NodeId([2; 20]);

    fn ticket() -> RelayTicket {
        RelayTicket {
            node: NODE,
            certificate_serial: Bytes::from_static(b"serial"),
            peer: Some(PEER),
            relay: "relay-1".to_owned(),
            bytes_per_second: 10_000,
            issued: NOW,
            expires: NOW + TICKET_LIFETIME,
        }
    }

    fn bearer() -> Bearer<'static> {
        Bearer { node: NODE, certificate_serial: b"serial", relay: "relay-1", peer: PEER }
    }

    fn show(ticket: &RelayTicket, bearer: &Bearer<'_>, now: Timestamp) -> Result<(), RelayTicketError> {
        let network = TestNetwork::new();
        let sealed = network.sign(RELAY_TICKET, ticket.to_payload());
        RelayTicket::open(&sealed, bearer, &network.trust(), now).map(|opened| assert_eq!(opened, *ticket))
    }

    #[test]
    fn a_ticket_is_good_for_its_node_certificate_relay_and_peer_and_for_nothing_else() {
        assert_eq!(show(&ticket(), &bearer(), NOW), Ok(()));
        assert_eq!(show(&RelayTicket { peer: None, ..ticket() }, &bearer(), NOW), Ok(()));
        let others = [
            (Bearer { node: PEER, ..bearer() }, RelayTicketError::NotYours),
            (Bearer { certificate_serial: b"other", ..bearer() }, RelayTicketError::NotYours),
            (Bearer { relay: "relay-2", ..bearer() }, RelayTicketError::OtherRelay("relay-1".to_owned())),
            (Bearer { peer: NodeId([3; 20]), ..bearer() }, RelayTicketError::OtherPeer),
        ];
        for (other, error) in others {
            assert_eq!(show(&ticket(), &other, NOW), Err(error));
        }
    }

    #[test]
    fn a_ticket_ends_and_none_lasts_longer_than_ten_minutes() {
        let late = NOW + TICKET_LIFETIME + Duration::from_secs(1);
        assert!(matches!(show(&ticket(), &bearer(), late), Err(RelayTicketError::Ticket(_))));
        let long = RelayTicket { expires: late, ..ticket() };
        assert_eq!(show(&long, &bearer(), NOW), Err(RelayTicketError::TooLong));
    }

    #[test]
    fn a_stranger_signs_no_ticket() {
        let sealed = TestNetwork::new().sign(RELAY_TICKET, ticket().to_payload());
        let opened = RelayTicket::open(&sealed, &bearer(), &TestNetwork::new().trust(), NOW);
        assert!(matches!(opened, Err(RelayTicketError::Ticket(TicketError::Envelope(_)))));
    }

    #[test]
    fn datagrams_are_what_they_were_and_an_answer_is_never_longer() {
        let token = [7; TOKEN_BYTES];
        let datagram = bind(&token, 9, &[3; 8]);
        assert_eq!(decode(&datagram), Some(Datagram::Bind { token, counter: 9, proof: [3; 8] }));
        assert_eq!(decode(&bound(9)), Some(Datagram::Bound { counter: 9 }));
        assert_eq!(decode(&prove(&[3; 8])), Some(Datagram::Prove { proof: [3; 8] }));
        assert!(bound(9).len() < datagram.len() && prove(&[3; 8]).len() < datagram.len());
        assert_eq!(decode(&header(Channel(258))), Some(Datagram::Data(Channel(258))));
        for end in 0..datagram.len() {
            assert_eq!(decode(&datagram[..end]), None);
        }
        assert_eq!(decode(&[0x80, 0, 0]), None);
    }

    #[test]
    fn an_address_is_proven_for_one_session_at_one_relay_in_either_notation() {
        let prover = AddressProver::new(&[1; 32]);
        let proof = |token, address: &str| prover.proof(&[token; TOKEN_BYTES], address.parse().unwrap());
        let proven = proof(7, "192.0.2.1:9");
        assert_eq!(proof(7, "[::ffff:192.0.2.1]:9"), proven);
        for other in [proof(8, "192.0.2.1:9"), proof(7, "192.0.2.1:10"), proof(7, "192.0.2.2:9")] {
            assert_ne!(other, proven);
        }
        let elsewhere = AddressProver::new(&[2; 32]);
        assert_ne!(elsewhere.proof(&[7; TOKEN_BYTES], "192.0.2.1:9".parse().unwrap()), proven);
    }
}
