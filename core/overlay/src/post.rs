//! Small words from node to node by super nodes: which way each goes on from here. A node hands them to its LSN; an LSN looks
//! for the recipient's; a super node hands on between those that hold sessions with it.
//!
//! [`Post::admits`], then header, whence it came, what stands here -> [`Post::onward`] -> one [`Onward`]. [`Outbox`] repeats letters until they are
//! acknowledged, [`Seen`] knows those that came before.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_types::{Instant, NodeId};

mod outbox;
mod seen;

pub use outbox::{Full, Kept, Outbox};
pub use seen::{Name, Seen, Verdict};

/// How often a word may be passed on: node, LSN, super node, LSN, node are four; twice that is a circle.
pub const HOPS: u8 = 8;

/// Whence answers are expected is remembered so long: a round trip by way of the master, many times over.
const LEARNT: Duration = Duration::from_secs(60);
/// Senders that are remembered; the oldest gives way.
const LEARNT_MOST: usize = 1_024;

/// What strangers have carried here, as a global super node's signalling (specification, section 3).
const STRANGERS_BYTES_PER_SECOND: u64 = 5_000;
/// What a cell's nodes have carried by their LSN.
const CELL_BYTES_PER_SECOND: u64 = 100_000;
/// That much at once, after a pause: some letters of the largest size.
const BURST_BYTES: u64 = 128 * 1024;

/// What is read of a word before it is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who signed it.
    pub from: NodeId,
    pub to: NodeId,
    /// Under which LSN the recipient was found, if anybody has looked.
    pub lsn: Option<NodeId>,
    /// How often it may still be passed on.
    pub hops: u8,
}

/// Where a word came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This node says it.
    Here,
    /// By the session with a child.
    Child(NodeId),
    /// By the session with this node's LSN.
    Lsn(NodeId),
    /// By any other session.
    Stranger(NodeId),
    /// By the control channel.
    Master,
}

/// What stands at this moment.
pub struct Around<'a> {
    pub own: NodeId,
    /// Whose child this node is.
    pub lsn: Option<NodeId>,
    /// The control channel stands.
    pub attached: bool,
    pub has_session: &'a dyn Fn(NodeId) -> bool,
}

/// Where a word goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// It is for this node.
    Keep,
    To(NodeId),
    /// The recipient's super nodes are to be found; the master where there are none.
    Seek,
    Master,
    Drop(Loss),
}

/// Why a word goes nowhere. Whoever said it says it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error("it was passed on too often")]
    Hops,
    #[error("nobody here knows the way")]
    Unknown,
}

/// The machine. It keeps no word, only whence some came.
#[derive(Debug, Default)]
pub struct Post {
    learnt: BTreeMap<NodeId, (Behind, Instant)>,
    strangers: Pace,
    cell: Pace,
}

/// Behind whom a sender was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Peer(NodeId),
    Master,
}

/// When everything carried so far will have been earned (generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
struct Pace(Instant);

impl Pace {
    fn admits(&mut self, bytes: usize, bytes_per_second: u64, now: Instant) -> bool {
        let cost = |bytes: u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bytes_per_second);
        let admitted = self.0.since(now) <= cost(BURST_BYTES);
        if admitted {
            self.0 = self.0.max(now) + cost(bytes as u64);
        }
        admitted
    }
}

impl Post {
    /// Which way a word goes. Its signature has been verified: what is learnt of it is true.
    pub fn onward(&mut self, header: &Header, origin: Origin, around: &Around<'_>, now: Instant) -> Onward {
        self.learn(header.from, origin, now);
        if header.to == around.own {
            return Onward::Keep;
        }
        if header.hops == 0 {
            return Onward::Drop(Loss::Hops);
        }
        let learnt = self.learnt_of(header.to, now);
        let peers = [Some(header.to), header.lsn, learnt.and_then(Behind::peer)];
        let came_from = origin.peer();
        let next = peers
            .into_iter()
            .flatten()
            .find(|peer| *peer != around.own && Some(*peer) != came_from && (around.has_session)(*peer));
        if let Some(peer) = next {
            return Onward::To(peer);
        }
        let by_master = around.attached && origin != Origin::Master;
        match origin {
            Origin::Here | Origin::Child(_) if around.lsn.is_some() => self.to_lsn(origin, around),
            _ if by_master && learnt == Some(Behind::Master) => Onward::Master,
            Origin::Here | Origin::Child(_) => Onward::Seek,
            Origin::Stranger(_) if by_master => Onward::Master,
            Origin::Stranger(_) | Origin::Lsn(_) | Origin::Master => Onward::Drop(Loss::Unknown),
        }
    }

