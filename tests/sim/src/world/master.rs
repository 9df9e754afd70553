//! The picture that the master keeps of who is where, out of what LSNs and nodes tell it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_kit::admission::Admission;
use muster_kit::listen::HANDSHAKES;
use muster_overlay::Claim;
use muster_overlay::intent::Update;
use muster_overlay::message::Attach;
use muster_types::limits::CELL_NODES;
use muster_types::{Instant, NodeId};

use super::HostId;

/// After which nodes are offline whose LSN has withdrawn its claim, and who did not turn up elsewhere: it has told its
/// children where to go.
const WITHDRAWN_PATIENCE: Duration = Duration::from_secs(3);

/// What the master shows of a node that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// An LSN is under itself; `None`: attached to the master without an LSN.
    pub lsn: Option<HostId>,
}

/// An LSN's word that it has a child, with the child's own date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Under {
    lsn: HostId,
    lineage: u64,
    epoch: u64,
    date: Instant,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) attempt: u64,
    pub(super) claim: Option<Claim>,
    pub(super) known: u64,
    pub(super) since: Instant,
    pub(super) last_heard: Instant,
    /// The shell has not heard an answer since then.
    pub(super) silent_since: Option<Instant>,
}

#[derive(Debug)]
pub struct Master {
    pub(super) up: bool,
    pub(super) admission: Admission,
    /// Who is under whom, as LSNs say. Apart from `streams`: a node may have both for a moment.
    under: Vec<Option<Under>>,
    /// The same from the other end.
    tables: BTreeMap<HostId, BTreeSet<HostId>>,
    /// The latest attach known of each node, departed or not: an older one, from an LSN that has missed it, is stale.
    newest: Vec<Instant>,
    pub(super) streams: BTreeMap<HostId, Stream>,
    /// Until when the children of LSNs that are none any more may turn up elsewhere.
    pub(super) orphaned: BTreeMap<HostId, Instant>,
    /// Last update known of each tenure.
    known: BTreeMap<(HostId, u64, u64), u64>,
}

/// What an LSN's word that a node has gone brings about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Departure {
    /// It is shown under this LSN no more.
    pub(super) struck_off: bool,
    /// The node's own channel ends with it.
    pub(super) ends_channel: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbered {
    New,
    /// Sent again: acknowledged again, and nothing else.
    Known,
    Gap,
}

impl Master {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            up: false,
            admission: Admission::new(HANDSHAKES),
            under: vec![None; hosts],
            tables: BTreeMap::new(),
            newest: vec![Instant::ZERO; hosts],
            streams: BTreeMap::new(),
            orphaned: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Who is under this LSN, as far as the master knows.
    pub(super) fn table(&self, lsn: HostId) -> Vec<HostId> {
        self.tables.get(&lsn).into_iter().flatten().copied().collect()
    }

    pub(super) fn is_under(&self, lsn: HostId, node: HostId) -> bool {
        self.under[node].is_some_and(|under| under.lsn == lsn)
    }

