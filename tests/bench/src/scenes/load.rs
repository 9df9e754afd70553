//! One real master and the streams of many LSNs, each with a TLS session of its own: the generator has one core, the
//! master another.
//!
//! hosts enrolled -> LSNs attached -> quiet -> the rest shown under them -> tasks for one host -> one task for all.

mod host;
mod meter;
mod stream;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use muster_e2e::fleet::command;
use muster_e2e::{Fleet, Master};
use muster_proto::fleet::v1::watch_events_response::Update;
use muster_proto::fleet::v1::{CreateTaskRequest, NodeState, WatchEventsRequest, event};
use tokio::sync::mpsc;

use crate::row::Row;
use host::Host;
pub(crate) use meter::take_one_core;
use meter::{Meter, allow_files};
use stream::{Ended, Lsn};

/// How many streams, and how many hosts in all: the LSNs themselves, and the rest evenly below them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) streams: usize,
    pub(crate) hosts: usize,
}

/// Calls and handshakes of the generator at once.
const AT_ONCE: usize = 64;

/// How long the quiet streams are watched: four heartbeats of each, one of them answered.
const QUIET: Duration = Duration::from_secs(100);

/// Nothing that is waited for takes so long, on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

/// The only published figure for so many hosts on one machine.
const CHORIA: &str = "Choria (published, not run): 50,000 hosts in some 16 s";

/// The master, the attached LSNs' mailboxes, and what is seen and told of them.
struct Load {
    fleet: Fleet,
    meter: Meter,
    place: String,
    lsns: Vec<mpsc::Sender<Arc<Host>>>,
    seen: mpsc::Receiver<(String, Instant)>,
    ended: mpsc::Receiver<Ended>,
}

/// All of it, in one run; `repeat` is how often the single events are made to happen.
pub(crate) async fn measure(size: Size, repeat: usize) -> Result<Vec<Row>> {
    ensure!(size.hosts > size.streams + repeat, "more hosts than streams and single events, please");
    allow_files(size.streams)?;
    let master = Master::up_with(&["--no-agent", "--handshakes-per-second", "10000"]).await?;
    let meter = Meter::of(master.program()?.pid()?)?;
    let uses = size.hosts.to_string();
    let link = master.link(&["--uses", &uses]).await?.parse()?;
    let before = meter.processor()?;
    let hosts = host::enroll(&link, size.hosts, AT_ONCE).await?;
    let place = format!("loopback, {} streams", size.streams);
    let mut rows = vec![each("an enrollment, master", &place, meter.processor()? - before, size.hosts)];
    let (mut load, attached) = Load::attach(&master, meter, place, &hosts[..size.streams]).await?;
    rows.extend(attached);
    rows.push(load.quiet().await?);
    rows.extend(load.show(&hosts[size.streams..], repeat).await?);
    rows.extend(load.single_tasks(&hosts[size.streams].name(), repeat).await?);
    rows.extend(load.one_task_for_all(size.hosts).await?);
    Ok(rows)
}

fn each(what: &'static str, place: &str, used: Duration, count: usize) -> Row {
    let value = used.as_secs_f64() * 1e3 / count as f64;
    Row::new(what, place.to_owned(), "ms CPU each", "-", vec![value])
}

impl Load {
    async fn attach(
        master: &Master,
        meter: Meter,
        place: String,
        hosts: &[Arc<Host>],
    ) -> Result<(Self, Vec<Row>)> {
        let (memory, before) = (meter.resident()?, meter.processor()?);
        let address = master.address();
        let (sender, ended) = mpsc::channel(1 << 20);
        let attaching = hosts.iter().enumerate().map(|(at, host)| {
            let (host, address, sender) = (host.clone(), address.clone(), sender.clone());
            async move {
                let begin = Instant::now();
                let lsn = Lsn::attach(host, at, address).await?;
                let took = begin.elapsed();
                // At once: the others take longer to attach than the master waits for a heartbeat.
                let (wishes, wished) = mpsc::channel(AT_ONCE);
                tokio::spawn(lsn.serve(wished, sender));
                Ok::<_, anyhow::Error>((wishes, took))
            }
        });
        let attached: Vec<_> = iter(attaching).buffer_unordered(AT_ONCE).try_collect().await?;
        let used = meter.processor()? - before;
        let grown = meter.resident()?.saturating_sub(memory) as f64 / 1e3 / hosts.len() as f64;
        let (lsns, spans): (Vec<_>, Vec<_>) = attached.into_iter().unzip();
        let fleet = master.fleet()?;
        let seen = watch(&fleet).await?;
        let rows = vec![
            Row::times(
                "an LSN's stream, TCP and TLS to its Welcome and first acknowledgement",
                place.clone(),
                "-",
                &spans,
            ),
            each("the same, master", &place, used, hosts.len()),
            Row::new("a stream, the master's resident memory", place.clone(), "kB", "-", vec![grown]),
        ];
        Ok((Self { fleet, meter, place, lsns, seen, ended }, rows))
    }

    /// Nothing but heartbeats.
    async fn quiet(&self) -> Result<Row> {
        let before = self.meter.processor()?;
        tokio::time::sleep(QUIET).await;
        let share = (self.meter.processor()? - before).as_secs_f64() / QUIET.as_secs_f64() * 100.0;
        Ok(Row::new("all streams quiet, master", self.place.clone(), "% of a core", "-", vec![share]))
    }