    fn to_lsn(&self, origin: Origin, around: &Around<'_>) -> Onward {
        let lsn = around.lsn.filter(|lsn| origin.peer() != Some(*lsn) && (around.has_session)(*lsn));
        lsn.map_or(Onward::Drop(Loss::Unknown), Onward::To)
    }

    /// Whether there is room to carry a word of so many bytes. Asked before its signature is looked at, which costs more.
    pub fn admits(&mut self, bytes: usize, origin: Origin, now: Instant) -> bool {
        match origin {
            Origin::Stranger(_) => self.strangers.admits(bytes, STRANGERS_BYTES_PER_SECOND, now),
            Origin::Child(_) => self.cell.admits(bytes, CELL_BYTES_PER_SECOND, now),
            Origin::Here | Origin::Lsn(_) | Origin::Master => true,
        }
    }

    fn learn(&mut self, from: NodeId, origin: Origin, now: Instant) {
        let behind = match origin {
            Origin::Here => return,
            Origin::Master => Behind::Master,
            Origin::Child(peer) | Origin::Lsn(peer) | Origin::Stranger(peer) => Behind::Peer(peer),
        };
        if self.learnt.len() >= LEARNT_MOST && !self.learnt.contains_key(&from) {
            self.learnt.retain(|_, (_, when)| now.since(*when) < LEARNT);
            let oldest = self.learnt.iter().min_by_key(|(_, (_, when))| *when).map(|(node, _)| *node);
            if let Some(oldest) = oldest.filter(|_| self.learnt.len() >= LEARNT_MOST) {
                self.learnt.remove(&oldest);
            }
        }
        self.learnt.insert(from, (behind, now));
    }

    fn learnt_of(&self, node: NodeId, now: Instant) -> Option<Behind> {
        self.learnt.get(&node).filter(|(_, when)| now.since(*when) < LEARNT).map(|(behind, _)| *behind)
    }
}

impl Origin {
    fn peer(self) -> Option<NodeId> {
        match self {
            Self::Child(peer) | Self::Lsn(peer) | Self::Stranger(peer) => Some(peer),
            Self::Here | Self::Master => None,
        }
    }
}

impl Behind {
    fn peer(self) -> Option<NodeId> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Master => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: NodeId = NodeId([1; 20]);
    const LSN: NodeId = NodeId([2; 20]);
    const GSN: NodeId = NodeId([3; 20]);
    const FAR_LSN: NodeId = NodeId([4; 20]);
    const RECIPIENT: NodeId = NodeId([5; 20]);

    fn word(from: NodeId, to: NodeId, lsn: Option<NodeId>) -> Header {
        Header { from, to, lsn, hops: HOPS }
    }

    /// Where a word goes at `own`, which has sessions with `peers`.
    fn at(
        (own, lsn, attached): (NodeId, Option<NodeId>, bool),
        post: &mut Post,
        header: &Header,
        origin: Origin,
        peers: &[NodeId],
    ) -> Onward {
        let has_session = |peer| peers.contains(&peer);
        post.onward(header, origin, &Around { own, lsn, attached, has_session: &has_session }, Instant::ZERO)
    }