    /// It departed, by its own word or its LSN's.
    pub(super) fn remove(&mut self, node: HostId) {
        if let Some(under) = self.under[node].take()
            && let Some(table) = self.tables.get_mut(&under.lsn)
        {
            table.remove(&node);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn has_stream(&self, host: HostId) -> bool {
        self.streams.contains_key(&host)
    }

    /// Its stream stands, and answers.
    pub(super) fn is_heard(&self, host: HostId) -> bool {
        self.streams.get(&host).is_some_and(|stream| stream.silent_since.is_none())
    }

    pub(super) fn attach(&mut self, host: HostId, attempt: u64, claim: Option<Claim>, now: Instant) -> u64 {
        let tenure = claim.as_ref().map(|claim| (host, claim.lineage, claim.epoch));
        let known = tenure.and_then(|tenure| self.known.get(&tenure).copied()).unwrap_or(0);
        let withdrawn = self.streams.get(&host).is_some_and(|stream| stream.claim.is_some());
        match claim {
            Some(_) => {
                self.orphaned.remove(&host);
            }
            None if withdrawn => {
                self.orphaned.insert(host, now + WITHDRAWN_PATIENCE);
            }
            None => {}
        }
        let stream = Stream { attempt, claim, known, since: now, last_heard: now, silent_since: None };
        self.streams.insert(host, stream);
        known
    }

    /// As an operator sees it: an LSN's own channel, else the word of its LSN, else its own channel.
    pub fn shown(&self, host: HostId) -> Option<Shown> {
        let (stream, under) = (self.streams.get(&host), self.under[host].as_ref());
        // Of two words of the node itself, its claim and its attach, the later counts.
        let later = |stream: &&Stream| under.is_none_or(|under| under.date <= stream.since);
        if stream.filter(later).is_some_and(|stream| stream.claim.is_some()) {
            return Some(Shown { lsn: Some(host) });
        }
        let under = under.map(|under| Shown { lsn: Some(under.lsn) });
        under.or(stream.map(|_| Shown { lsn: None }))
    }

    /// An arrival counts unless the child has since attached elsewhere; true if it does.
    pub(super) fn arrived(&mut self, lsn: HostId, id: NodeId, node: HostId, attach: &Attach) -> bool {
        let Some(date) = attach.seal.bytes().and_then(|seal| signed_by(id, seal)) else { return false };
        let (lineage, epoch) = (attach.lineage, attach.epoch);
        if self.newest[node] > date {
            return false;
        }
        self.newest[node] = date;
        self.remove(node);
        self.under[node] = Some(Under { lsn, lineage, epoch, date });
        self.tables.entry(lsn).or_default().insert(node);
        true
    }

    /// A node's LSN may say that it has gone; so may that one's successor, unless the LSN itself still has a channel.
    pub(super) fn departed(&mut self, lsn: HostId, node: HostId) -> Departure {
        let claim = self.streams.get(&lsn).and_then(|stream| stream.claim.as_ref());
        let Some(own) = claim.map(|claim| (claim.lineage, claim.epoch)) else { return Departure::default() };
        let before = |lineage, epoch| lineage == own.0 && epoch < own.1;
        let inherited = |u: &Under| before(u.lineage, u.epoch) && !self.streams.contains_key(&u.lsn);
        let child = self.under[node].filter(|under| under.lsn == lsn || inherited(under));
        let attached = child.map(|under| under.date);
        if attached.is_some() {
            self.remove(node);
        }
        let struck_off = attached.is_some();
        let Some(stream) = self.streams.get(&node) else {
            return Departure { struck_off, ends_channel: false };
        };
        let superseded = stream.claim.as_ref().is_some_and(|claim| before(claim.lineage, claim.epoch));
        let ended = attached.is_some_and(|date| stream.claim.is_none() || stream.since <= date);
        if superseded {
            // Should it live after all, it has to tell its table anew: others have spoken about it.
            self.forget_updates(node);
        }
        Departure { struck_off, ends_channel: superseded || ended }
    }

    /// Takes note of an update's number, and says what to do with it.
    pub(super) fn number(&mut self, lsn: HostId, update: &Update) -> Numbered {
        let Some(stream) = self.streams.get_mut(&lsn) else { return Numbered::Gap };
        if update.number <= stream.known {
            return Numbered::Known;
        }
        if update.number != stream.known + 1 && !update.snapshot {
            return Numbered::Gap;
        }
        stream.known = update.number;
        if let Some(claim) = &stream.claim {
            self.known.insert((lsn, claim.lineage, claim.epoch), update.number);
        }
        if update.snapshot {
            self.clear_table(lsn);
        }
        Numbered::New
    }

    /// Nodes whose LSN is no more, and who did not turn up elsewhere in time.
    pub(super) fn drop_orphans(&mut self, now: Instant) {
        let over: Vec<_> = self.orphaned.extract_if(.., |_, until| *until <= now).collect();
        over.into_iter().for_each(|(lsn, _)| self.forget_table(lsn));
    }

    /// An LSN that comes back after this has to tell its whole table again.
    pub(super) fn forget_table(&mut self, lsn: HostId) {
        self.clear_table(lsn);
        self.forget_updates(lsn);
    }

    fn clear_table(&mut self, lsn: HostId) {
        for node in self.tables.remove(&lsn).unwrap_or_default() {
            self.under[node] = None;
        }
    }

    fn forget_updates(&mut self, lsn: HostId) {
        let tenures: Vec<_> =
            self.known.range((lsn, 0, 0)..=(lsn, u64::MAX, u64::MAX)).map(|(&tenure, _)| tenure).collect();
        for tenure in tenures {
            self.known.remove(&tenure);
        }
    }

    /// Other LSNs among those of its place, and none where a cell is full: nobody can go there.
    pub(super) fn rivals(&self, host: HostId, place: &BTreeSet<HostId>) -> Vec<(HostId, Claim)> {
        let full = |lsn: HostId| self.tables.get(&lsn).is_some_and(|table| table.len() + 1 >= CELL_NODES);
        let others = place.iter().filter(|&&other| other != host && !full(host) && !full(other));
        others.filter_map(|&other| Some((other, self.streams.get(&other)?.claim.clone()?))).collect()
    }
}

/// The date of a consent, if it is this node's own.
fn signed_by(node: NodeId, seal: &[u8]) -> Option<Instant> {
    let (micros, signer) = seal.split_at_checked(size_of::<u128>())?;
    let micros = u64::try_from(u128::from_be_bytes(micros.try_into().ok()?)).ok()?;
    (signer == node.as_bytes()).then(|| Instant::from_elapsed(Duration::from_micros(micros)))
}