    /// Hosts come under LSNs: some one after another, the rest as fast as they are taken.
    async fn show(&mut self, hosts: &[Arc<Host>], single: usize) -> Result<Vec<Row>> {
        let (slowly, at_once) = hosts.split_at(single);
        let (mut spans, before) = (Vec::new(), self.meter.processor()?);
        for (at, host) in slowly.iter().enumerate() {
            let begin = Instant::now();
            self.lsns[at % self.lsns.len()].send(host.clone()).await.context("an LSN has ended")?;
            spans.push(self.until_seen(std::slice::from_ref(host)).await? - begin);
        }
        let slow = self.meter.processor()? - before;
        let (begin, before) = (Instant::now(), self.meter.processor()?);
        let lsns = self.lsns.clone();
        let queue: Vec<_> = at_once.to_vec();
        let sending = tokio::spawn(async move {
            for (at, host) in queue.into_iter().enumerate() {
                lsns[at % lsns.len()].send(host).await.context("an LSN has ended")?;
            }
            anyhow::Ok(())
        });
        let took = self.until_seen(at_once).await? - begin;
        sending.await??;
        let fast = self.meter.processor()? - before;
        Ok(vec![
            Row::times(
                "a change of presence, LSN to watcher, one after another",
                self.place.clone(),
                "-",
                &spans,
            ),
            each("the same, master", &self.place, slow, slowly.len()),
            Row::times(
                "so many changes at once (next line), until the watcher saw the last",
                self.place.clone(),
                "-",
                &[took],
            ),
            Row::new("the same, how many", self.place.clone(), "changes", "-", vec![at_once.len() as f64]),
            each("the same, master", &self.place, fast, at_once.len()),
        ])
    }

    /// When the watcher had seen all of these.
    async fn until_seen(&mut self, hosts: &[Arc<Host>]) -> Result<Instant> {
        let mut missing: HashSet<String> = hosts.iter().map(|host| host.name()).collect();
        let seen = async {
            loop {
                let (name, at) = self.seen.recv().await.context("the watch has ended")?;
                missing.remove(&name);
                if missing.is_empty() {
                    return anyhow::Ok(at);
                }
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.with_context(|| format!("{} hosts were not shown", missing.len()))?
    }

    async fn single_tasks(&self, node: &str, repeat: usize) -> Result<Vec<Row>> {
        let (mut spans, before) = (Vec::new(), self.meter.processor()?);
        for _ in 0..repeat {
            let begin = Instant::now();
            let task = self.fleet.create(&command(&[node], &["true"], "")).await?;
            self.fleet.until_done(&task).await?;
            spans.push(begin.elapsed());
        }
        let used = self.meter.processor()? - before;
        Ok(vec![
            Row::times(
                "a task on one simulated host, CreateTask to its end seen",
                self.place.clone(),
                "-",
                &spans,
            ),
            each("the same, master", &self.place, used, repeat),
        ])
    }

    async fn one_task_for_all(&mut self, hosts: usize) -> Result<Vec<Row>> {
        let request = CreateTaskRequest { all_nodes: true, filter: None, ..command(&[], &["true"], "") };
        let (begin, before) = (Instant::now(), self.meter.processor()?);
        let task = self.fleet.client().create_task(request).await?.into_inner().name;
        let committed = Instant::now();
        let mut acknowledged = HashSet::new();
        let mut spans = Vec::new();
        let all = async {
            while acknowledged.len() < hosts {
                let Ended { host, task: of, at } = self.ended.recv().await.context("all LSNs have ended")?;
                if task == of && acknowledged.insert(host) {
                    spans.push(at.saturating_duration_since(committed));
                }
            }
            anyhow::Ok(())
        };
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.with_context(|| format!("{} of {hosts} hosts were acknowledged", acknowledged.len()))??;
        let used = self.meter.processor()? - before;
        Ok(vec![
            Row::times(
                "one task for all hosts, until CreateTask answers",
                self.place.clone(),
                "-",
                &[committed - begin],
            ),
            Row::times("from then until each host's end is acknowledged", self.place.clone(), CHORIA, &spans),
            each("the same, both, for each host, master", &self.place, used, hosts),
        ])
    }
}

/// Follows the feed: each node that it shows as online, with the moment.
async fn watch(fleet: &Fleet) -> Result<mpsc::Receiver<(String, Instant)>> {
    let request = WatchEventsRequest { resume_token: String::new(), send_initial_state: true };
    let mut updates = fleet.client().watch_events(request).await?.into_inner();
    loop {
        let update = updates.message().await?.context("the feed ended")?;
        if matches!(update.update, Some(Update::InitialStateEnd(_))) {
            break;
        }
    }
    let (sender, seen) = mpsc::channel(1 << 20);
    tokio::spawn(async move {
        while let Ok(Some(update)) = updates.message().await {
            let Some(Update::Event(it)) = update.update else { continue };
            let Some(event::Body::NodeChanged(changed)) = it.body else { continue };
            if let Some(node) = changed.node.filter(|node| node.state() == NodeState::Online)
                && sender.send((node.name, Instant::now())).await.is_err()
            {
                break;
            }
        }
    });
    Ok(seen)
}
