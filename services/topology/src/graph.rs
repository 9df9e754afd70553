//! The network as Grafana's Node Graph panel draws it: master, LSNs, nodes, and the edges between them.
//!
//! Above [`NODES`] nodes a cell is one dot. The frames are those of the panel's documentation: `id`, `title`, `subtitle`,
//! `mainstat`, `arc__*` (which add up to 1), and edges with `id`, `source`, `target`.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_kit::observe::Pages;
use muster_types::NodeId;
use serde_json::{Value, json};

use crate::domain::cell::CellId;
use crate::domain::node::{Node, Position};
use crate::hub::Hub;
use crate::store::StoreError;

/// What the panel draws at most.
const NODES: usize = 1_500;

/// The master's dot.
const MASTER: &str = "master";

/// Adds `/graph/nodes` and `/graph/edges`.
pub(crate) fn publish(hub: &Arc<Hub>, pages: &Pages) {
    for (path, frame) in
        [("/graph/nodes", Graph::nodes as fn(&Graph) -> Value), ("/graph/edges", Graph::edges)]
    {
        // Weak: the writer ends when the last handle to the hub goes.
        let hub = Arc::downgrade(hub);
        pages.add(
            path,
            Arc::new(move || {
                let hub = hub.clone();
                Box::pin(async move {
                    let hub = hub.upgrade().ok_or("topology is ending")?;
                    let graph = read(&hub).await.map_err(|error| error.to_string())?;
                    Ok(frame(&graph).to_string())
                })
            }),
        );
    }
}

async fn read(hub: &Hub) -> Result<Graph, StoreError> {
    let names = hub.store.cells().await?.into_iter().map(|it| (it.row.id, it.row.display_name())).collect();
    let mut nodes = Vec::new();
    let mut after = None;
    loop {
        let page = hub.store.nodes_after(after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.row.id);
        nodes.extend(page.into_iter().map(|it| it.row));
    }
    Ok(Graph { names, nodes })
}

struct Graph {
    names: BTreeMap<CellId, String>,
    nodes: Vec<Node>,
}

/// One cell as a dot.
#[derive(Default)]
struct Cell {
    online: usize,
    nodes: usize,
}

impl Graph {
    fn is_clustered(&self) -> bool {
        self.nodes.len() >= NODES
    }

    fn cells(&self) -> BTreeMap<Option<CellId>, Cell> {
        let mut cells: BTreeMap<_, Cell> = BTreeMap::new();
        for node in &self.nodes {
            let cell = cells.entry(node.cell).or_default();
            cell.nodes += 1;
            cell.online += usize::from(node.is_online());
        }
        cells
    }

    fn nodes(&self) -> Value {
        let online = self.nodes.iter().filter(|node| node.is_online()).count();
        let mut dots = vec![dot(MASTER, "master", "", online, self.nodes.len())];
        if self.is_clustered() {
            dots.extend(self.cells().iter().take(NODES - 1).map(|(id, cell)| {
                let name = id.and_then(|id| self.names.get(&id)).map_or("without a cell", String::as_str);
                dot(&cell_id(*id), name, "cell", cell.online, cell.nodes)
            }));
        } else {
            dots.extend(self.nodes.iter().map(|node| {
                let title = if node.profile.host_name.is_empty() {
                    node.id.short().to_string()
                } else {
                    node.profile.host_name.clone()
                };
                let subtitle = if node.is_online() { node.position.as_str() } else { node.presence.as_str() };
                dot(&node.id.to_string(), &title, subtitle, usize::from(node.is_online()), 1)
            }));
        }
        Value::Array(dots)
    }

    fn edges(&self) -> Value {
        let edges: Vec<Value> = if self.is_clustered() {
            self.cells().keys().take(NODES - 1).map(|id| edge(&cell_id(*id), MASTER, "")).collect()
        } else {
            let above = |node: &Node| node.lsn.filter(|_| node.position == Position::Child);
            let known = |id: &NodeId| self.nodes.iter().any(|node| node.id == *id);
            let online = self.nodes.iter().filter(|node| node.is_online());
            online
                .map(|node| {
                    let above =
                        above(node).filter(known).map_or_else(|| MASTER.to_owned(), |lsn| lsn.to_string());
                    edge(&node.id.to_string(), &above, &node.profile.path)
                })
                .collect()
        };
        Value::Array(edges)
    }
}

fn cell_id(id: Option<CellId>) -> String {
    id.map_or_else(|| "direct".to_owned(), |id| id.to_string())
}

fn dot(id: &str, title: &str, subtitle: &str, online: usize, nodes: usize) -> Value {
    let share = if nodes == 0 { 1.0 } else { online as f64 / nodes as f64 };
    json!({
        "id": id,
        "title": title,
        "subtitle": subtitle,
        "mainstat": format!("{online}/{nodes}"),
        "arc__online": share,
        "arc__away": 1.0 - share,
    })
}

fn edge(from: &str, to: &str, path: &str) -> Value {
    json!({"id": format!("{from}-{to}"), "source": from, "target": to, "mainstat": path})
}

#[cfg(test)]
mod tests {
    use muster_types::Timestamp;

    use super::*;
    use crate::domain::node::Attested;

    fn node(number: u32, lsn: Option<NodeId>) -> Node {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let mut node = Node::new(NodeId(id), Attested::default(), Timestamp::default());
        let position = if lsn.is_some() { Position::Child } else { Position::Lsn };
        node.appear(position, lsn, Some(CellId(u64::from(number % 3))), Timestamp::default());
        node
    }

    fn graph(count: u32) -> Graph {
        let lsn = node(0, None);
        let children = (1..count).map(|number| node(number, Some(lsn.id)));
        Graph { names: BTreeMap::new(), nodes: std::iter::once(lsn.clone()).chain(children).collect() }
    }

    #[test]
    fn every_edge_ends_at_a_dot_and_arcs_add_up() {
        for count in [1, 40, 1_499, 1_500, 5_000] {
            let graph = graph(count);
            let (nodes, edges) = (graph.nodes(), graph.edges());
            let dots = nodes.as_array().unwrap();
            assert!(dots.len() <= NODES, "{count}: {}", dots.len());
            for dot in dots {
                let arcs = dot["arc__online"].as_f64().unwrap() + dot["arc__away"].as_f64().unwrap();
                assert!((arcs - 1.0).abs() < 1e-9);
            }
            let ids: Vec<&str> = dots.iter().map(|dot| dot["id"].as_str().unwrap()).collect();
            for edge in edges.as_array().unwrap() {
                assert!(ids.contains(&edge["source"].as_str().unwrap()), "{edge}");
                assert!(ids.contains(&edge["target"].as_str().unwrap()), "{edge}");
            }
        }
    }

    #[test]
    fn a_large_network_is_drawn_by_cells() {
        assert_eq!(graph(2_000).nodes().as_array().unwrap().len(), 4);
        assert_eq!(graph(40).nodes().as_array().unwrap().len(), 41);
    }
}
