//! Counts the fleet for Prometheus: one replica does, now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_kit::clock;

use crate::domain::cell::CellId;
use crate::domain::node::{Node, Position, Presence};
use crate::hub::Hub;
use crate::metrics::{self, Census};
use crate::store::{READ_ROWS, StoreError};

/// Versions shown by name: those of a roll-out and its stragglers. The rest are "other".
const VERSIONS: usize = 20;

/// Counts everything.
pub(crate) async fn take(hub: &Hub) -> Result<Census, StoreError> {
    let mut count = Count::default();
    let mut after = None;
    loop {
        let page = hub.store.nodes_after(after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.row.id);
        page.iter().for_each(|node| count.add(&node.row));
    }
    let cells = hub.store.cells().await?;
    let served: BTreeSet<CellId> =
        cells.iter().filter(|it| it.row.lsn.is_some()).map(|it| it.row.id).collect();
    let mut census = count.finish(&served);
    census.cells = cells.len();
    census.tasks_open = hub.store.tasks_before(None, true, READ_ROWS).await?.len();
    census.replicas = 1 + hub.store.others(&hub.replica, clock::wall()).await?.len();
    Ok(census)
}

#[derive(Default)]
struct Count {
    census: Census,
    round_trips: Vec<u64>,
    cells: BTreeMap<CellId, usize>,
}

impl Count {
    fn add(&mut self, node: &Node) {
        let at = Presence::ALL.iter().position(|it| *it == node.presence).unwrap_or_default();
        self.census.presence[at] += 1;
        if !node.is_online() {
            return;
        }
        let at = Position::ALL.iter().position(|it| *it == node.position).unwrap_or_default();
        self.census.roles[at] += 1;
        self.census.paths[metrics::path_index(&node.profile.path)] += 1;
        let version = &node.profile.software_version;
        let known = self.census.versions.contains_key(version) || self.census.versions.len() < VERSIONS;
        let version = if known { version.clone() } else { "other".to_owned() };
        *self.census.versions.entry(version).or_default() += 1;
        if node.profile.round_trip_micros > 0 {
            self.round_trips.push(node.profile.round_trip_micros);
        }
        if let Some(cell) = node.cell {
            *self.cells.entry(cell).or_default() += 1;
        }
    }

    fn finish(mut self, served: &BTreeSet<CellId>) -> Census {
        self.round_trips.sort_unstable();
        let at = |share: usize| {
            let place = (self.round_trips.len() * share / 100).min(self.round_trips.len().saturating_sub(1));
            self.round_trips.get(place).map(|micros| Duration::from_micros(*micros))
        };
        self.census.round_trip = at(50).zip(at(95));
        self.census.largest_cell = self.cells.values().copied().max().unwrap_or_default();
        self.census.cells_without_lsn = self.cells.keys().filter(|cell| !served.contains(cell)).count();
        self.census
    }
}

#[cfg(test)]
mod tests {
    use muster_types::{NodeId, Timestamp};

    use super::*;
    use crate::domain::node::Attested;

    fn child(name: u8, cell: u64, round_trip: u64) -> Node {
        let mut node = Node::new(NodeId([name; 20]), Attested::default(), Timestamp::default());
        node.appear(Position::Child, None, Some(CellId(cell)), Timestamp::default());
        (node.profile.path, node.profile.round_trip_micros) = ("udp6".to_owned(), round_trip);
        node
    }

    #[test]
    fn a_census_counts_those_who_are_online_and_names_cells_that_nobody_serves() {
        let mut count = Count::default();
        for node in [child(1, 7, 1_000), child(2, 7, 3_000), child(3, 8, 9_000)] {
            count.add(&node);
        }
        count.add(&Node::new(NodeId([4; 20]), Attested::default(), Timestamp::default()));
        let census = count.finish(&BTreeSet::from([CellId(7)]));
        assert_eq!((census.presence, census.roles), ([3, 0, 0, 1, 0], [3, 0, 0]));
        assert_eq!((census.largest_cell, census.cells_without_lsn), (2, 1));
        assert_eq!(census.paths[metrics::path_index("udp6")], 3);
        assert_eq!(census.round_trip, Some((Duration::from_micros(3_000), Duration::from_micros(9_000))));
    }
}
