//! Which nodes a filter means: names to ids, then whom the store finds by its columns, each matched once more.

use std::collections::{BTreeSet, HashMap};

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

/// Resource names, ids, beginnings of ids, or host names; each must mean one node.
async fn resolve(hub: &Hub, names: &[String]) -> Result<BTreeSet<NodeId>, Fault> {
    let store = |error| refusal::store(&error);
    let texts: Vec<_> = names.iter().map(|name| name.strip_prefix("nodes/").unwrap_or(name)).collect();
    let (mut known, mut named) = (BTreeSet::new(), HashMap::new());
    let ids: Vec<NodeId> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if !ids.is_empty() {
        known.extend(hub.store.nodes_by_id(&ids).await.map_err(store)?.iter().map(|it| it.row.id));
    }
    if ids.len() < texts.len() {
        for (name, id) in hub.store.ids_by_host_name(&texts).await.map_err(store)? {
            named.entry(name).or_insert_with(Vec::new).push(id);
        }
    }
    let mut found = BTreeSet::new();
    for (name, text) in names.iter().zip(texts) {
        let meant = match (text.parse(), named.get(text)) {
            (Ok(id), _) => known.get(&id).copied().into_iter().collect(),
            (_, Some(ids)) => ids.clone(),
            _ if text.is_empty() => Vec::new(),
            _ => by_prefix(hub, &text.to_lowercase()).await?,
        };
        found.insert(the_one(name, &meant)?);
    }
    Ok(found)
}

fn the_one(name: &str, meant: &[NodeId]) -> Result<NodeId, Fault> {
    match meant {
        [one] => Ok(*one),
        [one, other, ..] => Err(invalid(
            "NAME_AMBIGUOUS",
            format!("{name:?} means several nodes: {one}, {other}, ...; write more of the id"),
        )
        .with("name", name)),
        [] => Err(not_found("NODE_NOT_FOUND", name)),
    }
}

/// Up to two nodes whose ids begin so.
async fn by_prefix(hub: &Hub, prefix: &str) -> Result<Vec<NodeId>, Fault> {
    let store = |error| refusal::store(&error);
    let bytes = data_encoding::HEXLOWER.decode(format!("{prefix:0<40}").as_bytes());
    let Some(first) = bytes.ok().and_then(|bytes| NodeId::try_from(&bytes[..]).ok()) else {
        return Ok(Vec::new());
    };
    let mut found = hub.store.nodes_by_id(&[first]).await.map_err(store)?;
    found.extend(hub.store.nodes_after(Some(first)).await.map_err(store)?);
    let ids = found.iter().map(|it| it.row.id).take_while(|id| id.to_string().starts_with(prefix));
    Ok(ids.take(2).collect())
}

/// Nodes that match, in the order of ids, after one, at most `limit`.
pub(super) async fn nodes(
    hub: &Hub,
    filter: &NodeFilter,
    after: Option<NodeId>,
    limit: usize,
) -> Result<Vec<Selected>, Fault> {
    select(hub, &places(hub).await?, filter, (after, limit)).await
}

/// The same where nobody asks in which places they are: cells are read only for a filter that names some.
pub(super) async fn targets(hub: &Hub, filter: &NodeFilter, limit: usize) -> Result<Vec<Node>, Fault> {
    let places = if filter.places.is_empty() { Places::of([]) } else { places(hub).await? };
    let selected = select(hub, &places, filter, (None, limit)).await?;
    Ok(selected.into_iter().map(|it| it.stored.row).collect())
}

async fn select(
    hub: &Hub,
    places: &Places,
    filter: &NodeFilter,
    (mut after, limit): (Option<NodeId>, usize),
) -> Result<Vec<Selected>, Fault> {
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
