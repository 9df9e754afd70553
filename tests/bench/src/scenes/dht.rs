//! The hash table with real sockets: nodes in this one process, on loopback in a network of their own, so that every
//! packet counted is theirs.

mod crowd;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_net::dht::{Care, Kind, Wish};
use muster_types::Key;
use rand::Rng;

use crate::process;
use crate::row::Row;
use crowd::{Crowd, opaque};

const WARM: &str = "loopback, 300 nodes, warm";
const COLD: &str = "loopback, 300 nodes, cold";
const WOUNDED: &str = "loopback, 300 nodes, 30 % just killed";

/// How long the idle table is watched.
const IDLE: Duration = Duration::from_secs(20);

/// Packets and bytes on loopback since this namespace's network was made, as the kernel counts them. (`/sys` tells of
/// the namespace that mounted it.)
fn wire() -> Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("no loopback")?;
    let mut fields = line.split_whitespace().map(str::parse::<f64>);
    let mut next = || anyhow::Ok(fields.next().context("a counter")??);
    let (bytes, packets) = (next()?, next()?);
    Ok((packets, bytes))
}

/// What operations took: time each, and packets, bytes and processor time of all nodes together.
#[derive(Default)]
struct Took {
    spans: Vec<Duration>,
    packets: Vec<f64>,
    bytes: Vec<f64>,
    cpu: f64,
    failed: usize,
}

impl Took {
    /// Runs one operation after another.
    async fn of<T>(count: usize, mut operation: impl AsyncFnMut(usize) -> Result<T>) -> Result<Self> {
        let mut took = Self::default();
        let cpu = process::processor_time(std::process::id())?;
        for at in 0..count {
            let ((packets, bytes), begin) = (wire()?, Instant::now());
            let done = operation(at).await;
            took.spans.push(begin.elapsed());
            took.failed += usize::from(done.is_err());
            let (packets_after, bytes_after) = wire()?;
            took.packets.push(packets_after - packets);
            took.bytes.push((bytes_after - bytes) / 1e3);
        }
        let used = process::processor_time(std::process::id())? - cpu;
        took.cpu = used.as_secs_f64() * 1e3 / count as f64;
        Ok(took)
    }

    fn rows(self, names: [&'static str; 4], conditions: &'static str, aims: [&str; 3]) -> Vec<Row> {
        if self.failed > 0 {
            eprintln!("{}, {conditions}: {} of {} found nothing", names[0], self.failed, self.spans.len());
        }
        vec![
            Row::times(names[0], conditions, aims[0], &self.spans),
            Row::new(names[1], conditions, "packets", aims[1], self.packets),
            Row::new(names[2], conditions, "kB", "-", self.bytes),
            Row::new(names[3], conditions, "ms CPU, all nodes", aims[2], vec![self.cpu]),
        ]
    }
}

const GET: [&str; 4] = ["get, first value", "get", "get", "get"];
const PUT: [&str; 4] = ["put, acknowledged by all", "put", "put", "put"];
const FIND: [&str; 4] = ["full lookup", "full lookup", "full lookup", "full lookup"];

/// Everything, in one run.
pub(crate) async fn measure(nodes: usize, operations: usize) -> Result<Vec<Row>> {
    let before = process::memory(std::process::id())?.resident;
    let ((packets, _), cpu) = (wire()?, process::processor_time(std::process::id())?);
    let mut crowd = Crowd::gather(nodes).await?;
    let joined = (wire()?.0 - packets) / nodes as f64;
    let cpu = (process::processor_time(std::process::id())? - cpu).as_secs_f64() * 1e3 / nodes as f64;
    let memory = process::memory(std::process::id())?.resident.saturating_sub(before) as f64;
    let mut rows = vec![
        Row::new("join, a node", COLD, "packets", "<= 250", vec![joined]),
        Row::new("join, a node", COLD, "ms CPU, all nodes", "-", vec![cpu]),
        Row::new("resident, a node", WARM, "kB", "<= 150", vec![memory / 1e3 / nodes as f64]),
    ];
    rows.extend(idle(nodes).await?);
    let keys = keys(operations);
    rows.extend(operate(&crowd, &keys, WARM, ["< 1 p50", "< 4 p50", "-"]).await?);
    crowd.forget_sessions().await;
    let cold = Took::of(operations.min(20), async |at| crowd.get(keys[at]).await).await?;
    rows.extend(cold.rows(GET, COLD, ["<= 3x warm", "-", "-"]));
    crowd.kill(nodes * 3 / 10);
    let first = Took::of(operations, async |at| crowd.get(keys[at]).await).await?;
    rows.extend(first.rows(GET, WOUNDED, ["< 300 p95", "-", "-"]));
    let full = Took::of(operations, async |_| crowd.find().await).await?;
    rows.extend(full.rows(FIND, WOUNDED, ["< 1500 p95", "-", "-"]));
    Ok(rows)
}

async fn idle(nodes: usize) -> Result<Vec<Row>> {
    let (packets, bytes) = wire()?;
    let cpu = process::processor_time(std::process::id())?;
    tokio::time::sleep(IDLE).await;
    let (packets_after, bytes_after) = wire()?;
    let each = |total: f64| vec![total / nodes as f64 / IDLE.as_secs_f64()];
    let used = process::processor_time(std::process::id())? - cpu;
    Ok(vec![
        Row::new("idle, a server", WARM, "packets/s", "-", each(packets_after - packets)),
        Row::new("idle, a server", WARM, "B/s", "<= 60", each(bytes_after - bytes)),
        Row::new("idle, a server", WARM, "ms CPU/s", "-", each(used.as_secs_f64() * 1e3)),
    ])
}

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|_| Key(rand::rng().random())).collect()
}

async fn operate(crowd: &Crowd, keys: &[Key], conditions: &'static str, aims: [&str; 3]) -> Result<Vec<Row>> {
    // Once unmeasured: sessions between those who now meet.
    for _ in 0..keys.len() {
        crowd.find().await?;
    }
    let put = Took::of(keys.len(), async |at| crowd.put(keys[at], opaque()).await).await?;
    let get = Took::of(keys.len(), async |at| crowd.get(keys[at]).await).await?;
    let full = Took::of(keys.len(), async |_| crowd.find().await).await?;
    let mut rows = put.rows(PUT, conditions, [aims[1], "<= 100", "-"]);
    rows.extend(get.rows(GET, conditions, [aims[0], "-", "-"]));
    rows.extend(full.rows(FIND, conditions, [aims[2], "<= 60", "<= 5"]));
    Ok(rows)
}

impl Crowd {
    async fn get(&self, key: Key) -> Result<()> {
        let got = self.anyone().get(key, Kind::Opaque, Wish::First, Care::OnMiss).await?;
        got.found.first().context("a record").map(|_| ())
    }

    async fn put(&self, key: Key, value: muster_wire::record::Value) -> Result<()> {
        let (kept, _) = self.anyone().put(key, value).await?;
        anyhow::ensure!(kept.count() >= 15, "kept by {} only", kept.count());
        Ok(())
    }

    async fn find(&self) -> Result<()> {
        self.anyone().find(Key(rand::rng().random()), Care::Plain).await?;
        Ok(())
    }
}
