//! Two LSNs in one cell: each compares the other's claim with its own (specification, section 4). The loser knocks at the
//! winner, becomes its child, and only then gives up its own; the winner shows itself. One that is not reached gives in to
//! whoever is. Both try again by themselves: where the LAN carries no datagrams, nobody reminds them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use muster_types::{Instant, NodeId};

use super::apart::Apart;
use crate::claim::Claim;
use crate::intent::Intent;
use crate::message::{Discovery, Join, Knock, Message, Ping};
use crate::timer::Timer;
use crate::timing::{RIVAL_PAUSE, RIVAL_PAUSE_MAX, YIELD_PATIENCE};
use crate::turn::Turn;

/// Rivals remembered at once; when more appear, the one met longest ago is forgotten.
const RIVALS: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Contest {
    /// The better LSN that has been reached, and asked to take this one in.
    yielding: Option<Claim>,
    rivals: BTreeMap<NodeId, Rival>,
    apart: Apart,
}

#[derive(Debug)]
struct Rival {
    claim: Claim,
    /// Its claim is the better one.
    prevails: bool,
    /// How far this LSN has come with it, since it was met.
    stage: Stage,
    /// It wins if it is reached: it does not reach this LSN, and nobody else does.
    conceded: bool,
    met: Instant,
    /// When to try again unasked.
    again: Instant,
    tries: u32,
}

/// On the way to giving in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Met,
    Knocking,
    Reached,
    /// To take this LSN in.
    Asked,
}

impl Contest {
    /// The better LSN that this one is asking to take it in. It is known to live: an LSN about to become a child itself
    /// takes nobody new along, or three that yield in a circle would all end as children.
    pub(crate) fn winner(&self) -> Option<&Claim> {
        self.yielding.as_ref()
    }

    pub(crate) fn on_rival(
        &mut self,
        own: &Claim,
        rival: Claim,
        heard: Option<SocketAddr>,
        turn: &mut Turn<'_>,
    ) {
        let node = rival.claimant.node;
        let prevails = rival.prevails_over(own);
        let old = |known: &Rival| {
            let same = known.prevails == prevails && known.claim.tenure() == rival.tenure();
            same && turn.now.since(known.met) < RIVAL_PAUSE
        };
        if node == own.claimant.node
            || self.rivals.get(&node).is_some_and(old)
            || self.apart.holds(&rival, turn.now)
        {
            return;
        }
        if let Some(to) = heard.filter(|_| !prevails) {
            turn.intend(Intent::Answer { to, discovery: Discovery::Claim(own.clone()) });
        }
        self.meet(rival, prevails, turn);
    }

    /// The one that was asked has begun another tenure since: it is asked for that.
    pub(crate) fn ask_again(&mut self, own: &Claim, winner: Claim, turn: &mut Turn<'_>) {
        self.yielding = None;
        self.forget(winner.claimant.node);
        self.on_rival(own, winner, None, turn);
    }

    /// Tries those again whose pause is over.
    pub(crate) fn on_timer(&mut self, own: &Claim, turn: &mut Turn<'_>) {
        let due = |rival: &&Rival| rival.again <= turn.now;
        let mut claims: Vec<_> = self.rivals.values().filter(due).map(|rival| rival.claim.clone()).collect();
        claims.extend(self.apart.take_due(turn.now));
        for claim in claims {
            let prevails = claim.prevails_over(own);
            self.meet(claim, prevails, turn);
        }
        self.set_timer(turn);
    }

