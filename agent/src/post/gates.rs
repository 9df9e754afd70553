//! While an LSN has no master, sessions with super nodes stand for it: others reach its nodes by them, and they are named in
//! its record in the hash table. None of this is there while the master is.

use std::time::Duration;

use muster_net::Endpoint;
use muster_types::{Contact, Instant, NodeId};
use muster_wire::record::VIA;
use rand::Rng;
use tokio::time::timeout;

use super::desk::Desk;
use super::{Done, Here, Outgoing};
use crate::super_nodes::SuperNodes;

/// A master that is lost is mostly there again at once; and a fleet does not open its gates in one moment.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether they still stand.
const CHECK: Duration = Duration::from_secs(30);
/// The same while there is none.
const AGAIN: Duration = Duration::from_secs(5);
/// For a session with one of them.
const DIAL: Duration = Duration::from_secs(3);
/// Super nodes that are tried in one round.
const TRIED: usize = 4;

#[derive(Default)]
pub(super) struct Gates {
    open: Vec<Contact>,
    due: Option<Instant>,
    opening: bool,
}

impl Gates {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.opening)
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.open.iter().map(|gate| gate.node).collect()
    }

    pub(super) fn holds(&self, node: NodeId) -> bool {
        self.open.iter().any(|gate| gate.node == node)
    }
}

impl Desk {
    pub(super) fn look_at_gates(&mut self) {
        let Here { is_lsn, attached, apart, .. } = self.here;
        let now = self.boot.now();
        if !is_lsn || attached || apart {
            self.gates.due = None;
            return self.set_gates(Vec::new());
        }
        let due = *self.gates.due.get_or_insert_with(|| now + some(GRACE));
        if due <= now && !std::mem::replace(&mut self.gates.opening, true) {
            let (super_nodes, endpoint) = (self.around.super_nodes.clone(), self.around.endpoint.clone());
            let open = self.gates.open.clone();
            self.beside.spawn(async move { Done::Gates(opened(&super_nodes, &endpoint, open).await) });
        }
    }

    pub(super) fn on_gates(&mut self, gates: Vec<Contact>) {
        self.gates.opening = false;
        let pause = if gates.is_empty() { AGAIN } else { CHECK };
        self.gates.due = Some(self.boot.now() + some(pause));
        self.set_gates(gates);
        // The master may be back.
        self.look_at_gates();
    }

    fn set_gates(&mut self, gates: Vec<Contact>) {
        let before = std::mem::replace(&mut self.gates.open, gates.clone());
        if before == gates {
            return;
        }
        tracing::info!(gates = ?self.gates.nodes(), "super nodes stand for the master");
        for gate in before.iter().filter(|gate| !gates.contains(gate)) {
            self.let_go(gate.node);
        }
        let found = !gates.is_empty();
        if self.outgoing.try_send(Outgoing::Via(gates)).is_err() {
            tracing::debug!("the driver does not keep up, and publishes no gates");
        }
        if found {
            self.retry_all();
        }
    }
}

/// Once to twice as long.
fn some(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(1.0..2.0))
}

/// Those of `before` that still stand, and new ones.
async fn opened(super_nodes: &SuperNodes, endpoint: &Endpoint, before: Vec<Contact>) -> Vec<Contact> {
    let mut open: Vec<Contact> =
        before.into_iter().filter(|gate| endpoint.session(gate.node).is_some()).collect();
    if open.len() >= VIA {
        return open;
    }
    for contact in super_nodes.find().await.into_iter().take(TRIED) {
        let known = open.iter().any(|gate| gate.node == contact.node);
        if open.len() < VIA && !known {
            match timeout(DIAL, endpoint.connect(contact.clone())).await {
                Ok(Ok(_)) => open.push(contact),
                Ok(Err(error)) => tracing::info!(node = %contact.node.short(), %error, "no gate"),
                Err(_) => tracing::info!(node = %contact.node.short(), "no gate: no answer"),
            }
        }
    }
    open
}
