//! Real sockets on two sides of a router: each kind of mapping and filtering behaves as its name says, and the
//! kernel's own translator agrees with the model where they should be alike.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_lab::plan::{DNS, MASTER};
use muster_lab::probe::bind;
use muster_lab::testing::in_lab;
use muster_lab::{Lab, Machine, PlacePlan, Translation};
use muster_sim::model::{Behaviour, Dependence, Ports, Timeouts};
use tokio::net::UdpSocket;

/// Silence for this long is a refusal where one is expected.
const SILENCE: Duration = Duration::from_millis(250);

/// What is expected to come may take this long on a busy computer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sockets on two hosts of the data centre, two ports on the first.
struct World {
    first: UdpSocket,
    first_other_port: UdpSocket,
    second: UdpSocket,
}

impl World {
    async fn open(lab: &Lab) -> Result<Self> {
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        Ok(Self {
            first: bind(lab.master(), at(MASTER.v4().into(), 4_000)).await?,
            first_other_port: bind(lab.master(), at(MASTER.v4().into(), 4_001)).await?,
            second: bind(lab.dns(), at(DNS.v4().into(), 4_000)).await?,
        })
    }
}

async fn inside(machine: &Machine, port: u16) -> Result<UdpSocket> {
    bind(machine, SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port)).await
}

/// The source under which `receiver` sees a packet from `sender`.
async fn seen(sender: &UdpSocket, receiver: &UdpSocket) -> Result<SocketAddr> {
    sender.send_to(b"out", receiver.local_addr()?).await?;
    let (_, source) = received(receiver).await.context("a packet from inside did not get out")?;
    Ok(source)
}

async fn received(socket: &UdpSocket) -> Option<(usize, SocketAddr)> {
    let mut buffer = [0; 64];
    tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await.ok()?.ok()
}

/// Whether a packet to `external` reaches `receiver` or not, as is `expected`.
async fn gets_in(
    sender: &UdpSocket,
    external: SocketAddr,
    receiver: &UdpSocket,
    expected: bool,
) -> Result<bool> {
    sender.send_to(b"in", external).await?;
    let patience = if expected { PATIENCE } else { SILENCE };
    let got_in = tokio::time::timeout(patience, receiver.recv(&mut [0; 64])).await.is_ok();
    Ok(got_in == expected)
}

#[test]
fn every_kind_of_mapping_and_filtering_does_what_its_name_says() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(1).build().await?;
        let world = World::open(&lab).await?;
        let mut port = 5_000;
        for mapping in Dependence::ALL {
            for filtering in Dependence::ALL {
                port += 1;
                let behaviour = Behaviour { mapping, filtering, ports: Ports::Random, ..Behaviour::home() };
                lab.place(1)?.router().gateway().behave(behaviour);
                check_kind(&lab, &world, behaviour, port)
                    .await
                    .with_context(|| format!("{mapping:?} x {filtering:?}"))?;
            }
        }
        Ok(())
    });
}

async fn check_kind(lab: &Lab, world: &World, behaviour: Behaviour, port: u16) -> Result<()> {
    let host = inside(lab.host("p1a1")?.machine(), port).await?;
    let external = seen(&host, &world.first).await?;
    ensure!(external.ip() == IpAddr::V4(lab.place(1)?.number().public()), "the source was {external}");
    let filtering = behaviour.filtering;
    ensure!(gets_in(&world.first, external, &host, true).await?, "the answer was refused");
    let port_is_free = filtering != Dependence::AddressAndPort;
    ensure!(gets_in(&world.first_other_port, external, &host, port_is_free).await?, "filtering by port");
    let address_is_free = filtering == Dependence::None;
    ensure!(gets_in(&world.second, external, &host, address_is_free).await?, "filtering by address");
    let to_other_port = seen(&host, &world.first_other_port).await?;
    let to_other_host = seen(&host, &world.second).await?;
    ensure!(
        (to_other_port == external) == (behaviour.mapping != Dependence::AddressAndPort),
        "mapping by port"
    );
    ensure!((to_other_host == external) == (behaviour.mapping == Dependence::None), "mapping by address");
    Ok(())
}

