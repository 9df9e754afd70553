//! What `muster-agent status` shows.

use muster_proto::agent::v1::GetStatusResponse;
use muster_wire::time::to_wire;

use crate::driver::Driver;

impl Driver {
    pub(super) fn status(&self) -> GetStatusResponse {
        let offset = self.parts.clock.offset_micros();
        let micros = 1_000_000;
        GetStatusResponse {
            node: format!("nodes/{}", self.identity.node),
            host_name: crate::inventory::host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: "LookingForLsn".to_owned(),
            since_time: Some(to_wire(self.history.since())),
            master: self.route.describe(),
            subnet_keys: self.presence.subnet_keys(),
            certificate_expire_time: self.identity.validity().ok().map(|validity| to_wire(validity.ends)),
            disconnections: self.parts.learned.disconnections(),
            clock_offset: Some(prost_types::Duration {
                seconds: offset / micros,
                nanos: i32::try_from(offset % micros * 1_000).unwrap_or_default(),
            }),
            running_tasks: self.tasks.running(),
            containment: self.parts.processes.describe(),
            master_address: self
                .parts
                .learned
                .master_addresses
                .first()
                .cloned()
                .unwrap_or_else(|| self.identity.link_address.clone()),
            ..GetStatusResponse::default()
        }
    }
}
