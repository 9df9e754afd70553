//! Times, names and states as people read them.

use std::collections::HashMap;
use std::time::Duration;

use muster_kit::clock;
use muster_proto::fleet::v1::NodeState;
use muster_proto::task::v1::{Confidence, HardwareKeyKind, TaskState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::paint::{Colour, Paint};

/// `NODE_STATE_ONLINE` less its prefix, in small letters.
pub fn of_enum(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

pub fn node_state(state: NodeState) -> String {
    let text = of_enum(state.as_str_name(), "NODE_STATE_").replace('_', " ");
    let colour = match state {
        NodeState::Online => Colour::Green,
        NodeState::Offline | NodeState::NeverSeen | NodeState::Unspecified => Colour::Grey,
        NodeState::Unreachable | NodeState::Held => Colour::Yellow,
    };
    Paint::stdout().paint(colour, &text)
}

pub fn task_state(state: TaskState) -> String {
    of_enum(state.as_str_name(), "TASK_STATE_")
}

pub fn hardware_key(kind: HardwareKeyKind) -> String {
    of_enum(kind.as_str_name(), "HARDWARE_KEY_KIND_")
}

pub fn confidence(confidence: Confidence) -> String {
    of_enum(confidence.as_str_name(), "CONFIDENCE_")
}

/// `nodes/ab12...` to its first eight digits; an operator's or service's name stays.
pub fn short(name: &str) -> &str {
    let id = name.rsplit('/').next().unwrap_or(name);
    if name.starts_with("nodes/") { id.get(..8).unwrap_or(id) } else { id }
}

pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A resource name, short.
pub fn name_or_dash(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { short(name).to_owned() }
}

pub fn hosts(count: usize) -> String {
    if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") }
}

/// The host's name, or the id's beginning where it has told none.
pub fn host(host_name: &str, node: &str) -> String {
    if host_name.is_empty() { short(node).to_owned() } else { host_name.to_owned() }
}

pub fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(",") }
}

/// RFC 3339 to the second, in UTC.
pub fn time(at: Option<prost_types::Timestamp>) -> String {
    let whole = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
    whole.and_then(|whole| whole.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

/// `3m ago`
pub fn ago(at: Option<prost_types::Timestamp>) -> String {
    match since(at) {
        Some(span) => format!("{} ago", rough(span)),
        None => "-".to_owned(),
    }
}

/// `for 3m`
pub fn lasting(at: Option<prost_types::Timestamp>) -> String {
    since(at).map_or_else(|| "-".to_owned(), rough)
}

/// `within the next 24h`
pub fn until(at: Option<prost_types::Timestamp>) -> String {
    let Some(at) = at else { return "without end".to_owned() };
    let left = at.seconds.saturating_sub(now_seconds()).max(0).unsigned_abs();
    // An answer takes its time: 23h59m59s is what was asked for as 24h.
    const ROUNDING: u64 = 30;
    format!("within the next {}", rough(Duration::from_secs(left + ROUNDING)))
}

/// The largest unit that says enough.
pub fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds below a second, else seconds with one decimal.
pub fn span(duration: Option<prost_types::Duration>) -> String {
    let Some(span) = duration.and_then(|duration| Duration::try_from(duration).ok()) else {
        return "-".to_owned();
    };
    match span.as_micros() {
        micros @ 0..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros @ 10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", span.as_secs_f64()),
    }
}

pub fn percent(basis_points: u32) -> String {
    format!("{}.{} %", basis_points / 100, basis_points % 100 / 10)
}

pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// For requests. Longer than protobuf can say is as good as for ever.
pub fn to_duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}

fn since(at: Option<prost_types::Timestamp>) -> Option<Duration> {
    let at = at?;
    Some(Duration::from_secs(now_seconds().saturating_sub(at.seconds).max(0).unsigned_abs()))
}

fn now_seconds() -> i64 {
    clock::wall().as_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_short_names_and_rough_times() {
        assert_eq!(short("nodes/0123456789abcdef0123456789abcdef01234567"), "01234567");
        assert_eq!(short("operators/ada"), "ada");
        assert_eq!(rough(Duration::from_secs(59)), "59s");
        assert_eq!(rough(Duration::from_secs(47 * 3600)), "47h");
        assert_eq!(rough(Duration::from_secs(49 * 3600)), "2d");
        assert_eq!(span(Some(to_duration(Duration::from_micros(1_540)))), "1.5 ms");
        assert_eq!(span(Some(to_duration(Duration::from_millis(2_500)))), "2.5 s");
        assert_eq!(percent(9_987), "99.8 %");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(of_enum("TASK_STATE_TIMED_OUT", "TASK_STATE_"), "timed_out");
        assert_eq!(time(Some(prost_types::Timestamp { seconds: 0, nanos: 5 })), "1970-01-01T00:00:00Z");
    }
}
