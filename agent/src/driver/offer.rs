//! The loop's side of being a global super node: the task that offers this node, the one that relays, and what they are told.

use std::sync::Arc;

use muster_net::Endpoint;
use tokio::sync::watch;

use crate::config::Config;
use crate::donation::{Command, Donation, Given, Means};
use crate::driver::Driver;
use crate::driver::parts::Parts;
use crate::identity::StateError;
use crate::volunteer::{Terms, Volunteer};

/// Offers this node, if its owner lets it, and relays for others while it serves.
pub(super) fn begin(
    config: &Config,
    parts: &Parts,
    endpoint: &Endpoint,
) -> Result<Option<(Volunteer, Donation)>, StateError> {
    if !config.super_node.offer {
        return Ok(None);
    }
    let (standing, serving) = watch::channel(false);
    let given = Arc::new(Given::default());
    let volunteer = Volunteer::spawn(Terms {
        client: parts.client.clone(),
        endpoint: endpoint.clone(),
        node: parts.identity.node,
        ticket: parts.identity.ticket()?.clone(),
        config: config.super_node.clone(),
        standing,
        given: given.clone(),
        serves_at: watch::channel(None).0,
    });
    let donation = Donation::spawn(Means {
        endpoint: endpoint.clone(),
        trust: parts.trust.clone(),
        clock: parts.clock.clone(),
        config: config.super_node.clone(),
        serving,
        given,
    });
    Ok(Some((volunteer, donation)))
}

impl Driver {
    /// Who does not offer itself relays nothing.
    pub(super) fn relay_for(&self, command: Command) {
        if let Some(donation) = self.donation.as_ref().filter(|_| !self.is_apart()) {
            donation.tell(command);
        }
    }

    pub(super) fn offer_addresses(&self) {
        if let Some(volunteer) = self.volunteer.as_ref().filter(|_| !self.is_apart()) {
            volunteer.tell_addresses(self.presence.addresses());
        }
    }
}
