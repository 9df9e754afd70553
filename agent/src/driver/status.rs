//! What people on this host ask for, and what `muster-agent status` shows them.

use muster_overlay::intent::Station;
use muster_overlay::message::PartCode;
use muster_proto::agent::v1::GetStatusResponse;
use muster_proto::control::v1::ClassUsage;
use muster_types::NodeId;
use muster_wire::time::to_wire;

use crate::driver::{Driver, Next};
use crate::local;

/// The first of the neighbor list (design, section 2).
const DEPUTIES: usize = 2;

/// Neighbors listed; a cell has up to a thousand.
const LISTED: usize = 50;

impl Driver {
    pub(super) fn on_request(&mut self, request: local::Request) -> Next {
        match request {
            local::Request::Status(answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.status());
                Next::Go
            }
            local::Request::Table(answer) => {
                let _ = answer.send(self.table.handle());
                Next::Go
            }
            local::Request::Keys(answer) => {
                let _ = answer.send(self.keyring.clone());
                Next::Go
            }
            local::Request::Meetings(answer) => {
                let _ = answer.send(self.meetings.clone());
                Next::Go
            }
            local::Request::Post(answer) => {
                let _ = answer.send(self.post.clone());
                Next::Go
            }
            local::Request::Leave { reason, done } => {
                tracing::info!(reason, "leaving the network");
                Next::Leave { code: PartCode::UNINSTALLED, description: reason, told: Some(done) }
            }
        }
    }

    pub(super) fn status(&self) -> GetStatusResponse {
        let parts = &self.parts;
        let machine = self.overlay.machine();
        let (state, lsn, epoch) = station(&self.overlay.station());
        let path = lsn.and_then(|lsn| self.overlay.endpoint().session(lsn)).map(|session| session.path());
        let neighbors: Vec<_> = machine
            .neighbors()
            .map(|list| {
                list.neighbors.iter().map(|neighbor| name(neighbor.contact.node)).take(LISTED).collect()
            })
            .unwrap_or_default();
        let children: Vec<_> = machine.children().into_iter().map(name).take(LISTED).collect();
        let ranking = if children.is_empty() { &neighbors } else { &children };
        let address = parts.learned.master_addresses.first().unwrap_or(&parts.identity.link_address);
        GetStatusResponse {
            node: name(parts.identity.node),
            host_name: crate::inventory::host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.to_owned(),
            since_time: Some(to_wire(self.history.since())),
            lsn: lsn.map(name).unwrap_or_default(),
            epoch,
            master: self.route.describe(),
            subnet_keys: machine.subnet_keys().iter().map(ToString::to_string).collect(),
            deputies: ranking.iter().take(DEPUTIES).cloned().collect(),
            neighbors,
            children,
            certificate_expire_time: parts.identity.validity().ok().map(|validity| to_wire(validity.ends)),
            disconnections: parts.learned.disconnections(),
            clock_offset: Some(offset_to_wire(parts.clock.offset_micros())),
            usage: self.usage(),
            path: path.map(|path| path.as_str().to_owned()).unwrap_or_default(),
            running_tasks: self.tasks.running(),
            containment: parts.processes.describe(),
            master_address: address.clone(),
        }
    }

    pub(super) fn usage(&self) -> Vec<ClassUsage> {
        let line = |line: muster_net::usage::Line| ClassUsage {
            class: i32::from(line.class.number()),
            message_type: line.kind.to_owned(),
            sent_bytes: line.sent_bytes,
            received_bytes: line.received_bytes,
            sent_messages: line.sent_messages,
            received_messages: line.received_messages,
        };
        self.overlay.endpoint().usage().lines().into_iter().map(line).collect()
    }
}

fn name(node: NodeId) -> String {
    format!("nodes/{node}")
}

fn station(station: &Station) -> (&'static str, Option<NodeId>, u64) {
    match station {
        Station::NoConnection => ("NoConnection", None, 0),
        Station::LookingForLsn => ("LookingForLsn", None, 0),
        Station::Joining { lsn } => ("Joining", Some(*lsn), 0),
        Station::HasLsn { lsn, epoch, .. } => ("HasLsn", Some(*lsn), *epoch),
        Station::IsLsn { epoch, .. } => ("IsLsn", None, *epoch),
        Station::Parted => ("Parted", None, 0),
    }
}

fn offset_to_wire(micros: i64) -> prost_types::Duration {
    const MICROS: i64 = 1_000_000;
    let nanos = i32::try_from(micros % MICROS * 1_000).unwrap_or_default();
    prost_types::Duration { seconds: micros / MICROS, nanos }
}
