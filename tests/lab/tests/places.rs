//! The lab does what it claims: places are apart, a LAN carries multicast and broadcast, links delay and lose what they
//! are told to, hosts move and fall silent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_lab::gateway::Passage;
use muster_lab::plan::{DNS, MASTER, MASTER_MOVED};
use muster_lab::probe::{ECHO_PORT, bind, measure};
use muster_lab::testing::in_lab;
use muster_lab::{Family, Host, Lab, Machine, PlacePlan, Translation, UdpBlock};
use muster_sim::model::{Behaviour, Loss, Shape};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// Silence for this long is an answer where silence is expected.
const SILENCE: Duration = Duration::from_millis(250);

/// What is expected to come may take this long on a busy computer, an ARP question asked again included.
const PATIENCE: Duration = Duration::from_secs(3);

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 74, 31);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7431);
const PORT: u16 = 6_000;

async fn hears(socket: &UdpSocket) -> bool {
    tokio::time::timeout(PATIENCE, socket.recv(&mut [0; 64])).await.is_ok_and(|heard| heard.is_ok())
}

async fn is_silent(socket: &UdpSocket) -> bool {
    tokio::time::timeout(SILENCE, socket.recv(&mut [0; 64])).await.is_err()
}

/// Whether the lab's echo answers the machine.
async fn reaches_echo(machine: &Machine, family: Family) -> Result<bool> {
    echo_answers(machine, family, PATIENCE).await
}

async fn misses_echo(machine: &Machine, family: Family) -> Result<bool> {
    Ok(!echo_answers(machine, family, SILENCE).await?)
}

async fn echo_answers(machine: &Machine, family: Family, patience: Duration) -> Result<bool> {
    let echo = SocketAddr::new(DNS.address(family), ECHO_PORT);
    Ok(!measure(machine, echo, 1, patience).await?.round_trips.is_empty())
}

async fn listener_v4(host: &Host) -> Result<UdpSocket> {
    let socket = bind(host.machine(), SocketAddr::from(([0, 0, 0, 0], PORT))).await?;
    socket.join_multicast_v4(GROUP_V4, Ipv4Addr::UNSPECIFIED).ok();
    Ok(socket)
}

#[test]
fn multicast_and_broadcast_reach_the_place_and_nobody_else() {
    in_lab(async {
        let lab = Lab::builder().places(2).agents(2).build().await?;
        let mut listeners = Vec::new();
        for name in ["p1a2", "p2a1", "p2a2"] {
            let host = lab.host(name)?;
            let address = host.attachment().v4().context("a v4 place")?;
            let opened = host.machine().run(move || -> std::io::Result<UdpSocket> {
                let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
                socket.join_multicast_v4(&GROUP_V4, &address)?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)
            });
            listeners.push(opened.await??);
        }
        let speaker = bind(lab.host("p1a1")?.machine(), SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        speaker.set_broadcast(true)?;
        for target in
            [IpAddr::V4(GROUP_V4), IpAddr::from([255, 255, 255, 255]), IpAddr::from([192, 168, 1, 255])]
        {
            speaker.send_to(b"hello", (target, PORT)).await?;
            ensure!(hears(&listeners[0]).await, "{target} did not reach the neighbor");
            ensure!(
                is_silent(&listeners[1]).await && is_silent(&listeners[2]).await,
                "{target} reached another place"
            );
        }
        Ok(())
    });
}