#[test]
fn a_binding_expires_and_a_reboot_forgets_all() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(1).build().await?;
        let world = World::open(&lab).await?;
        let timeouts = Timeouts { udp: Duration::from_secs(1), ..Timeouts::default() };
        lab.place(1)?.router().gateway().behave(Behaviour { timeouts, ..Behaviour::home() });
        let host = inside(lab.host("p1a1")?.machine(), 5_000).await?;
        let external = seen(&host, &world.first).await?;
        ensure!(gets_in(&world.first, external, &host, true).await?, "the answer was refused");
        tokio::time::sleep(timeouts.udp + PATIENCE).await;
        ensure!(gets_in(&world.first, external, &host, false).await?, "the binding did not expire");
        let external = seen(&host, &world.first).await?;
        lab.place(1)?.router().gateway().reboot();
        ensure!(gets_in(&world.first, external, &host, false).await?, "the reboot did not forget");
        Ok(())
    });
}

#[test]
fn two_hosts_behind_one_router_meet_by_their_public_address_only_where_it_turns_back() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(2).build().await?;
        let world = World::open(&lab).await?;
        let (host, neighbor) = (lab.host("p1a1")?.machine(), lab.host("p1a2")?.machine());
        for hairpin in [false, true] {
            lab.place(1)?.router().gateway().behave(Behaviour { hairpin, ..Behaviour::full_cone() });
            let (host, neighbor) = (inside(host, 5_000).await?, inside(neighbor, 5_000).await?);
            let external = seen(&host, &world.first).await?;
            ensure!(gets_in(&neighbor, external, &host, hairpin).await?, "hairpin {hairpin}");
        }
        Ok(())
    });
}

#[test]
fn the_kernels_masquerade_and_the_model_of_a_home_router_treat_packets_alike() {
    in_lab(async {
        let kernel = PlacePlan { agents: 1, translation: Translation::Kernel, ..PlacePlan::default() };
        let lab = Lab::builder()
            .place(kernel)
            .place(PlacePlan { agents: 1, ..PlacePlan::default() })
            .build()
            .await?;
        let world = World::open(&lab).await?;
        for (place, name) in [(1, "p1a1"), (2, "p2a1")] {
            let host = inside(lab.host(name)?.machine(), 5_000).await?;
            let external = seen(&host, &world.first).await?;
            let expected = SocketAddr::new(lab.place(place)?.number().public().into(), 5_000);
            ensure!(external == expected, "{name} came as {external}");
            ensure!(gets_in(&world.first, external, &host, true).await?, "{name}: the answer was refused");
            ensure!(
                gets_in(&world.first_other_port, external, &host, false).await?,
                "{name}: another port got in"
            );
            ensure!(gets_in(&world.second, external, &host, false).await?, "{name}: another host got in");
            ensure!(
                seen(&host, &world.second).await? == expected,
                "{name}: the mapping depends on the far end"
            );
        }
        Ok(())
    });
}

#[test]
fn hosts_behind_the_kernels_and_the_models_router_punch_holes_to_each_other() {
    in_lab(async {
        let kernel = PlacePlan { agents: 1, translation: Translation::Kernel, ..PlacePlan::default() };
        let lab = Lab::builder()
            .place(kernel)
            .place(PlacePlan { agents: 1, ..PlacePlan::default() })
            .build()
            .await?;
        let world = World::open(&lab).await?;
        let left = inside(lab.host("p1a1")?.machine(), 5_000).await?;
        let right = inside(lab.host("p2a1")?.machine(), 5_000).await?;
        let (left_external, right_external) =
            (seen(&left, &world.first).await?, seen(&right, &world.first).await?);
        left.send_to(b"punch", right_external).await?;
        let early = tokio::time::timeout(SILENCE, right.recv(&mut [0; 64])).await;
        ensure!(early.is_err(), "the first packet needs a hole that is not there yet");
        right.send_to(b"punch", left_external).await?;
        let (_, source) = received(&left).await.context("the hole was not punched")?;
        ensure!(source == right_external, "it came from {source}");
        ensure!(gets_in(&left, right_external, &right, true).await?, "the hole has one direction only");
        Ok(())
    });
}

#[test]
fn a_refusal_by_the_far_host_reaches_the_sender_behind_its_router() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(1).build().await?;
        let host = inside(lab.host("p1a1")?.machine(), 5_000).await?;
        host.connect((MASTER.v4(), 4_444)).await?;
        host.send(b"anybody there?").await?;
        let answer =
            tokio::time::timeout(PATIENCE, host.recv(&mut [0; 8])).await.context("no ICMP error came in")?;
        ensure!(answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused));
        Ok(())
    });
}
