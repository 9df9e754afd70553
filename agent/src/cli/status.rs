//! `muster-agent status`: the driver's own account, for people or programs.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use muster_proto::agent::v1::{GetStatusRequest, GetStatusResponse};
use muster_proto::control::v1::{ClassUsage, DisconnectionReport};
use muster_wire::time::{from_wire, span_from_wire};
use serde_json::{Value, json};

use super::{NOT_HERE, Output, runtime};
use crate::config::Config;
use crate::identity::StateDir;
use crate::local;

/// Version of the JSON's form; it changes when a field does, not when one is added.
const SCHEMA: &str = "muster.agent.status/v1";

/// Disconnections shown without --all.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Show every disconnection that is remembered, not only the last ten
    #[arg(long)]
    all: bool,
}

impl Status {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let state = StateDir::new(config.state_dir()?);
        // Without the right to look into the folder, the socket's error says more.
        if !state.is_enrolled() && std::fs::read_dir(state.path()).is_ok() | !state.path().exists() {
            eprintln!(
                "muster-agent: this device is not enrolled.\nEnroll it with `muster-agent enroll LINK`."
            );
            return Ok(ExitCode::from(NOT_HERE));
        }
        let socket = config.socket()?;
        let answer = runtime()?.block_on(async {
            let mut agent = local::connect(&socket).await?;
            anyhow::Ok(agent.get_status(GetStatusRequest {}).await?.into_inner())
        });
        match answer {
            Ok(status) => {
                self.print(&status)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) if error.is::<local::LocalError>() => {
                eprintln!("muster-agent: {error}");
                Ok(ExitCode::from(NOT_HERE))
            }
            Err(error) => Err(error),
        }
    }

    fn print(&self, status: &GetStatusResponse) -> anyhow::Result<()> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(status))?),
            Output::Text => print!("{}", as_text(status, if self.all { usize::MAX } else { SHOWN })),
        }
        Ok(())
    }
}

fn as_text(status: &GetStatusResponse, shown: usize) -> String {
    let mut lines = vec![
        ("node", format!("{} ({})", status.node, status.host_name)),
        ("version", status.version.clone()),
        ("state", format!("{} since {}", status.state, date(status.since_time))),
        ("master", format!("{} ({})", status.master, status.master_address)),
    ];
    if !status.lsn.is_empty() {
        lines.push(("lsn", format!("{}, epoch {}, by {}", status.lsn, status.epoch, status.path)));
    }
    let lists = [
        ("deputies", &status.deputies),
        ("neighbors", &status.neighbors),
        ("children", &status.children),
        ("subnet keys", &status.subnet_keys),
    ];
    lines.extend(
        lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, list.join(", "))),
    );
    lines.push(("certificate", format!("until {}", date(status.certificate_expire_time))));
    lines.push(("clock", format!("{} s from the master's", seconds(status.clock_offset))));
    lines.push((
        "tasks",
        format!("{} running; kept together by {}", status.running_tasks, status.containment),
    ));
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect();
    text.push_str(&disconnections(&status.disconnections, shown));
    text
}

fn disconnections(reports: &[DisconnectionReport], shown: usize) -> String {
    if reports.is_empty() {
        return "disconnections: none remembered\n".to_owned();
    }
    let mut text = format!("disconnections, newest first ({} remembered):\n", reports.len());
    for report in reports.iter().take(shown) {
        let lasted = report.duration.and_then(span_from_wire).unwrap_or_default();
        let lasted = humantime::format_duration(Duration::from_millis(lasted.as_millis() as u64));
        text.push_str(&format!(
            "  {}  {lasted:<12}  {}{}\n",
            date(report.begin_time),
            reason(report),
            detail(&report.detail)
        ));
    }
    text
}

fn detail(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

fn reason(report: &DisconnectionReport) -> String {
    report.reason().as_str_name().trim_start_matches("DISCONNECTION_REASON_").to_lowercase()
}

pub(super) fn date(wire: Option<prost_types::Timestamp>) -> String {
    let micros =
        wire.and_then(from_wire).map(|date| date.as_micros()).and_then(|micros| u64::try_from(micros).ok());
    micros.map_or_else(
        || "never".to_owned(),
        |micros| {
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_micros(micros))
                .to_string()
        },
    )
}

fn seconds(offset: Option<prost_types::Duration>) -> String {
    let offset = offset.unwrap_or_default();
    format!("{:+.3}", offset.seconds as f64 + f64::from(offset.nanos) / 1e9)
}

fn as_json(status: &GetStatusResponse) -> Value {
    json!({
        "schema": SCHEMA,
        "node": status.node,
        "hostName": status.host_name,
        "version": status.version,
        "state": status.state,
        "since": date(status.since_time),
        "lsn": status.lsn,
        "epoch": status.epoch,
        "path": status.path,
        "master": status.master,
        "masterAddress": status.master_address,
        "subnetKeys": status.subnet_keys,
        "deputies": status.deputies,
        "neighbors": status.neighbors,
        "children": status.children,
        "certificateExpires": date(status.certificate_expire_time),
        "clockOffsetSeconds": seconds(status.clock_offset).parse::<f64>().unwrap_or_default(),
        "runningTasks": status.running_tasks,
        "containment": status.containment,
        "disconnections": status.disconnections.iter().map(disconnection_json).collect::<Vec<_>>(),
        "usage": status.usage.iter().map(usage_json).collect::<Vec<_>>(),
    })
}

fn disconnection_json(report: &DisconnectionReport) -> Value {
    json!({
        "begin": date(report.begin_time),
        "seconds": report.duration.and_then(span_from_wire).unwrap_or_default().as_secs_f64(),
        "reason": reason(report),
        "detail": report.detail,
    })
}

fn usage_json(usage: &ClassUsage) -> Value {
    json!({
        "class": usage.class().as_str_name().trim_start_matches("TRAFFIC_CLASS_").to_lowercase(),
        "type": usage.message_type,
        "sentBytes": usage.sent_bytes,
        "receivedBytes": usage.received_bytes,
        "sentMessages": usage.sent_messages,
        "receivedMessages": usage.received_messages,
    })
}
