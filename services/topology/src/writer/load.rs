//! Reads what commands want, and what comes along with it.

use std::collections::{BTreeMap, BTreeSet};

use muster_types::{NodeId, Timestamp};

use crate::domain::ledger::{Ledger, Wanted};
use crate::domain::task::TaskId;
use crate::store::{Store, StoreError};

pub(super) async fn ledger(store: &dyn Store, wanted: &Wanted, now: Timestamp) -> Result<Ledger, StoreError> {
    let mut ledger = Ledger::at(now);
    load_nodes(store, wanted, &mut ledger).await?;
    load_cells(store, wanted, &mut ledger).await?;
    load_bare(store, wanted, &mut ledger).await?;
    load_tasks(store, wanted, &mut ledger).await?;
    Ok(ledger)
}

fn list<T: Copy>(set: &BTreeSet<T>) -> Vec<T> {
    set.iter().copied().collect()
}

async fn load_nodes(store: &dyn Store, wanted: &Wanted, ledger: &mut Ledger) -> Result<(), StoreError> {
    let mut found = Vec::new();
    if !wanted.nodes.is_empty() {
        found = store.nodes_by_id(&list(&wanted.nodes)).await?;
    }
    if !wanted.carried_by.is_empty() {
        found.extend(store.nodes_by_carrier(&list(&wanted.carried_by)).await?);
    }
    for stored in found {
        ledger.nodes.load(stored.row.id, stored);
    }
    Ok(())
}

async fn load_bare(store: &dyn Store, wanted: &Wanted, ledger: &mut Ledger) -> Result<(), StoreError> {
    let unknown: Vec<_> =
        wanted.bare_nodes.iter().copied().filter(|node| ledger.nodes.find(node).is_none()).collect();
    if !unknown.is_empty() {
        for stored in store.nodes_by_id(&unknown).await? {
            ledger.nodes.load(stored.row.id, stored);
        }
    }
    Ok(())
}

/// Cells asked for and those of loaded nodes, with their LSNs and the LSNs' attachments.
async fn load_cells(store: &dyn Store, wanted: &Wanted, ledger: &mut Ledger) -> Result<(), StoreError> {
    let mut ids = wanted.cells.clone();
    ids.extend(ledger.nodes.iter().filter_map(|(_, node)| node.cell));
    let mut found = Vec::new();
    if !ids.is_empty() {
        found = store.cells_by_id(&list(&ids)).await?;
    }
    if !wanted.lineages.is_empty() {
        found.extend(store.cells_by_lineage(&list(&wanted.lineages)).await?);
    }
    let mut counted = wanted.counts.clone();
    if !wanted.keys.is_empty() {
        let near = store.cells_by_key(&list(&wanted.keys)).await?;
        counted.extend(near.iter().filter(|cell| cell.row.lsn.is_some()).map(|cell| cell.row.id));
        found.extend(near);
    }
    for stored in found {
        ledger.cells.load(stored.row.id, stored);
    }
    for cell in counted {
        ledger.members.insert(cell, store.count_nodes_of(cell).await?);
    }
    load_successors(store, ledger).await?;
    let lsns: BTreeSet<NodeId> = ledger.cells.iter().filter_map(|(_, cell)| cell.lsn).collect();
    let unknown: Vec<NodeId> = lsns.iter().copied().filter(|lsn| ledger.nodes.find(lsn).is_none()).collect();
    if !unknown.is_empty() {
        for stored in store.nodes_by_id(&unknown).await? {
            ledger.nodes.load(stored.row.id, stored);
        }
    }
    let streams: Vec<NodeId> = wanted.attachments.union(&lsns).copied().collect();
    if !streams.is_empty() {
        for stored in store.attachments(&streams).await? {
            ledger.attachments.load(stored.row.node, stored);
        }
    }
    Ok(())
}

/// Of cells without an LSN: where their last one is now.
async fn load_successors(store: &dyn Store, ledger: &mut Ledger) -> Result<(), StoreError> {
    let former: BTreeSet<NodeId> = ledger.cells.iter().filter_map(|(_, cell)| cell.former).collect();
    if former.is_empty() {
        return Ok(());
    }
    for stored in store.nodes_by_id(&list(&former)).await? {
        ledger.nodes.load(stored.row.id, stored);
    }
    let cells = former.iter().filter_map(|node| ledger.nodes.find(node)?.cell);
    let unknown: Vec<_> = cells.filter(|cell| ledger.cells.find(cell).is_none()).collect();
    if !unknown.is_empty() {
        for stored in store.cells_by_id(&unknown).await? {
            ledger.cells.load(stored.row.id, stored);
        }
    }
    Ok(())
}

async fn load_tasks(store: &dyn Store, wanted: &Wanted, ledger: &mut Ledger) -> Result<(), StoreError> {
    let mut by_task: BTreeMap<TaskId, Vec<NodeId>> = BTreeMap::new();
    for (task, node) in &wanted.targets {
        by_task.entry(*task).or_default().push(*node);
    }
    for (task, nodes) in by_task {
        for stored in store.targets(task, &nodes).await? {
            ledger.targets.load((task, stored.row.node), stored);
        }
    }
    for node in &wanted.open_targets_of {
        for stored in store.open_targets_of(*node).await? {
            ledger.targets.load((stored.row.task, *node), stored);
        }
    }
    for request in &wanted.requests {
        if let Some(task) = store.request(request).await? {
            ledger.requests.insert(request.clone(), task);
        }
    }
    Ok(())
}