#[test]
fn a_v6_only_place_has_multicast_a_firewall_and_a_way_to_the_master() {
    in_lab(async {
        let lab = Lab::builder().places(2).agents(2).family(Family::V6).build().await?;
        let host = lab.host("p1a2")?;
        let listener = host.machine().run(|| -> std::io::Result<UdpSocket> {
            let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
            socket.join_multicast_v6(&GROUP_V6, 0)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        let listener = listener.await??;
        let speaker = bind(lab.host("p1a1")?.machine(), "[::]:0".parse()?).await?;
        speaker.send_to(b"hello", (GROUP_V6, PORT)).await?;
        ensure!(hears(&listener).await, "multicast did not reach the neighbor");
        ensure!(reaches_echo(host.machine(), Family::V6).await?, "the data centre is out of reach");
        ensure!(
            !reaches_echo(host.machine(), Family::V4).await.unwrap_or(false),
            "v4 works in a v6-only place"
        );
        let stranger = bind(lab.host("p2a1")?.machine(), "[::]:0".parse()?).await?;
        stranger.send_to(b"hello", (host.attachment().address(), PORT)).await?;
        ensure!(is_silent(&listener).await, "the firewall let a stranger in");
        Ok(())
    });
}

#[test]
fn places_with_the_same_prefix_do_not_see_each_other() {
    in_lab(async {
        let lab = Lab::builder().places(2).agents(1).build().await?;
        let (here, there) = (lab.host("p1a1")?, lab.host("p2a1")?);
        ensure!(here.attachment().address() == there.attachment().address(), "the prefixes differ");
        let (listener, speaker) =
            (listener_v4(there).await?, bind(here.machine(), "0.0.0.0:0".parse()?).await?);
        speaker.send_to(b"hello", (there.attachment().address(), PORT)).await.ok();
        ensure!(is_silent(&listener).await, "the other place's host was reached by its private address");
        ensure!(reaches_echo(here.machine(), Family::V4).await?, "place 1 has no way out");
        ensure!(reaches_echo(there.machine(), Family::V4).await?, "place 2 has no way out");
        Ok(())
    });
}

#[test]
fn a_link_delays_and_loses_what_it_is_told_to_and_says_when_it_does_not() {
    in_lab(async {
        let kernel = PlacePlan { translation: Translation::Kernel, ..PlacePlan::default() };
        let lab = Lab::builder().places(1).place(kernel).agents(1).build().await?;
        let delayed = Shape { jitter: Duration::from_millis(5), ..Shape::delayed(Duration::from_millis(20)) };
        for place in [1, 2] {
            let sample = lab.impair(place, delayed, delayed).await?;
            println!("place {place}: 2 x 20 ms + 0..5 ms: median round trip {:?}", sample.median());
        }
        let lossy = Shape { loss: Loss::Independent(0.1), ..delayed };
        println!("2 x 10 % loss: {} of 200 lost", lab.impair(1, lossy, lossy).await?.lost());
        let (good, bad) = (Duration::from_millis(1_000), Duration::from_millis(300));
        let bursts = Loss::Bursts { good, bad, loss_when_good: 0.0, loss_when_bad: 1.0 };
        lab.impair(1, Shape { loss: bursts, ..Shape::default() }, Shape::default()).await?;
        lab.place(1)?.router().gateway().reshape(Shape::default(), Shape::default());
        let echo = SocketAddr::new(DNS.v4().into(), ECHO_PORT);
        let claim = muster_lab::probe::verify(lab.place(1)?.gateway(), echo, delayed, delayed).await;
        ensure!(claim.is_err_and(|error| error.to_string().contains("did not apply")));
        Ok(())
    });
}

#[test]
fn a_host_moves_to_another_place_and_gets_a_way_out_there() {
    in_lab(async {
        let lab = Lab::builder().places(3).agents(2).build().await?;
        let host = lab.host("p1a2")?;
        lab.move_host("p1a2", 3).await?;
        ensure!(host.attachment().address() == IpAddr::from([192, 168, 3, 100]), "{:?}", host.attachment());
        ensure!(reaches_echo(host.machine(), Family::V4).await?, "no way out of the new place");
        let (listener, speaker) =
            (listener_v4(host).await?, bind(lab.host("p3a1")?.machine(), "0.0.0.0:0".parse()?).await?);
        speaker.send_to(b"hello", (host.attachment().address(), PORT)).await?;
        ensure!(hears(&listener).await, "the new neighbor does not reach it");
        ensure!((lab.hosts_in(1).count(), lab.hosts_in(3).count()) == (1, 3));
        Ok(())
    });
}

#[test]
fn hosts_and_routers_fall_silent_and_come_back() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(2).build().await?;
        let host = lab.host("p1a1")?;
        let out = || reaches_echo(host.machine(), Family::V4);
        let is_cut = || misses_echo(host.machine(), Family::V4);
        ensure!(out().await?, "before anything was done");
        lab.set_cut_off("p1a1", true).await?;
        ensure!(is_cut().await?, "cut off, and packets pass");
        let carrier = host.machine().exec("cat", &["/sys/class/net/eth0/carrier"]).await?;
        ensure!(carrier.trim() == "1", "the host noticed the cut");
        lab.set_cut_off("p1a1", false).await?;
        ensure!(out().await?, "after the cut");
        host.set_link(false).await?;
        ensure!(is_cut().await?, "the card is down, and packets pass");
        host.set_link(true).await?;
        ensure!(out().await?, "after the card came up");
        lab.place(1)?.set_dark(true);
        ensure!(is_cut().await?, "the router is gone, and packets pass");
        lab.place(1)?.set_dark(false);
        host.renumber(77).await?;
        ensure!(out().await?, "after the change of address");
        Ok(())
    });
}

