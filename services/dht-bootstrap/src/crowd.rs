//! The bootstrap nodes at work: each with its own identity, socket and task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_kit::clock::{self, BootClock};
use muster_kit::connect::MasterChannel;
use muster_kit::lease::Lost;
use muster_kit::tls;
use muster_net::dht::{Dht, DhtConfig, Standing};
use muster_net::sealed::SealedSocket;
use muster_overlay::dht::Settings;
use muster_proto::auth::v1::authority_service_client::AuthorityServiceClient;
use muster_proto::auth::v1::{GetTrustBundleRequest, Payload, SignRequest};
use muster_proto::payload_type::NODE_TICKET;
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_types::limits::CERTIFICATE_LIFETIME;
use muster_wire::TrustStore;
use muster_wire::datagram::{Limits, Own, PeerAddress};
use muster_wire::record::{self, Value};
use rustls_pki_types::CertificateDer;

use crate::config::Config;
use crate::domain::identity::Identity;
use crate::slots::Slots;
use crate::store::Store;
use crate::{RunError, metrics};

/// Sessions of one node: every LSN and joiner of an hour.
const SESSIONS: usize = 16_384;

/// Tickets are renewed when a third of their life is over.
const RENEWAL: Duration = Duration::from_secs(CERTIFICATE_LIFETIME.as_secs() / 3);

/// How often the nodes are looked after; also the pause after a failure.
const CARE: Duration = Duration::from_secs(60);

/// Contacts that are kept for the next start.
const KEPT: usize = 64;

pub(crate) struct Node {
    pub(crate) address: PeerAddress,
    pub(crate) dht: Dht,
    identity: Identity,
}

/// All of them; the first answers what people ask.
pub(crate) struct Crowd {
    pub(crate) nodes: Vec<Node>,
    trust: Arc<ArcSwap<TrustStore>>,
    store: Arc<dyn Store>,
    auth: AuthorityServiceClient<MasterChannel>,
    config: Config,
    slots: Slots,
}

impl Crowd {
    /// Starts the nodes; they know each other and whom they knew before.
    pub(crate) async fn start(
        config: Config,
        store: Arc<dyn Store>,
        auth: MasterChannel,
    ) -> Result<Self, RunError> {
        let auth = AuthorityServiceClient::new(auth);
        let trust = TrustStore::new(config.network, &config.roots)?;
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let slots = Slots::new(&config.store, store.clone());
        let mut crowd = Self { nodes: Vec::new(), trust, store, auth, config, slots };
        crowd.refresh_trust().await?;
        for identity in crowd.slots.take(crowd.config.nodes).await? {
            let node = crowd.begin(identity).await?;
            crowd.nodes.push(node);
        }
        let known = crowd.store.contacts().await?;
        for node in &crowd.nodes {
            let others = crowd.addresses().into_iter().filter(|other| other.node != node.address.node);
            node.dht.bootstrap(others.collect()).await;
            node.dht.remembered(known.clone()).await;
            node.dht.standing(Standing { reachable: true, office: true, lsn: None }).await;
        }
        crowd.publish_root().await;
        Ok(crowd)
    }

    pub(crate) fn addresses(&self) -> Vec<PeerAddress> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Returns why these nodes may not go on.
    pub(crate) async fn keep_slots(&self) -> Lost {
        self.slots.keep(self.nodes.iter().map(|node| node.identity.slot).collect()).await
    }

    /// Parts from the table, and leaves the identities to whoever comes next.
    pub(crate) async fn leave(&self) {
        for node in &self.nodes {
            node.dht.leave().await;
        }
        self.slots.let_go().await;
    }

    pub(crate) fn first(&self) -> Option<&Dht> {
        self.nodes.first().map(|node| &node.dht)
    }

    pub(crate) fn network(&self) -> muster_types::NetworkId {
        self.config.network
    }

