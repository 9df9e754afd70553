//! What every stream and call of the service shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_types::{NodeId, Version};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::domain::opaque::Opaque;
use crate::store::Store;
use crate::trust::Trust;
use crate::wake::WakeBus;
use crate::writer::Writer;

/// Messages to one stream from elsewhere in the process; when full they are dropped: probes are repeated, and rivals
/// meet on their own network too.
pub(crate) const MAIL: usize = 64;

/// Probes that wait for answers at once, over all callers.
const PROBES: usize = 256;

/// What other parts of the process have for a stream.
#[derive(Debug)]
pub(crate) enum Mail {
    /// The claim of another LSN for one of its subnet keys.
    Rival(Opaque),
    Probe {
        nonce: u64,
        targets: Vec<NodeId>,
    },
}

/// One open stream of this replica.
pub(crate) struct StreamHandle {
    pub(crate) session: u64,
    pub(crate) mail: mpsc::Sender<Mail>,
    /// A later stream of the same node ends it.
    pub(crate) superseded: CancellationToken,
}

/// See the module's head.
pub(crate) struct Hub {
    /// This process, by a name of its own for each start.
    pub(crate) replica: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) writer: Writer,
    pub(crate) bus: Arc<dyn WakeBus>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) trust: Trust,
    pub(crate) minimum_version: Version,
    pub(crate) source_visible: bool,
    pub(crate) streams: Mutex<HashMap<NodeId, StreamHandle>>,
    pub(crate) probes: Mutex<HashMap<u64, mpsc::Sender<NodeId>>>,
    /// Up to where revocations are known here; every stream listens.
    pub(crate) revoked: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are consistent after every statement, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// The node's stream from now on; an earlier one is ended.
    pub(crate) fn register(&self, node: NodeId, handle: StreamHandle) {
        if let Some(earlier) = lock(&self.streams).insert(node, handle) {
            earlier.superseded.cancel();
        }
    }

    pub(crate) fn unregister(&self, node: NodeId, session: u64) {
        let mut streams = lock(&self.streams);
        if streams.get(&node).is_some_and(|handle| handle.session == session) {
            streams.remove(&node);
        }
    }

    /// Puts a message in a stream's mailbox; says whether it has one here with room.
    pub(crate) fn mail(&self, node: NodeId, mail: Mail) -> bool {
        lock(&self.streams).get(&node).is_some_and(|handle| handle.mail.try_send(mail).is_ok())
    }

    /// Answers to this nonce go to `answers`; `false` when too many probes run.
    pub(crate) fn expect_answers(&self, nonce: u64, answers: mpsc::Sender<NodeId>) -> bool {
        let mut probes = lock(&self.probes);
        let room = probes.len() < PROBES;
        if room {
            probes.insert(nonce, answers);
        }
        room
    }

    pub(crate) fn forget_probe(&self, nonce: u64) {
        lock(&self.probes).remove(&nonce);
    }

    pub(crate) fn answer_probe(&self, nonce: u64, node: NodeId) {
        if let Some(answers) = lock(&self.probes).get(&nonce) {
            let _ = answers.try_send(node);
        }
    }
}
