//! LSNs that lie. What an honest machine wants is bent on its way out, within what signatures allow: a liar can leave
//! out, hold back, repeat, and say of itself what nobody attests; it cannot write in another's name.

use std::time::Duration;

use muster_overlay::intent::{Change, Presence, Update};
use muster_overlay::message::{Discovery, Message};
use muster_overlay::standing::Standing;
use muster_overlay::{Claim, Intent};
use rand::Rng;

use super::channel::MasterEvent;
use super::{Event, HostId, World};

/// How long a liar sits on what it should pass on.
const DELAY: Duration = Duration::from_secs(60);
/// Epochs that a usurper skips, so that no honest claim is above its own.
const USURPED: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Tells the master nothing of its children.
    Drop,
    /// Tells it a minute late.
    Delay,
    /// Invents children, and reports those of others as gone.
    Forge,
    /// Tells each child another neighbor list, so that there are more deputies than two.
    Equivocate,
    /// Claims to be wired, on mains, long in office and of a higher epoch than anybody.
    Boast,
}

impl Lie {
    pub const ALL: [Self; 5] = [Self::Drop, Self::Delay, Self::Forge, Self::Equivocate, Self::Boast];
}

impl World {
    pub fn make_liar(&mut self, host: HostId, lie: Lie) {
        self.hosts[host].lie = Some(lie);
    }

    pub(super) fn perform_lying(&mut self, host: HostId, lie: Lie, intent: Intent) {
        match (lie, intent) {
            (Lie::Drop, Intent::Update(update)) => {
                // It says that nothing changed, so that its numbers have no gap.
                self.perform(host, Intent::Update(Update { changes: Vec::new(), ..update }));
            }
            (Lie::Delay, Intent::Update(update)) => {
                let boot = self.hosts[host].boot;
                let event = MasterEvent::Update { host, boot, update };
                self.clock.schedule(self.now() + DELAY, Event::Master(Box::new(event)));
            }
            (Lie::Forge, Intent::Update(update)) => {
                let forged = self.forged(host, update);
                self.perform(host, Intent::Update(forged));
            }
            (Lie::Equivocate, Intent::Send { to, message: Message::NeighborList(mut list) }) => {
                let mut neighbors = list.neighbors.to_vec();
                let shift = self.rng.random_range(0..neighbors.len().max(1));
                neighbors.rotate_left(shift);
                list.neighbors = neighbors.into();
                self.perform(host, Intent::Send { to, message: Message::NeighborList(list) });
            }
            (Lie::Boast, Intent::Multicast(Discovery::Claim(claim))) => {
                self.perform(host, Intent::Multicast(Discovery::Claim(boasting(claim))));
            }
            (Lie::Boast, Intent::Send { to, message: Message::Claim(claim) }) => {
                self.perform(host, Intent::Send { to, message: Message::Claim(boasting(claim)) });
            }
            (Lie::Boast, Intent::AttachMaster(Some(claim))) => {
                self.perform(host, Intent::AttachMaster(Some(boasting(claim))));
            }
            (_, intent) => self.perform(host, intent),
        }
    }

    /// Somebody else's node as its child, under a consent that this node never gave; and another as gone.
    fn forged(&mut self, host: HostId, mut update: Update) -> Update {
        let victim = self.rng.random_range(0..self.hosts.len());
        let gone = self.rng.random_range(0..self.hosts.len());
        let (victim, gone) = (self.hosts[victim].id, self.hosts[gone].id);
        let stolen = update.changes.iter().find_map(|change| match &change.presence {
            Presence::Attached { attach, contact, version, standing } => {
                let mut attach = attach.clone();
                attach.node = victim;
                let (contact, version, standing) = (contact.clone(), *version, *standing);
                Some(Presence::Attached { attach, contact, version, standing })
            }
            Presence::Departed(_) => None,
        });
        self.note("forge", host, 0);
        update.changes.extend(stolen.map(|presence| Change { node: victim, presence }));
        update.changes.push(Change { node: gone, presence: Presence::Departed(None) });
        update
    }
}

fn boasting(claim: Claim) -> Claim {
    let standing = Standing { wired: true, mains_powered: true };
    Claim { standing, settled: true, epoch: claim.epoch.saturating_add(USURPED), ..claim }
}
