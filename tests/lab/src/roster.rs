//! The list of a lab's machines, kept in its directory so that other terminals can look inside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stage::{DIRECTORY_PREFIX, PARENT_FILE};

const FILE: &str = "machines.json";

/// One machine as other terminals see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub place: String,
    pub addresses: Vec<IpAddr>,
    /// Its thread, as the lab's PID namespace numbers it.
    thread_id: i32,
}

/// All machines of a lab, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Roster {
    pub machines: BTreeMap<String, Entry>,
}

impl Roster {
    pub(crate) fn add(&mut self, machine: &Machine, place: &str, addresses: &[IpAddr]) {
        let entry =
            Entry { place: place.to_owned(), addresses: addresses.to_vec(), thread_id: machine.thread_id() };
        self.machines.insert(machine.name().to_owned(), entry);
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        Ok(std::fs::write(directory.join(FILE), serde_json::to_vec_pretty(self)?)?)
    }
}

/// A lab that runs elsewhere on this computer.
#[derive(Debug)]
pub struct RunningLab {
    /// The lab's process, as we see it.
    process: u32,
    pub directory: PathBuf,
    pub roster: Roster,
}

impl RunningLab {
    /// The lab that was started last, of those that still run and that we may look into.
    pub fn find() -> Result<Self> {
        let mut labs = Vec::new();
        for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
            let named = entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX);
            if let (true, Ok(lab)) = (named, Self::open(entry.path())) {
                labs.push((entry.metadata()?.modified()?, lab));
            }
        }
        labs.sort_by_key(|(started, _)| *started);
        let (_, lab) = labs.pop().context("no lab is running here: start one with `muster-lab up`")?;
        Ok(lab)
    }

    /// The lab with that directory.
    pub fn open(directory: PathBuf) -> Result<Self> {
        let parent = std::fs::read_to_string(directory.join(PARENT_FILE))?;
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let process = children.trim().parse().context("the lab has ended")?;
        let roster = serde_json::from_slice(&std::fs::read(directory.join(FILE))?)?;
        Ok(Self { process, directory, roster })
    }

    /// A command that runs on one of the lab's machines.
    pub fn enter(&self, machine: &str, command: &[String]) -> Result<Command> {
        let thread = self.thread(machine)?;
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("--preserve-credentials").arg(format!("--user=/proc/{}/ns/user", self.process));
        nsenter.arg(format!("--pid=/proc/{}/ns/pid", self.process));
        for (option, file) in [("net", "net"), ("mount", "mnt"), ("uts", "uts")] {
            nsenter.arg(format!("--{option}={}/ns/{file}", thread.display()));
        }
        nsenter.arg("--").args(command);
        Ok(nsenter)
    }

    /// The programs that run on a machine: process id as we see it, and command line.
    pub fn programs(&self, machine: &str) -> Result<Vec<(u32, String)>> {
        let namespace = std::fs::metadata(self.thread(machine)?.join("ns/net"))?.ino();
        let mut programs = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let inside =
                std::fs::metadata(entry.path().join("ns/net")).is_ok_and(|file| file.ino() == namespace);
            if inside {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                programs.push((process, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
            }
        }
        Ok(programs)
    }

    /// The machine's thread in our /proc.
    fn thread(&self, machine: &str) -> Result<PathBuf> {
        let entry =
            self.roster.machines.get(machine).with_context(|| format!("there is no machine {machine}"))?;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process))?.flatten() {
            let status = std::fs::read_to_string(task.path().join("status"))?;
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            if ids.split_whitespace().last() == Some(entry.thread_id.to_string().as_str()) {
                return Ok(task.path());
            }
        }
        bail!("the machine {machine} is off")
    }
}