    async fn begin(&self, mut identity: Identity) -> Result<Node, RunError> {
        let wanted = if identity.port == 0 { self.config.first_port + identity.slot } else { identity.port };
        let socket = match SealedSocket::bind(SocketAddr::new(self.config.bind, wanted)).await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, port = wanted, "a bootstrap node takes another port");
                SealedSocket::bind(SocketAddr::new(self.config.bind, 0)).await.map_err(RunError::Bind)?
            }
        };
        let port = socket.local_addr().map_err(RunError::Bind)?.port();
        if port != identity.port {
            identity.port = port;
            self.store.keep_identity(&identity).await?;
        }
        let ticket = self.ticket(&identity).await?;
        let (own, boot) = (self.own(&identity, &ticket), BootClock::new());
        let at = SocketAddr::new(self.config.address, port);
        let address = PeerAddress { node: own.node(), key: own.public_key(), at };
        let config = DhtConfig {
            own,
            signer: identity.signer(self.config.network, &ticket)?,
            trust: Arc::clone(&self.trust),
            clock: Arc::new(move || boot.now()),
            dates: Arc::new(clock::wall),
            settings: Settings::default(),
            limits: Limits { sessions: SESSIONS },
        };
        let (carrier, datagrams) = socket.split();
        let (dht, _) = Dht::start(config, carrier, datagrams);
        tracing::info!(node = %address.node.short(), %at, "a bootstrap node runs");
        Ok(Node { address, dht, identity })
    }

    fn own(&self, identity: &Identity, ticket: &Envelope) -> Own {
        Own::new(self.config.network, identity.node(), identity.noise_secret, ticket)
    }

    async fn ticket(&self, identity: &Identity) -> Result<Envelope, RunError> {
        let payload =
            Payload { payload_type: NODE_TICKET.to_owned(), payload: identity.ticket(clock::wall())? };
        let signed = self.auth.clone().sign(SignRequest { payloads: vec![payload] }).await;
        let envelopes = signed.map_err(RunError::auth)?.into_inner().envelopes;
        envelopes.into_iter().next().ok_or_else(|| RunError::Auth("it signed nothing".to_owned()))
    }

    /// Says whether a signer's key was withdrawn since: tickets may be by it.
    async fn refresh_trust(&self) -> Result<bool, RunError> {
        let answer = self.auth.clone().get_trust_bundle(GetTrustBundleRequest {}).await;
        let bundle = answer.map_err(RunError::auth)?.into_inner().trust_bundle.unwrap_or_default();
        let mut store = TrustStore::new(self.config.network, &self.config.roots)?;
        let before = self.trust.load_full();
        store.inherit(&before);
        store.load(&bundle, clock::wall())?;
        let withdrawn = store.withdrawals().count() > before.withdrawals().count();
        self.trust.store(Arc::new(store));
        Ok(withdrawn)
    }

    /// So that who has the network's id alone can have its root too: the first one, after which the network is named.
    async fn publish_root(&self) {
        let names = |root: &&CertificateDer<'_>| {
            tls::root_key(root).is_ok_and(|key| key.network_id() == self.config.network)
        };
        let (Some(dht), Some(root)) = (self.first(), self.config.roots.iter().find(names)) else { return };
        let value = Value::Root(bytes::Bytes::copy_from_slice(root));
        match dht.publish(record::root_key(self.config.network), value).await {
            Ok((kept, _)) => tracing::debug!(holders = kept.count(), "the root is published"),
            Err(error) => tracing::warn!(%error, "the root is not published yet"),
        }
    }

    /// Renews tickets, keeps contacts, counts: until the task is dropped.
    pub(crate) async fn tend(self: Arc<Self>) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(CARE).await;
            let withdrawn = self.refresh_trust().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the signers are not looked up");
                false
            });
            if withdrawn || renewed.elapsed() >= RENEWAL {
                match self.renew().await {
                    Ok(()) => renewed = tokio::time::Instant::now(),
                    Err(error) => tracing::warn!(%error, "tickets are not renewed; trying again"),
                }
            }
            self.keep_contacts().await;
            self.count().await;
        }
    }

    async fn renew(&self) -> Result<(), RunError> {
        for node in &self.nodes {
            let ticket = self.ticket(&node.identity).await?;
            let signer = node.identity.signer(self.config.network, &ticket)?;
            node.dht.renewed(self.own(&node.identity, &ticket), signer).await;
        }
        Ok(())
    }

    async fn keep_contacts(&self) {
        let Some(dht) = self.first() else { return };
        let own: Vec<NodeId> = self.nodes.iter().map(|node| node.address.node).collect();
        let mut contacts = dht.sample(KEPT).await;
        contacts.retain(|contact| !own.contains(&contact.node));
        if contacts.is_empty() {
            return;
        }
        if let Err(error) = self.store.keep_contacts(&contacts).await {
            tracing::warn!(%error, "contacts are not kept");
        }
    }

    async fn count(&self) {
        let (mut records, mut sessions) = (0, 0);
        for node in &self.nodes {
            if let Ok((stats, _, open)) = node.dht.stats().await {
                records += stats.records;
                sessions += open;
            }
        }
        metrics::nodes(records, sessions);
    }
}
