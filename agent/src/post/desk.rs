//! The task behind [`Post`](super::Post): words in, words on, and what runs beside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_kit::clock::BootClock;
use muster_net::{CloseCode, TrafficClass};
use muster_overlay::post::{self, Around, Header, Name, Onward, Origin, Outbox, Seen};
use muster_types::{Instant, LetterId, NodeId};
use muster_wire::Verifier;
use muster_wire::letter::Word;
use muster_wire::session::encode_send_to;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::finder::{Finder, Step};
use super::gates::Gates;
use super::letters::Wanted;
use super::shelf::{Shelf, ShelfError};
use super::{Command, Done, Here, Outgoing, Surroundings};

/// A timer that is not set is looked at again after this.
const IDLE: Duration = Duration::from_secs(3_600);

/// Words whose recipients' super nodes are being sought; the next is lost, and said again.
const SEEKING: usize = 32;

/// A session that was opened for words is closed when none went that way for so long: an answer is long over.
const UNUSED: Duration = Duration::from_secs(60);

/// The task's state. Nothing in it waits but for a small file.
pub(super) struct Desk {
    pub(super) around: Surroundings,
    pub(super) shelf: Shelf,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    /// Changes with each letter that comes.
    pub(super) arrived: watch::Sender<u64>,
    pub(super) beside: JoinSet<Done>,
    pub(super) here: Here,
    pub(super) boot: BootClock,
    post: post::Post,
    finder: Finder,
    seeking: usize,
    /// Sessions that were opened for words, and when the last one went that way.
    opened: BTreeMap<NodeId, Instant>,
    pub(super) gates: Gates,
    pub(super) outbox: Outbox,
    pub(super) wanted: BTreeMap<LetterId, Wanted>,
    pub(super) seen: Seen,
    /// Letters that are on their way to the disk.
    pub(super) storing: BTreeSet<Name>,
}

