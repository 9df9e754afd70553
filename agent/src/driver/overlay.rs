//! The overlay's machine and its sockets, side by side: whatever comes in is verified and handed to the machine;
//! what it wants is signed and handed to the sockets. It decides nothing itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock::MasterClock;
use muster_net::{Endpoint, NetEvent, Session, TrafficClass};
use muster_overlay::input::Network;
use muster_overlay::intent::Station;
use muster_overlay::message::{Accepted, Beat, Discovery, Message};
use muster_overlay::node::{Config as NodeConfig, Node};
use muster_overlay::standing::Uptime;
use muster_overlay::{Claim, Input, Intent};
use muster_proto::control::v1::{Downstream, Upstream};
use muster_proto::relay::v1::{CarryRequest, CarryResponse};
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::{Contact, Instant, NodeId, SubnetKey, Timestamp, Version};
use muster_wire::letter::Word;
use muster_wire::session::{self, Received};
use muster_wire::{Hello, Signer, TrustStore, Verifier, WireError, beat, discovery, sealed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::driver::RunError;
use crate::driver::parts::Parts;
use crate::driver::presence::Presence;
use crate::platform::sleep::HostClock;

/// A timer that is not set is looked at again after this; nothing depends on it.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Overlay {
    machine: Node,
    endpoint: Endpoint,
    signer: Signer,
    trust: Arc<arc_swap::ArcSwap<TrustStore>>,
    clock: MasterClock,
    host_clock: HostClock,
    /// The host slept so long, and the driver has not been told.
    slept: Option<Duration>,
    rng: StdRng,
}

/// What a session brought, beyond what the machine has to know.
pub(super) enum Brought {
    Nothing,
    /// Certificates that an LSN gives its new child, to be loaded before `bytes` are read again.
    Bundle(TrustBundle),
    Upstream(Upstream),
    Downstream(NodeId, Downstream),
    /// To this node as a relay, by that session.
    CarryRequest(Session, CarryRequest),
    CarryResponse(NodeId, CarryResponse),
    /// A word, for this node or on its way.
    Word(NodeId, Word),
}

impl Overlay {
    pub(super) async fn open(
        config: &Config,
        parts: &Parts,
        presence: &Presence,
    ) -> Result<(Self, mpsc::Receiver<NetEvent>), RunError> {
        let identity = &parts.identity;
        let signer = parts.wire_signer(presence.boot_nonce())?;
        let clock = parts.clock.clone();
        let dates = clock.clone();
        let mut net = muster_net::Config::new(
            net_material(identity),
            parts.trust.load_full(),
            presence.overlay_hello(&signer),
            Arc::new(move || dates.now()),
        );
        net.port = config.port;
        let (endpoint, events) = Endpoint::bind(net).await?;
        let machine = Node::new(NodeConfig {
            node: identity.node,
            version: presence.version(),
            minimum_version: Version::default(),
            uptime: parts.attested_uptime().unwrap_or_default(),
            subnet_keys: Vec::new(),
        });
        let (rng, trust) = (StdRng::from_os_rng(), parts.trust.clone());
        let (host_clock, slept) = (HostClock::default(), None);
        Ok((Self { machine, endpoint, signer, trust, clock, host_clock, slept, rng }, events))
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.look_at_clock();
        self.machine.handle(input, self.host_clock.now(), &mut self.rng);
    }

    pub(super) fn on_timer(&mut self) {
        self.look_at_clock();
        self.machine.handle_timeout(self.host_clock.now(), &mut self.rng);
    }

    /// A host that slept is told so before anything else: its timers ran late for that reason and no other.
    pub(super) fn look_at_clock(&mut self) {
        if let Some(slept) = self.host_clock.woke_up() {
            self.slept = Some(slept);
            self.machine.handle(Input::WokeUp, self.host_clock.now(), &mut self.rng);
        }
    }

    pub(super) fn take_sleep(&mut self) -> Option<Duration> {
        self.slept.take()
    }

    pub(super) fn next_intent(&mut self) -> Option<Intent> {
        self.machine.poll_intent()
    }

    /// How long until the machine wants to be woken.
    pub(super) fn until_timer(&self) -> Duration {
        self.machine.poll_timeout().map_or(IDLE, |(due, _)| due.since(self.host_clock.now()))
    }

    /// Closes every session and socket, after what was queued has gone out.
    pub(super) async fn close(self) {
        self.endpoint.close("the agent ends").await;
    }

    pub(super) fn now(&self) -> Instant {
        self.host_clock.now()
    }

