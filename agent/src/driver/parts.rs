//! What the loop works with, opened once at the start.

use std::fs::File;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use muster_kit::clock::MasterClock;
use muster_overlay::standing::Uptime;
use muster_proto::control::v1::UpstreamItem;
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::Timestamp;
use muster_wire::OperatorPolicy;
use muster_wire::ticket::{Attested, open_uptime};
use muster_wire::trust::{TrustError, TrustStore};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::control::{Addresses, Client};
use crate::driver::{Done, RunError};
use crate::enrollment::client_tls;
use crate::identity::{Identity, Learned, StateDir, StateError};
use crate::journal::{Journal, Pairing, Trust};
use crate::platform::processes::{LauncherCommand, Processes};
use crate::tasks::admission::Admission;
use crate::tasks::erase::Erase;
use crate::tasks::inventory::Inventory;
use crate::tasks::lock::Lock;
use crate::tasks::reporter::{Outbox, Signer};
use crate::tasks::run::Run;
use crate::tasks::{Engine, Registry, Tasks};

/// Results of what runs beside the loop.
const DONE: usize = 16;

/// Held as long as the agent runs: two agents of one state would be two nodes of one id.
const LOCK: &str = "lock";

pub(super) struct Parts {
    pub(super) identity: Identity,
    pub(super) state: StateDir,
    pub(super) learned: Learned,
    pub(super) clock: MasterClock,
    pub(super) trust: Arc<ArcSwap<TrustStore>>,
    /// The operators' policy that this device has pinned.
    pub(super) operators: Arc<ArcSwapOption<OperatorPolicy>>,
    /// The certificates behind `trust`, for children.
    pub(super) bundle: Option<TrustBundle>,
    pub(super) client: Client,
    pub(super) outbox: Outbox,
    pub(super) trust_in_journal: Trust,
    pub(super) processes: Arc<Processes>,
    pub(super) registry: Registry,
    pub(super) done: mpsc::Sender<Done>,
    results: Option<mpsc::Receiver<Done>>,
    items: Option<mpsc::Receiver<UpstreamItem>>,
    _lock: File,
}

impl Parts {
    pub(super) async fn open(config: &Config) -> Result<Self, RunError> {
        let state = StateDir::new(config.state_dir()?);
        let identity = state.identity()?;
        let lock = lock(&state)?;
        let learned = state.learned();
        let clock = MasterClock::from_offset_micros(learned.clock_offset_micros);
        let (mut trust, bundle) = trust_store(&identity, &learned, &clock)?;
        trust.set_revocations(Arc::new(state.revocations().load()));
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let tls = client_tls(&identity)?;
        let addresses = Addresses::new(
            config.master_addresses.clone(),
            learned.master_addresses.clone(),
            enrolled_addresses(&identity),
            config.discovery_domain.clone().or_else(|| Some(identity.credentials.discovery_domain.clone())),
        );
        let (journal, trust_in_journal) = Journal::open(state.path()).await?;
        let (outbox, items) = Outbox::new(journal);
        let processes = Arc::new(Processes::detect(&identity.node.short(), LauncherCommand::default()));
        let registry = Registry::default()
            .with(Run::new(processes.clone(), config.temporary_dir.clone(), identity.node.short()))
            .with(Inventory)
            .with(Lock::new(config.lock.clone()))
            .with(Erase::new(config.erase.clone()));
        let (done, results) = mpsc::channel(DONE);
        Ok(Self {
            client: Client {
                addresses,
                proxies: Arc::new(config.proxies()?),
                tls,
                clock: clock.clone(),
                trust: trust.clone(),
            },
            trust,
            bundle,
            operators: Arc::new(ArcSwapOption::from_pointee(state.operator_policy(identity.network)?)),
            results: Some(results),
            items: Some(items),
            _lock: lock,
            identity,
            state,
            learned,
            clock,
            outbox,
            trust_in_journal,
            processes,
            registry,
            done,
        })
    }

    pub(super) async fn start_tasks(
        &mut self,
    ) -> Result<(Tasks, JoinHandle<()>, mpsc::Receiver<UpstreamItem>), RunError> {
        let node = self.identity.node;
        let signer = Signer { node, key: self.identity.keys.signing(), clock: self.clock.clone() };
        let sealing = self.identity.keys.sealing();
        let admission =
            Admission::new(node, self.trust.clone(), self.registry.clone(), sealing, self.operators.clone());
        let pairing = Pairing::of(self.state.path());
        let started =
            Engine::start(admission, signer, self.outbox.clone(), self.trust_in_journal, pairing).await?;
        let items = self.items.take().unwrap_or_else(|| mpsc::channel(1).1);
        Ok((started.0, started.1, items))
    }

