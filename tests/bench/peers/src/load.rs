//! The same load for every hash table: join one by one, rest, put, get from strangers, look up; a third falls silent at
//! once; get and look up again. All nodes are in this process and in a network namespace of its own, so what is
//! counted is theirs alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;

use crate::figures::{Each, Figures, KINDS, Operations};
use crate::machine::{processor_time, resident, silence, wire};

/// The length of what is stored: a contact's.
pub(crate) const VALUE: usize = 100;

/// Everything a node has begun while it joined has ended by then.
const SETTLING: Duration = Duration::from_secs(5);

/// How long the idle table is watched.
const IDLE: Duration = Duration::from_secs(20);

/// A table that is not whole by then has failed.
const GATHERING: Duration = Duration::from_secs(420);

/// An operation that has not ended by then has failed. Longer than any of them gives a lookup (60 s: libp2p, discv5).
const OPERATION: Duration = Duration::from_secs(70);

/// A hash table of nodes on loopback.
pub(crate) trait Table {
    /// A value's name, told to whom shall get it.
    type Key: Clone;

    /// Its own recommended settings, in a sentence, and where they were left.
    const SETTINGS: &'static str;
    /// Whether it keeps values, or contacts only.
    const STORES: bool = true;

    /// One more node joins through the first, and has ended its own first lookup.
    async fn join(&mut self) -> Result<()>;
    fn count(&self) -> usize;
    async fn put(&self, node: usize, value: [u8; VALUE]) -> Result<Self::Key>;
    /// Returns with the first value found.
    async fn get(&self, node: usize, key: &Self::Key) -> Result<Vec<u8>>;
    /// Looks up a random key to the end; how many nodes it brought.
    async fn find(&self, node: usize) -> Result<usize>;
    /// The port of a node's socket.
    fn port(&self, node: usize) -> u16;
    /// A node's task ends.
    fn drop_node(&mut self, node: usize);
}

/// Everything, in one run.
pub(crate) async fn measure<T: Table>(
    mut table: T,
    system: String,
    nodes: usize,
    count: usize,
) -> Result<Figures> {
    let empty = resident(std::process::id())?;
    let mut figures = Figures { system, settings: T::SETTINGS.to_owned(), nodes, ..Figures::default() };
    let joining = Meter::start()?;
    tokio::time::timeout(GATHERING, gather(&mut table, nodes)).await.context("not whole in time")??;
    figures.join = joining.each(nodes as f64)?;
    tokio::time::sleep(SETTLING).await;
    figures.resident_kb = (resident(std::process::id())? - empty) / 1e3 / nodes as f64;
    let resting = Meter::start()?;
    tokio::time::sleep(IDLE).await;
    figures.idle = resting.each(nodes as f64 * IDLE.as_secs_f64())?;
    eprintln!("joined {:?}, idle {:?}, {:.0} kB a node", figures.join, figures.idle, figures.resident_kb);

    // Once unmeasured: sessions between those who now meet.
    operate(count, async |_| found(table.find(anyone(&table)).await?)).await?;
    let mut note = |kind: usize, operations: Operations| {
        figures.operations.insert(KINDS[kind].to_owned(), operations);
    };
    let mut keys = Vec::new();
    if T::STORES {
        note(
            0,
            operate(count, async |_| {
                let (publisher, value) = (anyone(&table), rand::rng().random::<[u8; 32]>());
                let value = std::array::from_fn(|at| value[at % value.len()]);
                keys.push((publisher, table.put(publisher, value).await?, value));
                Ok(())
            })
            .await?,
        );
        ensure!(!keys.is_empty(), "no value was stored");
        note(1, operate(count, async |at| get(&table, &keys[at % keys.len()]).await).await?);
    }
    note(2, operate(count, async |_| found(table.find(anyone(&table)).await?)).await?);
    kill(&mut table, nodes / 3)?;
    if T::STORES {
        // Publishers may be among the dead; strangers are asked either way.
        keys.iter_mut().for_each(|(publisher, _, _)| *publisher = usize::MAX);
        note(3, operate(count, async |at| get(&table, &keys[at % keys.len()]).await).await?);
    }
    note(4, operate(count, async |_| found(table.find(anyone(&table)).await?)).await?);
    Ok(figures)
}

async fn gather<T: Table>(table: &mut T, nodes: usize) -> Result<()> {
    while table.count() < nodes {
        table.join().await?;
    }
    Ok(())
}

fn anyone<T: Table>(table: &T) -> usize {
    rand::rng().random_range(0..table.count())
}

fn found(nodes: usize) -> Result<()> {
    ensure!(nodes > 0, "nobody found");
    Ok(())
}

async fn get<T: Table>(table: &T, (publisher, key, value): &(usize, T::Key, [u8; VALUE])) -> Result<()> {
    let stranger = loop {
        let node = anyone(table);
        if node != *publisher {
            break node;
        }
    };
    let got = table.get(stranger, key).await?;
    if got != value { bail!("another value") } else { Ok(()) }
}

/// So many vanish without a word: first nobody hears them any more, then they end.
fn kill<T: Table>(table: &mut T, count: usize) -> Result<()> {
    let mut victims = rand::seq::index::sample(&mut rand::rng(), table.count(), count).into_vec();
    silence(&victims.iter().map(|node| table.port(*node)).collect::<Vec<_>>())?;
    victims.sort_unstable_by(|a, b| b.cmp(a));
    victims.into_iter().for_each(|node| table.drop_node(node));
    Ok(())
}

async fn operate(count: usize, mut operation: impl AsyncFnMut(usize) -> Result<()>) -> Result<Operations> {
    let (mut operations, meter) = (Operations::default(), Meter::start()?);
    for at in 0..count {
        let begin = Instant::now();
        let done = tokio::time::timeout(OPERATION, operation(at)).await;
        let failed = done
            .map_err(anyhow::Error::from)
            .and_then(|done| done)
            .inspect_err(|error| eprintln!("{error:#}"));
        operations.note(begin.elapsed(), failed.is_err());
    }
    let each = meter.each(count as f64)?;
    (operations.packets, operations.bytes, operations.cpu_ms) = (each.packets, each.bytes, each.cpu_ms);
    Ok(operations)
}

struct Meter {
    wire: (f64, f64),
    cpu: Duration,
}

impl Meter {
    fn start() -> Result<Self> {
        Ok(Self { wire: wire()?, cpu: processor_time(std::process::id())? })
    }

    fn each(self, count: f64) -> Result<Each> {
        let ((packets, bytes), cpu) = (wire()?, processor_time(std::process::id())? - self.cpu);
        Ok(Each {
            packets: (packets - self.wire.0) / count,
            bytes: (bytes - self.wire.1) / count,
            cpu_ms: cpu.as_secs_f64() * 1e3 / count,
        })
    }
}
