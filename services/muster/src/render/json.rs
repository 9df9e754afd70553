//! JSON of the schema `muster.v1`: one object a document or, of streams, a line; `schema` and `kind` say what it is.
//!
//! Fields may be added within v1; none is renamed, removed or changes its meaning. Times are RFC 3339, spans seconds.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use data_encoding::BASE64;
use muster_proto::auth::v1::Link;
use muster_proto::fleet::v1 as fleet;
use muster_proto::task::v1 as task;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::words;

/// Of every document.
pub const SCHEMA: &str = "muster.v1";

/// Writes one document as one line. Who closed stdout wants no more, and no error either.
pub fn print<const N: usize>(kind: &str, fields: [(&str, Value); N]) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{}", document(kind, fields)).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

fn document<const N: usize>(kind: &str, fields: [(&str, Value); N]) -> Value {
    let mut document = Map::new();
    document.insert("schema".to_owned(), SCHEMA.into());
    document.insert("kind".to_owned(), kind.into());
    document.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Value::Object(document)
}

pub fn time(at: Option<prost_types::Timestamp>) -> Value {
    let nanos = at.map(|at| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos));
    nanos
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .map_or(Value::Null, Value::from)
}

pub fn seconds(span: Option<prost_types::Duration>) -> Value {
    span.and_then(|span| Duration::try_from(span).ok()).map_or(Value::Null, |span| span.as_secs_f64().into())
}

pub fn labels(labels: &HashMap<String, String>) -> Value {
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort();
    sorted
        .into_iter()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

pub fn link(link: &Link) -> Value {
    json!({
        "name": link.name,
        "displayName": link.display_name,
        "role": words::of_enum(link.role().as_str_name(), "ROLE_"),
        "state": words::of_enum(link.state().as_str_name(), "LINK_STATE_"),
        "createTime": time(link.create_time),
        "expireTime": time(link.expire_time),
        "useTime": time(link.use_time),
        "enrolledName": link.enrolled_name,
        "labels": labels(&link.labels),
        "creator": link.creator,
        "useLimit": link.use_limit,
        "useCount": link.use_count,
        "needsApproval": link.needs_approval,
        "contestCount": link.contest_count,
        "contestTime": time(link.contest_time),
        "contestSource": link.contest_source,
        "protocol": words::of_enum(link.protocol().as_str_name(), "LINK_PROTOCOL_"),
    })
}

pub fn node(node: &fleet::Node) -> Value {
    json!({
        "name": node.name,
        "hostName": node.host_name,
        "state": words::of_enum(node.state().as_str_name(), "NODE_STATE_"),
        "sinceTime": time(node.since_time),
        "role": words::of_enum(node.role().as_str_name(), "NODE_ROLE_"),
        "lsn": node.lsn,
        "cell": node.cell,
        "place": node.place,
        "route": node.route,
        "addresses": node.addresses,
        "observedAddress": node.observed_address,
        "softwareVersion": node.software_version,
        "roundTripSeconds": seconds(node.round_trip),
        "path": node.path,
        "labels": labels(&node.labels),
        "uptime": f64::from(node.uptime_basis_points) / 10_000.0,
        "enrollTime": time(node.enroll_time),
        "lastSeenTime": time(node.last_seen_time),
        "offlineReason": node.offline_reason,
        "os": node.os,
        "architecture": node.architecture,
        "wired": node.wired,
        "mainsPowered": node.mains_powered,
        "etag": node.etag,
        "lives": node.lives.iter().map(life).collect::<Value>(),
    })
}

fn life(life: &fleet::NodeLife) -> Value {
    json!({
        "id": life.id,
        "hostName": life.host_name,
        "addresses": life.addresses,
        "observedAddress": life.observed_address,
        "attachTime": time(life.attach_time),
        "gone": life.gone,
    })
}

pub fn task(task: &fleet::Task) -> Value {
    let spec = task.spec.clone().unwrap_or_default();
    let counts = task.counts.iter().map(|count| (words::task_state(count.state()), Value::from(count.count)));
    json!({
        "name": task.name,
        "displayName": task.display_name,
        "type": spec.r#type,
        "createTime": time(task.create_time),
        "expireTime": time(task.expire_time),
        "cancelTime": time(task.cancel_time),
        "creator": task.creator,
        "targetCount": task.target_count,
        "counts": counts.collect::<Map<_, _>>(),
        "done": task.done,
    })
}

pub fn target(target: &fleet::TaskTarget) -> Value {
    json!({
        "node": target.node,
        "hostName": target.host_name,
        "state": words::task_state(target.state()),
        "updateTime": time(target.update_time),
        "finished": target.finished.as_ref().map_or(Value::Null, finished),
    })
}

fn finished(finished: &task::Finished) -> Value {
    json!({
        "state": words::task_state(finished.state()),
        "exitCode": finished.exit_code,
        "signal": finished.signal,
        "reason": finished.reason,
        "reasonCode": finished.reason_code,
        "wallSeconds": seconds(finished.wall_time),
        "stdoutBytes": finished.stdout_bytes,
        "stderrBytes": finished.stderr_bytes,
        "stdoutTruncated": finished.stdout_truncated,
        "stderrTruncated": finished.stderr_truncated,
    })
}

/// Text where it is text, else base64.
pub fn output(output: &task::Output) -> Value {
    let (text, base64) = match std::str::from_utf8(&output.data) {
        Ok(text) => (Value::from(text), Value::Null),
        Err(_) => (Value::Null, BASE64.encode(&output.data).into()),
    };
    json!({
        "stream": words::of_enum(output.stream().as_str_name(), "OUTPUT_STREAM_"),
        "offset": output.offset,
        "text": text,
        "base64": base64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_its_schema_and_kind() {
        let document = document("Nodes", [("nodes", Value::Array(Vec::new()))]);
        assert_eq!(document, json!({"schema": "muster.v1", "kind": "Nodes", "nodes": []}));
    }

    #[test]
    fn output_that_is_not_text_is_base64() {
        let bytes =
            task::Output { stream: 1, offset: 3, data: vec![0xff, 0].into(), ..task::Output::default() };
        assert_eq!(output(&bytes), json!({"stream": "stdout", "offset": 3, "text": null, "base64": "/wA="}));
    }

    #[test]
    fn a_node_has_these_fields_in_v1() {
        let fields = node(&fleet::Node::default());
        let keys: Vec<_> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        for key in
            ["name", "hostName", "state", "sinceTime", "role", "lsn", "cell", "place", "route", "labels"]
        {
            assert!(keys.contains(&key), "{key}");
        }
    }
}
