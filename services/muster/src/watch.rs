//! `muster watch`: the event feed, live. A lost connection is taken up again where it broke.

use std::time::Duration;

use muster_kit::backoff::Backoff;
use muster_proto::fleet::v1::event::Body;
use muster_proto::fleet::v1::watch_events_response::Update;
use muster_proto::fleet::v1::{Event, NodeChanged, WatchEventsRequest};
use serde_json::{Value, json};

use crate::cli::{Output, Place, Watch};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::{json, words};

/// Attempts in a row, spread over two minutes or so, before a watch gives up.
const ATTEMPTS: u32 = 12;

pub async fn run(place: &Place, output: Output, watch: Watch) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    let mut request =
        WatchEventsRequest { resume_token: watch.resume.unwrap_or_default(), send_initial_state: watch.all };
    let mut backoff = Backoff::new();
    let mut failures = 0;
    if output == Output::Table {
        eprintln!("Watching {}. Ctrl-C ends it.", session.place);
    }
    loop {
        let ended = tokio::select! {
            ended = follow(&session, &mut request, output, &mut failures) => ended,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        let Err(failure) = ended else { continue };
        failures += 1;
        if failure.exit != Exit::Unreachable || failures > ATTEMPTS {
            return Err(failure);
        }
        let delay = backoff.next_delay(&mut rand::rng()) + Duration::from_millis(100);
        eprintln!(
            "The master does not answer; trying again in {}",
            words::rough(delay + Duration::from_millis(500))
        );
        tokio::time::sleep(delay).await;
    }
}

/// One connection's worth of events. `request` is moved on with every event, so that the next call resumes there.
async fn follow(
    session: &Session,
    request: &mut WatchEventsRequest,
    output: Output,
    failures: &mut u32,
) -> Result<(), Failure> {
    let failed = session.failed("cannot watch");
    let mut events = session.fleet().watch_events(request.clone()).await.map_err(&failed)?.into_inner();
    while let Some(next) = events.message().await.map_err(&failed)? {
        *failures = 0;
        if !next.resume_token.is_empty() {
            request.resume_token.clone_from(&next.resume_token);
            request.send_initial_state = false;
        }
        let Some(update) = next.update else { continue };
        match output {
            Output::Json => print_json(&update, &next.resume_token),
            Output::Table => print_text(&update),
        }
    }
    Ok(())
}

fn print_json(update: &Update, resume_token: &str) {
    let (kind, field, value) = match update {
        Update::InitialNode(node) => ("InitialNode", "node", json::node(node)),
        Update::InitialStateEnd(_) => ("InitialStateEnd", "node", Value::Null),
        Update::Event(event) => ("Event", "event", event_json(event)),
    };
    json::print(kind, [(field, value), ("resumeToken", resume_token.into())]);
}

pub fn event_json(event: &Event) -> Value {
    let body = match &event.body {
        Some(Body::NodeChanged(change)) => json!({"nodeChanged": {
            "node": change.node.as_ref().map(json::node),
            "changedFields": change.changed_fields,
            "previousState": words::of_enum(change.previous_state().as_str_name(), "NODE_STATE_"),
            "reason": change.reason,
            "deleted": change.deleted,
        }}),
        Some(Body::TaskChanged(change)) => {
            json!({"taskChanged": {"task": change.task.as_ref().map(json::task)}})
        }
        Some(Body::OperationFailed(failed)) => json!({"operationFailed": {
            "operation": failed.operation,
            "node": failed.node,
            "reasonCode": failed.reason_code,
            "reason": failed.reason,
        }}),
        Some(Body::Disconnection(gap)) => json!({"disconnection": {
            "node": gap.node,
            "beginTime": json::time(gap.begin_time),
            "durationSeconds": json::seconds(gap.duration),
            "reason": words::of_enum(gap.reason().as_str_name(), "DISCONNECTION_REASON_"),
            "detail": gap.detail,
        }}),
        None => json!({}),
    };
    json!({"name": event.name, "eventTime": json::time(event.event_time), "body": body})
}

fn print_text(update: &Update) {
    match update {
        Update::InitialNode(node) => println!(
            "{:<20}  {:<20}  {}",
            "",
            words::host(&node.host_name, &node.name),
            words::node_state(node.state())
        ),
        Update::InitialStateEnd(_) => eprintln!("That is everybody; now what changes."),
        Update::Event(event) => println!("{}  {}", words::time(event.event_time), sentence(event)),
    }
}

fn sentence(event: &Event) -> String {
    match &event.body {
        Some(Body::NodeChanged(change)) => node_sentence(change),
        Some(Body::TaskChanged(change)) => {
            let task = change.task.clone().unwrap_or_default();
            let counts: Vec<String> = task
                .counts
                .iter()
                .map(|count| format!("{} {}", count.count, words::task_state(count.state())))
                .collect();
            format!("{}  {}", task.name, counts.join(", "))
        }
        Some(Body::OperationFailed(failed)) => {
            let (operation, node) = (&failed.operation, words::short(&failed.node));
            format!("{node:<20}  {operation} failed: {} ({})", failed.reason, failed.reason_code)
        }
        Some(Body::Disconnection(gap)) => format!(
            "{:<20}  was away for {}: {} {}",
            words::short(&gap.node),
            words::span(gap.duration),
            words::of_enum(gap.reason().as_str_name(), "DISCONNECTION_REASON_"),
            gap.detail
        ),
        None => "an event that this program does not know; update it".to_owned(),
    }
}

fn node_sentence(change: &NodeChanged) -> String {
    let node = change.node.clone().unwrap_or_default();
    let host = words::host(&node.host_name, &node.name);
    let state = words::node_state(node.state());
    let what = if change.deleted {
        "deleted".to_owned()
    } else if change.changed_fields.is_empty() {
        format!("new, {state}")
    } else if change.changed_fields.iter().any(|field| field == "state") {
        state
    } else {
        format!("{state}, {} changed", change.changed_fields.join(", "))
    };
    let place = if node.place.is_empty() { String::new() } else { format!("  in {}", node.place) };
    let reason = if change.reason.is_empty() { String::new() } else { format!("  ({})", change.reason) };
    format!("{host:<20}  {what}{place}{reason}")
}
