//! Tickets that attest to nodes how much of the last 14 days they were connected.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock;
use muster_proto::control::v1::{Downstream, downstream};
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};

use crate::authority::Statement;
use crate::domain::node::Node;
use crate::grpc::render;
use crate::hub::Hub;

/// A ticket is renewed this often: each costs its place's line some 300 bytes.
const RENEWAL: Duration = Duration::from_secs(12 * 3_600);

/// or when the share has moved by so much,
const MOVED: u16 = 500;

/// and outlives a master that is away over a long weekend.
const LIFETIME: Duration = Duration::from_secs(4 * 24 * 3_600);

/// What the nodes of one stream were last told.
#[derive(Default)]
pub(super) struct Told(HashMap<NodeId, (u16, Timestamp)>);

impl Told {
    /// Tickets for nodes of this stream whose last one is old or wrong by now. It grows no larger than a cell: those
    /// that are no longer carried are forgotten.
    pub(super) async fn due(&mut self, hub: &Hub, carrier: NodeId) -> Vec<Downstream> {
        let now = clock::wall();
        let Ok(nodes) = hub.store.nodes_by_carrier(&[carrier]).await else { return Vec::new() };
        let online: Vec<Node> = nodes.into_iter().map(|it| it.row).filter(Node::is_online).collect();
        let told: HashMap<_, _> =
            online.iter().filter_map(|node| Some((node.id, *self.0.get(&node.id)?))).collect();
        self.0 = told;
        let due: Vec<(NodeId, u16)> = online
            .iter()
            .map(|node| (node.id, node.uptime.basis_points(now)))
            .filter(|(id, share)| {
                self.0
                    .get(id)
                    .is_none_or(|(told, at)| now.since(*at) >= RENEWAL || told.abs_diff(*share) >= MOVED)
            })
            .collect();
        let statements: Vec<_> = due.iter().map(|(id, share)| statement(*id, *share, now)).collect();
        let signed = match hub.sign(&statements).await {
            Ok(signed) => signed,
            Err(error) => {
                tracing::warn!(%error, "uptime tickets are not signed; tried again in the next round");
                return Vec::new();
            }
        };
        self.0.extend(due.iter().map(|(id, share)| (*id, (*share, now))));
        due.iter()
            .zip(&signed)
            .filter_map(|((id, _), sealed)| {
                let targets = vec![Bytes::copy_from_slice(id.as_bytes())];
                Some(Downstream { targets, body: Some(downstream::Body::Uptime(render::envelope(sealed)?)) })
            })
            .collect()
    }
}

fn statement(node: NodeId, basis_points: u16, issued: Timestamp) -> Statement {
    Statement::Uptime { node, basis_points, issued, expires: issued + LIFETIME }
}

/// The ticket of one node for its Welcome; absent if auth does not sign now.
pub(super) async fn ticket_of(hub: &Hub, node: NodeId) -> Option<Envelope> {
    let now = clock::wall();
    let share = hub.store.nodes_by_id(&[node]).await.ok()?.first()?.row.uptime.basis_points(now);
    let signed = hub.sign(&[statement(node, share, now)]).await;
    signed
        .inspect_err(|error| tracing::warn!(%error, "an uptime ticket is not signed"))
        .ok()?
        .first()
        .and_then(render::envelope)
}
