//! Our relay beside coturn: each a process on the first core, the generator and all ends on the second; packets of 1,400
//! bytes on loopback.

mod flow;
mod ours;
pub(crate) mod serve;
mod stream;
mod turn;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use muster_kit::testing::pki::Pki;
use muster_wire::testing::TestNetwork;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::machine::{processor_time, resident};
use flow::{BURST, Flow, Leg, PAYLOAD, WINDOW, typical};
use ours::Scene;
use stream::{Allocations, Guests, Way};

/// Between packets that are sent one by one.
const PACE: Duration = Duration::from_micros(500);

/// How long each flow lasts, and how many packets go one by one.
const SPAN: Duration = Duration::from_secs(4);
const SINGLE: usize = 2_000;

/// Pairs at once, besides one.
const PAIRS: usize = 20;

/// Clients that only sit there.
const IDLE: u32 = 1_000;

/// A server has started by then.
const STARTING: Duration = Duration::from_secs(2);

const TURN_PORT: u16 = 3478;
const TURNS_PORT: u16 = 5349;

/// One line of the table.
struct Row {
    what: String,
    pairs: usize,
    flow: Flow,
    cpu: Duration,
    times: Option<(f64, f64)>,
}

impl Row {
    fn print(&self) {
        let gigabytes = self.flow.bytes() / 1e9;
        let (p50, p99) = self.times.map_or(("-".to_owned(), "-".to_owned()), |(p50, p99)| {
            (format!("{p50:.0}"), format!("{p99:.0}"))
        });
        println!(
            "| {} | {} | {:.0} | {:.2} | {:.2} | {p50} | {p99} |",
            self.what,
            self.pairs,
            self.flow.bytes() / 1e6 / self.flow.seconds,
            self.flow.lost as f64 * 100.0 / (self.flow.packets + self.flow.lost).max(1) as f64,
            self.cpu.as_secs_f64() / gigabytes,
        );
    }
}

/// A relay's process; dropping it ends it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn cpu(&self) -> Result<Duration> {
        processor_time(self.0.id())
    }
}

/// So many rounds of everything, by turns.
pub(crate) async fn measure(rounds: usize) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("muster-peers-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    println!(
        "| relay | pairs | MB/s | lost % | relay CPU s/GB | one way p50 µs | p99 µs |\n|---|---:|---:|---:|---:|---:|---:|"
    );
    for _ in 0..rounds {
        let direct = Leg::direct()?;
        let times = Some(typical(&direct.one_by_one(SINGLE).await?));
        let flow = direct.fill(SPAN, WINDOW).await?;
        Row { what: "no relay, UDP".to_owned(), pairs: 1, flow, cpu: Duration::ZERO, times }.print();
        of_ours().await?;
        of_coturn(&directory).await?;
    }
    println!("\n| relay | resident MB, nobody there | MB for {IDLE} clients |\n|---|---:|---:|");
    memory(&directory).await?;
    Ok(std::fs::remove_dir_all(&directory)?)
}

async fn of_ours() -> Result<()> {
    let (scene, server) = start_ours()?;
    let (leg, _stay) = scene.leg(1).await?;
    udp("Muster, UDP", &server, vec![leg]).await?;
    let pairs = try_join_all((0..PAIRS as u32).map(|number| scene.leg(100 + number))).await?;
    let (legs, _stay): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    udp("Muster, UDP", &server, legs).await?;
    let ((anna, channel), (bert, _)) = scene.pair(1_000).await?;
    streams("Muster, gRPC over TLS, both ends", &server, Guests { anna, channel, bert }).await
}

async fn of_coturn(directory: &Path) -> Result<()> {
    let server = start_coturn(directory)?;
    let at = SocketAddr::from(([127, 0, 0, 1], TURN_PORT));
    udp("coturn, UDP, one end", &server, vec![turn::leg(at, PAYLOAD)?]).await?;
    let legs = (0..PAIRS).map(|_| turn::leg(at, PAYLOAD)).collect::<Result<_>>()?;
    udp("coturn, UDP, one end", &server, legs).await?;
    let plain = (TcpStream::connect(at).await?, TcpStream::connect(at).await?);
    plain.0.set_nodelay(true)?;
    streams("coturn, TCP, both ends", &server, Allocations::new(turn::pair(plain).await?)).await?;
    let connector = connector(directory)?;
    let tls = async || {
        let stream = TcpStream::connect(("127.0.0.1", TURNS_PORT)).await?;
        stream.set_nodelay(true)?;
        anyhow::Ok(connector.connect(ServerName::try_from("turn.test")?, stream).await?)
    };
    let pair = turn::pair((tls().await?, tls().await?)).await?;
    streams("coturn, TLS, both ends", &server, Allocations::new(pair)).await
}

