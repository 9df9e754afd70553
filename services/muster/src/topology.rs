//! `muster topology`: the network as a tree. master -> cells -> their LSN -> its children.

use std::collections::BTreeMap;

use muster_proto::fleet::v1::{Cell, GetTopologyRequest, GetTopologyResponse, Node};
use serde_json::{Value, json};

use crate::cli::{Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::{json, words};

pub async fn show(place: &Place, output: Output) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let topology = read(&session).await?;
    match output {
        Output::Json => json::print(
            "Topology",
            [
                ("cells", topology.cells.iter().map(cell).collect()),
                ("direct", topology.direct.iter().map(json::node).collect()),
                ("readTime", json::time(topology.read_time)),
            ],
        ),
        Output::Table => print!("{}", tree(&session.place, &topology)),
    }
    Ok(Exit::Ok)
}

/// Page after page, put together.
async fn read(session: &Session) -> Result<GetTopologyResponse, Failure> {
    let mut fleet = session.fleet();
    let mut whole = GetTopologyResponse::default();
    let mut cells: BTreeMap<String, Cell> = BTreeMap::new();
    loop {
        let request =
            GetTopologyRequest { page_size: 0, page_token: std::mem::take(&mut whole.next_page_token) };
        let page = fleet.get_topology(request).await;
        let page = page.map_err(session.failed("cannot read the topology"))?.into_inner();
        for cell in page.cells {
            match cells.get_mut(&cell.name) {
                Some(begun) => begun.nodes.extend(cell.nodes),
                None => {
                    cells.insert(cell.name.clone(), cell);
                }
            }
        }
        whole.direct.extend(page.direct);
        whole.read_time = page.read_time;
        whole.next_page_token = page.next_page_token;
        if whole.next_page_token.is_empty() {
            whole.cells = cells.into_values().collect();
            return Ok(whole);
        }
    }
}

fn cell(cell: &Cell) -> Value {
    json!({
        "name": cell.name,
        "place": cell.place,
        "lsn": cell.lsn,
        "nodes": cell.nodes.iter().map(json::node).collect::<Value>(),
        "lineage": format!("{:016x}", cell.lineage),
        "epoch": cell.epoch,
        "prefixes": cell.prefixes,
    })
}

/// What stands before a line, and before those below it.
struct Branch {
    own: &'static str,
    below: &'static str,
}

const INNER: Branch = Branch { own: "├─ ", below: "│  " };
const LAST: Branch = Branch { own: "└─ ", below: "   " };

fn tree(master: &str, topology: &GetTopologyResponse) -> String {
    let mut text = format!("master {master}\n");
    let mut cells: Vec<&Cell> = topology.cells.iter().collect();
    cells.sort_by(|a, b| (&a.place, &a.name).cmp(&(&b.place, &b.name)));
    for (at, cell) in cells.iter().enumerate() {
        let last = at + 1 == cells.len() && topology.direct.is_empty();
        let branch = if last { LAST } else { INNER };
        let hosts = words::hosts(cell.nodes.len());
        let place = if cell.place.is_empty() { words::short(&cell.name) } else { &cell.place };
        text.push_str(&format!("{}{place}  ({hosts}, epoch {})\n", branch.own, cell.epoch));
        let (lsn, mut children): (Vec<&Node>, Vec<&Node>) =
            cell.nodes.iter().partition(|node| node.name == cell.lsn);
        children.sort_by(|a, b| (&a.host_name, &a.name).cmp(&(&b.host_name, &b.name)));
        push_cell(&mut text, branch.below, lsn.first().copied(), &children);
    }
    if !topology.direct.is_empty() {
        text.push_str(&format!("{}without a cell\n", LAST.own));
        push_nodes(&mut text, LAST.below, &topology.direct.iter().collect::<Vec<_>>());
    }
    text
}

fn push_cell(text: &mut String, indent: &str, lsn: Option<&Node>, children: &[&Node]) {
    match lsn {
        Some(lsn) => {
            text.push_str(&format!("{indent}{}{}\n", LAST.own, host(lsn)));
            push_nodes(text, &format!("{indent}{}", LAST.below), children);
        }
        None => push_nodes(text, indent, children),
    }
}

fn push_nodes(text: &mut String, indent: &str, nodes: &[&Node]) {
    for (at, node) in nodes.iter().enumerate() {
        let branch = if at + 1 == nodes.len() { LAST } else { INNER };
        text.push_str(&format!("{indent}{}{}\n", branch.own, host(node)));
    }
}

fn host(node: &Node) -> String {
    use muster_proto::fleet::v1::{NodeRole, NodeState};
    let name = words::host(&node.host_name, &node.name);
    let mut facts = vec![words::short(&node.name).to_owned()];
    if node.role() == NodeRole::Lsn {
        facts.push("LSN".to_owned());
    }
    if node.state() != NodeState::Online {
        facts.push(words::node_state(node.state()));
    }
    if node.round_trip.is_some() {
        facts.push(words::span(node.round_trip));
    }
    format!("{name}  {}", facts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::fleet::v1::{NodeRole, NodeState};

    fn node(host: &str, id: u8, role: NodeRole) -> Node {
        Node {
            name: format!("nodes/{}", format!("{id:02x}").repeat(20)),
            host_name: host.into(),
            role: role.into(),
            state: NodeState::Online.into(),
            ..Node::default()
        }
    }

    #[test]
    fn the_tree_shows_each_host_once_below_its_lsn() {
        let lsn = node("anna", 1, NodeRole::Lsn);
        let office = Cell {
            place: "office".into(),
            lsn: lsn.name.clone(),
            nodes: vec![node("carl", 3, NodeRole::Child), lsn, node("bert", 2, NodeRole::Child)],
            epoch: 4,
            ..Cell::default()
        };
        let topology = GetTopologyResponse {
            cells: vec![office],
            direct: vec![node("dora", 4, NodeRole::Direct)],
            ..GetTopologyResponse::default()
        };
        let expected = "\
master m:1
├─ office  (3 hosts, epoch 4)
│  └─ anna  01010101  LSN
│     ├─ bert  02020202
│     └─ carl  03030303
└─ without a cell
   └─ dora  04040404
";
        assert_eq!(tree("m:1", &topology), expected);
    }
}
