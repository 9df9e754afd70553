//! Which nodes a filter means: names to ids, then whom the store finds by its columns, each matched once more.

use std::collections::BTreeSet;

use muster_kit::status::Fault;
use muster_proto::fleet::v1 as fleet;
use muster_types::NodeId;

use crate::domain::cell::Cell;
use crate::domain::filter::NodeFilter;
use crate::domain::node::{Node, Presence};
use crate::domain::table::Stored;
use crate::grpc::refusal::{self, invalid, not_found};
use crate::grpc::render::Places;
use crate::hub::Hub;

/// Conditions of one filter.
const CONDITIONS: usize = 1_000;

/// A node that a filter selected, and where it is.
pub(super) struct Selected {
    pub(super) stored: Stored<Node>,
    pub(super) place: String,
}

pub(super) async fn places(hub: &Hub) -> Result<Places, Fault> {
    let cells = hub.store.cells().await.map_err(|error| refusal::store(&error))?;
    let cells: Vec<Cell> = cells.into_iter().map(|stored| stored.row).collect();
    Ok(Places::of(&cells))
}

/// The filter with its names resolved.
pub(super) async fn filter(hub: &Hub, wire: fleet::NodeFilter) -> Result<NodeFilter, Fault> {
    let fleet::NodeFilter { names, states, places, labels } = wire;
    if names.len() + states.len() + places.len() + labels.len() > CONDITIONS {
        return Err(invalid("FILTER_TOO_LARGE", format!("a filter has at most {CONDITIONS} conditions")));
    }
    let mut filter = NodeFilter { places, labels: labels.into_iter().collect(), ..NodeFilter::default() };
    for state in states {
        filter.states.push(match fleet::NodeState::try_from(state) {
            Ok(fleet::NodeState::Online) => Presence::Online,
            Ok(fleet::NodeState::Offline) => Presence::Offline,
            Ok(fleet::NodeState::Unreachable) => Presence::Unreachable,
            Ok(fleet::NodeState::NeverSeen) => Presence::NeverSeen,
            Ok(fleet::NodeState::Held) => Presence::Held,
            _ => return Err(invalid("BAD_STATE", format!("there is no node state {state}"))),
        });
    }
    if !names.is_empty() {
        filter.ids = Some(resolve(hub, &names).await?);
    }
    Ok(filter)
}

async fn resolve(hub: &Hub, names: &[String]) -> Result<BTreeSet<NodeId>, Fault> {
    let mut ids = BTreeSet::new();
    for name in names {
        ids.insert(resolve_one(hub, name).await?);
    }
    Ok(ids)
}

/// A resource name, an id, the beginning of one, or a host name; it must mean one node.
async fn resolve_one(hub: &Hub, name: &str) -> Result<NodeId, Fault> {
    let store = |error| refusal::store(&error);
    let text = name.strip_prefix("nodes/").unwrap_or(name);
    let mut found: BTreeSet<NodeId> = BTreeSet::new();
    if let Ok(id) = text.parse::<NodeId>() {
        found.extend(hub.store.nodes_by_id(&[id]).await.map_err(store)?.iter().map(|it| it.row.id));
    } else {
        found.extend(hub.store.nodes_by_host_name(text).await.map_err(store)?.iter().map(|it| it.row.id));
        if found.is_empty() && !text.is_empty() {
            found = by_prefix(hub, &text.to_lowercase()).await?;
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(one), Some(other)) => Err(invalid(
            "NAME_AMBIGUOUS",
            format!("{name:?} means several nodes: {one}, {other}, ...; write more of the id"),
        )
        .with("name", name)),
        (None, _) => Err(not_found("NODE_NOT_FOUND", name)),
    }
}

/// Up to two nodes whose ids begin so.
async fn by_prefix(hub: &Hub, prefix: &str) -> Result<BTreeSet<NodeId>, Fault> {
    let bytes = data_encoding::HEXLOWER.decode(format!("{prefix:0<40}").as_bytes());
    let Some(first) = bytes.ok().and_then(|bytes| NodeId::try_from(&bytes[..]).ok()) else {
        return Ok(BTreeSet::new());
    };
    let mut found = BTreeSet::new();
    found.extend(
        hub.store
            .nodes_by_id(&[first])
            .await
            .map_err(|error| refusal::store(&error))?
            .iter()
            .map(|it| it.row.id),
    );
    let page = hub.store.nodes_after(Some(first)).await.map_err(|error| refusal::store(&error))?;
    found.extend(page.iter().map(|it| it.row.id).take_while(|id| id.to_string().starts_with(prefix)).take(2));
    Ok(found)
}

/// Nodes that match, in the order of ids, after one, at most `limit`.
pub(super) async fn nodes(
    hub: &Hub,
    filter: &NodeFilter,
    mut after: Option<NodeId>,
    limit: usize,
) -> Result<Vec<Selected>, Fault> {
    let places = places(hub).await?;
    let mut selected = Vec::new();
    let mut take = |page: Vec<Stored<Node>>| {
        for stored in page {
            let place = places.place(&stored.row);
            if selected.len() < limit && filter.matches(&stored.row, &place) {
                selected.push(Selected { stored, place });
            }
        }
        selected.len() == limit
    };
    if let Some(ids) = &filter.ids {
        take(named(hub, ids, after).await?);
        return Ok(selected);
    }
    let cells = places.named(&filter.places);
    loop {
        let page =
            hub.store.nodes_like(filter, &cells, after).await.map_err(|error| refusal::store(&error))?;
        let Some(last) = page.last() else { return Ok(selected) };
        after = Some(last.row.id);
        if take(page) {
            return Ok(selected);
        }
    }
}

/// The nodes of these ids behind one, in the order of ids, without a walk through the fleet.
async fn named(hub: &Hub, ids: &BTreeSet<NodeId>, after: Option<NodeId>) -> Result<Vec<Stored<Node>>, Fault> {
    let wanted: Vec<_> = ids.iter().copied().filter(|id| after.is_none_or(|after| *id > after)).collect();
    let mut found = hub.store.nodes_by_id(&wanted).await.map_err(|error| refusal::store(&error))?;
    found.sort_by_key(|stored| stored.row.id);
    Ok(found)
}