#[test]
fn a_host_firewall_blocks_udp_in_the_directions_it_is_told() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(2).build().await?;
        let (host, neighbor) = (lab.host("p1a1")?, lab.host("p1a2")?);
        for (block, out, back) in [
            (UdpBlock::Inbound, true, false),
            (UdpBlock::Outbound, false, true),
            (UdpBlock::Both, false, false),
        ] {
            let (ours, theirs) = (listener_v4(host).await?, listener_v4(neighbor).await?);
            host.block_udp(block).await?;
            ours.send_to(b"x", (neighbor.attachment().address(), PORT)).await.ok();
            ensure!(if out { hears(&theirs).await } else { is_silent(&theirs).await }, "{block:?}, outwards");
            theirs.send_to(b"x", (host.attachment().address(), PORT)).await?;
            ensure!(if back { hears(&ours).await } else { is_silent(&ours).await }, "{block:?}, inwards");
            host.unblock_udp().await?;
        }
        Ok(())
    });
}

#[test]
fn tcp_carries_a_megabyte_through_each_kind_of_router() {
    in_lab(async {
        let kernel = PlacePlan { agents: 1, translation: Translation::Kernel, ..PlacePlan::default() };
        let symmetric = PlacePlan { translation: Translation::Model(Behaviour::symmetric()), ..kernel };
        let v6 = PlacePlan { family: Family::V6, ..symmetric };
        let lab = Lab::builder().place(kernel).place(symmetric).place(v6).build().await?;
        let listen = lab.master().run(|| std::net::TcpListener::bind("[::]:443")).await??;
        listen.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listen)?;
        for place in lab.places() {
            let before = place.wan_traffic().await?;
            let target = SocketAddr::new(MASTER.address(place.plan().family), 443);
            let machine = lab.host(&place.number().host(1))?.machine();
            let (accepted, connected) =
                tokio::join!(listener.accept(), machine.run(move || std::net::TcpStream::connect(target)));
            let (mut server, stream) = (accepted?.0, connected??);
            stream.set_nonblocking(true)?;
            let mut client = tokio::net::TcpStream::from_std(stream)?;
            let sent = vec![7; 1 << 20];
            let mut got = Vec::new();
            let sending = async {
                client.write_all(&sent).await?;
                client.shutdown().await
            };
            let (sending, receiving) = tokio::join!(sending, server.read_to_end(&mut got));
            sending?;
            ensure!(receiving? == sent.len() && got == sent, "the bytes changed on the way");
            let carried = place.wan_traffic().await? - before;
            ensure!(carried.sent_bytes > 1 << 20 && carried.received_packets > 10, "counted {carried:?}");
        }
        Ok(())
    });
}

