//! A cell: nodes that reach each other and have one LSN; and who may be it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use muster_types::{NodeId, SubnetKey};
use serde::{Deserialize, Serialize};

use super::opaque::Opaque;

/// A cell's name for life: the lineage of its first LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellId(pub u64);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for CellId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// "I am the LSN of this cell", verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub claimant: NodeId,
    pub lineage: u64,
    pub epoch: u64,
    pub predecessor: Option<NodeId>,
    pub keys: BTreeSet<SubnetKey>,
    pub prefixes: Vec<String>,
    pub observed: Option<IpAddr>,
    /// As signed by the claimant.
    pub sealed: Opaque,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub id: CellId,
    pub lineage: u64,
    pub epoch: u64,
    /// `None` once the LSN has gone to another cell.
    pub lsn: Option<NodeId>,
    /// Who that was: where it is now, the cell went.
    #[serde(default)]
    pub former: Option<NodeId>,
    /// Of the LSN, as signed by it.
    pub claim: Opaque,
    pub keys: BTreeSet<SubnetKey>,
    pub prefixes: Vec<String>,
    pub observed: Option<IpAddr>,
}

/// What a claim is worth against the cell of its own lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// The cell has a later LSN, or a better one of the same epoch.
    Superseded,
}

impl Cell {
    /// A cell founded by a claim.
    pub fn found(claim: &Claim) -> Self {
        let mut cell = Self {
            id: CellId(claim.lineage),
            lineage: claim.lineage,
            epoch: claim.epoch,
            lsn: None,
            former: None,
            claim: Opaque::default(),
            keys: BTreeSet::new(),
            prefixes: Vec::new(),
            observed: None,
        };
        cell.grant(claim);
        cell
    }

    /// Within one lineage the higher epoch wins; of two claims of one epoch the higher attested uptime, then the
    /// lower id (design, section 2). `uptime` tells the attested one of a node.
    pub fn judge(&self, claim: &Claim, uptime: impl Fn(NodeId) -> u16) -> Verdict {
        let Some(lsn) = self.lsn.filter(|_| claim.lineage == self.lineage) else { return Verdict::Granted };
        let rank = |node| (uptime(node), std::cmp::Reverse(node));
        let granted = match claim.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => claim.claimant == lsn || rank(claim.claimant) > rank(lsn),
        };
        if granted { Verdict::Granted } else { Verdict::Superseded }
    }

    /// The claimant is the LSN from now on. Its keys join the cell's.
    pub fn grant(&mut self, claim: &Claim) {
        self.lineage = claim.lineage;
        self.epoch = claim.epoch;
        (self.lsn, self.former) = (Some(claim.claimant), None);
        self.claim = claim.sealed.clone();
        self.keys.clone_from(&claim.keys);
        if !claim.prefixes.is_empty() {
            self.prefixes.clone_from(&claim.prefixes);
        }
        if claim.observed.is_some() {
            self.observed = claim.observed;
        }
    }

    /// Its LSN is one no more.
    pub fn vacate(&mut self) {
        self.former = self.lsn.take();
    }

    /// For people: its first local prefix with the public address, "192.168.1.0/24 via 203.0.113.7".
    pub fn display_name(&self) -> String {
        match (self.prefixes.first(), self.observed) {
            (Some(prefix), Some(ip)) => format!("{prefix} via {ip}"),
            (Some(prefix), None) => prefix.clone(),
            (None, Some(ip)) => format!("via {ip}"),
            (None, None) => format!("cell {}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(claimant: u8, lineage: u64, epoch: u64) -> Claim {
        Claim {
            claimant: NodeId([claimant; 20]),
            lineage,
            epoch,
            predecessor: None,
            keys: BTreeSet::from([SubnetKey([1; 20])]),
            prefixes: vec!["192.168.1.0/24".to_owned()],
            observed: Some("203.0.113.7".parse().unwrap()),
            sealed: Opaque(vec![claimant]),
        }
    }

    #[test]
    fn the_higher_epoch_of_a_lineage_wins_and_the_older_is_superseded() {
        let mut cell = Cell::found(&claim(1, 7, 3));
        assert_eq!(cell.judge(&claim(2, 7, 2), |_| 0), Verdict::Superseded);
        assert_eq!(cell.judge(&claim(2, 7, 4), |_| 0), Verdict::Granted);
        cell.grant(&claim(2, 7, 4));
        assert_eq!(cell.judge(&claim(1, 7, 3), |_| 10_000), Verdict::Superseded);
    }

    #[test]
    fn two_claims_of_one_epoch_are_settled_by_uptime_then_by_the_lower_id() {
        let cell = Cell::found(&claim(5, 7, 3));
        let better = |node: NodeId| if node.0[0] == 9 { 8_000 } else { 1_000 };
        assert_eq!(cell.judge(&claim(9, 7, 3), better), Verdict::Granted);
        assert_eq!(cell.judge(&claim(6, 7, 3), better), Verdict::Superseded);
        assert_eq!(cell.judge(&claim(4, 7, 3), better), Verdict::Granted);
        assert_eq!(cell.judge(&claim(5, 7, 3), better), Verdict::Granted);
    }

    #[test]
    fn a_cell_is_named_by_its_prefix_and_public_address() {
        assert_eq!(Cell::found(&claim(1, 7, 1)).display_name(), "192.168.1.0/24 via 203.0.113.7");
    }
}
