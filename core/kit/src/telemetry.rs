//! Logs to stderr, traces to an OTLP collector where one is configured, and the thread that ties traces across hosts.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// One batch of spans to the collector, and the last one when the program ends.
const EXPORT_LIMIT: Duration = Duration::from_secs(3);

/// What is traced, however little is logged: our own crates' names begin so. The exporter's own calls do not.
const TRACED: (&str, Level) = ("muster", Level::INFO);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What is logged and traced, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Directives as in `info,muster_topology=debug`.
    pub log: String,
    pub log_format: LogFormat,
    /// A collector's gRPC address as in `http://127.0.0.1:4317`. Without one nothing is traced.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: LogFormat::Text, otlp_endpoint: None }
    }
}

/// Telemetry that cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter {filter:?} is not understood: {reason}")]
    Filter { filter: String, reason: String },
    #[error("cannot export traces to {endpoint}: {reason}")]
    Exporter { endpoint: String, reason: String },
    #[error("telemetry was set up before: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends the last spans when dropped.
#[must_use = "dropping it ends the export of traces"]
#[derive(Debug)]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(EXPORT_LIMIT)
        {
            eprintln!("the last traces were not delivered: {error}");
        }
    }
}

/// Sets up logs and traces of this process, once. With a collector configured it must run inside tokio's runtime.
pub fn init(program: &'static str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| TelemetryError::Filter { filter: config.log.clone(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured());
    let lines = match config.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter);
    let provider = config.otlp_endpoint.as_deref().map(|endpoint| exporter(program, endpoint)).transpose()?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(program)))
        .map(|layer| layer.with_filter(Targets::new().with_target(TRACED.0, TRACED.1)));
    tracing_subscriber::registry().with(lines).with(traces).try_init()?;
    Ok(TelemetryGuard(provider))
}

/// A terminal gets colours, unless its user asks to do without (no-color.org).
fn coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}

fn exporter(program: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(|error| TelemetryError::Exporter {
            endpoint: endpoint.to_owned(),
            reason: error.to_string(),
        })?;
    // Agents of a fleet are many of one name.
    let instance = KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string());
    let resource = Resource::builder().with_service_name(program).with_attribute(instance).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// The current span as a W3C `traceparent`; `None` where nothing is traced.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8()))
}

/// Makes `span` a part of the trace that a `traceparent` names. One that is malformed changes nothing.
pub fn continue_from(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    if parent.span().span_context().is_valid() {
        // Fails where nothing is traced, and then there is nothing to do.
        let _ = span.set_parent(parent);
    }
}

/// Makes `span` a part of the trace that came as `traceparent`, and answers what to pass on with the work: the span's own,
/// or what came where nothing is traced here.
pub fn onward(span: &Span, traceparent: &str) -> String {
    continue_from(span, traceparent);
    span.in_scope(self::traceparent).unwrap_or_else(|| traceparent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_continues_the_trace_it_is_given() {
        let provider = SdkTracerProvider::builder().build();
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(traces), || {
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
            let span = tracing::info_span!("continued");
            continue_from(&span, &format!("00-{trace}-00f067aa0ba902b7-01"));
            let passed_on = span.in_scope(traceparent).unwrap();
            assert!(passed_on.starts_with(&format!("00-{trace}-")), "{passed_on}");
            let fresh = tracing::info_span!("fresh");
            continue_from(&fresh, "not a traceparent");
            assert!(!fresh.in_scope(traceparent).unwrap().contains(trace));
        });
    }

    #[test]
    fn without_tracing_there_is_no_traceparent_and_what_came_is_passed_on() {
        assert_eq!(traceparent(), None);
        assert_eq!(onward(&Span::none(), "as it came"), "as it came");
    }
}
