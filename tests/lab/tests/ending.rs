//! A lab whose process is killed leaves nothing behind: no process, no namespace, no device, no file.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The kernel takes namespaces apart behind the scenes.
const PATIENCE: Duration = Duration::from_secs(20);

fn up() -> (Child, PathBuf) {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_muster-lab"))
        .args(["up", "--places", "2", "--agents", "2", "--bare"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(lab.stdout.take().unwrap());
    let line = stdout.lines().map_while(Result::ok).find(|line| line.starts_with("Files and logs: "));
    let directory = line.unwrap().split_whitespace().nth(3).unwrap().trim_end_matches('.').into();
    (lab, directory)
}

/// The process and all its descendants.
fn census(ancestor: u32) -> Vec<u32> {
    let children = |pid: u32| -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect()
    };
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
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
    let everybody = census(lab.id());
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
        let output = Command::new(env!("CARGO_BIN_EXE_muster-lab"))
            .arg("--lab")
            .arg(&directory)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["ps"]).lines().any(|line| line.starts_with("p2a2") && line.contains("192.168.1.12")));
    assert_eq!(run(&["enter", "p2a1", "--", "hostname"]).trim(), "p2a1");
    assert!(run(&["enter", "p2a1", "--", "ip", "-4", "address"]).contains("192.168.1.11/24"));
    lab.kill().unwrap();
    lab.wait().unwrap();
}
