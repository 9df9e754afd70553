//! A lab whose process is killed leaves nothing behind: no process, no namespace, no device, no file.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LAB: &str = env!("CARGO_BIN_EXE_muster-lab");

/// The kernel takes namespaces apart behind the scenes.
const PATIENCE: Duration = Duration::from_secs(20);

fn up() -> (Child, PathBuf) {
    let arguments = ["up", "--places", "2", "--agents", "2", "--bare"];
    let started = Command::new(LAB).args(arguments).stdout(Stdio::piped()).spawn();
    let mut lab = started.expect("muster-lab starts");
    let stdout = BufReader::new(lab.stdout.take().expect("stdout is piped"));
    let said = stdout.lines().map_while(Result::ok).find_map(|line| {
        let (directory, _) = line.strip_prefix("Files and logs: ")?.split_once(". ")?;
        Some(PathBuf::from(directory))
    });
    (lab, said.expect("the lab says where its files are"))
}

/// The process and all its descendants.
fn family_of(ancestor: u32) -> Vec<u32> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", found[next])).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        found.extend(children.filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    found
}

fn await_true(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_lab_leaves_no_process_namespace_device_or_file() {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let interfaces = || std::fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let before = interfaces();
    let (mut lab, directory) = up();
    let everybody = family_of(lab.id());
    assert!(everybody.len() >= 4, "the lab, unshare, its copy and dnsmasq, not only {everybody:?}");
    lab.kill().unwrap();
    lab.wait().unwrap();
    for process in everybody {
        await_true(&format!("process {process} still runs"), || {
            !PathBuf::from(format!("/proc/{process}")).exists()
        });
    }
    await_true("the lab's directory is still there", || !directory.exists());
    assert_eq!(interfaces(), before, "devices were left in our own namespace");
    assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), own);
}

#[test]
fn another_terminal_sees_the_machines_and_enters_one() {
    let (mut lab, directory) = up();
    let run = |arguments: &[&str]| {
        let output = Command::new(LAB).arg("--lab").arg(&directory).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["ps"]).lines().any(|line| line.starts_with("p2a2") && line.contains("192.168.1.12")));
    assert_eq!(run(&["enter", "p2a1", "--", "hostname"]).trim(), "p2a1");
    assert!(run(&["enter", "p2a1", "--", "ip", "-4", "address"]).contains("192.168.1.11/24"));
    lab.kill().unwrap();
    lab.wait().unwrap();
}