    pub(super) fn machine(&self) -> &Node {
        &self.machine
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn station(&self) -> Station {
        self.machine.station()
    }

    /// What the sockets bring; the machine learns what is its own.
    pub(super) fn on_net(&mut self, event: &NetEvent) -> Brought {
        match event {
            NetEvent::SessionOpened(session) => self.opened(session),
            NetEvent::SessionClosed { peer, .. } => self.handle(Input::Closed { peer: *peer }),
            NetEvent::Datagram { from, bytes } => match beat::decode(bytes) {
                Ok(beat) => self.handle(Input::BeatReceived { from: from.peer(), beat }),
                Err(error) => tracing::debug!(peer = %from.peer().short(), %error, "a datagram is no beat"),
            },
            NetEvent::Discovery { from, bytes, .. } => self.heard(*from, bytes),
            NetEvent::Message { from, bytes } => return self.received(from, bytes),
            NetEvent::NetworkChanged | NetEvent::PathChanged(_) | NetEvent::Reached { .. } => {}
        }
        Brought::Nothing
    }

    pub(super) fn opened(&mut self, session: &Session) {
        let version = session.hello().software;
        self.handle(Input::Opened { peer: session.peer(), version, observed: session.observed() });
    }

    fn heard(&mut self, from: SocketAddr, bytes: &[u8]) {
        let trust = self.trust.load_full();
        match discovery::decode(bytes, &Verifier { trust: &trust, now: self.clock.now() }) {
            Ok(discovery) => self.handle(Input::Heard { from, discovery }),
            Err(WireError::OtherNetwork { .. }) => tracing::trace!(%from, "a datagram of another network"),
            Err(error) => tracing::debug!(%from, %error, "a datagram of the local network is not believed"),
        }
    }

    fn received(&mut self, from: &Session, bytes: &Bytes) -> Brought {
        if let Some(bundle) = session::offered_bundle(bytes)
            && self.expects_bundle(from.peer())
        {
            return Brought::Bundle(bundle);
        }
        self.read(from, bytes)
    }

    /// Only from the LSN that it is about to join does a node take certificates; each proves itself anyway.
    fn expects_bundle(&self, peer: NodeId) -> bool {
        matches!(self.station(), Station::Joining { lsn } if lsn == peer)
    }

    pub(super) fn read(&mut self, from: &Session, bytes: &[u8]) -> Brought {
        let trust = self.trust.load_full();
        let verifier = Verifier { trust: &trust, now: self.clock.now() };
        match session::decode(bytes, from.hello(), &verifier) {
            Ok(Received::Overlay(message)) => self.handle(Input::Received { from: from.peer(), message }),
            Ok(Received::Upstream(upstream)) => return Brought::Upstream(upstream),
            Ok(Received::Downstream(downstream)) => return Brought::Downstream(from.peer(), downstream),
            Ok(Received::CarryRequest(asked)) => return Brought::CarryRequest(from.clone(), asked),
            Ok(Received::SendTo(word)) => return Brought::Word(from.peer(), word),
            Ok(Received::CarryResponse(answer)) => return Brought::CarryResponse(from.peer(), answer),
            Err(error) => tracing::warn!(peer = %from.peer().short(), %error, "a message is not believed"),
        }
        Brought::Nothing
    }

    /// Sends a message of the machine's, if its session still stands.
    pub(super) fn send(&self, to: NodeId, message: &Message, bundle: Option<&TrustBundle>) {
        let now = self.clock.now();
        let encoded = match (message, bundle) {
            (Message::Accepted(accepted), Some(bundle)) => self.accepted(accepted, bundle.clone(), now),
            _ => session::encode(message, &self.signer, now),
        };
        match encoded {
            Ok(bytes) => self.push(to, &bytes),
            Err(error) => tracing::error!(%error, "an own message cannot be written"),
        }
    }

    fn accepted(&self, accepted: &Accepted, bundle: TrustBundle, now: Timestamp) -> Result<Bytes, WireError> {
        session::encode_accepted(accepted, bundle, &self.signer, now)
    }

    /// `false`: there is no session, or it is too slow.
    pub(super) fn send_upstream(&self, lsn: NodeId, upstream: Upstream) -> bool {
        let classes = upstream.items.iter().filter_map(|item| u8::try_from(item.class).ok());
        let class = classes.filter_map(TrafficClass::from_number).min().unwrap_or(TrafficClass::Task);
        let session = self.endpoint.session(lsn);
        let Ok(bytes) = session::encode_upstream(upstream) else { return false };
        session.is_some_and(|session| session.try_send_as(class, &bytes).is_ok())
    }

    pub(super) fn send_downstream(&self, to: NodeId, downstream: Downstream) -> bool {
        session::encode_downstream(downstream).is_ok_and(|bytes| self.try_push(to, &bytes))
    }

    fn push(&self, to: NodeId, bytes: &[u8]) {
        if !self.try_push(to, bytes) {
            tracing::debug!(peer = %to.short(), "a message finds no session");
        }
    }

    fn try_push(&self, to: NodeId, bytes: &[u8]) -> bool {
        self.endpoint.session(to).is_some_and(|session| session.try_send(bytes).is_ok())
    }

    pub(super) fn send_beat(&self, to: NodeId, beat: &Beat) {
        if let Some(session) = self.endpoint.session(to) {
            // A lost beat is what beats are for.
            let _ = session.send_datagram(beat::encode(beat));
        }
    }

    pub(super) fn multicast(&self, discovery: &Discovery) {
        match discovery::encode(discovery, &self.signer, self.clock.now()) {
            Ok(datagram) => self.endpoint.multicast(&datagram),
            Err(error) => tracing::error!(%error, "an own discovery cannot be written"),
        }
    }

    pub(super) fn answer(&self, to: SocketAddr, discovery: &Discovery) {
        match discovery::encode(discovery, &self.signer, self.clock.now()) {
            Ok(datagram) => self.endpoint.answer(to, &datagram),
            Err(error) => tracing::error!(%error, "an own answer cannot be written"),
        }
    }

    /// Opens a session; one that stands is told at once, one that fails comes to `failed`.
    pub(super) fn connect(&mut self, contact: Contact, failed: impl FnOnce(NodeId) + Send + 'static) {
        if let Some(session) = self.endpoint.session(contact.node) {
            return self.opened(&session);
        }
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            let peer = contact.node;
            if let Err(error) = endpoint.connect(contact).await {
                tracing::info!(peer = %peer.short(), %error, "a node is not reached");
                failed(peer);
            }
        });
    }

    /// Tries another way to a node; if it leads there, the new session tells.
    pub(super) fn probe(&self, contact: Contact) {
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            let peer = contact.node;
            if let Err(error) = endpoint.probe(contact).await {
                tracing::debug!(peer = %peer.short(), %error, "a silent node is not reached by another way");
            }
        });
    }

    pub(super) fn sealed_claim(&self, claim: &Claim) -> Option<Envelope> {
        sealed::claim_to_wire(claim, &self.signer, self.clock.now()).ok()
    }

    /// Claims that somebody else kept or sent; those that are not believed are left out.
    pub(super) fn believed(&self, claims: &[Envelope]) -> Vec<Claim> {
        let trust = self.trust.load_full();
        let verifier = Verifier { trust: &trust, now: self.clock.now() };
        claims.iter().filter_map(|claim| sealed::claim_from_wire(claim, &verifier).ok()).collect()
    }

    pub(super) fn sealed_attach(&self, attach: &muster_overlay::message::Attach) -> Option<Envelope> {
        sealed::attach_to_wire(attach, &self.signer, self.clock.now()).ok()
    }

    /// What a peer said of itself, as long as its session stands.
    pub(super) fn hello_of(&self, node: NodeId) -> Option<(Session, Hello)> {
        let session = self.endpoint.session(node)?;
        let hello = session.hello().clone();
        Some((session, hello))
    }

    pub(super) fn set_network(&mut self, network: Network) {
        self.handle(Input::Network(network));
    }

    pub(super) fn set_subnet_keys(&mut self, keys: &[Bytes]) {
        let keys = keys.iter().filter_map(|key| SubnetKey::try_from(&key[..]).ok()).collect();
        self.handle(Input::SubnetKeys(keys));
    }

    pub(super) fn set_uptime(&mut self, ticket: &Envelope, uptime: Uptime) {
        self.signer.set_uptime(ticket.clone());
        self.handle(Input::Uptime(uptime));
    }

    /// Believes by the store of this moment; says how many sessions that ended.
    pub(super) fn trust_changed(&self) -> usize {
        self.endpoint.set_trust(self.trust.load_full())
    }

    /// Peers hear from now on up to where this node knows every revocation.
    pub(super) fn revocations_changed(&mut self, presence: &Presence) -> usize {
        self.signer.set_known_revocation(self.trust.load().revocations().number());
        self.endpoint.set_hello(presence.overlay_hello(&self.signer));
        self.trust_changed()
    }

    /// A renewed identity: certificate, ticket and Hello.
    pub(super) fn renewed(&mut self, parts: &Parts, presence: &Presence) {
        if let Some(ticket) = &parts.identity.credentials.ticket {
            self.signer.set_ticket(ticket.clone());
        }
        self.endpoint.set_hello(presence.overlay_hello(&self.signer));
        if let Err(error) = self.endpoint.set_material(&net_material(&parts.identity)) {
            tracing::error!(%error, "the renewed certificate cannot be used between nodes");
        }
        self.trust_changed();
    }
}

fn net_material(identity: &crate::identity::Identity) -> muster_net::Material {
    let muster_kit::tls::Material { chain, key, roots } = identity.material();
    muster_net::Material { chain, key, roots }
}
