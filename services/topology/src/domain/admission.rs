//! Auth has admitted nodes: they are known from then on, though nobody has seen them yet.

use std::collections::BTreeMap;

use muster_types::{NodeId, Timestamp};

use super::ledger::{Command, Ledger, Wanted};
use super::node::{Attested, Node, Profile};

/// What auth tells of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    pub node: NodeId,
    pub host_name: String,
    pub software_version: String,
    pub labels: BTreeMap<String, String>,
    pub enrolled: Timestamp,
}

/// A page of auth's feed, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admissions {
    pub nodes: Vec<Admission>,
    pub last: u64,
}

#[derive(Debug, Clone)]
pub struct Admit {
    pub nodes: Vec<Admission>,
}

impl Command for Admit {
    type Answer = ();

    fn wants(&self, wanted: &mut Wanted) {
        wanted.nodes.extend(self.nodes.iter().map(|admission| admission.node));
    }

    /// Of a node that is known its own tickets tell more.
    fn apply(&self, ledger: &mut Ledger) {
        for admission in &self.nodes {
            if ledger.nodes.find(&admission.node).is_none() {
                ledger.nodes.put(admission.node, admission.node(ledger.now));
            }
        }
    }
}

impl Admission {
    fn node(&self, now: Timestamp) -> Node {
        // Every ticket that it may show is newer than this.
        let attested = Attested { labels: self.labels.clone(), ..Attested::default() };
        let mut node = Node::new(self.node, attested, now);
        node.enrolled = self.enrolled;
        node.profile = Profile {
            host_name: self.host_name.clone(),
            software_version: self.software_version.clone(),
            ..Profile::default()
        };
        node
    }
}
