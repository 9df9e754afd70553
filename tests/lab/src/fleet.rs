//! The real programs in the lab: a master in the data centre, an enrolled agent on every host, and the truth about
//! them, which the master's picture has to equal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use nix::sys::signal::Signal;

use crate::dns::MASTER_PORT;
use crate::lab::Lab;
use crate::picture::{NodeView, Observer, Picture};
use crate::plan::{DOMAIN, Family, MASTER, PlaceNumber, Translation};
use crate::program::{Binaries, Program};

/// The master is ready, or it is not coming.
const MASTER_LIMIT: Duration = Duration::from_secs(20);

/// How often a starting master is asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Agents that enroll at the same time.
const ENROLLING_AT_ONCE: usize = 6;

/// What a host gives as a relay where it is to give much, in bytes a second.
const DONATED: u64 = 1_000_000;

/// A lab with the programs in it.
#[derive(Debug)]
pub struct Fleet {
    observer: Observer,
    agents: BTreeMap<String, Program>,
    master: Program,
    binaries: Binaries,
    lab: Lab,
}

impl Fleet {
    /// Starts the master, enrolls every host by a link of its own, and starts the agents.
    pub async fn start(lab: Lab) -> Result<Self> {
        Self::start_with(lab, &[]).await
    }

    /// The same with further options of `muster up`.
    pub async fn start_with(lab: Lab, options: &[&str]) -> Result<Self> {
        let binaries = Binaries::find()?;
        let address = format!("{}:{MASTER_PORT}", master_name(&lab));
        let usual = ["up", "--no-agent", "--address", &address, "--discovery-domain", DOMAIN];
        let arguments = [&usual[..], options].concat();
        let master = Program::start(lab.master(), binaries.muster.clone(), &arguments).await?;
        await_master(&lab, &binaries, &master).await?;
        let observer = Observer::start(lab.master(), &binaries).await?;
        let mut agents = BTreeMap::new();
        let names: Vec<String> = lab.hosts().map(|host| host.name().to_owned()).collect();
        for some in names.chunks(ENROLLING_AT_ONCE) {
            let enrolled = some.iter().map(|name| enroll(&lab, &binaries, name));
            agents.extend(some.iter().cloned().zip(try_join_all(enrolled).await?));
        }
        Ok(Self { observer, agents, master, binaries, lab })
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    pub fn master(&self) -> &Program {
        &self.master
    }

    pub fn agent(&self, host: &str) -> Result<&Program> {
        self.agents.get(host).with_context(|| format!("there is no agent on {host}"))
    }

    /// Starts the agent of a host again.
    pub async fn start_agent(&self, host: &str) -> Result<()> {
        self.agent(host)?.start_again(self.lab.host(host)?.machine()).await
    }

    /// Starts the master again, and waits until it answers.
    pub async fn start_master(&self) -> Result<()> {
        self.master.start_again(self.lab.master()).await?;
        await_master(&self.lab, &self.binaries, &self.master).await
    }

    /// Runs the operator's command line on the master's host.
    pub async fn muster(&self, arguments: &[&str]) -> Result<String> {
        self.lab.master().exec(&self.binaries.muster, arguments).await
    }

    /// Runs the agent's command line on a host.
    pub async fn agent_says(&self, host: &str, arguments: &[&str]) -> Result<String> {
        self.lab.host(host)?.machine().exec(&self.binaries.agent, arguments).await
    }

    /// The hosts that have a running agent, by place.
    pub async fn truth(&self) -> BTreeMap<PlaceNumber, Vec<String>> {
        let mut truth: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for host in self.lab.hosts() {
            let running = match self.agents.get(host.name()) {
                Some(agent) => agent.is_running().await,
                None => false,
            };
            if running {
                truth.entry(host.attachment().place).or_default().push(host.name().to_owned());
            }
        }
        truth
    }

    /// Waits until the master's picture equals the truth: each place one cell with one LSN and its children, nobody
    /// else online. Returns when it became so.
    pub async fn until_whole(&self, limit: Duration) -> Result<Instant> {
        let truth = self.truth().await;
        self.observer.until(limit, |picture| equals(picture, &truth)).await
    }

    /// Waits until those who live are gathered, whatever the picture still says of the dead.
    pub async fn until_gathered(&self, limit: Duration) -> Result<Instant> {
        let truth = self.truth().await;
        self.observer.until(limit, |picture| is_gathered(picture, &truth)).await
    }

    /// The LSN of a place, as the master sees it.
    pub fn lsn_of(&self, place: usize) -> Result<String> {
        let picture = self.observer.now();
        let mut names = self.lab.hosts_in(place).map(crate::Host::name);
        let lsn = names.find(|name| picture.nodes.get(*name).is_some_and(NodeView::is_lsn));
        lsn.map(str::to_owned).with_context(|| format!("place {place} has no LSN\n{}", picture.describe()))
    }

    /// Kills what runs in no particular order; for tests that do not want to wait for announcements.
    pub async fn kill_all(&self) -> Result<()> {
        for agent in self.agents.values() {
            if agent.is_running().await {
                agent.end(Signal::SIGKILL).await?;
            }
        }
        self.master.kill().await
    }
}

/// Complains where the picture is not the truth.
pub fn equals(picture: &Picture, truth: &BTreeMap<PlaceNumber, Vec<String>>) -> Result<()> {
    is_gathered(picture, truth)?;
    let living: Vec<_> = truth.values().flatten().collect();
    let ghost = picture.nodes.values().find(|node| node.is_online() && !living.contains(&&node.host_name));
    ensure!(ghost.is_none(), "{} is said to be online", ghost.map_or("", |node| &node.host_name));
    Ok(())
}

/// Complains where those who live are not one cell a place, with one LSN and its children.
pub fn is_gathered(picture: &Picture, truth: &BTreeMap<PlaceNumber, Vec<String>>) -> Result<()> {
    let mut cells = BTreeMap::new();
    for (place, hosts) in truth {
        let views: Vec<_> = hosts.iter().map(|host| view(picture, host)).collect::<Result<_>>()?;
        let lsns: Vec<_> = views.iter().filter(|view| view.is_lsn()).collect();
        let [lsn] = lsns[..] else {
            bail!("place {} has {} LSNs", place.0, lsns.len());
        };
        let stray = views.iter().find(|view| view.name != lsn.name && !view.is_child_of(lsn));
        if let Some(stray) = stray {
            bail!(
                "{} is {} {} and not a child of {}",
                stray.host_name,
                stray.state,
                stray.role,
                lsn.host_name
            );
        }
        if let Some(other) = cells.insert(lsn.cell.clone(), place.0) {
            bail!("places {other} and {} are one cell", place.0);
        }
    }
    Ok(())
}

fn view<'a>(picture: &'a Picture, host: &str) -> Result<&'a NodeView> {
    picture.nodes.get(host).with_context(|| format!("the master does not know {host}"))
}

