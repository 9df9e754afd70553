//! `muster gsn list` and `muster relays`: who stands between nodes that cannot meet.

use muster_proto::gsn::v1::{
    Candidate, CandidateState, ListCandidatesRequest, ListSuperNodesRequest, Relay, RelayAddress,
};
use muster_types::Address;
use muster_wire::gsn;
use serde_json::{Value, json};

use crate::cli::{GsnCommand, GsnState, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::table::Table;
use crate::render::{json, words};

/// Candidates that one call brings.
const PAGE: i32 = 1_000;

pub async fn run(place: &Place, output: Output, command: GsnCommand) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    match command {
        GsnCommand::List { state } => list(&session, output, state).await,
    }
}

async fn list(session: &Session, output: Output, state: Option<GsnState>) -> Result<Exit, Failure> {
    let mut request =
        ListCandidatesRequest { page_size: PAGE, state: state.map_or(0, wire), ..Default::default() };
    let (mut candidates, mut client) = (Vec::new(), session.gsn());
    let (wanted, serving) = loop {
        let answer = client.list_candidates(request.clone()).await;
        let page = answer.map_err(session.failed("cannot list global super nodes"))?.into_inner();
        candidates.extend(page.candidates);
        if page.next_page_token.is_empty() {
            break (page.wanted, page.serving);
        }
        request.page_token = page.next_page_token;
    };
    if output == Output::Json {
        let rows = candidates.iter().map(candidate).collect();
        json::print(
            "SuperNodes",
            [("wanted", wanted.into()), ("serving", serving.into()), ("candidates", rows)],
        );
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NODE", "STATE", "ADDRESS", "RELIABLE", "PROBES", "PUNCHES", "WHY"]);
    for it in &candidates {
        table.row([
            words::short(&it.name).to_owned(),
            name(it.state()).to_owned(),
            addresses(it).join(" "),
            format!("{:.0} %", f64::from(it.reliability_basis_points) / 100.0),
            format!("{} of {}", it.probes_counted, it.probes_sent),
            format!("{} of {}", it.punches_served, it.punches_tried),
            it.reason.clone(),
        ]);
    }
    table.print();
    eprintln!(
        "{serving} serve of {wanted} wanted; what is missing the master's relays carry (muster relays)"
    );
    Ok(Exit::Ok)
}

fn wire(state: GsnState) -> i32 {
    let state = match state {
        GsnState::Unwilling => CandidateState::Unwilling,
        GsnState::Unproven => CandidateState::Unproven,
        GsnState::Spare => CandidateState::Spare,
        GsnState::Serving => CandidateState::Serving,
        GsnState::Gone => CandidateState::Gone,
    };
    state.into()
}

fn name(state: CandidateState) -> &'static str {
    match state {
        CandidateState::Unspecified => "-",
        CandidateState::Unwilling => "unwilling",
        CandidateState::Unproven => "unproven",
        CandidateState::Spare => "spare",
        CandidateState::Serving => "serving",
        CandidateState::Gone => "gone",
    }
}

fn addresses(candidate: &Candidate) -> Vec<String> {
    let contact = gsn::contact_from_wire("candidate.contact", candidate.contact.clone());
    let addresses = contact.map(|contact| contact.addresses).unwrap_or_default();
    addresses.iter().filter_map(Address::udp).map(|at| at.to_string()).collect()
}

fn candidate(it: &Candidate) -> Value {
    json!({
        "node": it.name,
        "state": name(it.state()),
        "reason": it.reason,
        "addresses": addresses(it),
        "nat": it.nat,
        "reliabilityBasisPoints": it.reliability_basis_points,
        "probesSent": it.probes_sent,
        "probesHeard": it.probes_heard,
        "probesCounted": it.probes_counted,
        "punchesTried": it.punches_tried,
        "punchesServed": it.punches_served,
        "unreachableReports": it.unreachable_reports,
        "measuredBytesPerSecond": it.measured_bytes_per_second,
        "relayingBytesPerSecond": it.caps.as_ref().map_or(0, |caps| caps.relaying_bytes_per_second),
        "relayedNodes": it.load.as_ref().map_or(0, |load| load.relayed_nodes),
        "loadPercent": it.load.as_ref().map_or(0, |load| load.load_percent),
        "offerTime": json::time(it.offer_time),
        "lastProofTime": json::time(it.last_proof_time),
        "leaseExpireTime": json::time(it.lease_expire_time),
    })
}

pub async fn relays(place: &Place, output: Output) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let answer = session.gsn().list_super_nodes(ListSuperNodesRequest::default()).await;
    let relays = answer.map_err(session.failed("cannot list relays"))?.into_inner().relays;
    if output == Output::Json {
        json::print("Relays", [("relays", relays.iter().map(relay).collect())]);
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["RELAY", "STATE", "TCP", "UDP"]);
    for it in &relays {
        let state = if it.draining { "draining" } else { "there" };
        let udp = |address: &RelayAddress| (address.udp_port > 0).then(|| at(address, address.udp_port));
        table.row([
            it.name.clone(),
            state.to_owned(),
            it.addresses.iter().map(|address| at(address, address.tcp_port)).collect::<Vec<_>>().join(" "),
            it.addresses.iter().filter_map(udp).collect::<Vec<_>>().join(" "),
        ]);
    }
    table.print();
    match relays.len() {
        0 => eprintln!("no relay is there: nodes that cannot meet stay apart. muster serve --target relay"),
        1 => eprintln!("one relay, and none that stands by: a second one takes over within a second"),
        _ => {}
    }
    Ok(Exit::Ok)
}

fn at(address: &RelayAddress, port: u32) -> String {
    match address.host.contains(':') {
        true => format!("[{}]:{port}", address.host),
        false => format!("{}:{port}", address.host),
    }
}

fn relay(it: &Relay) -> Value {
    let address = |address: &RelayAddress| json!({ "host": address.host, "tcpPort": address.tcp_port, "udpPort": address.udp_port });
    json!({
        "name": it.name,
        "draining": it.draining,
        "addresses": it.addresses.iter().map(address).collect::<Vec<_>>(),
    })
}
