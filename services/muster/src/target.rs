//! The services that this binary can run.

use std::collections::BTreeSet;
use std::str::FromStr;

/// One service, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Auth,
    Topology,
    DhtBootstrap,
    GsnRegistry,
    Relay,
    All,
}

/// Not the name of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no service {0:?}; there are {names}", names = names())]
pub struct UnknownTarget(String);

impl Target {
    /// Every service, in the order in which they start; they stop in the opposite one.
    pub const SERVICES: [Self; 5] =
        [Self::Auth, Self::Topology, Self::DhtBootstrap, Self::GsnRegistry, Self::Relay];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Topology => "topology",
            Self::DhtBootstrap => "dht-bootstrap",
            Self::GsnRegistry => "gsn-registry",
            Self::Relay => "relay",
            Self::All => "all",
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Self::Auth => "certificate authority, enrollment links, renewal, the master's signatures",
            Self::Topology => "control channel, presence, tasks, events; the API of CMDBs and operators",
            Self::DhtBootstrap => {
                "always-on nodes of the hash table, contacts for joiners, the table's health"
            }
            Self::GsnRegistry => "global super nodes: who offers, the proof, lists; tickets for relays",
            Self::Relay => "carries sealed packets between nodes that cannot reach each other",
            Self::All => "every service above, in one process",
        }
    }

    /// Without `all` and repetitions.
    pub fn expand(targets: &[Self]) -> BTreeSet<Self> {
        if targets.contains(&Self::All) { Self::SERVICES.into() } else { targets.iter().copied().collect() }
    }
}

fn every() -> impl Iterator<Item = Target> {
    Target::SERVICES.into_iter().chain([Target::All])
}

fn names() -> String {
    every().map(Target::as_str).collect::<Vec<_>>().join(", ")
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        every().find(|target| target.as_str() == text).ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_means_every_service_once() {
        assert_eq!(Target::expand(&[Target::All, Target::Auth]), Target::SERVICES.into());
        assert_eq!(Target::expand(&[Target::Auth, Target::Auth]).len(), 1);
    }

    #[test]
    fn an_unknown_service_is_answered_with_those_there_are() {
        let error = "relays".parse::<Target>().unwrap_err().to_string();
        let there = "auth, topology, dht-bootstrap, gsn-registry, relay, all";
        assert_eq!(error, format!("there is no service \"relays\"; there are {there}"));
    }
}
