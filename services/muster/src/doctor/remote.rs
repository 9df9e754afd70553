//! The way in, as devices and operators go it: names, ports, TLS, the API, the clock, and what the master sees of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use muster_kit::clock;
use muster_kit::connect::{self, Master, Proxies, Proxy};
use muster_kit::tls::{self, ClientTls};
use muster_proto::fleet::v1::{GetTopologyRequest, GetTopologyResponse};
use muster_proto::gsn::v1::ListSuperNodesRequest;
use muster_types::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpStream, lookup_host};

use super::{Check, Outcome};
use crate::cli::Place;
use crate::config::MasterConfig;
use crate::context::Session;
use crate::credentials::Credentials;
use crate::target::Target;

/// A connection that takes longer is not there.
const TCP_LIMIT: Duration = Duration::from_secs(3);

/// Tasks live by the master's clock; a device forgives this much without a word.
const SKEW: Duration = Duration::from_secs(5);

/// Certificates are renewed with two thirds of 14 days left; with less than this, renewal does not work.
const RENEWAL_STUCK: Duration = Duration::from_secs(3 * 24 * 3600);

/// Nodes behind one address before it looks like a balancer's.
const CROWD: usize = 3;

/// Asks a master as a device would that knows its address and nothing else.
pub(super) async fn from_outside(address: &str, services: &[String]) -> Vec<Check> {
    let mut checks = port(address).await;
    let Some(root) = root(address, None, &mut checks).await else { return checks };
    for service in services {
        checks.push(service_name(address, service, &root).await);
    }
    checks
}

/// Asks with an operator's certificate. `config` is of a master on this host.
pub(super) async fn as_operator(place: &Place, config: Option<&MasterConfig>) -> Vec<Check> {
    let session = match Session::open(place).await {
        Ok(session) => session,
        Err(failure) => return vec![Check::fails("operator", failure.reason(), failure.remedy())],
    };
    let mut checks = vec![certificate(&session.credentials)];
    let roots = &session.credentials.material.roots;
    let addresses = config.map(|config| &config.addresses).filter(|it| !it.is_empty());
    for address in addresses.unwrap_or(&session.credentials.addresses) {
        checks.extend(port(address).await);
        if let Some(root) = root(address, roots.first(), &mut checks).await {
            for service in Target::SERVICES {
                checks.push(service_name(address, service.as_str(), &root).await);
            }
        }
    }
    let before = clock::wall();
    match session.fleet().get_topology(GetTopologyRequest::default()).await {
        Err(status) => {
            let failure = session.failed("the API does not answer")(status);
            checks.push(Check::fails("master.api", failure.reason(), failure.remedy()));
        }
        Ok(answer) => {
            let topology = answer.into_inner();
            checks.push(Check::well(
                "master.api",
                format!("answers after {:.0?}", clock::wall().since(before)),
            ));
            checks.push(master_clock(&topology));
            checks.push(cells(&topology));
            checks.push(sources(&topology, config.is_some_and(|config| config.behind_proxy)));
        }
    }
    checks.push(relays(&session).await);
    checks
}

/// Whether hosts that cannot meet are carried.
async fn relays(session: &Session) -> Check {
    let id = "relays";
    match session.gsn().list_super_nodes(ListSuperNodesRequest::default()).await {
        Err(status) => {
            let failure = session.failed("the registry of super nodes does not answer")(status);
            Check::fails(id, failure.reason(), failure.remedy())
        }
        Ok(answer) => {
            let (relays, nodes) = (answer.get_ref().relays.len(), answer.get_ref().super_nodes.len());
            let found = format!("{relays} relays of the master's, {nodes} global super nodes");
            if relays == 0 {
                Check::warns(id, found, "muster serve --target relay")
            } else {
                Check::well(id, found)
            }
        }
    }
}

fn certificate(credentials: &Credentials) -> Check {
    let until = credentials.material.chain.first().and_then(|leaf| tls::validity(leaf).ok()).map(|it| it.1);
    let Some(until) = until else {
        return Check::fails(
            "operator",
            "the certificate cannot be read",
            "muster login LINK, with a new link",
        );
    };
    let left = until.since(clock::wall());
    let days = left.as_secs() / (24 * 3600);
    match left {
        Duration::ZERO => {
            Check::fails("operator", "the certificate has expired", "muster login LINK, with a new link")
        }
        left if left < RENEWAL_STUCK => Check::warns(
            "operator",
            format!("the certificate ends in {days} days and was not renewed"),
            "let any command reach the master",
        ),
        _ => Check::well("operator", format!("the certificate is good for {days} days")),
    }
}