impl Desk {
    pub(super) fn new(
        around: Surroundings,
        shelf: Shelf,
        outgoing: mpsc::Sender<Outgoing>,
        arrived: watch::Sender<u64>,
    ) -> Result<Self, ShelfError> {
        let seen = shelf.load_seen(around.clock.now())?;
        let mut desk = Self {
            finder: Finder::new(around.dht.clone(), around.endpoint.clone()),
            around,
            shelf,
            outgoing,
            arrived,
            beside: JoinSet::new(),
            here: Here::default(),
            boot: BootClock::new(),
            post: post::Post::default(),
            seeking: 0,
            opened: BTreeMap::new(),
            gates: Gates::default(),
            outbox: Outbox::default(),
            wanted: BTreeMap::new(),
            seen,
            storing: BTreeSet::new(),
        };
        desk.take_drafts()?;
        Ok(desk)
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut here: watch::Receiver<Here>) {
        loop {
            let until = self.until_timer();
            // None before the others: words come from anybody, and must not keep out what runs beside.
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Ok(()) = here.changed() => self.on_here(*here.borrow_and_update()),
                Some(done) = self.beside.join_next() => match done {
                    Ok(done) => self.on_done(done),
                    Err(error) => tracing::error!(%error, "what ran beside the post has failed"),
                },
                () = tokio::time::sleep(until) => self.on_timer(),
            }
        }
    }

    fn until_timer(&self) -> Duration {
        let letters = self.outbox.next().filter(|_| !self.here.apart);
        let unused = self.opened.values().min().map(|last| *last + UNUSED);
        let due = letters.into_iter().chain(unused).chain(self.gates.due()).min();
        due.map_or(IDLE, |due| due.since(self.boot.now()))
    }

    fn on_timer(&mut self) {
        if !self.here.apart {
            self.say_due();
            self.look_at_gates();
        }
        self.close_unused();
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Carried(origin, word) => self.on_word(origin, word),
            Command::Send(draft) => self.on_draft(draft),
            Command::Met(node) => {
                self.outbox.retry(Some(node), self.boot.now());
                self.say_due();
            }
        }
    }

    /// A new way makes what waits due.
    fn on_here(&mut self, here: Here) {
        let before = std::mem::replace(&mut self.here, here);
        let found = (here.lsn.is_some() && here.lsn != before.lsn) || (here.attached && !before.attached);
        if found {
            self.retry_all();
        }
        self.look_at_gates();
    }

    pub(super) fn retry_all(&mut self) {
        self.outbox.retry(None, self.boot.now());
        self.say_due();
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Keyed(id, key) => self.on_keyed(id, key),
            Done::Found(word, step) => {
                self.seeking -= 1;
                self.on_found(*word, step);
            }
            Done::Stored { name, until, stored } => self.on_stored(name, until, stored),
            Done::Shelved { kept, progress, shelved } => self.on_shelved(kept, progress, shelved),
            Done::Gates(contacts) => self.on_gates(contacts),
        }
    }

    pub(super) fn on_word(&mut self, origin: Origin, word: Word) {
        if self.here.apart {
            return;
        }
        let (now, own) = (self.boot.now(), self.around.endpoint.node());
        if !self.post.admits(word.bytes(), origin, now) {
            return tracing::debug!(?origin, "a word is dropped: too much is carried for others already");
        }
        let header = match origin {
            Origin::Here => Header { from: own, to: word.to, lsn: word.lsn, hops: word.hops },
            _ => {
                let trust = self.around.trust.load_full();
                match word.header(&Verifier { trust: &trust, now: self.around.clock.now() }) {
                    Ok(header) => header,
                    Err(error) => return tracing::info!(?origin, %error, "a word is not believed"),
                }
            }
        };
        let has_session = |node| self.around.endpoint.session(node).is_some();
        let Here { lsn, attached, .. } = self.here;
        let around = Around { own, lsn, attached, has_session: &has_session };
        let onward = self.post.onward(&header, origin, &around, now);
        tracing::debug!(from = %header.from.short(), to = %word.to.short(), ?origin, ?onward, "a word");
        match onward {
            Onward::Keep => self.deliver(header.from, word.content),
            Onward::To(peer) => self.pass(peer, word),
            Onward::Seek => self.seek(word),
            Onward::Master => self.hand_to_master(word),
            Onward::Drop(_) => {}
        }
    }

    fn pass(&mut self, peer: NodeId, word: Word) {
        if let Some(last) = self.opened.get_mut(&peer) {
            *last = self.boot.now();
        }
        let word = Word { hops: word.hops.saturating_sub(1), ..word };
        let Some(session) = self.around.endpoint.session(peer) else { return };
        let sent = encode_send_to(&word).map_err(|error| error.to_string()).and_then(|bytes| {
            session.try_send_as(TrafficClass::Interactive, &bytes).map_err(|error| error.to_string())
        });
        if let Err(reason) = sent {
            tracing::debug!(peer = %peer.short(), reason, "a word is lost");
        }
    }

    fn seek(&mut self, word: Word) {
        if self.seeking >= SEEKING {
            return tracing::debug!(limit = SEEKING, "a word is lost: too many are sought already");
        }
        self.seeking += 1;
        let (finder, gates) = (self.finder.clone(), self.gates.nodes());
        self.beside.spawn(async move {
            let step = finder.find(word.to, &gates).await;
            Done::Found(Box::new(word), step)
        });
    }

    fn on_found(&mut self, word: Word, step: Option<Step>) {
        match step {
            Some(Step { peer, lsn, opened }) => {
                if opened {
                    self.opened.insert(peer, self.boot.now());
                }
                self.pass(peer, Word { lsn, ..word });
            }
            None if self.here.attached => self.hand_to_master(word),
            None => tracing::debug!(to = %word.to.short(), "no super node of the recipient's is reached"),
        }
    }

    fn hand_to_master(&self, word: Word) {
        if self.outgoing.try_send(Outgoing::Master(word)).is_err() {
            tracing::debug!("a word is lost: the driver does not keep up");
        }
    }

    /// Sessions that were opened for words alone, and serve nothing else now.
    fn close_unused(&mut self) {
        let now = self.boot.now();
        let unused: Vec<NodeId> = self
            .opened
            .iter()
            .filter(|(_, last)| now.since(**last) >= UNUSED)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in unused {
            self.opened.remove(&peer);
            let serves =
                self.here.lsn == Some(peer) || self.gates.holds(peer) || self.around.relays.sits_at(peer);
            if let Some(session) = self.around.endpoint.session(peer).filter(|_| !serves) {
                session.close(CloseCode::Done, "no word goes this way any more");
            }
        }
    }

    /// A session of a gate that is no more is one of many.
    pub(super) fn let_go(&mut self, peer: NodeId) {
        self.opened.insert(peer, self.boot.now());
    }
}
