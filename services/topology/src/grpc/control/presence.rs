//! An LSN's updates become commands, their answers acknowledgements with receipts.

use std::collections::HashMap;
use std::sync::Arc;

use muster_kit::clock;
use muster_kit::shutdown::Shutdown;
use muster_proto::control::v1::{
    Missed, PresenceUpdate, Summons, UpdateAck, attach_response::Frame, downstream, presence_change,
};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, SubnetKey, limits};

use super::admit::{code, part};
use super::down;
use crate::authority::Statement;
use crate::clones;
use crate::domain::cell::CellId;
use crate::domain::update::{ChildChange, Shown, Update, Updated};
use crate::grpc::{render, wire};
use crate::hub::Hub;
use crate::store::StoreError;

/// Who sends an update, and on which stream.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) lsn: NodeId,
    pub(super) session: u64,
    pub(super) cell: CellId,
}

/// What an update asks for, with every signature verified. A change that does not hold is left out and logged: the
/// LSN may be lying, or a child's ticket may just have run out.
pub(super) async fn command(hub: &Hub, sender: Sender, update: PresenceUpdate) -> Update {
    let mut changes = Vec::new();
    for change in update.changes.into_iter().take(limits::CELL_NODES) {
        let Ok(node) = wire::node_id(&change.node_id, "node_id") else { continue };
        match change.change {
            Some(presence_change::Change::Attached(presence)) => {
                match sighting(hub, sender, node, presence).await {
                    Ok(sighting) => changes.push(ChildChange::Attached(Box::new(sighting))),
                    Err(error) => tracing::warn!(lsn = %sender.lsn, %node, %error, "a child is not shown"),
                }
            }
            Some(presence_change::Change::Departed(departure)) => {
                let reason = reason(departure.code, &departure.description);
                changes.push(ChildChange::Departed { node, reason });
            }
            None => {}
        }
    }
    let Sender { lsn, session, cell } = sender;
    Update { lsn, session, cell, number: update.number, snapshot: update.snapshot, changes }
}

async fn sighting(
    hub: &Hub,
    sender: Sender,
    node: NodeId,
    presence: muster_proto::control::v1::NodePresence,
) -> Result<crate::domain::update::Sighting, wire::Misbehaved> {
    let sealed =
        presence.ticket.as_ref().ok_or_else(|| wire::Misbehaved("its ticket is missing".to_owned()))?;
    let ticket = hub
        .trust
        .ticket(sealed, &*hub.authority)
        .await
        .map_err(|error| wire::Misbehaved(error.to_string()))?;
    wire::sighting(presence, &ticket, node, sender.lsn)
}

/// Why a node went, for people. Code 0: nobody announced it.
pub(super) fn reason(code: u32, description: &str) -> String {
    match (code, description) {
        (0, _) => "lost connection".to_owned(),
        (code, "") => format!("parted ({code})"),
        (code, description) => {
            let description: String = description.chars().take(limits::ADDRESSES * 32).collect();
            format!("parted ({code}): {description}")
        }
    }
}

/// Commits the update; the answer goes down only then.
pub(super) async fn commit(hub: &Arc<Hub>, shutdown: &Shutdown, update: Update) -> Vec<Frame> {
    let lsn = update.lsn;
    let answer = match hub.writer.submit(update).await {
        Ok(answer) => answer,
        Err(error) => return vec![Frame::Part(part(code::UNAVAILABLE, error.to_string()))],
    };
    muster_kit::crash::point("presence.committed");
    match answer {
        Updated::Known { number, shown, refused, suspicions, held, gone } => {
            suspicions.into_iter().for_each(|suspicion| clones::look_into(hub, shutdown, suspicion, None));
            if refused > 0 {
                tracing::info!(%lsn, refused, "children are not shown: their consent is for another LSN or time");
            }
            let receipts = receipts(hub, lsn, &shown).await;
            let words =
                [(held, downstream::Body::Summons(Summons {})), (gone, downstream::Body::Missed(Missed {}))];
            let words = words.into_iter().filter(|(nodes, _)| !nodes.is_empty());
            let words = words.map(|(nodes, body)| Frame::Downstream(down::message(&nodes, body)));
            words.chain([Frame::UpdateAck(UpdateAck { number, receipts })]).collect()
        }
        Updated::Gap { known } => {
            // The next Welcome names the last known one, and the LSN sends what follows it.
            vec![Frame::Part(part(code::MISSED, format!("update {} is missing", known + 1)))]
        }
        Updated::Superseded => vec![Frame::Part(part(code::SUPERSEDED, "another stream has taken over"))],
    }
}

pub(super) async fn receipts(hub: &Hub, lsn: NodeId, shown: &[Shown]) -> Vec<Envelope> {
    let received = clock::wall();
    let statements: Vec<_> = shown
        .iter()
        .map(|it| Statement::Receipt {
            node: it.node,
            lsn,
            boot_nonce: it.boot_nonce,
            received,
            attached: it.attach_time,
        })
        .collect();
    if statements.is_empty() {
        return Vec::new();
    }
    match hub.sign(&statements).await {
        Ok(signed) => signed.iter().filter_map(render::envelope).collect(),
        Err(error) => {
            tracing::warn!(%error, "receipts are not signed: the nodes will attach themselves");
            Vec::new()
        }
    }
}

/// The claims of LSNs that serve cells with one of these keys and have room, the most reliable first.
pub(super) async fn served_claims(hub: &Hub, keys: Vec<SubnetKey>) -> Result<Vec<Envelope>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut cells = Vec::new();
    for cell in hub.store.cells_by_key(&keys).await? {
        if cell.row.lsn.is_some() && hub.store.count_nodes_of(cell.row.id).await? < limits::CELL_NODES {
            cells.push(cell);
        }
    }
    let lsns: Vec<NodeId> = cells.iter().filter_map(|cell| cell.row.lsn).collect();
    let now = clock::wall();
    let uptimes: HashMap<NodeId, u16> = hub
        .store
        .nodes_by_id(&lsns)
        .await?
        .into_iter()
        .map(|stored| (stored.row.id, stored.row.uptime.basis_points(now)))
        .collect();
    let attachments = hub.store.attachments(&lsns).await?;
    let live = |lsn: &NodeId, cell: CellId| {
        attachments.iter().any(|it| it.row.node == *lsn && it.row.is_live() && it.row.cell == Some(cell))
    };
    let mut served: Vec<_> = cells
        .iter()
        .filter_map(|cell| Some((cell.row.lsn.filter(|lsn| live(lsn, cell.row.id))?, &cell.row.claim)))
        .collect();
    served.sort_by_key(|(lsn, _)| (std::cmp::Reverse(uptimes.get(lsn).copied().unwrap_or_default()), *lsn));
    Ok(served.into_iter().filter_map(|(_, claim)| render::envelope(claim)).collect())
}