    pub(super) fn take_done(&mut self) -> mpsc::Receiver<Done> {
        self.results.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    pub(super) fn wire_signer(&self, boot_nonce: u64) -> Result<muster_wire::Signer, StateError> {
        let identity = &self.identity;
        let (key, ticket) = (identity.keys.signing_pair()?, identity.ticket()?.clone());
        let mut signer = muster_wire::Signer::new(identity.network, identity.node, key, ticket, boot_nonce);
        if let (Some(_), Some(ticket)) = (self.attested_uptime(), self.uptime_ticket()) {
            signer.set_uptime(ticket);
        }
        signer.set_known_revocation(self.trust.load().revocations().number());
        Ok(signer)
    }

    fn uptime_ticket(&self) -> Option<Envelope> {
        crate::identity::decoded(&self.learned.uptime_ticket)
    }

    /// What topology last attested of this node, if that still holds.
    pub(super) fn attested_uptime(&self) -> Option<Uptime> {
        Some(self.attested()?.uptime)
    }

    /// When it did.
    pub(super) fn uptime_issued(&self) -> Option<Timestamp> {
        Some(self.attested()?.issued)
    }

    fn attested(&self) -> Option<Attested> {
        let attested = open_uptime(&self.uptime_ticket()?, &self.trust.load(), self.clock.now()).ok()?;
        Some(attested).filter(|it| it.node == self.identity.node)
    }

    pub(super) fn load_bundle(&mut self, bundle: &TrustBundle) {
        if self.bundle.as_ref() == Some(bundle) {
            return;
        }
        let identity = &self.identity;
        let before = self.trust.load_full();
        let loaded =
            TrustStore::new(identity.network, std::slice::from_ref(&identity.root)).and_then(|mut store| {
                store.inherit(&before);
                store.load(bundle, self.clock.now()).map(|()| store)
            });
        match loaded {
            Ok(store) => {
                // Whoever passed it on may have kept withdrawals back.
                let withdrawals = store.withdrawals().cloned().collect();
                let bundle = TrustBundle { withdrawals, ..bundle.clone() };
                self.trust.store(Arc::new(store));
                self.learned.trust_bundle = crate::identity::encoded(&bundle);
                self.bundle = Some(bundle);
            }
            Err(error) => tracing::warn!(%error, "a trust bundle is refused; the one before stays"),
        }
    }

    /// Whether the key that signed the own ticket was not withdrawn since.
    pub(super) fn ticket_counts(&self) -> bool {
        let trust = self.trust.load();
        self.identity.ticket().is_ok_and(|ticket| !trust.is_withdrawn(ticket))
    }

    /// Takes over a policy that the pinned root signed after the pinned one. A device that has none pins none by this way.
    pub(super) fn on_operator_policy(&self, sealed: &Envelope) {
        let Some(pinned) = self.operators.load_full() else { return };
        match pinned.successor(sealed, self.identity.network) {
            Ok(None) => {}
            Ok(Some(next)) => {
                tracing::info!(required = next.is_required(), "the operators' root says something new");
                if let Err(error) = self.state.keep_operator_policy(sealed) {
                    tracing::error!(%error, "the operators' policy is not kept; the one before stays");
                    return;
                }
                self.operators.store(Some(Arc::new(next)));
            }
            Err(error) => tracing::error!(%error, "an operators' policy is refused; the pinned one stays"),
        }
    }

    pub(super) fn keep_uptime(&mut self, ticket: &Envelope) {
        self.learned.uptime_ticket = crate::identity::encoded(ticket);
    }

    /// Puts a renewed identity in the place of the old one, on disk first.
    pub(super) fn adopt(&mut self, identity: &Identity) -> Result<(), StateError> {
        self.state.keep_identity(identity)?;
        if let Err(error) = self.client.tls.reload(identity.material()) {
            tracing::error!(%error, "the renewed certificate cannot be used");
        }
        self.client.addresses.enrolled(enrolled_addresses(identity));
        self.identity = identity.clone();
        if let Some(bundle) = &identity.credentials.trust_bundle {
            self.load_bundle(bundle);
        }
        Ok(())
    }

    pub(super) fn keep_learned(&mut self) {
        self.learned.clock_offset_micros = self.clock.offset_micros();
        if let Err(error) = self.state.keep_learned(&self.learned) {
            tracing::warn!(%error, "what was learnt cannot be kept");
        }
    }
}

fn enrolled_addresses(identity: &Identity) -> Vec<String> {
    let mut addresses = identity.credentials.master_addresses.clone();
    addresses.push(identity.link_address.clone());
    addresses
}

/// By the latest bundle that was learnt, else the one of the credentials.
fn trust_store(
    identity: &Identity,
    learned: &Learned,
    clock: &MasterClock,
) -> Result<(TrustStore, Option<TrustBundle>), TrustError> {
    let latest: Option<TrustBundle> = crate::identity::decoded(&learned.trust_bundle);
    let mut bundles: Vec<_> = latest.into_iter().chain(identity.credentials.trust_bundle.clone()).collect();
    bundles.sort_by_key(|bundle| std::cmp::Reverse(bundle.version));
    let mut store = TrustStore::new(identity.network, std::slice::from_ref(&identity.root))?;
    for bundle in bundles {
        match store.load(&bundle, clock.now()) {
            Ok(()) => return Ok((store, Some(bundle))),
            // Signers change while a laptop lies in a drawer: the master brings the new ones, and until then none
            // counts.
            Err(error) => tracing::warn!(%error, "kept signers are not good any more"),
        }
    }
    Ok((store, None))
}

fn lock(state: &StateDir) -> Result<File, RunError> {
    let path = state.path().join(LOCK);
    let read = |source| StateError::Read { path: path.clone(), source };
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(read)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RunError::AlreadyRunning(state.path().to_owned())),
        Err(error) => Err(read(error.into()).into()),
    }
}
