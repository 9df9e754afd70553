//! The border to gRPC: wire messages become commands and reads, rows become messages.
//!
//! `control` serves nodes, `fleet` operators and CMDBs; `authority` is the client of auth.

use muster_kit::policy::Policy;
use muster_types::Role;

pub mod authority;
mod control;
mod fleet;
mod refusal;
mod render;
mod wire;

pub(crate) use control::Control;
pub(crate) use fleet::Fleet;

/// Who is operated.
const NODES: &[Role] = &[Role::Node];

const CONTROL_METHODS: [&str; 4] = [
    "/muster.control.v1.ControlService/Attach",
    "/muster.control.v1.ControlService/FindLsns",
    "/muster.control.v1.ControlService/ListOwnTasks",
    "/muster.control.v1.ControlService/GetNodeTicket",
];

/// What shows the fleet and changes nothing.
const FLEET_READS: [&str; 10] = [
    "/muster.fleet.v1.FleetService/GetNode",
    "/muster.fleet.v1.FleetService/ListNodes",
    "/muster.fleet.v1.FleetService/GetTopology",
    "/muster.fleet.v1.FleetService/GetTask",
    "/muster.fleet.v1.FleetService/ListTasks",
    "/muster.fleet.v1.FleetService/ListTaskTargets",
    "/muster.fleet.v1.FleetService/ListTaskOutput",
    "/muster.fleet.v1.FleetService/WatchTask",
    "/muster.fleet.v1.FleetService/WatchEvents",
    "/muster.fleet.v1.FleetService/ListEvents",
];

const FLEET_COMMANDS: [&str; 7] = [
    "/muster.fleet.v1.FleetService/UpdateNodeLabels",
    "/muster.fleet.v1.FleetService/RefreshPresence",
    "/muster.fleet.v1.FleetService/DeleteNode",
    "/muster.fleet.v1.FleetService/ResolveClone",
    "/muster.fleet.v1.FleetService/CreateTask",
    "/muster.fleet.v1.FleetService/CancelTask",
    "/muster.fleet.v1.FleetService/ApproveTask",
];

/// Who may call what: nodes their control channel, people and CMDBs the fleet, auditors what only shows it.
pub fn policy() -> Policy {
    let policy =
        CONTROL_METHODS.into_iter().fold(Policy::new(), |policy, method| policy.roles(method, NODES));
    let policy = FLEET_READS.into_iter().fold(policy, |policy, method| policy.roles(method, Role::READERS));
    FLEET_COMMANDS.into_iter().fold(policy, |policy, method| policy.roles(method, Role::COMMANDERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generated code names the methods; the table must name the same.
    #[test]
    fn every_method_of_the_contract_has_its_line_in_the_policy() {
        let policy = policy();
        let fleet = [&FLEET_READS[..], &FLEET_COMMANDS[..]].concat();
        for (service, methods) in [("control", &CONTROL_METHODS[..]), ("fleet", &fleet[..])] {
            let path =
                format!("{}/../../proto/muster/{service}/v1/{service}.proto", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let defined: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")).collect();
            assert_eq!(defined.len(), methods.len());
            for line in defined {
                let name = line.split('(').next().unwrap();
                let known = methods.iter().find(|method| method.ends_with(&format!("/{name}"))).unwrap();
                assert!(policy.knows(known).is_some());
            }
        }
    }
}
