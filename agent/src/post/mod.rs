//! Letters to and from any node, and others' words on their way: by super nodes that the hash table names, the master last.
//!
//! local socket, sessions, control channel -> [`Command`] -> [`desk`]: `muster_overlay::post` decides -> sessions, or
//! [`Outgoing`] to the driver. Letters rest on the [`shelf`], on disk: those to be sent, and those that came.

mod desk;
mod finder;
mod gates;
mod letters;
mod shelf;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_kit::clock::MasterClock;
use muster_net::Endpoint;
use muster_net::dht::Dht;
use muster_overlay::post::{Name, Origin};
use muster_types::{Contact, LetterId, NodeId, Timestamp};
use muster_wire::TrustStore;
use muster_wire::letter::Word;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::keyring::Keyring;
use crate::meetings::{Hand, Meetings};
use crate::relays::Relays;
use crate::super_nodes::SuperNodes;

pub(crate) use shelf::{Received, Shelf, ShelfError};

use desk::Desk;

/// Commands that wait for the task. Words beyond it are lost, as on any network; people wait.
const COMMANDS: usize = 256;

/// Words that wait for the driver.
const OUTGOING: usize = 64;

/// What the task is told.
pub(crate) enum Command {
    /// A word came, or is this node's own.
    Carried(Origin, Word),
    /// Somebody on this host writes.
    Send(Draft),
    /// A session opened: what waits for that node can go.
    Met(NodeId),
}

/// A letter to be written.
pub(crate) struct Draft {
    pub(crate) to: NodeId,
    pub(crate) content: Bytes,
    pub(crate) life: Duration,
    /// Told twice at most: that it is kept, and how it ended.
    pub(crate) progress: mpsc::Sender<Progress>,
}

/// How a letter fares.
#[derive(Debug)]
pub(crate) enum Progress {
    Kept(LetterId),
    /// The recipient has it.
    Arrived(LetterId),
    /// Not taken, or its time is over; why.
    Failed(String),
}

/// What stands around this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Here {
    /// Whose child it is.
    pub(crate) lsn: Option<NodeId>,
    pub(crate) is_lsn: bool,
    /// The control channel stands.
    pub(crate) attached: bool,
    /// A lost device, or one of several with one identity: it writes to nobody and reads nothing.
    pub(crate) apart: bool,
}

/// What the driver does for the task.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// By the control channel.
    Master(Word),
    /// Super nodes with which this LSN holds sessions now: to be published.
    Via(Vec<Contact>),
}

/// What the task works with.
pub(crate) struct Surroundings {
    pub(crate) endpoint: Endpoint,
    pub(crate) dht: Dht,
    pub(crate) keyring: Keyring,
    pub(crate) hand: Arc<ArcSwap<Hand>>,
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) clock: MasterClock,
    pub(crate) meetings: Meetings,
    pub(crate) relays: Relays,
    pub(crate) super_nodes: SuperNodes,
}

/// A handle; the task ends with the last.
#[derive(Clone)]
pub(crate) struct Post {
    commands: mpsc::Sender<Command>,
    kept: Arc<Kept>,
}

struct Kept {
    node: NodeId,
    here: watch::Sender<Here>,
    arrivals: watch::Receiver<u64>,
    shelf: Shelf,
    _task: AbortOnDropHandle<()>,
}

impl Post {
    /// Begins with the letters that an earlier life left in `state`.
    ///
    /// # Errors
    /// The letters' folder cannot be made or read.
    pub(crate) fn spawn(
        around: Surroundings,
        state: &Path,
    ) -> Result<(Self, mpsc::Receiver<Outgoing>), ShelfError> {
        let shelf = Shelf::open(state)?;
        let node = around.endpoint.node();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (outgoing, leaving) = mpsc::channel(OUTGOING);
        let (here, at) = watch::channel(Here::default());
        let (arrived, arrivals) = watch::channel(0);
        let desk = Desk::new(around, shelf.clone(), outgoing, arrived)?;
        let task = AbortOnDropHandle::new(tokio::spawn(desk.run(inbox, at)));
        let kept = Kept { node, here, arrivals, shelf, _task: task };
        Ok((Self { commands, kept: Arc::new(kept) }, leaving))
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.kept.node
    }

    /// Hands on a word; what does not fit is lost.
    pub(crate) fn carried(&self, origin: Origin, word: Word) {
        if self.commands.try_send(Command::Carried(origin, word)).is_err() {
            tracing::debug!("a word is lost: the post does not keep up");
        }
    }

    pub(crate) fn met(&self, node: NodeId) {
        // A hint: the letter is said again in any case.
        let _ = self.commands.try_send(Command::Met(node));
    }

    /// Takes a letter in, when there is room.
    pub(crate) async fn send(&self, draft: Draft) {
        // The agent is about to end, and the draft's channel says so.
        let _ = self.commands.send(Command::Send(draft)).await;
    }

    pub(crate) fn is_at(&self, here: Here) {
        self.kept.here.send_if_modified(|known| std::mem::replace(known, here) != here);
    }

    /// Changes with each letter that comes.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.kept.arrivals.clone()
    }

    pub(crate) fn shelf(&self) -> Shelf {
        self.kept.shelf.clone()
    }
}

/// What ran beside the task.
enum Done {
    /// The recipient's keys, for the letter with this id.
    Keyed(LetterId, Result<[u8; 32], String>),
    /// Where a word may go on, and the LSN that was found.
    Found(Box<Word>, Option<finder::Step>),
    /// A letter that came is on disk, or is not.
    Stored { name: Name, until: Timestamp, stored: Result<(), ShelfError> },
    /// A letter of this host's is on disk.
    Shelved {
        kept: muster_overlay::post::Kept,
        progress: mpsc::Sender<Progress>,
        shelved: Result<(), ShelfError>,
    },
    /// Sessions with super nodes.
    Gates(Vec<Contact>),
}