#[test]
fn a_router_that_lets_only_some_tcp_through_does_just_that() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(1).build().await?;
        let (place, machine) = (lab.place(1)?, lab.host("p1a1")?.machine());
        let _listeners = lab
            .master()
            .run(|| [443, 8_443].map(|port| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))))
            .await?;
        let connects = async |port: u16, patience: Duration| {
            let target = SocketAddr::new(MASTER.v4().into(), port);
            machine.run(move || std::net::TcpStream::connect_timeout(&target, patience).is_ok()).await
        };
        place.router().gateway().restrict(Passage { udp: false, tcp_ports: Some(vec![443]), dark: false });
        ensure!(misses_echo(machine, Family::V4).await?, "UDP passes");
        ensure!(connects(443, PATIENCE).await?, "TCP 443 does not pass");
        ensure!(!connects(8_443, SILENCE).await?, "TCP 8443 passes");
        ensure!(place.router().gateway().tally().refused >= 2, "nothing was counted as refused");
        place.router().gateway().restrict(Passage::default());
        ensure!(reaches_echo(machine, Family::V4).await? && connects(8_443, PATIENCE).await?, "afterwards");
        Ok(())
    });
}

#[test]
fn the_dns_server_names_the_master_to_every_place_also_after_it_moved() {
    in_lab(async {
        let v6 = PlacePlan { agents: 1, family: Family::V6, ..PlacePlan::default() };
        let lab = Lab::builder().places(1).agents(1).place(v6).build().await?;
        for master in [MASTER, MASTER_MOVED] {
            lab.move_master(master).await?;
            for host in lab.hosts() {
                let found = host.machine().exec("getent", &["ahosts", "master.lab.test"]).await?;
                let address = master.address(host.attachment().family).to_string();
                ensure!(found.contains(&address), "{}: {found}", host.name());
            }
        }
        Ok(())
    });
}

#[test]
fn a_split_lan_has_two_parts_that_both_reach_the_router_and_heals() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(3).build().await?;
        let place = lab.place(1)?;
        let send = async |from: &str, to: &str| -> Result<UdpSocket> {
            let (from, to) = (lab.host(from)?, lab.host(to)?);
            let listener = listener_v4(to).await?;
            let speaker = bind(from.machine(), "0.0.0.0:0".parse()?).await?;
            speaker.send_to(b"hello", (to.attachment().address(), PORT)).await.ok();
            Ok(listener)
        };
        place.split(&["p1a1", "p1a2"]).await?;
        ensure!(hears(&send("p1a1", "p1a2").await?).await, "one part is not whole");
        ensure!(is_silent(&send("p1a1", "p1a3").await?).await, "the parts hear each other");
        ensure!(is_silent(&send("p1a3", "p1a2").await?).await, "the parts hear each other");
        for host in lab.hosts() {
            ensure!(reaches_echo(host.machine(), Family::V4).await?, "{} has no way out", host.name());
        }
        place.heal().await?;
        ensure!(hears(&send("p1a1", "p1a3").await?).await, "the parts stayed apart");
        Ok(())
    });
}

#[test]
fn every_machine_has_its_own_name_and_state_directories() {
    in_lab(async {
        let lab = Lab::builder().places(1).agents(2).build().await?;
        let (here, there) = (lab.host("p1a1")?.machine(), lab.host("p1a2")?.machine());
        ensure!(here.exec("hostname", &[]).await?.trim() == "p1a1");
        here.exec("mkdir", &["/var/lib/muster-lab-trace"]).await?;
        ensure!(here.exec("ls", &["/var/lib"]).await?.contains("muster-lab-trace"), "it was not kept");
        ensure!(
            !there.exec("ls", &["/var/lib"]).await?.contains("muster-lab-trace"),
            "another machine has it too"
        );
        ensure!(!std::path::Path::new("/var/lib/muster-lab-trace").exists(), "this computer has it too");
        Ok(())
    });
}
