//! Sessions that began by TCP go over to UDP when it works: by a second dial beside the first, which goes on until the
//! second has come about. Only the end that dialled tries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_types::{Contact, NodeId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::dial;
use crate::endpoint::Shared;
use crate::path::Path;
use crate::routes::ROUTES;

/// From a session's begin by TCP to the first try; doubles with each that fails.
const FIRST: Duration = Duration::from_secs(10);
/// And no longer than this: what design remembers a blocked network for.
const MOST: Duration = Duration::from_secs(600);
/// How often the plans are looked at.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    plans: Mutex<HashMap<NodeId, Plan>>,
    hurry: Notify,
}

#[derive(Debug, Clone)]
struct Plan {
    contact: Contact,
    next: Instant,
    pause: Duration,
}

impl Upgrades {
    /// A session with this node began by TCP.
    pub(crate) fn plan(&self, contact: &Contact) {
        let by_udp = contact.addresses.iter().any(|address| address.udp().is_some());
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if by_udp && plans.len() < ROUTES {
            let plan = Plan { contact: contact.clone(), next: Instant::now() + FIRST, pause: FIRST };
            // A peer that moved is dialled where it is now.
            plans.entry(contact.node).and_modify(|known| known.contact = contact.clone()).or_insert(plan);
        }
    }

    /// The network changed: what failed before may work now.
    pub(crate) fn hurry(&self) {
        let now = Instant::now();
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.values_mut().for_each(|plan| (plan.next, plan.pause) = (now, FIRST));
        self.hurry.notify_one();
    }

    /// Those whose time has come, with their next one set.
    fn due(&self, now: Instant) -> Vec<Contact> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let due = plans.values_mut().filter(|plan| plan.next <= now);
        due.map(|plan| {
            plan.pause = (plan.pause * 2).min(MOST);
            plan.next = now + plan.pause;
            plan.contact.clone()
        })
        .collect()
    }

    fn forget(&self, peer: NodeId) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }
}

/// Until the endpoint is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = shared.upgrades.hurry.notified() => {}
        }
        for contact in shared.upgrades.due(Instant::now()) {
            let session = shared.peers.session(contact.node);
            if session.is_some_and(|session| matches!(session.path(), Path::Tcp(_))) {
                shared.spawn(upgrade(Arc::clone(&shared), contact));
            } else {
                shared.upgrades.forget(contact.node);
            }
        }
    }
}

async fn upgrade(shared: Arc<Shared>, contact: Contact) {
    let peer = contact.node.short();
    match dial::upgrade(&shared, &contact).await {
        Ok(session) => tracing::info!(%peer, path = %session.path(), "a session goes by UDP again"),
        Err(error) => tracing::debug!(%peer, %error, "a session stays with TCP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_types::Address;

    #[test]
    fn tries_come_ever_more_seldom_until_the_network_changes() {
        let address = Address { ip: [10, 0, 0, 1].into(), udp_port: Some(1), tcp_port: Some(1) };
        let contact = Contact { node: NodeId([1; 20]), addresses: vec![address] };
        let upgrades = Upgrades::default();
        upgrades.plan(&contact);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let tries: Vec<_> = (0..200).filter(|at| !upgrades.due(start + *at * second).is_empty()).collect();
        assert_eq!(tries, [10, 30, 70, 150]);
        upgrades.hurry();
        assert_eq!(upgrades.due(Instant::now()), std::slice::from_ref(&contact));
        let moved = Contact { addresses: vec![Address { ip: [10, 0, 0, 2].into(), ..address }], ..contact };
        upgrades.plan(&moved);
        assert_eq!(upgrades.due(start + 1_000 * second), [moved]);
    }

    #[test]
    fn who_has_no_udp_address_is_not_tried() {
        let address = Address { ip: [10, 0, 0, 1].into(), udp_port: None, tcp_port: Some(1) };
        let upgrades = Upgrades::default();
        upgrades.plan(&Contact { node: NodeId([1; 20]), addresses: vec![address] });
        assert!(upgrades.due(Instant::now() + 2 * FIRST).is_empty());
    }
}
