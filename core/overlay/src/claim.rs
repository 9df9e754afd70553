//! Claims to be the LSN of a cell, and which of two prevails.

use std::cmp::Ordering;

use muster_types::{Contact, NodeId, SubnetKey};

use crate::message::{Attach, Seal};
use crate::standing::{Standing, Uptime, Worth};

/// "I am the LSN of this cell", signed by the claimant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The cell's line of LSNs, drawn at random by its first.
    pub lineage: u64,
    /// One more than the predecessor's.
    pub epoch: u64,
    pub predecessor: Option<NodeId>,
    pub subnet_keys: Vec<SubnetKey>,
    pub claimant: Contact,
    pub uptime: Uptime,
    pub standing: Standing,
    /// Of an LSN that leaves: who takes over.
    pub successor: Option<NodeId>,
    /// The lineage has stood for 30 s: a younger one does not unseat it.
    pub settled: bool,
    pub seal: Seal,
}

/// One LSN's time in office: what a claim is about, without what may change meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenure {
    pub lsn: NodeId,
    pub lineage: u64,
    pub epoch: u64,
}

impl Claim {
    pub fn tenure(&self) -> Tenure {
        Tenure { lsn: self.claimant.node, lineage: self.lineage, epoch: self.epoch }
    }

    pub fn worth(&self) -> Worth {
        Worth { standing: self.standing, uptime: self.uptime, node: self.claimant.node }
    }

    /// Same cell, as far as keys tell. Who has not heard of its keys yet (the master was never reached) goes by
    /// being heard at all.
    pub fn fits(&self, keys: &[SubnetKey]) -> bool {
        self.subnet_keys.is_empty() || keys.is_empty() || self.subnet_keys.iter().any(|k| keys.contains(k))
    }

    /// Continues this claim's lineage after it.
    pub fn succeeds(&self, earlier: &Self) -> bool {
        self.lineage == earlier.lineage && self.epoch > earlier.epoch
    }

    /// The contest of two LSNs of one cell. Of two claims of different tenures exactly one prevails; a claim
    /// never prevails over another of the same tenure.
    pub fn prevails_over(&self, other: &Self) -> bool {
        self.contest(other) == Ordering::Greater
    }

    fn contest(&self, other: &Self) -> Ordering {
        if self.lineage == other.lineage {
            // Within one lineage the higher epoch wins (design, section 2: Uptime).
            return self.epoch.cmp(&other.epoch).then_with(|| self.rank(other));
        }
        // Pre-emption only after 30 s of stability.
        self.settled
            .cmp(&other.settled)
            .then_with(|| self.rank(other))
            .then_with(|| other.lineage.cmp(&self.lineage))
    }

    fn rank(&self, other: &Self) -> Ordering {
        if self.claimant.node == other.claimant.node {
            return Ordering::Equal;
        }
        self.worth().cmp(&other.worth())
    }
}

impl Tenure {
    /// The child's consent to be shown under this LSN.
    pub fn attach(self, node: NodeId) -> Attach {
        Attach { node, lsn: self.lsn, lineage: self.lineage, epoch: self.epoch, seal: Seal::OWN }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn claim(id: u8, lineage: u64, epoch: u64, uptime: u16) -> Claim {
        Claim {
            lineage,
            epoch,
            predecessor: None,
            subnet_keys: vec![],
            claimant: Contact { node: NodeId([id; 20]), addresses: vec![] },
            uptime: Uptime(uptime),
            standing: Standing { wired: true, mains_powered: true },
            successor: None,
            settled: true,
            seal: Seal::OWN,
        }
    }

    #[test]
    fn within_a_lineage_the_higher_epoch_wins_whatever_the_uptime() {
        assert!(claim(1, 7, 3, 10).prevails_over(&claim(2, 7, 2, 9_000)));
    }

    #[test]
    fn between_lineages_uptime_decides_and_then_the_lower_id() {
        assert!(claim(2, 7, 1, 9_000).prevails_over(&claim(1, 8, 5, 10)));
        assert!(claim(1, 7, 1, 10).prevails_over(&claim(2, 8, 1, 10)));
    }

    #[test]
    fn a_lineage_that_has_not_settled_unseats_none_that_has() {
        let young = Claim { settled: false, ..claim(1, 7, 1, 9_000) };
        assert!(claim(2, 8, 1, 10).prevails_over(&young));
    }

    #[test]
    fn two_cells_with_different_keys_have_no_quarrel() {
        let here = Claim { subnet_keys: vec![SubnetKey([1; 20])], ..claim(1, 7, 1, 10) };
        assert!(!here.fits(&[SubnetKey([2; 20])]));
        assert!(here.fits(&[SubnetKey([2; 20]), SubnetKey([1; 20])]));
        assert!(here.fits(&[]));
    }

    prop_compose! {
        fn any_claim()(
            id in 1u8..6, lineage in 1u64..4, epoch in 1u64..4, uptime in 0u16..3,
            wired: bool, settled: bool,
        ) -> Claim {
            let standing = Standing { wired, mains_powered: true };
            Claim { standing, settled, ..claim(id, lineage, epoch, uptime) }
        }
    }

    proptest! {
        #[test]
        fn of_two_different_tenures_exactly_one_prevails(a in any_claim(), b in any_claim()) {
            if a.tenure() == b.tenure() {
                prop_assert!(!a.prevails_over(&b) && !b.prevails_over(&a));
            } else {
                prop_assert!(a.prevails_over(&b) ^ b.prevails_over(&a));
            }
        }

        #[test]
        fn within_a_lineage_and_between_first_claims_the_order_is_transitive(
            mut claims in prop::collection::vec(any_claim(), 3), one_lineage: bool,
        ) {
            for (number, claim) in claims.iter_mut().enumerate() {
                let lineage = if one_lineage { 1 } else { number as u64 };
                // A node's worth does not change from one of its claims to the next.
                let uptime = Uptime(u16::from(claim.claimant.node.0[0]));
                (claim.lineage, claim.uptime, claim.standing) = (lineage, uptime, Standing::default());
            }
            let [a, b, c] = &claims[..] else { unreachable!("three were drawn") };
            if a.prevails_over(b) && b.prevails_over(c) {
                prop_assert!(a.prevails_over(c));
            }
        }
    }
}
