//! This node in the hash table: what it serves, publishes and looks up. It asks by sealed datagrams on the overlay's own
//! socket; the loop only tells it what this node is.

use std::sync::Arc;

use muster_kit::clock::BootClock;
use muster_net::dht::{Care, Dht, DhtConfig, DhtEvent, Kind, Standing, Wish};
use muster_net::sealed::Sealed;
use muster_net::{Endpoint, Side};
use muster_overlay::Claim;
use muster_overlay::dht::Settings;
use muster_overlay::intent::Station;
use muster_overlay::message::Seal;
use muster_overlay::standing::Uptime;
use muster_proto::dht::v1::ContactsRequest;
use muster_types::{Contact, Key, NetworkId, NodeId, SubnetKey, limits};
use muster_wire::datagram::{Limits, Own, PeerAddress};
use muster_wire::record::{self, Value};
use muster_wire::revocation::Revocations;
use muster_wire::window;
use tokio::sync::mpsc;

use crate::control::Client;
use crate::driver::parts::Parts;
use crate::driver::{Done, Driver, Next, RunError};
use crate::identity::{Identity, StateError};
use crate::volunteer::Volunteer;

/// Contacts asked of the master.
const CONTACTS: i32 = 40;

/// Contacts kept for the next start.
const KEPT: usize = 20;

pub(super) struct Table {
    dht: Dht,
    said: Option<Standing<PeerAddress>>,
    published: Vec<(Key, Value)>,
}

/// What this node is at the moment.
pub(super) struct Place<'a> {
    /// Super nodes with which this LSN holds sessions, while it has no master.
    pub(super) via: &'a [Contact],
    /// The addresses by which it serves as a super node; `None`: it never did.
    pub(super) serves_at: Option<Contact>,
    pub(super) network: NetworkId,
    pub(super) station: &'a Station,
    pub(super) contact: Contact,
    pub(super) subnets: &'a [SubnetKey],
    pub(super) endpoint: &'a Endpoint,
}

impl Table {
    pub(super) fn start(
        parts: &Parts,
        boot_nonce: u64,
        endpoint: &Endpoint,
        datagrams: mpsc::Receiver<Sealed>,
    ) -> Result<(Self, mpsc::Receiver<DhtEvent>), RunError> {
        let (boot, dates) = (BootClock::new(), parts.clock.clone());
        let config = DhtConfig {
            own: own(&parts.identity)?,
            signer: parts.wire_signer(boot_nonce)?,
            trust: Arc::clone(&parts.trust),
            clock: Arc::new(move || boot.now()),
            dates: Arc::new(move || dates.now()),
            settings: Settings::default(),
            limits: Limits::default(),
        };
        let (dht, events) = Dht::start(config, Arc::new(endpoint.clone()), datagrams);
        Ok((Self { dht, said: None, published: Vec::new() }, events))
    }

    pub(super) fn handle(&self) -> Dht {
        self.dht.clone()
    }

    /// Tells the table what this node is now, if that has changed, and publishes what follows.
    pub(super) fn look(&mut self, place: &Place<'_>) {
        let is_lsn = matches!(place.station, Station::IsLsn { .. });
        let lsn = match place.station {
            Station::HasLsn { lsn, .. } => session_contact(place.endpoint, *lsn),
            _ => None,
        };
        let standing = Standing { reachable: is_lsn || reached(place.endpoint), office: is_lsn, lsn };
        if self.said.as_ref() != Some(&standing) {
            self.said = Some(standing);
            let dht = self.dht.clone();
            tokio::spawn(async move { dht.standing(standing).await });
        }
        if is_lsn || lsn.is_some() {
            self.publish(place);
        }
    }

    fn publish(&mut self, place: &Place<'_>) {
        let own = Key::from(place.contact.node);
        let here = Value::Contact(place.contact.clone(), place.subnets.to_vec());
        let mut values = vec![(own, here), (own, Value::NodeKeys)];
        values.extend(place.serves_at.clone().map(|contact| {
            let value = Value::Gsn { contact, reliability_basis_points: 0 };
            (record::super_nodes_key(place.network), value)
        }));
        if let Station::IsLsn { epoch, lineage, .. } = place.station {
            values.extend(place.subnets.iter().map(|subnet| {
                let (lsn, via) = (place.contact.clone(), place.via.to_vec());
                let value = Value::Subnet { subnet: *subnet, lsn, lineage: *lineage, epoch: *epoch, via };
                (Key::from(*subnet), value)
            }));
        }
        for (key, value) in values.iter().filter(|value| !self.published.contains(value)).cloned() {
            let dht = self.dht.clone();
            tokio::spawn(async move {
                let kind = value.kind();
                match dht.publish(key, value).await {
                    Ok((kept, _)) => tracing::debug!(%key, ?kind, holders = kept.count(), "published"),
                    Err(error) => tracing::info!(%key, ?kind, %error, "not published yet"),
                }
            });
        }
        self.published = values;
    }

