//! Three replicas with their database and their bus, hosts that belong to them, and work that never stops.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use muster_e2e::fleet::{Fleet, command};
use muster_e2e::{Agent, Master};
use muster_kit::testing::nats::Nats;
use muster_kit::testing::postgres::Postgres;
use muster_proto::fleet::v1::watch_events_response::Update;
use muster_proto::fleet::v1::{WatchEventsRequest, event};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cable::Cable;

pub(crate) const HOSTS: usize = 3;

const REPLICAS: usize = 3;

/// The longest that work may stand still, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two tries of whatever a dying master did not answer.
const AGAIN: Duration = Duration::from_millis(50);

/// The link in the scene's folder by which every replica finds the store: what an address is that moves.
const ADDRESS: &str = "store";

pub(crate) struct Replicas {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) all: Vec<Master>,
    /// Between the first replica and the store, and the bus.
    cables: Option<(Cable, Cable, String)>,
    folder: tempfile::TempDir,
}

impl Replicas {
    pub(crate) async fn start() -> Result<Self> {
        Self::prepare()?.begun().await
    }

    /// The first replica reaches store and bus by ways that can be cut.
    pub(crate) async fn start_with_cables() -> Result<Self> {
        let mut replicas = Self::prepare()?;
        std::fs::create_dir(replicas.cabled())?;
        let store = Cable::to_store(&replicas.cabled(), &replicas.folder.path().join(ADDRESS))?;
        let server = replicas.nats.url().trim_start_matches("nats://").to_owned();
        let (bus, address) = Cable::to_bus(server).await?;
        replicas.cables = Some((store, bus, format!("nats://{address}")));
        replicas.begun().await
    }

    fn prepare() -> Result<Self> {
        let (postgres, nats) = (Postgres::start()?, Nats::start()?);
        // Short, and in /tmp: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("mre").tempdir_in("/tmp")?;
        let all = (0..REPLICAS).map(|_| Master::nowhere()).collect::<Result<Vec<_>>>()?;
        let replicas = Self { postgres, nats, all, cables: None, folder };
        replicas.move_address(&replicas.primary())?;
        Ok(replicas)
    }

    async fn begun(mut self) -> Result<Self> {
        self.found().await?;
        for at in 0..REPLICAS {
            self.restart(at).await?;
        }
        Ok(self)
    }

    /// Where the first server's socket is.
    pub(crate) fn primary(&self) -> PathBuf {
        let url = self.postgres.url();
        let host = url.split(['@', '/']).find(|part| part.starts_with("%2F")).unwrap_or_default();
        PathBuf::from(host.replace("%2F", "/"))
    }

    /// Leads everybody to the server with its socket there.
    pub(crate) fn move_address(&self, server: &Path) -> Result<()> {
        let new = self.folder.path().join("new");
        std::os::unix::fs::symlink(server, &new)?;
        Ok(std::fs::rename(new, self.folder.path().join(ADDRESS))?)
    }

    fn cabled(&self) -> PathBuf {
        self.folder.path().join("cabled")
    }

    /// The first replica's ways to the store and to the bus.
    pub(crate) fn cables(&self) -> Result<(&Cable, &Cable)> {
        let (store, bus, _) = self.cables.as_ref().context("there are no cables")?;
        Ok((store, bus))
    }

