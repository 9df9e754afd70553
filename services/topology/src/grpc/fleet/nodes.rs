//! Calls about nodes and cells.

use std::collections::BTreeMap;

use muster_kit::clock;
use muster_kit::status::{Fault, fault};
use muster_proto::fleet::v1 as fleet;
use muster_types::NodeId;
use muster_wire::time::to_wire;
use tokio::time::Instant;
use tonic::Code;

use super::{page, policy, select};
use crate::brake::Brake;
use crate::domain::cell::Cell;
use crate::domain::filter::NodeFilter;
use crate::domain::labels::SetLabels;
use crate::domain::node::Node;
use crate::domain::removal::ForgetNode;
use crate::domain::table::{Revision, Stored};
use crate::grpc::refusal::{self, invalid, not_found};
use crate::grpc::render::{self, Places};
use crate::hub::Hub;

/// Bytes of a label's key, and of its value.
const LABEL: usize = 63;

pub(super) async fn get(hub: &Hub, request: fleet::GetNodeRequest) -> Result<fleet::Node, Fault> {
    node(hub, page::node_id(&request.name)?).await
}

pub(super) async fn stored(hub: &Hub, id: NodeId) -> Result<Stored<Node>, Fault> {
    let found = hub.store.nodes_by_id(&[id]).await.map_err(|error| refusal::store(&error))?.pop();
    found.ok_or_else(|| not_found("NODE_NOT_FOUND", &render::node_name(id)))
}

pub(super) async fn node(hub: &Hub, id: NodeId) -> Result<fleet::Node, Fault> {
    let stored = stored(hub, id).await?;
    let place = select::places(hub).await?.place(&stored.row);
    Ok(render::node(&stored.row, place, stored.revision, clock::wall()))
}

pub(super) async fn list(
    hub: &Hub,
    request: fleet::ListNodesRequest,
) -> Result<fleet::ListNodesResponse, Fault> {
    let limit = usize::try_from(page::size(request.page_size)?).unwrap_or_default();
    let filter = select::filter(hub, request.filter.unwrap_or_default()).await?;
    let after = page::key(&request.page_token)?;
    let selected = select::nodes(hub, &filter, after, limit).await?;
    let next =
        selected.last().filter(|_| selected.len() == limit).map(|last| page::token(last.stored.row.id));
    let now = clock::wall();
    let nodes = selected
        .into_iter()
        .map(|it| render::node(&it.stored.row, it.place, it.stored.revision, now))
        .collect();
    Ok(fleet::ListNodesResponse { nodes, next_page_token: next.unwrap_or_default() })
}

fn seen(etag: &str) -> Result<Option<Revision>, Fault> {
    if etag.is_empty() {
        return Ok(None);
    }
    etag.parse().map(Some).map_err(|_| invalid("BAD_ETAG", "the etag is none of ours"))
}

pub(super) async fn update_labels(
    hub: &Hub,
    actor: String,
    request: fleet::UpdateNodeLabelsRequest,
) -> Result<fleet::Node, Fault> {
    let id = page::node_id(&request.name)?;
    let texts = request.set.iter().flat_map(|(key, value)| [key, value]).chain(&request.remove);
    if texts.into_iter().any(|text| text.len() > LABEL) || request.set.keys().any(String::is_empty) {
        return Err(invalid(
            "BAD_LABEL",
            format!("keys and values have at most {LABEL} bytes, keys at least one"),
        ));
    }
    policy::may_label(hub, &actor, &stored(hub, id).await?.row, request.set.keys().chain(&request.remove))?;
    // Setting labels twice is setting them once: the request id needs no record.
    let command = SetLabels {
        node: id,
        actor,
        set: request.set.into_iter().collect(),
        remove: request.remove,
        seen: seen(&request.etag)?,
    };
    let answer = hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    answer.map_err(|it| refusal::node(it, &id.to_string()))?;
    node(hub, id).await
}

pub(super) async fn delete(
    hub: &Hub,
    actor: String,
    request: fleet::DeleteNodeRequest,
) -> Result<fleet::DeleteNodeResponse, Fault> {
    let node = page::node_id(&request.name)?;
    policy::may_label(hub, &actor, &stored(hub, node).await?.row, [])?;
    if !request.confirm_mass_delete {
        brake(hub, &actor).await?;
    }
    let command = ForgetNode { node, actor: actor.clone(), seen: seen(&request.etag)? };
    let answer = hub.writer.submit(command).await.map_err(|error| refusal::write(&error))?;
    answer.map_err(|it| refusal::node(it, &node.to_string()))?;
    hub.brake.note(&actor, Instant::now());
    Ok(fleet::DeleteNodeResponse {})
}

async fn brake(hub: &Hub, actor: &str) -> Result<(), Fault> {
    let Some(deleted) = hub.brake.is_near(actor, Instant::now()) else { return Ok(()) };
    let left = hub.store.count_nodes().await.map_err(|error| refusal::store(&error))?;
    if !Brake::is_mass(deleted, left) {
        return Ok(());
    }
    let message = format!(
        "{actor} has deleted {deleted} nodes within an hour, and {left} are left; if more are meant to go, set \
         confirm_mass_delete (--confirm-mass-delete)"
    );
    Err(fault(Code::FailedPrecondition, "MASS_DELETE", message))
}

/// A page of nodes, whatever their state, in their cells; and who is online without one.
pub(super) async fn topology(
    hub: &Hub,
    request: fleet::GetTopologyRequest,
) -> Result<fleet::GetTopologyResponse, Fault> {
    let now = clock::wall();
    let limit = page::many(request.page_size)?;
    let after = page::key(&request.page_token)?;
    let stored = hub.store.cells().await.map_err(|error| refusal::store(&error))?;
    let places = Places::of(stored.iter().map(|it| &it.row));
    let mut cells: BTreeMap<_, _> = stored.iter().map(|it| (it.row.id, cell(&it.row))).collect();
    let mut direct = Vec::new();
    let selected = select::nodes(hub, &NodeFilter::default(), after, limit).await?;
    let next =
        selected.last().filter(|_| selected.len() == limit).map(|last| page::token(last.stored.row.id));
    for it in selected {
        let Stored { row, revision } = it.stored;
        let shown = render::node(&row, places.place(&row), revision, now);
        match row.cell.filter(|_| is_of_cell(&row)).and_then(|id| cells.get_mut(&id)) {
            Some(cell) => cell.nodes.push(shown),
            None if row.is_online() => direct.push(shown),
            None => {}
        }
    }
    let cells = cells.into_values().filter(|cell| !cell.nodes.is_empty()).collect();
    let next_page_token = next.unwrap_or_default();
    Ok(fleet::GetTopologyResponse { cells, direct, read_time: Some(to_wire(now)), next_page_token })
}

/// A node that is attached by itself stands outside its cell for the time being.
fn is_of_cell(node: &Node) -> bool {
    !node.is_online() || node.position != crate::domain::node::Position::Direct
}

fn cell(cell: &Cell) -> fleet::Cell {
    fleet::Cell {
        name: render::cell_name(cell.id),
        place: cell.display_name(),
        lsn: cell.lsn.map(render::node_name).unwrap_or_default(),
        nodes: Vec::new(),
        lineage: cell.lineage,
        epoch: cell.epoch,
        prefixes: cell.prefixes.clone(),
    }
}
