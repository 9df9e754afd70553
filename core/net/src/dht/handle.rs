//! The handle to a node of the table. Clones are the same node; dropping the last one ends its task.

use std::sync::Arc;

use muster_overlay::dht::{
    Answer, Care, Effort, Kept, Kind, Record, Refusal, Request, Service, Standing, Stats, Wish,
};
use muster_types::{Key, NodeId};
use muster_wire::datagram::{Counts, Own, Peer, PeerAddress};
use muster_wire::record::{Opened, Value};
use muster_wire::{Signer, WireError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::DhtConfig;
use super::shell::Shell;
use crate::sealed::{Carrier, Sealed};

/// Commands that wait for the task.
const COMMANDS: usize = 256;

/// Events that wait for the owner; beyond it they are lost: each is a hint.
const EVENTS: usize = 256;

/// Why the table did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhtError {
    #[error("the table's task has ended")]
    Ended,
    #[error("no such key: {asked} nodes were asked, {answered} answered, none holds {key}")]
    NoSuchKey { key: Key, asked: u32, answered: u32 },
    #[error("no node of the table is known or answers")]
    NobodyThere,
    #[error("the record cannot be made: {0}")]
    Record(#[from] WireError),
    #[error(
        "nobody keeps it: {refused} of the {asked} nodes asked refused ({first}), {silent} did not answer"
    )]
    Refused { asked: usize, refused: usize, silent: usize, first: Refusal },
    #[error("nobody is known to keep it: none of the {asked} nodes asked answered")]
    Silent { asked: usize },
}

/// What a search brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    /// Newest first, one of each publisher.
    pub found: Vec<Opened>,
    pub effort: Effort,
}

/// What the task tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum DhtEvent {
    /// A contact that served has failed its pings.
    Unreachable(NodeId),
    /// What is listened for changed.
    Changed(Record),
    Serves(Service),
}

pub(super) enum Command {
    Standing(Standing<PeerAddress>),
    Bootstrap(Vec<PeerAddress>),
    Remembered(Vec<PeerAddress>),
    Find {
        target: Key,
        care: Care,
        done: oneshot::Sender<(Vec<PeerAddress>, Effort)>,
    },
    Get {
        key: Key,
        kind: Kind,
        wish: Wish,
        care: Care,
        done: oneshot::Sender<Result<Got, DhtError>>,
    },
    Put {
        key: Key,
        value: Box<Value>,
        keep: bool,
        done: oneshot::Sender<Result<(Kept<NodeId>, Effort), DhtError>>,
    },
    AskOne {
        to: PeerAddress,
        request: Request,
        done: oneshot::Sender<Option<Answer<NodeId>>>,
    },
    Listen {
        key: Key,
        kind: Kind,
    },
    Stats(oneshot::Sender<(Stats, Counts, usize)>),
    Locate(Vec<NodeId>, oneshot::Sender<Vec<PeerAddress>>),
    Sample(usize, oneshot::Sender<Vec<PeerAddress>>),
    Renewed(Box<(Own, Signer)>),
    Forget(Box<dyn Fn(&Peer) -> bool + Send>),
    NetworkChanged,
    WokeUp,
    Leave(oneshot::Sender<()>),
}

#[derive(Clone)]
pub struct Dht {
    commands: mpsc::Sender<Command>,
    _task: Arc<DropGuard>,
}