    #[test]
    fn a_word_goes_by_both_lsns_and_a_super_node_and_its_answer_comes_back_the_same_way() {
        let mut posts: Vec<Post> = (0..5).map(|_| Post::default()).collect();
        let [sender, lsn, gsn, far, recipient] = &mut posts[..] else { unreachable!() };
        let asked = word(SENDER, RECIPIENT, None);
        let next = at((SENDER, Some(LSN), false), sender, &asked, Origin::Here, &[LSN]);
        assert_eq!(next, Onward::To(LSN));
        let next = at((LSN, None, false), lsn, &asked, Origin::Child(SENDER), &[SENDER, GSN]);
        assert_eq!(next, Onward::Seek);
        let found = word(SENDER, RECIPIENT, Some(FAR_LSN));
        let next = at((GSN, None, false), gsn, &found, Origin::Stranger(LSN), &[LSN, FAR_LSN]);
        assert_eq!(next, Onward::To(FAR_LSN));
        let next = at((FAR_LSN, None, false), far, &found, Origin::Stranger(GSN), &[GSN, RECIPIENT]);
        assert_eq!(next, Onward::To(RECIPIENT));
        let next = at((RECIPIENT, Some(FAR_LSN), false), recipient, &found, Origin::Lsn(FAR_LSN), &[FAR_LSN]);
        assert_eq!(next, Onward::Keep);

        let answer = word(RECIPIENT, SENDER, None);
        let next = at((RECIPIENT, Some(FAR_LSN), false), recipient, &answer, Origin::Here, &[FAR_LSN]);
        assert_eq!(next, Onward::To(FAR_LSN));
        let next = at((FAR_LSN, None, false), far, &answer, Origin::Child(RECIPIENT), &[GSN, RECIPIENT]);
        assert_eq!(next, Onward::To(GSN));
        let next = at((GSN, None, false), gsn, &answer, Origin::Stranger(FAR_LSN), &[LSN, FAR_LSN]);
        assert_eq!(next, Onward::To(LSN));
        let next = at((LSN, None, false), lsn, &answer, Origin::Stranger(GSN), &[SENDER, GSN]);
        assert_eq!(next, Onward::To(SENDER));
    }

    #[test]
    fn what_came_by_the_master_is_answered_by_the_master_and_never_handed_back_to_it() {
        let mut post = Post::default();
        let asked = word(SENDER, RECIPIENT, None);
        assert_eq!(
            at((FAR_LSN, None, true), &mut post, &asked, Origin::Master, &[]),
            Onward::Drop(Loss::Unknown)
        );
        let answer = word(RECIPIENT, SENDER, None);
        let next = at((FAR_LSN, None, true), &mut post, &answer, Origin::Child(RECIPIENT), &[RECIPIENT]);
        assert_eq!(next, Onward::Master);
    }

    #[test]
    fn nothing_goes_back_to_whom_it_came_from_nor_on_for_ever() {
        let mut post = Post::default();
        let looped = word(SENDER, RECIPIENT, Some(LSN));
        let next = at((GSN, None, false), &mut post, &looped, Origin::Stranger(LSN), &[LSN]);
        assert_eq!(next, Onward::Drop(Loss::Unknown));
        let spent = Header { hops: 0, ..looped };
        let next = at((GSN, None, false), &mut post, &spent, Origin::Stranger(SENDER), &[LSN]);
        assert_eq!(next, Onward::Drop(Loss::Hops));
    }

    #[test]
    fn a_stranger_that_floods_a_super_node_has_a_burst_carried_and_a_cell_is_still_served() {
        let mut post = Post::default();
        let mut admits = |origin| post.admits(1_000, origin, Instant::ZERO);
        let passed = (0..1_000).filter(|_| admits(Origin::Stranger(SENDER))).count();
        assert!((128..140).contains(&passed), "{passed}");
        assert!(admits(Origin::Child(RECIPIENT)) && admits(Origin::Here));
    }

    #[test]
    fn senders_that_are_invented_fill_nothing() {
        let mut post = Post::default();
        for number in 0..5_000_u32 {
            let mut from = [0; 20];
            from[..4].copy_from_slice(&number.to_be_bytes());
            at((GSN, None, false), &mut post, &word(NodeId(from), GSN, None), Origin::Stranger(LSN), &[]);
        }
        assert_eq!(post.learnt.len(), LEARNT_MOST);
    }
}
