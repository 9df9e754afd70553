//! `muster nodes`, `node`, `refresh`, `label`: the hosts one by one.

use muster_proto::fleet::v1::{self as fleet, Node};

use crate::cli::{Forget, LabelChange, NodeState, NodesFilter, Output, Place, Refresh};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::table::Table;
use crate::render::{json, words};

/// Beyond the hosts' own time: the way to the master and back.
const REFRESH_MARGIN: std::time::Duration = std::time::Duration::from_secs(5);

pub async fn list(place: &Place, output: Output, wanted: NodesFilter) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let mut filter = wanted.selection.filter();
    filter.states = wanted.states.iter().map(|state| i32::from(wire_state(*state))).collect();
    let mut nodes = listing::nodes(&session, filter).await?;
    nodes.sort_by(|a, b| (&a.place, &a.host_name, &a.name).cmp(&(&b.place, &b.host_name, &b.name)));
    match output {
        Output::Json => json::print("Nodes", [("nodes", nodes.iter().map(json::node).collect())]),
        Output::Table if nodes.is_empty() => eprintln!("No hosts. Enroll one: muster link create"),
        Output::Table => table(&nodes).print(),
    }
    Ok(Exit::Ok)
}

pub async fn show(place: &Place, output: Output, name: &str) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let node = listing::node(&session, name).await?;
    match output {
        Output::Json => json::print("Node", [("node", json::node(&node))]),
        Output::Table => describe(&node),
    }
    Ok(Exit::Ok)
}

pub async fn refresh(place: &Place, output: Output, refresh: Refresh) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let mut client = session.fleet();
    let (mut answered, mut silent, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let mut request = tonic::Request::new(fleet::RefreshPresenceRequest {
            filter: Some(refresh.selection.filter()),
            timeout: Some(words::to_duration(refresh.timeout)),
            page_token,
        });
        request.set_timeout(refresh.timeout + REFRESH_MARGIN);
        let page = client.refresh_presence(request).await;
        let page = page.map_err(session.failed("cannot ask the hosts"))?.into_inner();
        answered.extend(page.answered);
        silent.extend(page.silent);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match output {
        Output::Json => json::print(
            "Refresh",
            [
                ("answered", answered.iter().map(json::node).collect()),
                ("silent", silent.iter().map(json::node).collect()),
            ],
        ),
        Output::Table => {
            table(&answered.iter().chain(&silent).cloned().collect::<Vec<_>>()).print();
            eprintln!("{} answered, {} did not", answered.len(), silent.len());
        }
    }
    Ok(if silent.is_empty() { Exit::Ok } else { Exit::Incomplete })
}

/// One after another; who is not forgotten is named with the reason, and the rest are.
pub async fn forget(place: &Place, output: Output, wanted: Forget) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let mut forgotten = Vec::new();
    for name in &wanted.nodes {
        let node = listing::node(&session, name).await?;
        let request = fleet::DeleteNodeRequest {
            name: node.name.clone(),
            etag: node.etag.clone(),
            confirm_mass_delete: wanted.confirm_mass_delete,
        };
        let answer = session.fleet().delete_node(request).await;
        answer.map_err(session.failed("cannot forget the host"))?;
        if output == Output::Table {
            eprintln!("{} is forgotten.", words::host(&node.host_name, &node.name));
        }
        forgotten.push(node);
    }
    if output == Output::Json {
        json::print("Nodes", [("nodes", forgotten.iter().map(json::node).collect())]);
    }
    Ok(Exit::Ok)
}

pub async fn label(place: &Place, output: Output, change: LabelChange) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let mut request = fleet::UpdateNodeLabelsRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        ..fleet::UpdateNodeLabelsRequest::default()
    };
    for text in &change.changes {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => {
                request.set.insert(key.to_owned(), value.to_owned());
            }
            (None, Some(key)) => request.remove.push(key.to_owned()),
            (None, None) => {
                return Err(Failure::usage(
                    format!("{text:?} is no change of a label"),
                    "it has neither = nor a final -",
                )
                .next("KEY=VALUE sets, KEY- removes"));
            }
        }
    }
    request.name = listing::node(&session, &change.node).await?.name;
    let answer = session.fleet().update_node_labels(request).await;
    let node = answer.map_err(session.failed("cannot change labels"))?.into_inner();
    match output {
        Output::Json => json::print("Node", [("node", json::node(&node))]),
        Output::Table => {
            eprintln!("{}: {}", words::host(&node.host_name, &node.name), words::labels(&node.labels));
        }
    }
    Ok(Exit::Ok)
}

fn wire_state(state: NodeState) -> fleet::NodeState {
    match state {
        NodeState::Online => fleet::NodeState::Online,
        NodeState::Offline => fleet::NodeState::Offline,
        NodeState::Unreachable => fleet::NodeState::Unreachable,
        NodeState::NeverSeen => fleet::NodeState::NeverSeen,
        NodeState::Held => fleet::NodeState::Held,
    }
}

fn role(node: &Node) -> String {
    words::of_enum(node.role().as_str_name(), "NODE_ROLE_").replace("unspecified", "-")
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(&[
        "HOST",
        "NODE",
        "STATE",
        "FOR",
        "ROLE",
        "PLACE",
        "ROUND TRIP",
        "UPTIME",
        "VERSION",
        "LABELS",
    ]);
    for node in nodes {
        table.row([
            words::host(&node.host_name, &node.name),
            words::short(&node.name).to_owned(),
            words::node_state(node.state()),
            words::lasting(node.since_time),
            role(node),
            words::or_dash(&node.place),
            words::span(node.round_trip),
            words::percent(node.uptime_basis_points),
            words::or_dash(&node.software_version),
            words::labels(&node.labels),
        ]);
    }
    table
}

fn describe(node: &Node) {
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let route: Vec<String> = node.route.iter().map(|hop| words::short(hop).to_owned()).collect();
    let since = format!("{} since {}", words::node_state(node.state()), words::time(node.since_time));
    let power = if node.mains_powered { "mains" } else { "battery" };
    let line = if node.wired { "wired" } else { "wireless" };
    let facts = [
        ("host", words::host(&node.host_name, &node.name)),
        ("node", node.name.clone()),
        ("state", since),
        ("reason", words::or_dash(&node.offline_reason)),
        ("last seen", words::ago(node.last_seen_time)),
        ("role", role(node)),
        ("LSN", words::name_or_dash(&node.lsn)),
        ("place", words::or_dash(&node.place)),
        ("cell", words::name_or_dash(&node.cell)),
        ("route", if route.is_empty() { "-".to_owned() } else { route.join(" -> ") }),
        ("path", words::or_dash(&node.path)),
        ("round trip", words::span(node.round_trip)),
        ("addresses", list(&node.addresses)),
        ("seen from", words::or_dash(&node.observed_address)),
        ("uptime", words::percent(node.uptime_basis_points)),
        ("system", format!("{} {}, {line}, {power}", node.os, node.architecture)),
        ("version", words::or_dash(&node.software_version)),
        ("labels", words::labels(&node.labels)),
        ("enrolled", words::time(node.enroll_time)),
    ];
    for (name, value) in facts {
        println!("{name:<11} {value}");
    }
    for life in &node.lives {
        let ended = if life.gone { ", gone since" } else { "" };
        let (id, host) = (&life.id, words::or_dash(&life.host_name));
        let from = words::or_dash(&life.observed_address);
        let at = list(&life.addresses);
        println!(
            "{:<11} {id}  {host} at {at}, from {from}, {}{ended}",
            "device",
            words::ago(life.attach_time)
        );
    }
}