/// The proxy, if one is on the way; without it, or where it does not help, name and TCP.
async fn port(address: &str) -> Vec<Check> {
    let proxy = Proxies::default().to(&[address.to_owned()]).into_iter().flatten().next();
    let Some(proxy) = proxy else { return direct(address).await };
    let by_proxy = by_proxy(&proxy, address).await;
    let stands = by_proxy.outcome == Outcome::Well;
    let mut checks = vec![by_proxy];
    if !stands {
        checks.extend(direct(address).await);
    }
    checks
}

async fn by_proxy(proxy: &Proxy, address: &str) -> Check {
    let named = format!("the proxy {}, named by {},", proxy.address(), proxy.source());
    match proxy.carries(address).await {
        Ok(()) => Check::well("address.proxy", format!("{named} connects to {address}")),
        Err(fault) => Check::fails(
            "address.proxy",
            format!("{named} does not lead to {address}: {fault}"),
            "correct HTTPS_PROXY, or name the address in NO_PROXY",
        ),
    }
}

async fn direct(address: &str) -> Vec<Check> {
    let found: Vec<_> = match lookup_host(address).await {
        Ok(found) => found.collect(),
        Err(error) => {
            let fix = "add the name to DNS, or mend --address";
            return vec![Check::fails("address.name", format!("{address}: {error}"), fix)];
        }
    };
    let shown: Vec<_> = found.iter().map(|it| it.ip().to_string()).collect();
    let mut checks = vec![Check::well("address.name", format!("{address} is {}", shown.join(", ")))];
    for at in found {
        let tried = tokio::time::timeout(TCP_LIMIT, TcpStream::connect(at)).await;
        checks.push(match tried {
            Ok(Ok(_)) => Check::well("address.tcp", format!("{at} takes connections")),
            Ok(Err(error)) => Check::fails(
                "address.tcp",
                format!("{at}: {error}"),
                "start the master; open the port in firewalls",
            ),
            Err(_) => Check::fails(
                "address.tcp",
                format!("{at} is silent"),
                "open the port in firewalls, forward it in the router",
            ),
        });
    }
    checks
}

/// The root that the address presents, and whether it is ours. A diagnosis only: what is trusted stands in the link.
async fn root(
    address: &str,
    ours: Option<&CertificateDer<'static>>,
    checks: &mut Vec<Check>,
) -> Option<CertificateDer<'static>> {
    match connect::presented_root(address, &Proxies::default()).await {
        Err(error) => {
            let fix = "pass TCP through to the master: no proxy may end it or speak HTTP in its place";
            checks.push(Check::fails("address.root", format!("{address} shows no root: {error}"), fix));
            None
        }
        Ok(root) if ours.is_some_and(|ours| !same_key(ours, &root)) => {
            let fix = "muster login LINK, if the master was set up anew; else find out who answers there";
            checks.push(Check::fails("address.root", format!("{address} shows another network's root"), fix));
            None
        }
        Ok(root) => {
            checks.push(Check::well("address.root", format!("{address} shows a network's root")));
            Some(root)
        }
    }
}

