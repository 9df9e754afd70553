//! Offers this node as a global super node, while it has a public address, its owner lets it and it is on mains: it repeats
//! the probes that come in, and sends those that it is asked to.
//!
//! addresses -> offer -> [`stream`]: probes heard go up, standing and probes to send come down.

mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_net::Endpoint;
use muster_proto::trust::v1::Envelope;
use muster_types::{Address, NodeId, limits};
use muster_wire::probe::Token;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::SuperNodeConfig;
use crate::control::Client;
use crate::donation::Given;
use crate::platform::interfaces;

/// Probes that wait to be repeated; more come only from who makes them up.
const PROBES: usize = 32;

/// A node that nobody could reach offers itself again after so long, each time twice as long, or when its network changes.
const RETRY: Duration = Duration::from_secs(3_600);
const RETRY_MOST: Duration = Duration::from_secs(24 * 3_600);

/// Whose owner has not named its addresses waits up to so long before it offers itself: who has just come may soon be gone,
/// and a fleet does not offer itself at once.
const SETTLING: Duration = Duration::from_secs(600);

/// How often it is looked at whether the host still runs on mains.
const POWER: Duration = Duration::from_secs(60);

/// How this node stands with the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nobody reaches it, as far as the registry could find out.
    Unreachable,
    /// The stream broke, or the registry was not reached.
    Broken,
}

/// What the offering is made of.
pub(crate) struct Terms {
    pub(crate) client: Client,
    pub(crate) endpoint: Endpoint,
    pub(crate) node: NodeId,
    pub(crate) ticket: Envelope,
    pub(crate) config: SuperNodeConfig,
    /// Told whether the registry has this node serve.
    pub(crate) standing: watch::Sender<bool>,
    pub(crate) given: Arc<Given>,
    /// Told by which addresses the registry last had it serve, for the hash table; none: not any more.
    pub(crate) serves_at: watch::Sender<Option<Vec<Address>>>,
}

/// The task beside the loop; dropping it ends the offer.
pub(crate) struct Volunteer {
    /// By the owner's word; empty: those of the host that are public.
    named: Vec<Address>,
    addresses: watch::Sender<Vec<Address>>,
    ticket: watch::Sender<Envelope>,
    serves_at: watch::Receiver<Option<Vec<Address>>>,
    probes: mpsc::Sender<(SocketAddr, Token)>,
    task: JoinHandle<()>,
}

impl Volunteer {
    pub(crate) fn spawn(terms: Terms) -> Self {
        let (addresses, offered) = watch::channel(Vec::new());
        let named = named_addresses(&terms);
        let (ticket, tickets) = watch::channel(terms.ticket.clone());
        let (probes, heard) = mpsc::channel(PROBES);
        let serves_at = terms.serves_at.subscribe();
        let task = tokio::spawn(Offering { terms, offered, tickets, heard }.run());
        Self { named, addresses, ticket, serves_at, probes, task }
    }

    /// The host's addresses now.
    pub(crate) fn tell_addresses(&self, addresses: Vec<Address>) {
        let public = || addresses.into_iter().filter(|address| is_public(address.ip)).collect();
        let offered: Vec<_> = if self.named.is_empty() { public() } else { self.named.clone() };
        self.addresses.send_if_modified(|known| std::mem::replace(known, offered.clone()) != offered);
    }

    /// As the registry last said: it may be away. Empty: not any more; `None`: it never did.
    pub(crate) fn serves_at(&self) -> Option<Vec<Address>> {
        self.serves_at.borrow().clone()
    }

    pub(crate) fn renew(&self, ticket: Envelope) {
        self.ticket.send_replace(ticket);
    }

    /// A probe came in. When nobody keeps up it is lost, as on any network.
    pub(crate) fn probed(&self, from: SocketAddr, token: Token) {
        let _ = self.probes.try_send((from, token));
    }
}

impl Drop for Volunteer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The owner knows that a router hands on what comes to these, at the overlay's own port.
fn named_addresses(terms: &Terms) -> Vec<Address> {
    let port = terms.endpoint.port();
    let address = |ip: &IpAddr| Address { ip: *ip, udp_port: Some(port), tcp_port: Some(port) };
    terms.config.addresses.iter().take(limits::ADDRESSES).map(address).collect()
}

/// Addresses that others can write to, unless something between forbids it: the probes tell.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 100.64.0.0/10 lies behind a carrier's translator (RFC 6598).
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        // 2000::/3 is what is assigned (RFC 4291, section 2.4).
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

struct Offering {
    terms: Terms,
    offered: watch::Receiver<Vec<Address>>,
    tickets: watch::Receiver<Envelope>,
    heard: mpsc::Receiver<(SocketAddr, Token)>,
}

impl Offering {
    /// Until the agent ends.
    async fn run(mut self) {
        let (mut backoff, mut retry) = (Backoff::new(), RETRY);
        if self.terms.config.addresses.is_empty() {
            let settling = SETTLING.mul_f64(rand::random());
            tokio::time::sleep(settling).await;
        }
        loop {
            self.wait_until_eligible().await;
            let pause = match self.offer().await {
                Some(Outcome::Unreachable) => {
                    tracing::info!(
                        ?retry,
                        "nobody reaches this host from outside; it offers itself again later"
                    );
                    backoff.reset();
                    // Not all of a fleet at once.
                    let pause = retry.mul_f64(rand::rng().random_range(1.0..1.5));
                    retry = RETRY_MOST.min(retry * 2);
                    pause
                }
                Some(Outcome::Broken) => backoff.next_delay(&mut rand::rng()),
                // The network or the power changed.
                None => {
                    retry = RETRY;
                    continue;
                }
            };
            let changed = tokio::time::timeout(pause, self.offered.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    }

    /// Public, and on mains.
    async fn wait_until_eligible(&mut self) {
        loop {
            if !self.offered.borrow_and_update().is_empty() && interfaces::mains_powered() {
                return;
            }
            // Where nothing changes, the host may still be plugged in.
            let _ = tokio::time::timeout(POWER, self.offered.changed()).await;
        }
    }

    /// Holds the stream. `None`: this node may not offer the same any more.
    async fn offer(&mut self) -> Option<Outcome> {
        let addresses = self.offered.borrow_and_update().clone();
        let ticket = self.tickets.borrow_and_update().clone();
        let unplugged = async {
            loop {
                tokio::time::sleep(POWER).await;
                if !interfaces::mains_powered() {
                    return;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = stream::hold(&self.terms, addresses, ticket, &mut self.heard) => Some(outcome),
            _ = self.offered.changed() => None,
            _ = self.tickets.changed() => None,
            () = unplugged => None,
        };
        self.terms.standing.send_replace(false);
        if outcome != Some(Outcome::Broken) {
            withdraw(&self.terms);
        }
        outcome
    }
}

/// It serves no more: not by these addresses, or nobody reaches it.
fn withdraw(terms: &Terms) {
    terms
        .serves_at
        .send_if_modified(|at| at.as_mut().is_some_and(|addresses| !std::mem::take(addresses).is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_shared_addresses_are_not_offered() {
        let public = ["198.51.100.7", "100.128.0.1", "2001:db8::1"];
        let inside = [
            "192.168.1.7",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ];
        assert!(public.iter().all(|ip| is_public(ip.parse().unwrap())));
        assert!(inside.iter().all(|ip| !is_public(ip.parse().unwrap())));
    }
}
