//! Several replicas as one: wake-ups, and what one has for a stream or a caller that hangs on another, go by the bus.
//!
//! What is said is never the truth: a wake-up makes readers read, a stream that may be superseded asks the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use muster_kit::bus::{Bus, Heard};
use muster_kit::shutdown::Shutdown;
use muster_types::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::domain::ledger::Wake;
use crate::hub::{Answered, Hub, Mail};
use crate::wake::{LocalBus, WakeBus, Wakes};

/// Wake-ups in one word: with 50 bytes each it stays far below the megabyte that NATS takes.
const WAKES: usize = 5_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    Wake(BTreeSet<Wake>),
    /// For the stream of this node.
    Mail {
        node: NodeId,
        mail: Mail,
    },
    /// The node has answered a probe.
    Answer {
        nonce: u64,
        node: NodeId,
        #[serde(default)]
        life: Option<u64>,
    },
    /// The node has a new stream: an earlier one elsewhere is superseded, if it is of this life (none: of any).
    Attached {
        node: NodeId,
        #[serde(default)]
        life: Option<u64>,
    },
    /// Another replica has renewed its lease: the store works.
    Renewed,
}

/// What replicas of one network listen to.
pub(crate) fn subject(network: NetworkId) -> String {
    format!("muster.{network}.topology")
}

pub(crate) fn say(bus: &Bus, word: &Word) {
    match serde_json::to_vec(word) {
        Ok(bytes) => bus.say(Bytes::from(bytes)),
        Err(error) => tracing::error!(%error, "a word for other replicas cannot be written"),
    }
}

/// Wakes the readers of this replica, and those of the others.
pub(crate) struct SharedBus {
    pub(crate) local: Arc<LocalBus>,
    pub(crate) bus: Bus,
}

impl WakeBus for SharedBus {
    fn publish(&self, wakes: BTreeSet<Wake>) {
        let all: Vec<Wake> = wakes.iter().copied().collect();
        self.local.publish(wakes);
        for some in all.chunks(WAKES) {
            say(&self.bus, &Word::Wake(some.iter().copied().collect()));
        }
    }

    fn subscribe(&self) -> Wakes {
        self.local.subscribe()
    }
}

/// Takes in what the other replicas say, until the shutdown.
pub(crate) async fn listen(
    hub: Arc<Hub>,
    local: Arc<LocalBus>,
    mut heard: mpsc::Receiver<Heard>,
    shutdown: Shutdown,
) {
    loop {
        let word = tokio::select! {
            () = shutdown.triggered() => return,
            next = heard.recv() => match next {
                Some(Heard::Word(bytes)) => serde_json::from_slice(&bytes),
                Some(Heard::Gap) => {
                    local.wake_everyone();
                    continue;
                }
                None => return,
            },
        };
        match word {
            Ok(Word::Wake(wakes)) => local.publish(wakes),
            Ok(Word::Mail { node, mail }) => {
                hub.deliver(node, mail);
            }
            Ok(Word::Answer { nonce, node, life }) => {
                hub.take_answer(nonce, Answered { node, life });
            }
            Ok(Word::Attached { node, life }) => settle(&hub, node, life).await,
            Ok(Word::Renewed) => {
                hub.others_renewed.send_replace(Some(tokio::time::Instant::now()));
            }
            // Of a newer version: whatever it wakes is found by polling.
            Err(error) => tracing::debug!(%error, "a word of another replica is not understood"),
        }
    }
}

/// Ends the node's streams here that the store knows a later one of.
async fn settle(hub: &Hub, node: NodeId, life: Option<u64>) {
    if hub.session(node).is_none() {
        return;
    }
    match hub.store.attachments(&[node]).await {
        Ok(found) => found.iter().for_each(|it| hub.supersede(node, life, it.row.session)),
        Err(error) => tracing::debug!(%error, "cannot tell whether a stream is superseded"),
    }
}
