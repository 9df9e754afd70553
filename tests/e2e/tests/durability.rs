//! Nothing is acknowledged, and nothing started, before it is on the disk: the system calls of the real programs, as
//! strace sees them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use muster_e2e::fleet::command;
use muster_e2e::{Agent, Master, Program};
use tokio::process::Command;

/// Acknowledged writes that are looked at, one after another.
const WRITES: usize = 5;

/// strace on one of our processes, until that ends.
struct Trace {
    strace: Program,
    log: PathBuf,
}

/// A system call: when it began and ended, in seconds, and its text.
#[derive(Debug)]
struct Call {
    began: f64,
    ended: f64,
    text: String,
}

impl Trace {
    async fn of(program: &Program, folder: &Path) -> Result<Self> {
        let log = folder.join("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-ttt", "-T", "-s", "200", "-e", "trace=fsync,fdatasync,execve", "-o"]);
        command.arg(&log).arg("-p").arg(program.pid()?.as_raw_nonzero().to_string());
        let strace = Program::start(command).context("tests/run installs strace")?;
        strace.says("attached").await?;
        Ok(Self { strace, log })
    }

    /// What was seen of the program, which has been ended: strace hangs now and then where it is to detach from threads.
    async fn calls(mut self) -> Result<Vec<Call>> {
        self.strace.ended().await?;
        let mut pending = HashMap::new();
        let text = std::fs::read_to_string(&self.log)?;
        Ok(text.lines().filter_map(|line| read(line, &mut pending)).collect())
    }
}

/// `PID STAMP call(...) = 0 <0.001>`, or its two halves where another thread's call lies between.
fn read(line: &str, pending: &mut HashMap<String, (f64, String)>) -> Option<Call> {
    let (process, rest) = line.split_once(' ')?;
    let (stamp, text) = rest.trim_start().split_once(' ')?;
    let stamp: f64 = stamp.parse().ok()?;
    if text.contains("<unfinished") {
        pending.insert(process.to_owned(), (stamp, text.to_owned()));
        return None;
    }
    if text.starts_with("<...") {
        let (began, text) = pending.remove(process)?;
        return Some(Call { began, ended: stamp, text });
    }
    let took: f64 = text.rsplit_once('<')?.1.trim_end_matches('>').parse().ok()?;
    Some(Call { began: stamp, ended: stamp + took, text: text.to_owned() })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}

/// Syncs of a file of that name that began and ended within the span.
fn syncs(calls: &[Call], file: &str, from: f64, until: f64) -> usize {
    let is_sync = |call: &&Call| call.text.starts_with("fsync(") || call.text.starts_with("fdatasync(");
    let within = |call: &&Call| call.began >= from && call.ended <= until && call.text.contains(file);
    calls.iter().filter(is_sync).filter(within).count()
}

#[tokio::test]
async fn each_created_task_is_synced_to_disk_before_it_is_acknowledged() -> Result<()> {
    let mut master = Master::up().await?;
    // A node that is away: nothing but the tasks themselves is written meanwhile.
    let mut agent = Agent::of(&master).await?;
    agent.stop().await?;
    agent.until_offline(&master).await?;
    let (name, fleet) = (agent.name()?, master.fleet()?);
    fleet.create(&command(&[&name], &["true"], "")).await?;
    let trace = Trace::of(master.program()?, master.folder()).await?;
    let mut spans = Vec::new();
    for _ in 0..WRITES {
        let asked = now();
        fleet.create(&command(&[&name], &["true"], "")).await?;
        spans.push((asked, now()));
    }
    master.stop().await?;
    let calls = trace.calls().await?;
    for (asked, answered) in spans {
        let count = syncs(&calls, "topology.db-wal", asked, answered);
        println!("a created task: {count} syncs of topology's log before its answer");
        ensure!(count >= 1, "a task was acknowledged and not synced: {calls:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn started_is_synced_to_disk_before_a_program_is_executed() -> Result<()> {
    let master = Master::up().await?;
    let mut agent = Agent::of(&master).await?;
    let (name, fleet) = (agent.name()?, master.fleet()?);
    let trace = Trace::of(agent.program()?, agent.folder()).await?;
    let mut asked = Vec::new();
    for number in 0..WRITES {
        asked.push(now());
        let task = fleet.create(&command(&[&name], &["true", &format!("deed-{number}")], "")).await?;
        fleet.until_ended(&task, &name).await?;
    }
    agent.stop().await?;
    let calls = trace.calls().await?;
    for (number, asked) in asked.into_iter().enumerate() {
        let mark = format!("\"deed-{number}\"");
        let executed =
            calls.iter().find(|call| call.text.starts_with("execve(") && call.text.contains(&mark));
        let executed = executed.with_context(|| format!("deed {number} was not executed: {calls:#?}"))?;
        let count = syncs(&calls, "journal.sqlite-wal", asked, executed.began);
        println!("a task: {count} syncs of the node's journal before its program");
        ensure!(count >= 1, "deed {number} was executed before STARTED was synced: {calls:#?}");
    }
    Ok(())
}