    /// Learns from the master whom to ask, and from what was kept of other days.
    pub(super) fn meet(&self, client: &Client, kept: Vec<PeerAddress>) {
        let (client, dht) = (client.clone(), self.dht.clone());
        tokio::spawn(async move {
            dht.remembered(kept).await;
            match client.dht_contacts(ContactsRequest { max_contacts: CONTACTS }).await {
                Ok(found) => {
                    dht.bootstrap(contacts(&found.bootstrap)).await;
                    dht.remembered(contacts(&found.sample)).await;
                }
                Err(status) => {
                    tracing::info!(error = status.message(), "the master names no contacts of the table");
                }
            }
        });
    }

    /// Asks for contacts that answered, for the next start.
    pub(super) fn sample(&self, done: mpsc::Sender<Done>) {
        let dht = self.dht.clone();
        tokio::spawn(async move {
            let contacts = dht.sample(KEPT).await;
            // The loop may have ended.
            let _ = done.send(Done::TableContacts(contacts)).await;
        });
    }

    /// The same, while the loop ends.
    pub(super) async fn last_sample(&self) -> Vec<PeerAddress> {
        self.dht.sample(KEPT).await
    }

    /// LSNs of these subnets, as their own signed records name them; nobody there: empty.
    pub(super) fn find_lsns(&self, subnets: Vec<SubnetKey>, done: mpsc::Sender<Done>) {
        let dht = self.dht.clone();
        tokio::spawn(async move {
            let mut claims = Vec::new();
            for subnet in subnets {
                let found = dht.get(subnet.into(), Kind::Subnet, Wish::Newest, Care::OnMiss).await;
                let found = found.map(|got| got.found).unwrap_or_default();
                claims.extend(found.into_iter().filter_map(|opened| candidate(opened.value)));
            }
            // The loop may have ended.
            let _ = done.send(Done::TableLsns(claims)).await;
        });
    }

    /// What is said to follow this number of the list; each proves itself, or not.
    pub(super) fn find_revocations(&self, network: NetworkId, known: u64, done: mpsc::Sender<Done>) {
        let dht = self.dht.clone();
        tokio::spawn(async move {
            let key = record::revocations_key(network, known);
            let found = dht.get(key, Kind::Revocations, Wish::Newest, Care::OnMiss).await;
            let lists = found.map(|got| got.found).unwrap_or_default().into_iter();
            let lists = lists.filter_map(|opened| match opened.value {
                Value::Revocations(sealed) => Some(sealed),
                _ => None,
            });
            // The loop may have ended.
            let _ = done.send(Done::TableRevocations(lists.collect())).await;
        });
    }

    pub(super) fn network_changed(&self) {
        let dht = self.dht.clone();
        tokio::spawn(async move { dht.network_changed().await });
    }

    pub(super) fn woke_up(&self) {
        let dht = self.dht.clone();
        tokio::spawn(async move { dht.woke_up().await });
    }

    /// Cuts sessions with whom the list names.
    pub(super) fn revoked(&self, list: &Arc<Revocations>) {
        let (dht, list) = (self.dht.clone(), Arc::clone(list));
        tokio::spawn(async move {
            dht.forget(move |peer| list.of_holder(peer.node, &peer.certificate_serial, None).is_some()).await;
        });
    }

    pub(super) fn renewed(&self, parts: &Parts, boot_nonce: u64) {
        match (own(&parts.identity), parts.wire_signer(boot_nonce)) {
            (Ok(own), Ok(signer)) => {
                let dht = self.dht.clone();
                tokio::spawn(async move { dht.renewed(own, signer).await });
            }
            (Err(error), _) => tracing::error!(%error, "the renewed ticket cannot be used in the table"),
            (_, Err(error)) => tracing::error!(%error, "the renewed ticket cannot be used in the table"),
        }
    }

