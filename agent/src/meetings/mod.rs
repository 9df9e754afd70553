//! Sessions with nodes of other places. A task of its own runs one machine a peer: calls go out by the driver, probes by the
//! overlay's socket, and a session begins by a relay and moves to the direct path when there is one.
//!
//! [`Command`] (people, driver), probes, [`Here`] and [`relays::Event`] -> machines -> [`Outgoing`], probes, sessions.

mod act;
mod calls;
mod desk;
mod pair;
mod sight;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_kit::clock::MasterClock;
use muster_kit::connect::{Proxy, Tried};
use muster_net::sealed::Sealed;
use muster_net::{Endpoint, Path, Session};
use muster_proto::trust::v1::Envelope;
use muster_types::{NetworkId, NodeId};
use muster_wire::sealing::SealingKey;
use muster_wire::ticket::NodeTicket;
use muster_wire::{Signer, TrustStore};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::keyring::Keyring;
use crate::relays::{self, Relays, Standing};

pub(crate) use pair::Progress;
pub(crate) use sight::Sight;

use desk::Desk;

/// Commands that wait for the task. Calls beyond it are lost, as on any network; whoever has anything else to say waits.
const COMMANDS: usize = 512;

/// Calls that wait for the driver.
const OUTGOING: usize = 64;

/// Progress reports that wait for one who asked.
pub(crate) const REPORTS: usize = 64;

/// What the task is told.
pub(crate) enum Command {
    /// Somebody wants a session, and to hear how it comes about.
    Reach {
        peer: NodeId,
        reports: mpsc::Sender<Progress>,
    },
    /// Another node's call, unopened.
    Called(Box<Envelope>),
    Opened(Session),
    Closed(Session, String),
    PathChanged(Session),
    Check(oneshot::Sender<Checked>),
}

/// How this host is seen, and by what it could reach others.
pub(crate) struct Checked {
    pub(crate) sight: Sight,
    pub(crate) relays: Vec<Standing>,
    pub(crate) proxy: Option<(Proxy, Option<Arc<Tried>>)>,
}

/// Where this node is, as far as it knows by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    pub(crate) own: Vec<SocketAddr>,
    /// A lost device meets nobody, nor does one that is not the only one with its identity.
    pub(crate) apart: bool,
}

/// What the driver carries for the task.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: NodeId,
    pub(crate) call: Envelope,
}

/// With which this node speaks for itself.
pub(crate) struct Hand {
    pub(crate) signer: Signer,
    pub(crate) noise_secret: [u8; 32],
    /// Opens calls that are sealed to this node.
    pub(crate) sealing: SealingKey,
}

/// What meetings are made with.
pub(crate) struct Surroundings {
    pub(crate) endpoint: Endpoint,
    pub(crate) relays: Relays,
    pub(crate) keyring: Keyring,
    pub(crate) hand: Arc<ArcSwap<Hand>>,
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) clock: MasterClock,
    pub(crate) network: NetworkId,
}

/// A handle; the task ends with the last.
#[derive(Clone)]
pub(crate) struct Meetings {
    commands: mpsc::Sender<Command>,
    kept: Arc<Kept>,
}

struct Kept {
    node: NodeId,
    here: watch::Sender<Here>,
    hand: Arc<ArcSwap<Hand>>,
    _task: AbortOnDropHandle<()>,
}

impl Meetings {
    pub(crate) fn spawn(
        around: Surroundings,
        relays: mpsc::Receiver<relays::Event>,
        probes: mpsc::Receiver<Sealed>,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (outgoing, calls) = mpsc::channel(OUTGOING);
        let (here, at) = watch::channel(Here::default());
        let (node, hand) = (around.endpoint.node(), Arc::clone(&around.hand));
        let task = tokio::spawn(Desk::new(around, outgoing).run(inbox, at, relays, probes));
        let kept = Kept { node, here, hand, _task: AbortOnDropHandle::new(task) };
        (Self { commands, kept: Arc::new(kept) }, calls)
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.kept.node
    }

    /// Tells the task, which never waits for who tells it.
    pub(crate) async fn tell(&self, command: Command) {
        // The agent is about to end.
        let _ = self.commands.send(command).await;
    }

    /// Hands on a call; what does not fit is lost.
    pub(crate) fn called(&self, call: Envelope) {
        if self.commands.try_send(Command::Called(Box::new(call))).is_err() {
            tracing::debug!("a call is lost: the meetings do not keep up");
        }
    }

    /// The host's network changed, or it woke up, perhaps elsewhere: the same private addresses are in many places.
    pub(crate) fn is_at(&self, own: Vec<SocketAddr>) {
        self.kept.here.send_modify(|here| here.own = own);
    }

    pub(crate) fn set_apart(&self, apart: bool) {
        self.kept.here.send_modify(|here| here.apart = apart);
    }

    /// With which this node speaks, as it is now.
    pub(crate) fn hand(&self) -> Arc<ArcSwap<Hand>> {
        Arc::clone(&self.kept.hand)
    }

    /// Signs as before the renewal no more.
    pub(crate) fn renew(&self, hand: Hand) {
        self.kept.hand.store(Arc::new(hand));
    }
}

/// What ran beside the task.
enum Done {
    Seen(Sight),
    /// Of the pair with this number.
    Relays(NodeId, u64, Result<Vec<String>, String>),
    /// Of the peer of the pair with this number.
    Keys(NodeId, u64, Result<Box<NodeTicket>, String>),
    Dialled(NodeId, Path, Result<Session, String>),
    /// A further path of the session.
    Moved(NodeId, Path, Result<(), String>),
    /// This node sits at a relay that a caller named, or was not let in.
    Attended(NodeId, String, Result<(), String>),
    /// A channel was asked for.
    Asked(NodeId, Result<(), String>),
    Checked,
}