    /// It is a child now, this LSN's or another's, or nobody's any more.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.rivals.remove(&node);
        self.apart.forget(node);
    }

    /// The better LSN has no room for this cell: both stay, and are no rivals for a while.
    pub(crate) fn stay_apart(&mut self, own: &Claim, from: NodeId, turn: &mut Turn<'_>) {
        self.give_up(own, Some(from), turn);
        let claim = self.rivals.remove(&from).map(|rival| rival.claim);
        self.apart.refused_by(from, claim, turn.now);
        self.set_timer(turn);
    }

    /// This cell has no room for that LSN's.
    pub(crate) fn keep_apart(&mut self, node: NodeId, children: u32, turn: &mut Turn<'_>) {
        let claim = self.rivals.remove(&node).map(|rival| rival.claim);
        let children = usize::try_from(children).unwrap_or(usize::MAX);
        self.apart.refuse(node, children, claim, turn.now);
        self.set_timer(turn);
    }

    /// Another LSN of this place that has room, for whoever does not find it here.
    pub(crate) fn with_room(&self, but: NodeId) -> Option<&Claim> {
        self.apart.with_room(but)
    }

    /// Whatever its claim is worth, it has to be reached first; a better one may be dead.
    fn meet(&mut self, rival: Claim, prevails: bool, turn: &mut Turn<'_>) {
        turn.intend(Intent::Open(rival.claimant.clone()));
        self.note(rival, prevails, turn);
    }

    pub(crate) fn on_opened(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        let Some(rival) = self.rivals.get(&peer) else { return };
        if !rival.claim.prevails_over(own) {
            turn.send(peer, Message::Claim(own.clone()));
            // Whoever is no LSN any more answers with the name of its own.
            let load_percent = turn.own.load_percent;
            turn.send(peer, Message::Ping(Ping { sequence: 0, load_percent }));
        } else {
            self.approach(own, peer, turn);
        }
    }

    /// The session may have been dialled by the rival, or found open by its own packets: others may not get through.
    fn approach(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        let Some(rival) = self.rivals.get_mut(&peer).filter(|_| self.yielding.is_none()) else { return };
        match rival.stage {
            Stage::Met => {
                rival.stage = Stage::Knocking;
                turn.intend(Intent::Knock(rival.claim.claimant.clone()));
            }
            Stage::Reached => self.ask(own, peer, turn),
            Stage::Knocking | Stage::Asked => {}
        }
    }

    /// A better LSN that is not reached is told so: it may know better, or gives in.
    pub(crate) fn on_knocked(&mut self, own: &Claim, peer: NodeId, answered: bool, turn: &mut Turn<'_>) {
        let here = turn.sessions.contains_key(&peer);
        let knocking = |rival: &&mut Rival| rival.stage == Stage::Knocking && here;
        let Some(rival) = self.rivals.get_mut(&peer).filter(knocking) else { return };
        let conceded = std::mem::take(&mut rival.conceded);
        if answered && (conceded || rival.claim.prevails_over(own)) {
            rival.stage = Stage::Reached;
            self.approach(own, peer, turn);
        } else if !conceded {
            turn.send(peer, Message::Knock(Knock::Unanswered));
        }
    }

    /// The better LSN is reached by others.
    pub(crate) fn on_vouched(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        self.on_knocked(own, peer, true, turn);
    }

    /// Nobody reaches this LSN, says the rival: if that one can be reached, it wins, whatever the claims are worth. Two whom
    /// nobody reaches may have met by dialling each other at once.
    pub(crate) fn concede(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        if let Some(rival) = self.rivals.get_mut(&peer).filter(|rival| rival.stage != Stage::Asked) {
            (rival.conceded, rival.stage) = (true, Stage::Met);
            self.approach(own, peer, turn);
        }
    }

    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.rivals.contains_key(&node)
    }

    /// Children of an earlier tenure of one lineage are the later one's already, or on their way.
    fn ask(&mut self, own: &Claim, peer: NodeId, turn: &mut Turn<'_>) {
        let Some(rival) = self.rivals.get_mut(&peer).filter(|rival| rival.stage != Stage::Asked) else {
            return;
        };
        rival.stage = Stage::Asked;
        let children = if rival.claim.lineage == own.lineage { 0 } else { turn.children };
        let brings = Some(u32::try_from(children).unwrap_or(u32::MAX));
        turn.send(peer, Message::Join(Join { brings, ..turn.own.join(rival.claim.tenure()) }));
        turn.set(Timer::Yield, YIELD_PATIENCE);
        self.yielding = Some(rival.claim.clone());
    }

    /// The winner cannot be reached, or does not take this node in: two cells, as long as that lasts, unless another one
    /// that prevails is there.
    pub(crate) fn give_up(&mut self, own: &Claim, peer: Option<NodeId>, turn: &mut Turn<'_>) {
        let Some(winner) =
            self.yielding.take_if(|winner| peer.is_none_or(|peer| peer == winner.claimant.node))
        else {
            return;
        };
        turn.timers.stop(Timer::Yield);
        turn.intend(Intent::Close(winner.claimant.node));
        if let Some(rival) = self.rivals.get_mut(&winner.claimant.node) {
            rival.met = turn.now;
        }
        let reached = |node: &&NodeId| turn.sessions.contains_key(*node);
        let open = |rival: &Rival| matches!(rival.stage, Stage::Met | Stage::Reached);
        let prevailing =
            self.rivals.iter().filter(|(_, rival)| open(rival) && rival.claim.prevails_over(own));
        let next = prevailing.map(|(node, _)| node).find(reached).copied();
        next.into_iter().for_each(|node| self.approach(own, node, turn));
    }

    fn note(&mut self, claim: Claim, prevails: bool, turn: &mut Turn<'_>) {
        let (now, node) = (turn.now, claim.claimant.node);
        let tries = self.rivals.remove(&node).filter(|known| known.claim.tenure() == claim.tenure());
        let tries = tries.map_or(0, |known| known.tries.saturating_add(1));
        if self.rivals.len() >= RIVALS {
            let oldest = self.rivals.iter().min_by_key(|(_, rival)| rival.met).map(|(&node, _)| node);
            oldest.map(|node| self.rivals.remove(&node));
        }
        let rivals = u32::try_from(self.rivals.len() + 1).unwrap_or(u32::MAX);
        let pause = RIVAL_PAUSE.saturating_mul(2u32.saturating_pow(tries));
        let pause = pause.min(RIVAL_PAUSE_MAX.saturating_mul(rivals));
        self.rivals.insert(
            node,
            Rival {
                claim,
                prevails,
                stage: Stage::Met,
                conceded: false,
                met: now,
                again: now + pause,
                tries,
            },
        );
        self.set_timer(turn);
    }

    fn set_timer(&self, turn: &mut Turn<'_>) {
        let rivals = self.rivals.values().map(|rival| rival.again);
        if let Some(next) = rivals.chain(self.apart.next()).min() {
            turn.timers.set(Timer::Rival, next);
        }
    }
}