    pub(super) async fn leave(&self) {
        self.dht.leave().await;
    }
}

/// An LSN to try: its record is signed by itself. What only its claim can say, it says when it accepts.
fn candidate(value: Value) -> Option<Claim> {
    let Value::Subnet { subnet, lsn, lineage, epoch, .. } = value else { return None };
    Some(Claim {
        lineage,
        epoch,
        predecessor: None,
        subnet_keys: vec![subnet],
        claimant: lsn,
        uptime: Uptime::default(),
        standing: muster_overlay::standing::Standing::default(),
        successor: None,
        settled: false,
        seal: Seal::OWN,
    })
}

/// What can be read of them.
fn contacts(wire: &[muster_proto::dht::v1::DhtContact]) -> Vec<PeerAddress> {
    wire.iter().filter_map(|wire| window::contact_from_wire(wire).ok()).collect()
}

fn own(identity: &Identity) -> Result<Own, StateError> {
    Ok(Own::new(identity.network, identity.node, identity.keys.noise_secret(), identity.ticket()?))
}

/// Somebody from outside this host's prefixes came in.
fn reached(endpoint: &Endpoint) -> bool {
    let here = muster_net::interfaces::default_route();
    endpoint.sessions().iter().any(|session| {
        let from = session.remote().map(|remote| remote.ip());
        let outside =
            from.is_some_and(|ip| !ip.is_loopback() && here.iter().all(|interface| !interface.contains(ip)));
        session.side() == Side::Accepted && outside
    })
}

fn session_contact(endpoint: &Endpoint, peer: NodeId) -> Option<PeerAddress> {
    let session = endpoint.session(peer)?;
    let at = session.carrier_address()?;
    Some(PeerAddress { node: peer, key: session.hello().ticket.noise_key, at })
}

impl Driver {
    /// Tells the table what this node is now.
    pub(super) fn look_at_table(&mut self) {
        let machine = self.overlay.machine();
        let contact = Contact { node: self.parts.identity.node, addresses: self.presence.addresses() };
        let (station, subnets) = (self.overlay.station(), machine.subnet_keys().to_vec());
        let endpoint = self.overlay.endpoint();
        let node = self.parts.identity.node;
        let serves_at = self.volunteer.as_ref().and_then(Volunteer::serves_at);
        let serves_at = serves_at.map(|addresses| Contact { node, addresses });
        let (via, network) = (&self.via, self.parts.identity.network);
        let place =
            Place { station: &station, contact, subnets: &subnets, endpoint, via, serves_at, network };
        self.table.look(&place);
    }

    /// Whom the table's contacts of other days are.
    pub(super) fn meet_table(&self) {
        let kept = self.parts.learned.table_contacts.iter();
        let kept = kept.filter_map(|text| crate::identity::decoded(text));
        let kept: Vec<muster_proto::dht::v1::DhtContact> = kept.collect();
        self.table.meet(&self.parts.client, contacts(&kept));
    }

    pub(super) fn keep_table_contacts(&mut self, contacts: &[PeerAddress]) {
        if !contacts.is_empty() {
            let encoded = contacts.iter().map(|contact| crate::identity::encoded(&window::contact(contact)));
            self.parts.learned.table_contacts = encoded.collect();
            self.parts.keep_learned();
        }
    }

    /// With the master away the table may know an LSN of this place.
    pub(super) fn ask_table_for_lsns(&self) {
        let mut subnets = self.overlay.machine().subnet_keys().to_vec();
        // Without the master's word: what it said here before, and what follows from where it enrolled this device.
        subnets.extend(self.parts.learned.keys_of(&self.presence.place()));
        subnets.extend(self.presence.surroundings(&self.parts.identity.credentials.observed_ip).keys);
        subnets.sort_unstable();
        subnets.dedup();
        subnets.truncate(limits::SUBNET_KEYS);
        self.table.find_lsns(subnets, self.parts.done.clone());
    }

    pub(super) async fn on_table(&mut self, event: &DhtEvent) -> Next {
        match event {
            DhtEvent::Serves(service) => {
                tracing::info!(?service, "this node's part in the hash table changed")
            }
            DhtEvent::Unreachable(node) => {
                tracing::debug!(node = %node.short(), "a node of the table is away");
                self.suspect(*node);
                self.act().await;
            }
            DhtEvent::Changed(record) => tracing::debug!(key = %record.key, "a record changed"),
        }
        Next::Go
    }
}
