//! How well the table is, from what a crawl has seen.

use std::collections::{BTreeMap, BTreeSet};

use muster_overlay::dht::Distance;
use muster_types::NodeId;

/// A server is healthy when so many of its closest are right.
const HEALTHY: f64 = 0.9;

/// Everything that a crawl has seen.
#[derive(Debug, Default)]
pub struct Survey {
    /// Whom each server that answered names as closest to itself.
    pub named: BTreeMap<NodeId, Vec<NodeId>>,
    /// Named by others; asked without an answer.
    pub dead: BTreeSet<NodeId>,
}

/// In numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Health {
    pub alive: usize,
    pub dead: usize,
    /// Mean over servers: of those it names, how many are truly the closest that live.
    pub table_health: f64,
    pub healthy_share: f64,
}

impl Survey {
    pub fn health(&self) -> Health {
        let alive: Vec<NodeId> = self.named.keys().copied().collect();
        let rates: Vec<f64> =
            self.named.iter().filter_map(|(server, named)| rate(*server, named, &alive)).collect();
        let share = |count: usize| if rates.is_empty() { 1.0 } else { count as f64 / rates.len() as f64 };
        let mean = if rates.is_empty() { 1.0 } else { rates.iter().sum::<f64>() / rates.len() as f64 };
        let healthy = rates.iter().filter(|rate| **rate >= HEALTHY).count();
        Health {
            alive: alive.len(),
            dead: self.dead.len(),
            table_health: mean,
            healthy_share: share(if rates.is_empty() { 1 } else { healthy }),
        }
    }
}

/// `None`: there is nobody whom it could name.
fn rate(server: NodeId, named: &[NodeId], alive: &[NodeId]) -> Option<f64> {
    let mut others: Vec<_> = alive.iter().copied().filter(|node| *node != server).collect();
    others.sort_by_key(|node| Distance::between((*node).into(), server.into()));
    others.truncate(named.len().max(1));
    let right = others.iter().filter(|node| named.contains(node)).count();
    (!others.is_empty()).then(|| right as f64 / others.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId([number; 20])
    }

    #[test]
    fn who_names_the_closest_is_healthy_and_who_names_the_dead_is_not() {
        let mut survey = Survey::default();
        for number in 1..=4 {
            let others = (1..=4).filter(|other| *other != number).map(id).collect();
            survey.named.insert(id(number), others);
        }
        assert_eq!(survey.health(), Health { alive: 4, dead: 0, table_health: 1.0, healthy_share: 1.0 });
        survey.named.insert(id(1), vec![id(9), id(8), id(7)]);
        survey.dead.extend([id(9), id(8), id(7)]);
        let health = survey.health();
        assert_eq!((health.alive, health.dead), (4, 3));
        assert!(health.table_health == 0.75 && health.healthy_share == 0.75, "{health:?}");
    }

    #[test]
    fn a_lone_node_is_well() {
        let survey = Survey { named: BTreeMap::from([(id(1), Vec::new())]), ..Survey::default() };
        assert_eq!(survey.health(), Health { alive: 1, dead: 0, table_health: 1.0, healthy_share: 1.0 });
    }
}