    pub(crate) fn environment(&self, at: usize) -> Vec<(String, String)> {
        let (store, bus) = match &self.cables {
            Some((_, _, bus)) if at == 0 => (self.cabled(), bus.clone()),
            _ => (self.folder.path().join(ADDRESS), self.nats.url()),
        };
        let store = store.display().to_string().replace('/', "%2F");
        [
            ("MUSTER_DATABASE_URL", format!("postgres://postgres@{store}/postgres")),
            ("MUSTER_NATS_URL", bus),
            ("MUSTER_SECRET_FILE", self.folder.path().join("secret").display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn addresses(&self) -> Vec<String> {
        self.all.iter().map(Master::address).collect()
    }

    /// As a chart's job does before any replica starts.
    async fn found(&self) -> Result<()> {
        let environment = self.environment(0);
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let first = &self.all[0];
        first.muster_with(&environment, &["init", "--address", &first.address()]).await?.expect(0)?;
        Ok(())
    }

    pub(crate) async fn restart(&mut self, at: usize) -> Result<()> {
        let own = self.all[at].address();
        let elsewhere: Vec<_> = self.addresses().into_iter().filter(|address| *address != own).collect();
        let environment = self.environment(at);
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.all[at].serve_beside(&elsewhere, &environment).await
    }

    /// Hosts that joined through each replica in turn.
    pub(crate) async fn agents(&self) -> Result<Vec<Agent>> {
        let mut agents = Vec::new();
        for at in 0..HOSTS {
            agents.push(Agent::of(&self.all[at % REPLICAS]).await?);
        }
        Ok(agents)
    }

    /// The Fleet API of whichever replica answers.
    pub(crate) fn fleet(&self) -> Result<Fleet> {
        self.all[0].fleet_of(&self.addresses())
    }
}

/// Tasks on all hosts, one after another, each leaving one line in a file of each host.
pub(crate) struct Load {
    work: JoinHandle<Result<Vec<String>>>,
    ended: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
}

fn effects(agent: &Agent) -> PathBuf {
    agent.folder().join("effects")
}

impl Load {
    pub(crate) fn begin(fleet: Fleet, agents: &[Agent]) -> Result<Self> {
        let names = agents.iter().map(Agent::name).collect::<Result<Vec<_>>>()?;
        // The agent gives tasks a folder inside its own: the script finds the file beside it on every host.
        let (progress, ended) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let work = tokio::spawn(async move {
            let mut tasks = Vec::new();
            let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
            while !*stopped.borrow() {
                let id = super::fresh();
                let script = format!("echo {id} >> \"$(dirname \"$TMPDIR\")/../effects\"");
                let request = command(&nodes, &["/bin/sh", "-c", &script], &id);
                let Ok(task) = fleet.create(&request).await else { continue };
                tasks.push(task.clone());
                while !fleet.task(&task).await.is_ok_and(|task| task.done) {
                    tokio::time::sleep(AGAIN).await;
                }
                progress.send_modify(|count| *count += 1);
            }
            Ok(tasks)
        });
        Ok(Self { work, ended, stop })
    }

    /// Waits for a task that is created from now on to have ended on all hosts.
    pub(crate) async fn goes_on(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        // The one in flight may have been created before.
        let goal = *ended.borrow() + 2;
        let gone_on = tokio::time::timeout(PATIENCE, ended.wait_for(|count| *count >= goal)).await;
        gone_on.context("work stands still")?.context("work has ended")?;
        Ok(())
    }

    /// The tasks that a master acknowledged.
    pub(crate) async fn end(self) -> Result<Vec<String>> {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.work).await.context("the last task does not end")??
    }
}

/// Every acknowledged task has succeeded on every host, once, and the watch has told its end.
pub(crate) async fn nothing_is_lost_or_doubled(
    fleet: &Fleet,
    agents: &[Agent],
    watch: Watch,
    tasks: &[String],
) -> Result<()> {
    for task in tasks {
        let done = fleet.task(task).await?;
        ensure!(done.done, "{task} was acknowledged and is not done");
        for target in fleet.targets(task).await? {
            ensure!(target.state().as_str_name() == "TASK_STATE_SUCCEEDED", "{task}: {target:?}");
        }
    }
    for agent in agents {
        effects_are_one_each(agent, tasks.len())?;
    }
    watch.saw_the_end_of(tasks).await
}

/// Each task left its one line.
fn effects_are_one_each(agent: &Agent, tasks: usize) -> Result<()> {
    let text = std::fs::read_to_string(effects(agent)).context("no effects")?;
    let lines: Vec<_> = text.lines().collect();
    let different: BTreeSet<_> = lines.iter().collect();
    ensure!(
        different.len() == lines.len(),
        "an effect happened twice: {} of {}",
        different.len(),
        lines.len()
    );
    ensure!(lines.len() >= tasks, "{} effects of {tasks} acknowledged tasks", lines.len());
    Ok(())
}

/// A CMDB that follows the feed and resumes wherever it broke off.
pub(crate) struct Watch {
    done: Arc<Mutex<BTreeSet<String>>>,
    work: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn begin(fleet: Fleet) -> Self {
        let done = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = done.clone();
        let work = tokio::spawn(async move {
            let mut token = String::new();
            loop {
                // A token that broke off before its first message begins with the initial state, which ends in one.
                let request =
                    WatchEventsRequest { resume_token: token.clone(), send_initial_state: token.is_empty() };
                if let Err(error) = follow(&fleet, request, &mut token, &seen).await {
                    eprintln!("the watch resumes: {error}");
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { done, work }
    }

    async fn saw_the_end_of(self, tasks: &[String]) -> Result<()> {
        let missing = || {
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.iter().filter(|task| !done.contains(*task)).cloned().collect::<Vec<_>>()
        };
        let complete = async {
            while !missing().is_empty() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, complete).await;
        self.work.abort();
        if ended.is_err() {
            bail!("the watch did not tell the end of {:?}", missing());
        }
        Ok(())
    }
}

async fn follow(
    fleet: &Fleet,
    request: WatchEventsRequest,
    token: &mut String,
    done: &Mutex<BTreeSet<String>>,
) -> Result<()> {
    let mut updates = fleet.client().watch_events(request).await?.into_inner();
    while let Some(update) = updates.message().await? {
        if !update.resume_token.is_empty() {
            token.clone_from(&update.resume_token);
        }
        if let Some(Update::Event(it)) = update.update
            && let Some(event::Body::TaskChanged(changed)) = it.body
            && let Some(task) = changed.task.filter(|task| task.done)
        {
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(task.name);
        }
    }
    Ok(())
}
