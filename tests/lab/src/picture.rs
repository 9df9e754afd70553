//! The master's picture of its network, live: `muster watch` runs on the master, and each of its lines is dated when
//! it comes in, by the same clock that dates what the lab does.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::machine::Machine;
use crate::program::Binaries;

/// One node as the master sees it (schema muster.v1).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    pub name: String,
    pub host_name: String,
    pub state: String,
    pub role: String,
    pub lsn: String,
    pub cell: String,
    pub place: String,
    pub route: Vec<String>,
    pub addresses: Vec<String>,
    pub path: String,
}

impl NodeView {
    pub fn is_online(&self) -> bool {
        self.state == "online"
    }

    pub fn is_lsn(&self) -> bool {
        self.is_online() && self.role == "lsn"
    }

    pub fn is_child_of(&self, lsn: &Self) -> bool {
        self.is_online() && self.role == "child" && self.lsn == lsn.name && self.cell == lsn.cell
    }
}

/// All nodes by host name, and when the picture last changed.
#[derive(Debug, Clone)]
pub struct Picture {
    pub nodes: BTreeMap<String, NodeView>,
    pub changed: Instant,
}

impl Picture {
    fn on_line(&mut self, line: &str) -> Result<()> {
        let document: Value =
            serde_json::from_str(line).with_context(|| format!("muster watch wrote {line}"))?;
        let change = &document["event"]["body"]["nodeChanged"];
        let node = if document["kind"] == "InitialNode" { &document["node"] } else { &change["node"] };
        if node.is_null() {
            return Ok(());
        }
        let node = NodeView::deserialize(node)?;
        self.changed = Instant::now();
        match change["deleted"].as_bool() {
            Some(true) => self.nodes.remove(&node.host_name),
            _ => self.nodes.insert(node.host_name.clone(), node),
        };
        Ok(())
    }

    /// The picture, one line a node, for messages.
    pub fn describe(&self) -> String {
        let line = |node: &NodeView| {
            let NodeView { host_name, state, role, lsn, cell, .. } = node;
            format!("{host_name:<8} {state:<12} {role:<7} lsn {:.14} cell {:.14}\n", lsn, cell)
        };
        self.nodes.values().map(line).collect()
    }
}

/// Keeps the picture. Dropping it ends it.
#[derive(Debug)]
pub struct Observer {
    picture: watch::Receiver<Picture>,
    reader: JoinHandle<()>,
    _watch: Child,
}

impl Observer {
    pub async fn start(master: &Machine, binaries: &Binaries) -> Result<Self> {
        let mut command = Command::new(&binaries.muster);
        command.args(["watch", "--all", "--output", "json"]);
        let log = std::fs::File::create(master.home().join("watch.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut watch = master.spawn(command).await?;
        let mut lines = BufReader::new(watch.stdout.take().context("stdout is piped")?).lines();
        let (sender, picture) = watch::channel(Picture { nodes: BTreeMap::new(), changed: Instant::now() });
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|picture| {
                    if let Err(error) = picture.on_line(&line) {
                        eprintln!("{error:#}");
                    }
                });
            }
        });
        Ok(Self { picture, reader, _watch: watch })
    }

    pub fn now(&self) -> Picture {
        self.picture.borrow().clone()
    }

    /// Waits until the picture is as wanted; `wanted` says what is not. Returns when it became so.
    pub async fn until(&self, limit: Duration, wanted: impl Fn(&Picture) -> Result<()>) -> Result<Instant> {
        let mut picture = self.picture.clone();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let (verdict, changed) = {
                let seen = picture.borrow_and_update();
                (wanted(&seen), seen.changed)
            };
            let Err(complaint) = verdict else {
                return Ok(changed);
            };
            match tokio::time::timeout_at(deadline, picture.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => bail!("muster watch has ended; {complaint:#}"),
                Err(_) => {
                    let seen = self.now().describe();
                    return Err(complaint.context(format!("not within {limit:.1?}; the master sees\n{seen}")));
                }
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_follows_first_nodes_changes_and_deletions() {
        let node = |state: &str| {
            serde_json::json!({
                "name": "nodes/aa", "hostName": "p1a1", "state": state, "role": "lsn", "lsn": "nodes/aa",
                "cell": "cells/1", "place": "x", "route": [], "addresses": [], "path": "udp", "labels": {},
            })
        };
        let change = |state: &str, deleted: bool| {
            let body = serde_json::json!({"nodeChanged": {"node": node(state), "deleted": deleted}});
            serde_json::json!({"kind": "Event", "event": {"body": body}}).to_string()
        };
        let mut picture = Picture { nodes: BTreeMap::new(), changed: Instant::now() };
        picture
            .on_line(&serde_json::json!({"kind": "InitialNode", "node": node("offline")}).to_string())
            .unwrap();
        picture.on_line(&serde_json::json!({"kind": "InitialStateEnd", "node": null}).to_string()).unwrap();
        assert!(!picture.nodes["p1a1"].is_online());
        picture.on_line(&change("online", false)).unwrap();
        assert!(picture.nodes["p1a1"].is_lsn());
        picture.on_line(&change("offline", true)).unwrap();
        assert!(picture.nodes.is_empty());
    }
}
