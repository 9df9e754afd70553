//! What every stream and call of the service shares.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_kit::bus::Bus;
use muster_proto::trust::v1::Envelope;
use muster_types::{Key, NodeId, Version};
use muster_wire::sealing::SealingKey;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError, Statement};
use crate::brake::Brake;
use crate::domain::clone::LIVES;
use crate::domain::opaque::Opaque;
use crate::peers::{self, Word};
use crate::store::Store;
use crate::trust::Trust;
use crate::wake::WakeBus;
use crate::writer::Writer;

/// Messages to one stream from elsewhere in the process; when full they are dropped: probes are repeated, and rivals
/// meet on their own network too.
pub(crate) const MAIL: usize = 64;

/// Refused nodes that are remembered; beyond it they are forgotten and noted again.
const REFUSED: usize = 10_000;

/// Lists that are known to be adopted; beyond it they are forgotten, and adopted anew to no effect.
const ADOPTED: usize = 4_096;

/// Probes that wait for answers at once, over all callers.
const PROBES: usize = 256;

/// What other parts of the process, or other replicas, have for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Mail {
    /// The claim of another LSN for one of its subnet keys.
    Rival(Opaque),
    Probe {
        nonce: u64,
        targets: Vec<NodeId>,
        /// The answers are to be signed.
        #[serde(default)]
        signed: bool,
    },
    /// Has a node under this stream's come to topology itself.
    Summon(NodeId),
    /// Several devices live under this stream's identity: it comes back, and is held.
    Hold,
    /// The same identity is one device's again, but for this life.
    Release { but: Option<u64> },
    /// One of the devices becomes another one, by this link.
    NewIdentity { life: u64, link: String },
    /// One node's word to another of this stream's.
    Call { to: NodeId, call: Opaque },
    /// The same, in the form in which super nodes pass it on.
    SendTo { to: NodeId, word: Opaque },
    /// Somebody does not reach this child of the stream's LSN.
    Suspicion { of: NodeId },
}

/// Who answered a probe, and the life that it proved by its signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) node: NodeId,
    pub(crate) life: Option<u64>,
}

impl Mail {
    /// Rivals and calls are for whoever counts as the node; questions of life and death for all who say they are.
    fn is_for_every_life(&self) -> bool {
        !matches!(self, Self::Rival(_) | Self::Call { .. } | Self::SendTo { .. } | Self::Suspicion { .. })
    }
}

/// One open stream of this replica.
pub(crate) struct StreamHandle {
    pub(crate) session: u64,
    /// The boot nonce that it came with.
    pub(crate) life: u64,
    pub(crate) mail: mpsc::Sender<Mail>,
    /// A later stream of the same node ends it.
    pub(crate) superseded: CancellationToken,
}

