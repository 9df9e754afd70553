//! What this node gives others as a global super node: it relays for who sits down here and shows tickets, within the caps
//! of its owner, while the registry has it serve.
//!
//! messages of sessions -> [`Command`], datagrams -> [`desk`]: `muster_overlay::relay` decides -> messages, datagrams.

mod desk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_kit::clock::MasterClock;
use muster_net::{Endpoint, Session};
use muster_proto::gsn::v1::Load;
use muster_proto::relay::v1::CarryRequest;
use muster_types::NodeId;
use muster_wire::TrustStore;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::SuperNodeConfig;

/// Commands that wait for the task; what does not fit is lost, as on any network.
const COMMANDS: usize = 256;

/// What the task is told.
pub(crate) enum Command {
    Asked(Session, CarryRequest),
    Closed(NodeId),
}

/// What was given since the last account.
#[derive(Debug, Default)]
pub(crate) struct Given {
    nodes: AtomicU32,
    bytes: AtomicU64,
}

/// What relaying is done with.
pub(crate) struct Means {
    pub(crate) endpoint: Endpoint,
    pub(crate) trust: Arc<ArcSwap<TrustStore>>,
    pub(crate) clock: MasterClock,
    pub(crate) config: SuperNodeConfig,
    /// Whether the registry has this node serve.
    pub(crate) serving: watch::Receiver<bool>,
    pub(crate) given: Arc<Given>,
}

/// The task beside the loop; dropping it ends what it carries.
pub(crate) struct Donation {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Donation {
    pub(crate) fn spawn(means: Means) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let datagrams = means.endpoint.take_relayed().unwrap_or_else(|| mpsc::channel(1).1);
        let task = tokio::spawn(desk::Desk::new(means).run(inbox, datagrams));
        Self { commands, task }
    }

    pub(crate) fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!("lost a word to be relayed: nobody keeps up");
        }
    }
}

impl Drop for Donation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Given {
    fn seated(&self, nodes: usize) {
        self.nodes.store(u32::try_from(nodes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn carried(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The account of the last `span`, measured by what the owner gives.
    pub(crate) fn account(&self, config: &SuperNodeConfig, span: Duration) -> Load {
        let (nodes, bytes) = (self.nodes.load(Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed));
        let most = config.relaying_bytes_per_second.saturating_mul(span.as_secs()).max(1);
        let by_bytes = bytes.saturating_mul(100) / most;
        let by_nodes = u64::from(nodes) * 100 / u64::from(config.relayed_nodes.max(1));
        let percent = u32::try_from(by_bytes.max(by_nodes).min(100)).unwrap_or(100);
        Load { relayed_nodes: nodes, relayed_bytes: bytes, signals: 0, load_percent: percent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_measured_by_what_the_owner_gives_and_each_account_begins_anew() {
        let config =
            SuperNodeConfig { relaying_bytes_per_second: 10_000, relayed_nodes: 8, ..Default::default() };
        let (given, span) = (Given::default(), Duration::from_secs(10));
        given.seated(2);
        given.carried(90_000);
        assert_eq!(given.account(&config, span).load_percent, 90);
        assert_eq!(given.account(&config, span).load_percent, 25);
    }
}
