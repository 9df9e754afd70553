//! Who serves: office holders always; every reachable node as long as there are few of them; the others ask their LSN and
//! spend nothing on upkeep.

use super::calls::Purpose;
use super::contact::Handle;
use super::distance::Names;
use super::input::Standing;
use super::intent::Intent;
use super::message::{Request, Service};
use super::timing::Settings;
use super::{Dht, Turn};

#[derive(Debug)]
pub(super) struct Role<C> {
    standing: Standing<C>,
    service: Service,
    /// How many serve by their office; unknown before anybody was asked.
    offices: Option<u32>,
}

impl<C> Default for Role<C> {
    fn default() -> Self {
        let standing = Standing { reachable: false, office: false, lsn: None };
        Self { standing, service: Service::Client, offices: None }
    }
}

impl<C: Handle> Role<C> {
    pub(super) fn service(&self) -> Service {
        self.service
    }

    pub(super) fn serves(&self) -> bool {
        self.service != Service::Client
    }

    pub(super) fn lsn(&self) -> Option<C> {
        self.standing.lsn
    }

    /// What this node should be. A volunteer stays one a little longer, or it would come and go.
    fn wanted(&self, settings: &Settings) -> Service {
        let few = match self.service {
            Service::Volunteer => settings.few_offices + settings.few_offices / 4,
            Service::Client | Service::Office => settings.few_offices,
        };
        let needed = self.offices.map_or(self.standing.lsn.is_none(), |offices| offices < few);
        match self.standing {
            Standing { office: true, .. } => Service::Office,
            Standing { reachable: true, .. } if needed => Service::Volunteer,
            Standing { .. } => Service::Client,
        }
    }
}

impl<C: Handle> Dht<C> {
    pub(super) fn stand<N: Names<C>>(&mut self, standing: Standing<C>, turn: &mut Turn<'_, C, N>) {
        let another_lsn = standing.lsn != self.role.standing.lsn;
        self.role.standing = standing;
        if let Some(lsn) = standing.lsn.filter(|_| another_lsn && !standing.office) {
            self.ask(lsn, Purpose::Check, Request::Ping, turn);
        }
        self.take_role(turn);
    }

    /// The LSN has told how many serve by their office.
    pub(super) fn on_offices(&mut self, from: C, offices: u32, turn: &mut Turn<'_, C, impl Names<C>>) {
        if self.role.lsn() == Some(from) && !self.role.serves() {
            self.role.offices = Some(offices);
            self.take_role(turn);
        }
    }

    /// A volunteer counts them itself.
    pub(super) fn count_offices<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        if self.role.service == Service::Volunteer {
            self.role.offices = Some(self.offices());
            self.take_role(turn);
        }
    }

    /// The share that holds an office among those known, of all that seem to serve.
    pub(super) fn offices(&self) -> u32 {
        let known = self.table.entries().iter().filter(|entry| !entry.is_away());
        let (all, offices) =
            known.fold((0_u64, 0_u64), |(all, offices), entry| (all + 1, offices + u64::from(entry.office)));
        let elsewhere = (self.table.estimate() * offices).checked_div(all).unwrap_or_default();
        let own = u64::from(self.role.service == Service::Office);
        u32::try_from(elsewhere + own).unwrap_or(u32::MAX)
    }

    fn take_role<N: Names<C>>(&mut self, turn: &mut Turn<'_, C, N>) {
        let (was, service) = (self.role.service, self.role.wanted(turn.settings));
        if was == service {
            return;
        }
        let office = service == Service::Office;
        self.table.set_capacity(if office { turn.settings.office_bucket } else { turn.settings.bucket });
        self.role.service = service;
        turn.intents.push(Intent::Serves(service));
        if was == Service::Client {
            self.join(turn);
        } else if service == Service::Client {
            self.upkeep.stop();
            self.hand_over(turn);
        }
    }
}