/// See the module's head.
pub(crate) struct Hub {
    /// This process, by a name of its own for each start.
    pub(crate) replica: String,
    pub(crate) store: Arc<dyn Store>,
    /// Of the store; it changes only while nothing serves.
    pub(crate) epoch: i64,
    pub(crate) writer: Writer,
    pub(crate) bus: Arc<dyn WakeBus>,
    /// The other replicas; `None` where there is to be only one.
    pub(crate) peers: Option<Bus>,
    /// When one of them was last heard to have renewed its lease.
    pub(crate) others_renewed: watch::Sender<Option<tokio::time::Instant>>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) trust: Trust,
    pub(crate) minimum_version: Version,
    pub(crate) source_visible: bool,
    /// The last of a node's is the one that counts; earlier ones are of other lives, until it is known whether those go on.
    pub(crate) streams: Mutex<HashMap<NodeId, Vec<StreamHandle>>>,
    pub(crate) probes: Mutex<HashMap<u64, mpsc::Sender<Answered>>>,
    /// Nodes whose refusal is in the audit log: each once, for as long as this process lives.
    pub(crate) refused: Mutex<BTreeSet<NodeId>>,
    /// Lists of revocations, by their hashes, that auth has taken back in.
    pub(crate) adopted: Mutex<BTreeSet<Key>>,
    pub(crate) brake: Brake,
    /// Too many deeds wait for the audit log.
    pub(crate) audit_full: AtomicBool,
    /// Up to where revocations are known here; every stream listens.
    pub(crate) revoked: watch::Sender<u64>,
    pub(crate) sealing: SealingKey,
    pub(crate) operator_policy_file: PathBuf,
    pub(crate) task_policy_file: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are consistent after every statement, so a panic elsewhere does not spoil them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Has statements signed. If auth signs with a key that is new here, every stream tells its node of it before what follows.
    pub(crate) async fn sign(&self, statements: &[Statement]) -> Result<Vec<Opaque>, AuthorityError> {
        let signed = self.authority.sign(statements).await?;
        let sealed = signed.first().and_then(|first| Envelope::decode(&first.0[..]).ok());
        if sealed.is_some_and(|sealed| !self.trust.current().store.knows_signer(&sealed))
            && let Err(error) = self.trust.refresh(&*self.authority).await
        {
            tracing::warn!(%error, "auth signs with a key that is not known here");
        }
        Ok(signed)
    }

    /// Whether this list is to be taken back in for the first time.
    pub(crate) fn adopts_first(&self, hash: Key) -> bool {
        let mut adopted = lock(&self.adopted);
        if adopted.len() >= ADOPTED {
            adopted.clear();
        }
        adopted.insert(hash)
    }

    pub(crate) fn forget_adopted(&self, hash: Key) {
        lock(&self.adopted).remove(&hash);
    }

    /// Whether this node is refused for the first time.
    pub(crate) fn refuses_first(&self, node: NodeId) -> bool {
        let mut refused = lock(&self.refused);
        if refused.len() >= REFUSED {
            refused.clear();
        }
        refused.insert(node)
    }

    /// Control streams that stand now.
    pub(crate) fn stream_count(&self) -> usize {
        lock(&self.streams).values().map(Vec::len).sum()
    }

    /// The node's stream from now on; an earlier one of the same life is ended, wherever it stands.
    pub(crate) fn register(&self, node: NodeId, handle: StreamHandle) {
        let life = handle.life;
        let mut streams = lock(&self.streams);
        let own = streams.entry(node).or_default();
        let too_many = own.len() >= LIVES;
        for (at, earlier) in own.iter().enumerate() {
            if earlier.life == life || too_many && at == 0 {
                earlier.superseded.cancel();
            }
        }
        own.retain(|earlier| !earlier.superseded.is_cancelled());
        own.push(handle);
        drop(streams);
        self.tell(&Word::Attached { node, life: Some(life) });
    }

    /// No other life of the node goes on: this stream is its only one.
    pub(crate) fn retire_others(&self, node: NodeId, session: u64) {
        if let Some(own) = lock(&self.streams).get_mut(&node) {
            own.iter().filter(|it| it.session != session).for_each(|it| it.superseded.cancel());
        }
        self.tell(&Word::Attached { node, life: None });
    }

    /// Says it to the other replicas, if there are any.
    pub(crate) fn tell(&self, word: &Word) {
        if let Some(peers) = &self.peers {
            peers::say(peers, word);
        }
    }

    /// The session of the node's stream, if it stands here.
    pub(crate) fn session(&self, node: NodeId) -> Option<u64> {
        lock(&self.streams).get(&node)?.last().map(|handle| handle.session)
    }

    /// Ends the node's streams of this life (none: of any) but for one.
    pub(crate) fn supersede(&self, node: NodeId, life: Option<u64>, but: u64) {
        for handle in lock(&self.streams).get(&node).into_iter().flatten() {
            if handle.session != but && life.is_none_or(|life| life == handle.life) {
                handle.superseded.cancel();
            }
        }
    }

    pub(crate) fn unregister(&self, node: NodeId, session: u64) {
        let mut streams = lock(&self.streams);
        if let Some(own) = streams.get_mut(&node) {
            own.retain(|handle| handle.session != session);
            if own.is_empty() {
                streams.remove(&node);
            }
        }
    }

    /// Whether a stream of this life of the node stands here, or may stand at another replica.
    pub(crate) fn may_reach(&self, node: NodeId, life: u64) -> bool {
        let here = |own: &Vec<StreamHandle>| own.iter().any(|handle| handle.life == life);
        self.peers.is_some() || lock(&self.streams).get(&node).is_some_and(here)
    }

    /// Puts a message in the mailbox of every stream of the node, here and at other replicas.
    pub(crate) fn mail_every_life(&self, node: NodeId, mail: Mail) {
        self.tell(&Word::Mail { node, mail: mail.clone() });
        self.deliver(node, mail);
    }

    /// Puts a message in a stream's mailbox, or sends it to the replica that has the stream; says whether it may arrive.
    pub(crate) fn mail(&self, node: NodeId, mail: Mail) -> bool {
        if self.session(node).is_some() || self.peers.is_none() {
            return self.deliver(node, mail);
        }
        self.tell(&Word::Mail { node, mail });
        true
    }

    /// Puts a message in the mailbox of a stream that stands here; says whether there is one with room.
    pub(crate) fn deliver(&self, node: NodeId, mail: Mail) -> bool {
        let streams = lock(&self.streams);
        let Some((last, earlier)) = streams.get(&node).and_then(|own| own.split_last()) else { return false };
        if mail.is_for_every_life() {
            for handle in earlier {
                // It answers no more, or is asked again.
                let _ = handle.mail.try_send(mail.clone());
            }
        }
        last.mail.try_send(mail).is_ok()
    }

    /// Answers to this nonce go to `answers`; `false` when too many probes run.
    pub(crate) fn expect_answers(&self, nonce: u64, answers: mpsc::Sender<Answered>) -> bool {
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

    /// A node has answered: to a caller here, else to one of another replica.
    pub(crate) fn answer_probe(&self, nonce: u64, answered: Answered) {
        if !self.take_answer(nonce, answered) {
            let Answered { node, life } = answered;
            self.tell(&Word::Answer { nonce, node, life });
        }
    }

    /// Hands an answer to the caller who waits for it here; says whether there is one.
    pub(crate) fn take_answer(&self, nonce: u64, answered: Answered) -> bool {
        let probes = lock(&self.probes);
        let Some(answers) = probes.get(&nonce) else { return false };
        let _ = answers.try_send(answered);
        true
    }
}