fn same_key(a: &CertificateDer<'_>, b: &CertificateDer<'_>) -> bool {
    matches!((tls::root_key(a), tls::root_key(b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether TLS by this service's name ends at a master of that root.
async fn service_name(address: &str, service: &str, root: &CertificateDer<'static>) -> Check {
    let name: &'static str = match service {
        "auth" => connect::AUTH,
        "topology" => connect::TOPOLOGY,
        "dht-bootstrap" => connect::DHT_BOOTSTRAP,
        "gsn-registry" => connect::GSN_REGISTRY,
        "relay" => connect::RELAY,
        other => return Check::skipped("address.service", format!("there is no service {other:?}")),
    };
    let fix = "route TLS by server name to that service's pods, and pass it through";
    let tls = match ClientTls::anonymous(std::slice::from_ref(root)) {
        Ok(tls) => tls,
        Err(error) => return Check::fails("address.service", error.to_string(), fix),
    };
    match Master::new([address.to_owned()], tls).greet(name).await {
        Ok(()) => Check::well("address.service", format!("{address} serves {name}")),
        Err(error) => Check::fails("address.service", format!("{address} as {name}: {error}"), fix),
    }
}

fn master_clock(topology: &GetTopologyResponse) -> Check {
    let Some(read) = topology.read_time.map(read_time) else {
        return Check::skipped("clock", "the master says no time");
    };
    let now = clock::wall();
    let apart = now.since(read).max(read.since(now));
    if apart > SKEW {
        let result = format!("this host's clock and the master's are {apart:.1?} apart");
        return Check::fails("clock", result, "timedatectl set-ntp true, on the host that is wrong");
    }
    Check::well("clock", "this host's and the master's agree")
}

fn read_time(wire: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_micros(wire.seconds * 1_000_000 + i64::from(wire.nanos) / 1_000)
}

fn cells(topology: &GetTopologyResponse) -> Check {
    let lost: Vec<_> =
        topology.cells.iter().filter(|cell| cell.lsn.is_empty()).map(|cell| cell.place.as_str()).collect();
    if !lost.is_empty() {
        return Check::warns(
            "fleet.cells",
            format!("nobody carries {}", lost.join(", ")),
            "muster topology, again in a minute",
        );
    }
    Check::well("fleet.cells", format!("{} cells, each with its LSN", topology.cells.len()))
}

/// A balancer that hides addresses makes strangers look like neighbors.
fn sources(topology: &GetTopologyResponse, expected: bool) -> Check {
    let id = "source.addresses";
    let nodes = topology.cells.iter().flat_map(|cell| &cell.nodes).chain(&topology.direct);
    let seen: Vec<(IpAddr, BTreeSet<IpAddr>)> = nodes
        .filter_map(|node| {
            let own = node.addresses.iter().filter_map(|address| host(address)).collect();
            Some((node.observed_address.parse().ok()?, own))
        })
        .collect();
    if expected {
        return Check::skipped(id, "something in front hides them, as configured");
    }
    let observed: BTreeSet<_> = seen.iter().map(|(observed, _)| *observed).collect();
    // All from one private address that none of them has: that is nobody's public address.
    if let [only] = observed.iter().collect::<Vec<_>>()[..]
        && seen.len() >= CROWD
        && is_private(*only)
        && seen.iter().all(|(_, own)| !own.contains(only))
    {
        return Check::fails(
            id,
            format!("all {} nodes seem to come from {only}, a balancer's or a gateway's address", seen.len()),
            "externalTrafficPolicy: Local on the service; or behind_proxy = true, if it cannot be helped",
        );
    }
    Check::well(id, format!("{} nodes come from {} addresses", seen.len(), observed.len()))
}

/// The host of `ip:port` or of a bare address.
fn host(address: &str) -> Option<IpAddr> {
    address.parse::<std::net::SocketAddr>().map(|it| it.ip()).or_else(|_| address.parse()).ok()
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fleet::v1::{Cell, Node};

    use super::*;
    use crate::exit::Exit;

    fn topology(observed: &[(&str, &str)]) -> GetTopologyResponse {
        let nodes = observed
            .iter()
            .map(|(own, observed)| Node {
                addresses: vec![(*own).to_owned()],
                observed_address: (*observed).to_owned(),
                ..Node::default()
            })
            .collect();
        GetTopologyResponse { cells: vec![Cell { nodes, ..Cell::default() }], ..Default::default() }
    }

    #[test]
    fn a_balancer_that_hides_addresses_is_found_and_a_nat_is_not_blamed() {
        let all = |observed: &str| {
            let observed =
                [("192.168.1.5:1", observed), ("192.168.2.5:1", observed), ("192.168.3.5:1", observed)];
            sources(&topology(&observed), false).outcome
        };
        assert_eq!(all("10.0.0.1"), Outcome::Fails);
        assert_eq!(all("203.0.113.9"), Outcome::Well);
        assert_eq!(sources(&topology(&[("10.0.0.1:1", "10.0.0.1")]), false).outcome, Outcome::Well);
        assert_eq!(sources(&topology(&[]), true).outcome, Outcome::Skipped);
    }

    #[test]
    fn a_clock_that_is_wrong_is_told() {
        let micros = (clock::wall() - Duration::from_secs(60)).as_micros();
        let read = prost_types::Timestamp { seconds: micros / 1_000_000, nanos: 0 };
        let answer = GetTopologyResponse { read_time: Some(read), ..Default::default() };
        assert_eq!(master_clock(&answer).outcome, Outcome::Fails);
    }

    #[tokio::test]
    async fn a_port_that_nobody_has_is_named_with_a_way_to_mend_it() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let checks = from_outside(&free.to_string(), &[]).await;
        let failed = checks.iter().find(|check| check.id == "address.tcp").unwrap();
        assert_eq!(failed.outcome, Outcome::Fails);
        assert!(failed.fix.is_some());
        assert_eq!(Exit::Unhealthy as u8, 7);
    }
}