async fn udp(what: &str, server: &Server, legs: Vec<Leg>) -> Result<()> {
    let times = match &legs[..] {
        [leg] => Some(typical(&leg.one_by_one(SINGLE).await?)),
        _ => None,
    };
    let window = (WINDOW / legs.len() as u64).max(BURST as u64);
    let before = server.cpu()?;
    let flows = try_join_all(legs.iter().map(|leg| leg.fill(SPAN, window))).await?;
    let cpu = server.cpu()? - before;
    let sum = |of: &dyn Fn(&Flow) -> u64| flows.iter().map(of).sum::<u64>();
    let flow = Flow { seconds: SPAN.as_secs_f64(), packets: sum(&|f| f.packets), lost: sum(&|f| f.lost) };
    Row { what: what.to_owned(), pairs: legs.len(), flow, cpu, times }.print();
    Ok(())
}

async fn streams(what: &str, server: &Server, mut way: impl Way) -> Result<()> {
    let times = Some(typical(&stream::one_by_one(&mut way, SINGLE).await?));
    let before = server.cpu()?;
    let flow = stream::fill(&mut way, SPAN, WINDOW).await?;
    Row { what: what.to_owned(), pairs: 1, flow, cpu: server.cpu()? - before, times }.print();
    Ok(())
}

/// What a thousand clients that have sent nothing take.
async fn memory(directory: &Path) -> Result<()> {
    let line = |what: &str, server: &Server, empty: f64| -> Result<()> {
        let full = resident(server.0.id())?;
        println!("| {what} | {:.1} | {:.1} |", empty / 1e6, (full - empty) / 1e6);
        Ok(())
    };
    {
        let (scene, server) = start_ours()?;
        let empty = resident(server.0.id())?;
        let mut stay = Vec::new();
        for number in 0..IDLE / 2 {
            stay.push(scene.pair(number).await?);
        }
        line("Muster, sessions with a channel", &server, empty)?;
    }
    let server = start_coturn(directory)?;
    let empty = resident(server.0.id())?;
    let at = SocketAddr::from(([127, 0, 0, 1], TURN_PORT));
    let _stay = (0..IDLE).map(|_| turn::allocation(at)).collect::<Result<Vec<_>>>()?;
    line("coturn, UDP allocations without a channel", &server, empty)
}

fn start_ours() -> Result<(Scene, Server)> {
    let (pki, network) = (Pki::new(), TestNetwork::new());
    let own = std::env::current_exe()?;
    let mut child = Command::new("taskset")
        .args(["-c", "0"])
        .arg(own)
        .arg("relay-serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let papers = serde_json::to_vec(&serve::Papers::of(&pki, &network))?;
    child.stdin.take().context("its stdin")?.write_all(&papers)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its stdout")?).read_line(&mut line)?;
    let address = line.trim().parse().with_context(|| format!("our relay said {line:?}"))?;
    Ok((Scene { pki, network, address }, Server(child)))
}

/// With its defaults, but without credentials and logs, and with peers on loopback.
fn start_coturn(directory: &Path) -> Result<Server> {
    let (certificate, key) = (directory.join("turn.pem"), directory.join("turn.key"));
    if !certificate.exists() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["turn.test".to_owned()])?;
        std::fs::write(&certificate, cert.pem())?;
        std::fs::write(directory.join("turn.der"), cert.der())?;
        std::fs::write(&key, signing_key.serialize_pem())?;
    }
    let mut command = Command::new("taskset");
    command.args([
        "-c",
        "0",
        "turnserver",
        "-n",
        "--no-auth",
        "--no-cli",
        "--allow-loopback-peers",
        "--no-dtls",
    ]);
    command.args(["--cli-password", "unused", "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"]);
    command
        .arg("--cert")
        .arg(&certificate)
        .arg("--pkey")
        .arg(&key)
        .arg("--pidfile")
        .arg(directory.join("pid"));
    command.arg("--log-file").arg(directory.join("turn.log")).arg("--userdb").arg(directory.join("turn.db"));
    command.args(["--no-stdout-log", "--simple-log"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server(command.spawn().context("taskset")?);
    std::thread::sleep(STARTING);
    ensure!(server.0.try_wait()?.is_none(), "coturn ended at once: Debian's package `coturn`");
    Ok(server)
}

fn connector(directory: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(std::fs::read(directory.join("turn.der"))?.into())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
