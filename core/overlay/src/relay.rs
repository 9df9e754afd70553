//! The table of a relay: who sits here, who may send to whom, and how much. The relay service and the nodes that
//! relay run the same one.
//!
//! ticket, verified outside -> [`Relay::open`] -> a channel at either end -> [`Relay::carry`] for every packet.
//! A relay never dials: a packet goes only to a seat, and only through a channel that a ticket opened.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, NodeId};

mod pace;
mod pair;
mod seats;

use pace::Pace;
use pair::{Pair, PairId, Pairs};
use seats::Seats;

pub use seats::Seat;

/// What a relay gives at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes at once.
    pub seats: usize,
    /// Peers of one node at once, whoever opened the channels.
    pub channels: u16,
    /// Payload of all pairs together.
    pub bytes_per_second: u64,
}

/// What one ticket allows between its holder and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Payload in both directions together.
    pub bytes_per_second: u64,
    pub until: Instant,
}

/// A peer's number at one seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u16);

/// One end of a pair, as the shell knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub seat: Seat,
    pub channel: Channel,
}

/// Both ends of a pair are here; each is told of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meeting {
    pub end: End,
    /// Who is behind `end`'s channel.
    pub peer: NodeId,
}

/// Why somebody gets no seat or no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the relay has {0} clients, and takes no more")]
    Full(usize),
    #[error("{node:?} has {limit} peers here, and gets no more")]
    TooManyPeers { node: NodeId, limit: u16 },
    #[error("a node needs no relay to itself")]
    Oneself,
    #[error("the ticket has run out")]
    Expired,
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// No ticket opened that channel, or it has run out.
    NoChannel,
    /// The peer is not here.
    Away,
    /// The pair sends more than its ticket allows.
    PairQuota,
    /// All pairs together send more than the relay gives.
    TotalQuota,
}

impl Loss {
    pub const ALL: [Self; 4] = [Self::NoChannel, Self::Away, Self::PairQuota, Self::TotalQuota];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoChannel => "no_channel",
            Self::Away => "away",
            Self::PairQuota => "pair_quota",
            Self::TotalQuota => "total_quota",
        }
    }
}

/// The machine. One call, one decision; it keeps no packet.
#[derive(Debug)]
pub struct Relay {
    limits: Limits,
    seats: Seats,
    pairs: Pairs,
    total: Pace,
}