/// The master's name as it stands in links: an address, unless no single one is good for all places.
fn master_name(lab: &Lab) -> String {
    let speaks = |family: Family| lab.places().iter().all(|place| place.plan().family == family);
    match (speaks(Family::V4), speaks(Family::V6)) {
        (true, _) => MASTER.v4().to_string(),
        (_, true) => format!("[{}]", MASTER.v6()),
        _ => format!("{}.{DOMAIN}", MASTER.name),
    }
}

async fn await_master(lab: &Lab, binaries: &Binaries, master: &Program) -> Result<()> {
    let started = Instant::now();
    loop {
        let Err(error) = lab.master().exec(&binaries.muster, &["nodes", "--output", "json"]).await else {
            return Ok(());
        };
        if !master.is_running().await || started.elapsed() > MASTER_LIMIT {
            bail!("the master does not answer: {error:#}\nits log ends\n{}", master.last_words());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn enroll(lab: &Lab, binaries: &Binaries, host: &str) -> Result<Program> {
    let link = lab.master().exec(&binaries.muster, &["link", "create"]).await?;
    let machine = lab.host(host)?.machine();
    machine.exec(&binaries.agent, &["enroll", "--no-service", link.trim()]).await?;
    let settings = settings(lab, host)?;
    let settings = settings.as_ref().and_then(|file| file.to_str());
    let run: Vec<_> = settings.into_iter().flat_map(|file| ["--config", file]).chain(["run"]).collect();
    Program::start(machine, binaries.agent.clone(), &run).await
}

/// The agent's settings, where its place's plan wants any.
fn settings(lab: &Lab, host: &str) -> Result<Option<PathBuf>> {
    let host = lab.host(host)?;
    let place = lab.place(host.attachment().place.0)?;
    if !place.plan().super_node {
        return Ok(None);
    }
    let own = host.attachment().v4().filter(|_| place.plan().translation == Translation::None);
    let address = own.unwrap_or_else(|| place.number().public());
    let file = host.machine().home().join("agent.toml");
    let text = format!("[super_node]\naddresses = [\"{address}\"]\nrelaying_bytes_per_second = {DONATED}\n");
    std::fs::write(&file, text)?;
    Ok(Some(file))
}