impl Dht {
    /// Starts the node's task. Dropping the receiver of its events is fine.
    pub fn start(
        config: DhtConfig,
        carrier: Arc<dyn Carrier>,
        datagrams: mpsc::Receiver<Sealed>,
    ) -> (Self, mpsc::Receiver<DhtEvent>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, receiver) = mpsc::channel(EVENTS);
        let cancelled = CancellationToken::new();
        let shell = Shell::new(config, carrier, events);
        tokio::spawn(cancelled.clone().run_until_cancelled_owned(shell.run(inbox, datagrams)));
        (Self { commands, _task: Arc::new(cancelled.drop_guard()) }, receiver)
    }

    /// What this node is now; again whenever it changes.
    pub async fn standing(&self, standing: Standing<PeerAddress>) {
        self.tell(Command::Standing(standing)).await;
    }

    /// Nodes that are always there.
    pub async fn bootstrap(&self, contacts: Vec<PeerAddress>) {
        self.tell(Command::Bootstrap(contacts)).await;
    }

    /// Contacts of other days.
    pub async fn remembered(&self, contacts: Vec<PeerAddress>) {
        self.tell(Command::Remembered(contacts)).await;
    }

    /// The nodes closest to a key, closest first.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn find(&self, target: Key, care: Care) -> Result<(Vec<PeerAddress>, Effort), DhtError> {
        let found = self.ask(|done| Command::Find { target, care, done }).await?;
        if found.0.is_empty() { Err(DhtError::NobodyThere) } else { Ok(found) }
    }

    /// What stands under a key.
    ///
    /// # Errors
    /// Nothing does, as far as anybody tells.
    pub async fn get(&self, key: Key, kind: Kind, wish: Wish, care: Care) -> Result<Got, DhtError> {
        self.ask(|done| Command::Get { key, kind, wish, care, done }).await?
    }

    /// Signs and stores a value once, for its default life.
    ///
    /// # Errors
    /// It is too large, not this node's to say, or nobody keeps it.
    pub async fn put(&self, key: Key, value: Value) -> Result<(Kept<NodeId>, Effort), DhtError> {
        let value = Box::new(value);
        self.ask(|done| Command::Put { key, value, keep: false, done }).await?
    }

    /// The same, renewed for as long as this node runs.
    ///
    /// # Errors
    /// As [`put`](Self::put); it is tried again all the same.
    pub async fn publish(&self, key: Key, value: Value) -> Result<(Kept<NodeId>, Effort), DhtError> {
        let value = Box::new(value);
        self.ask(|done| Command::Put { key, value, keep: true, done }).await?
    }

    /// Asks one node one thing. `None`: no answer.
    pub async fn ask_one(&self, to: PeerAddress, request: Request) -> Option<Answer<NodeId>> {
        self.ask(|done| Command::AskOne { to, request, done }).await.ok().flatten()
    }

    /// Changes come as events from now on.
    pub async fn listen(&self, key: Key, kind: Kind) {
        self.tell(Command::Listen { key, kind }).await;
    }

    /// Of the machine, of the sessions, and how many of those stand.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn stats(&self) -> Result<(Stats, Counts, usize), DhtError> {
        self.ask(Command::Stats).await
    }

    /// Where these nodes are, as far as this one knows.
    pub async fn locate(&self, nodes: Vec<NodeId>) -> Vec<PeerAddress> {
        self.ask(|done| Command::Locate(nodes, done)).await.unwrap_or_default()
    }

    /// Contacts spread over the key space that answered when they were last asked.
    pub async fn sample(&self, count: usize) -> Vec<PeerAddress> {
        self.ask(|done| Command::Sample(count, done)).await.unwrap_or_default()
    }

    /// A renewed ticket.
    pub async fn renewed(&self, own: Own, signer: Signer) {
        self.tell(Command::Renewed(Box::new((own, signer)))).await;
    }

    /// Cuts sessions with whoever was revoked.
    pub async fn forget(&self, whom: impl Fn(&Peer) -> bool + Send + 'static) {
        self.tell(Command::Forget(Box::new(whom))).await;
    }

    pub async fn network_changed(&self) {
        self.tell(Command::NetworkChanged).await;
    }

    pub async fn woke_up(&self) {
        self.tell(Command::WokeUp).await;
    }

    /// Hands over what others should hold; returns when that is done.
    pub async fn leave(&self) {
        // An error: the task has ended, and so has the node.
        let _ = self.ask(Command::Leave).await;
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the table's task has ended");
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, DhtError> {
        let (done, answer) = oneshot::channel();
        self.tell(command(done)).await;
        answer.await.map_err(|_| DhtError::Ended)
    }
}
