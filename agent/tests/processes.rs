//! Programs of tasks against the real system: who they run as, and that nothing of them stays.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use muster_agent::platform::processes::launcher::ARGUMENT;
use muster_agent::platform::processes::{LauncherCommand, Processes, Program, Running};
use muster_agent::platform::users;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const SOON: Duration = Duration::from_secs(20);

fn launcher() -> LauncherCommand {
    LauncherCommand { program: env!("CARGO_BIN_EXE_muster-agent").into(), argument: ARGUMENT.into() }
}

/// Every way of keeping processes together that this host offers.
fn kinds(test: &str) -> Vec<Processes> {
    let owner = format!("test-{test}-{}", std::process::id());
    vec![Processes::detect(&owner, launcher()), Processes::without_cgroups(launcher())]
}

fn shell(script: &str) -> Program {
    Program {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        directory: "/".into(),
        user: None,
    }
}

async fn output(mut running: Running) -> String {
    let mut text = String::new();
    running.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    running.wait().await.unwrap();
    running.finish().await;
    text
}

fn name(test: &str) -> String {
    format!("{test}-{}", rand_name())
}

fn rand_name() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos()
}

fn is_alive(pid: &str) -> bool {
    // A zombie is dead; only nobody has looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until_dead(pid: &str) {
    let gone = async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap_or_else(|_| panic!("process {pid} lives on"));
}

#[tokio::test]
async fn a_program_gets_the_environment_it_was_given_no_other_and_no_stdin() {
    for processes in kinds("env") {
        let mut program = shell("env | cut -d= -f1 | sort | tr '\\n' ' '; cat; echo end");
        program.environment.push(("WORD".to_owned(), "a b".to_owned()));
        let running = processes.spawn(&name("env"), &program).await.unwrap();
        assert_eq!(output(running).await, "MUSTER_TASK PATH PWD WORD end\n", "{}", processes.describe());
    }
}

#[tokio::test]
async fn what_cannot_be_executed_is_said_with_the_systems_reason() {
    for processes in kinds("missing") {
        let program = Program { argv: vec!["no-such-program".to_owned()], ..shell("") };
        let error = processes.spawn(&name("missing"), &program).await.unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("No such file"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("no-program");
        std::fs::write(&file, "").unwrap();
        let program = Program { argv: vec![file.to_str().unwrap().to_owned()], ..shell("") };
        let error = processes.spawn(&name("denied"), &program).await.unwrap_err().to_string();
        assert!(error.contains("Permission denied"), "{error}");
    }
}

#[tokio::test]
async fn a_kill_reaches_the_whole_tree_also_who_left_the_session() {
    for processes in kinds("tree") {
        // A grandchild in a session of its own, whose parent is gone: what a daemon does.
        let script = "setsid sh -c 'echo $$; exec sleep 600' & sh -c 'echo $$; exec sleep 600' & wait";
        let mut running = processes.spawn(&name("tree"), &shell(script)).await.unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let pids = [lines.next_line().await.unwrap().unwrap(), lines.next_line().await.unwrap().unwrap()];
        assert!(pids.iter().all(|pid| is_alive(pid)));
        running.kill();
        tokio::time::timeout(SOON, running.wait()).await.unwrap().unwrap();
        for pid in &pids {
            until_dead(pid).await;
        }
        running.finish().await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    for processes in kinds("left") {
        let script = "setsid sleep 600 >/dev/null 2>&1 & echo $!";
        let mut running = processes.spawn(&name("left"), &shell(script)).await.unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let pid = lines.next_line().await.unwrap().unwrap();
        running.wait().await.unwrap();
        running.finish().await;
        until_dead(&pid).await;
    }
}

#[tokio::test]
async fn a_program_runs_as_the_user_it_is_told_to() {
    if !users::is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let nobody = users::find("nobody").unwrap();
    for processes in kinds("user") {
        let program = Program { user: Some(nobody.clone()), ..shell("id -u; id -g; id -G") };
        let running = processes.spawn(&name("user"), &program).await.unwrap();
        let expected = format!("{}\n{}\n{}\n", nobody.uid, nobody.gid, nobody.gid);
        assert_eq!(output(running).await, expected);
    }
}

#[tokio::test]
async fn a_new_life_of_the_agent_kills_what_the_last_one_left_in_its_cgroups() {
    let owner = format!("test-relife-{}", std::process::id());
    let first = Processes::detect(&owner, launcher());
    if !first.describe().starts_with("cgroup") {
        eprintln!("skipped: {}", first.describe());
        return;
    }
    let running = first.spawn("orphan", &shell("echo $$; exec sleep 600")).await.unwrap();
    let mut running = running;
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let pid = lines.next_line().await.unwrap().unwrap();
    let _second = Processes::detect(&owner, launcher());
    until_dead(&pid).await;
    running.finish().await;
}

#[test]
fn a_program_outlives_the_threads_that_end_for_want_of_work() {
    let idle = Duration::from_millis(100);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(idle).build();
    runtime.unwrap().block_on(async {
        for processes in kinds("long") {
            // The first has the next launcher prepared, which runs the second while no other thread has anything to do.
            let first = processes.spawn(&name("first"), &shell("echo done")).await.unwrap();
            assert_eq!(output(first).await, "done\n");
            tokio::time::sleep(idle / 4).await;
            let second = processes.spawn(&name("second"), &shell("sleep 0.5; echo done")).await.unwrap();
            assert_eq!(output(second).await, "done\n", "{}", processes.describe());
        }
    });
}

#[test]
fn the_launcher_does_nothing_when_nobody_orders() {
    let status = std::process::Command::new(Path::new(env!("CARGO_BIN_EXE_muster-agent")))
        .arg(ARGUMENT)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(127));
}
