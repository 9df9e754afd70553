//! One node of the overlay: inputs and time flow in, intentions flow out. Each state is a room of its own; this is
//! the corridor between them.

mod dispatch;
mod receipt;
mod station;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use muster_types::{Instant, NodeId, SubnetKey, Version};
use rand::RngCore;

use self::station::State;
use crate::input::{Input, Network};
use crate::intent::{Intent, LossReason, Station};
use crate::losses::Losses;
use crate::membership::Membership;
use crate::message::{NeighborList, Part};
use crate::office::Office;
use crate::standing::Uptime;
use crate::step::Step;
use crate::timer::{Timer, Timers};
use crate::timing::{LATE, SLEPT};
use crate::turn::{Own, Turn};

/// Sessions that a node knows of: a full cell, and as many strangers. Beyond it strangers are closed.
const SESSIONS: usize = 2 * muster_types::limits::CELL_NODES;

/// What a node knows of itself before it has spoken to anybody.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: NodeId,
    pub version: Version,
    /// Below this, nodes are refused, until topology says otherwise.
    pub minimum_version: Version,
    /// As last attested; zero without a ticket.
    pub uptime: Uptime,
    /// As topology last derived them; empty if never.
    pub subnet_keys: Vec<SubnetKey>,
}

/// The overlay's machine.
///
/// # Driving it
///
/// After each call of [`handle`](Self::handle) or [`handle_timeout`](Self::handle_timeout), drain
/// [`poll_intent`](Self::poll_intent) until it is `None` and act on each intent in order; then ask
/// [`poll_timeout`](Self::poll_timeout) when to call [`handle_timeout`](Self::handle_timeout), unless an input
/// comes first. Inputs that wait are handled before timers that are due, or the machine accuses others of its
/// own host's slowness.
///
/// `now` never falls, and runs on while the host sleeps. The machine has no other source of time and none of
/// randomness but `rng`: same calls, same intents.
#[derive(Debug)]
pub struct Node {
    own: Own,
    state: State,
    sessions: BTreeMap<NodeId, Option<SocketAddr>>,
    timers: Timers,
    intents: VecDeque<Intent>,
    losses: Losses,
    /// The shell keeps a control channel for this node.
    master: bool,
    /// And it stands.
    attached: bool,
    /// This node's LSN says that it has none.
    lsn_lacks_master: bool,
    /// Times that topology was looked for without a receipt.
    receipt_looks: u32,
    /// It is the last one that is too old, not the first that has yet to come.
    receipt_is_old: bool,
    leaving: Option<Part>,
}

impl Node {
    /// A node without a network; [`Input::Network`] brings it to life.
    pub fn new(config: Config) -> Self {
        let own = Own {
            node: config.node,
            version: config.version,
            minimum_version: config.minimum_version,
            network: Network::default(),
            subnet_keys: config.subnet_keys,
            uptime: config.uptime,
            load_percent: 0,
        };
        Self {
            own,
            state: State::NoConnection,
            sessions: BTreeMap::new(),
            timers: Timers::default(),
            intents: VecDeque::new(),
            losses: Losses::default(),
            master: false,
            attached: false,
            lsn_lacks_master: false,
            receipt_looks: 0,
            receipt_is_old: false,
            leaving: None,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Instant, rng: &mut impl RngCore) {
        // Who is told that the host slept does not conclude it from timers.
        let told = matches!(input, Input::WokeUp);
        if let Some((due, _)) = self.timers.next().filter(|&(due, _)| !told && now.since(due) > LATE) {
            self.ran_late(now.since(due), now, rng);
        }
        let step = self.on_input(input, now, rng);
        self.enter(step, now, rng);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come, or passed.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl RngCore) {
        if let Some((due, _)) = self.timers.next().filter(|&(due, _)| now.since(due) > LATE) {
            self.ran_late(now.since(due), now, rng);
        }
        while let Some((_, timer)) = self.timers.take_due(now) {
            let step = self.on_timer(timer, now, rng);
            self.enter(step, now, rng);
        }
    }

    /// What the shell has to do next.
    pub fn poll_intent(&mut self) -> Option<Intent> {
        let next = self.intents.pop_front();
        if next.is_none() {
            // The room of a burst is given back: an LSN's is a hundred times a child's.
            self.intents = VecDeque::new();
        }
        next
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    pub fn id(&self) -> NodeId {
        self.own.node
    }

    pub fn station(&self) -> Station {
        self.state.station()
    }

    pub fn subnet_keys(&self) -> &[SubnetKey] {
        &self.own.subnet_keys
    }

    /// Of a child: what its LSN last told it.
    pub fn neighbors(&self) -> Option<&NeighborList> {
        self.membership().map(Membership::neighbors)
    }

    /// Of an LSN: its children, best first.
    pub fn children(&self) -> Vec<NodeId> {
        self.office().map(|office| office.children().ranking().collect()).unwrap_or_default()
    }

    /// Of an LSN: changes of its child table that topology has not been told, for whoever watches its memory.
    pub fn unsaid_changes(&self) -> usize {
        self.office().map_or(0, Office::unsaid_changes)
    }

    fn membership(&self) -> Option<&Membership> {
        if let State::HasLsn(membership) = &self.state { Some(membership) } else { None }
    }

    fn office(&self) -> Option<&Office> {
        if let State::IsLsn(office) = &self.state { Some(office) } else { None }
    }

    /// Splits the node into its state and everything that a turn needs.
    fn parts<'a>(&'a mut self, now: Instant, rng: &'a mut dyn RngCore) -> (&'a mut State, Turn<'a>) {
        let children = self.office().map_or(0, |office| office.children().len());
        let turn = Turn {
            now,
            own: &self.own,
            sessions: &self.sessions,
            children,
            timers: &mut self.timers,
            intents: &mut self.intents,
            rng,
        };
        (&mut self.state, turn)
    }

    /// "Whose own timers ran late accuses nobody" (design, section 2); who ran very late has been missed by others.
    fn ran_late(&mut self, late: Duration, now: Instant, rng: &mut impl RngCore) {
        if late > SLEPT {
            let step = self.wake_up(LossReason::Stalled, now);
            return self.enter(step, now, rng);
        }
        let (state, mut turn) = self.parts(now, rng);
        match state {
            State::HasLsn(membership) => membership.forgive(&mut turn),
            State::IsLsn(office) => office.forgive(late, now),
            _ => {}
        }
    }

    /// Every session and lease is suspect: start anew, on sessions opened anew.
    fn wake_up(&mut self, reason: LossReason, now: Instant) -> Step {
        if matches!(self.state, State::NoConnection | State::Parted) {
            return Step::Stay;
        }
        self.drop_sessions();
        self.losses.begin(reason, now);
        Step::Look(Some(reason))
    }

    fn let_go_of_master(&mut self) {
        self.attached = false;
        if std::mem::take(&mut self.master) {
            self.intents.push_back(Intent::DetachMaster);
        }
    }

    fn drop_sessions(&mut self) {
        for (peer, _) in std::mem::take(&mut self.sessions) {
            self.intents.push_back(Intent::Close(peer));
        }
    }
}