impl Relay {
    pub fn new(limits: Limits) -> Self {
        Self { limits, seats: Seats::default(), pairs: Pairs::default(), total: Pace::default() }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Nodes that sit here.
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// Pairs that may talk.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Gives a node a seat. One that still has one, from a connection that it lost, must [`leave`](Self::leave)
    /// that first: see [`seat_of`](Self::seat_of). Pairs that waited for it are told to both ends.
    ///
    /// # Errors
    /// The relay is full.
    pub fn join(&mut self, node: NodeId) -> Result<(Seat, Vec<Meeting>), Refusal> {
        if self.seats.len() >= self.limits.seats {
            return Err(Refusal::Full(self.limits.seats));
        }
        let seat = self.seats.take(node);
        let waiting = self.pairs.of(node);
        let meetings = waiting.into_iter().flat_map(|id| self.place(id, node, seat)).collect();
        Ok((seat, meetings))
    }

    /// Where a node sits.
    pub fn seat_of(&self, node: NodeId) -> Option<Seat> {
        self.seats.of(node)
    }

    /// Whether the node at `seat` and another one that sits here may talk.
    pub fn is_at_work(&self, seat: Seat) -> bool {
        let Some(node) = self.seats.node(seat) else { return false };
        let met = |id| self.pairs.get(id).is_some_and(|pair| !pair.meetings().is_empty());
        self.pairs.of(node).into_iter().any(met)
    }

    /// Lets the node at `seat` and `peer` send to each other, or renews that. The answer is the channel of this end,
    /// and, if the peer is here, what to tell it.
    ///
    /// # Errors
    /// One of the two has too many peers, the grant has run out, or the peer is the node itself.
    pub fn open(
        &mut self,
        seat: Seat,
        peer: NodeId,
        grant: Grant,
        now: Instant,
    ) -> Result<(Channel, Option<Meeting>), Refusal> {
        let Some(node) = self.seats.node(seat) else { return Err(Refusal::Expired) };
        if node == peer {
            return Err(Refusal::Oneself);
        }
        if grant.until <= now {
            return Err(Refusal::Expired);
        }
        for end in [node, peer] {
            let limit = self.limits.channels;
            if !self.pairs.has(node, peer) && self.pairs.count(end) >= usize::from(limit) {
                return Err(Refusal::TooManyPeers { node: end, limit });
            }
        }
        let id = self.pairs.grant(node, peer, grant);
        self.place(id, node, seat);
        let meeting = self.seats.of(peer).and_then(|other| {
            let met = self.place(id, peer, other);
            met.into_iter().find(|meeting| meeting.end.seat == other)
        });
        let channel = self.pairs.get(id).and_then(|pair| pair.end(node)).map(|end| end.channel);
        Ok((channel.ok_or(Refusal::Expired)?, meeting))
    }

    /// Where a packet goes that came from `seat` through `channel`.
    ///
    /// # Errors
    /// Nowhere; the loss says why.
    pub fn carry(&mut self, seat: Seat, channel: Channel, bytes: usize, now: Instant) -> Result<End, Loss> {
        let id = self.seats.pair(seat, channel).ok_or(Loss::NoChannel)?;
        let pair = self.pairs.get_mut(id).filter(|pair| pair.until > now).ok_or(Loss::NoChannel)?;
        let to = pair.other(End { seat, channel }).ok_or(Loss::Away)?;
        if !pair.pace.admits(now) {
            return Err(Loss::PairQuota);
        }
        if !self.total.admits(now) {
            return Err(Loss::TotalQuota);
        }
        pair.pace.spend(bytes, pair.bytes_per_second, now);
        self.total.spend(bytes, self.limits.bytes_per_second, now);
        Ok(to)
    }

    /// A node's connection ended. Its pairs wait for it as long as their tickets last; its peers are told.
    pub fn leave(&mut self, seat: Seat) -> Vec<End> {
        let Some(node) = self.seats.free(seat) else { return Vec::new() };
        let mut left = Vec::new();
        for id in self.pairs.of(node) {
            let Some(pair) = self.pairs.get_mut(id) else { continue };
            left.extend(pair.vacate(node));
            if pair.is_empty() {
                self.pairs.remove(id);
            }
        }
        left
    }

    /// Ends what has run out. Both ends of each pair are told. To be called once a second or so.
    pub fn sweep(&mut self, now: Instant) -> Vec<End> {
        let mut ended = Vec::new();
        for id in self.pairs.run_out(now) {
            for end in self.pairs.remove(id).into_iter().flat_map(|pair: Pair| pair.ends()) {
                self.seats.close(end.seat, end.channel);
                ended.push(end);
            }
        }
        ended
    }

    /// Puts one end of a pair where its node sits. The meetings are those of both ends, if both are here.
    fn place(&mut self, id: PairId, node: NodeId, seat: Seat) -> Vec<Meeting> {
        let Some(pair) = self.pairs.get_mut(id) else { return Vec::new() };
        if pair.end(node).is_some_and(|end| end.seat == seat) {
            return pair.meetings();
        }
        if let Some(channel) = self.seats.open(seat, id) {
            pair.seat(node, End { seat, channel });
        }
        pair.meetings()
    }
}

/// What a relay carries ahead of its pace: a fifth of a second, so that a window of packets passes at once.
const BURST: Duration = Duration::from_millis(200);

/// Nodes by id, where that is needed; everything that a packet touches goes by number.
type ByNode<T> = BTreeMap<NodeId, T>;

#[cfg(test)]
mod tests;
