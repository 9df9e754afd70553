//! A collector of traces: OTLP's TraceService over a real socket, and what it was sent.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Exporters send in batches: some seconds, and then a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A span as it was sent, with the process that sent it.
#[derive(Debug, Clone)]
pub struct Traced {
    pub name: String,
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    /// Empty of a trace's first.
    pub parent: Vec<u8>,
    /// Of the process: `service.name`.
    pub service: String,
    /// Of the process: `service.instance.id`.
    pub instance: String,
    attributes: Vec<KeyValue>,
}

impl Traced {
    /// A text among its attributes.
    pub fn text(&self, key: &str) -> Option<&str> {
        text(&self.attributes, key)
    }

    pub fn is_child_of(&self, other: &Self) -> bool {
        self.trace == other.trace && self.parent == other.id
    }
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    spans: watch::Receiver<Vec<Traced>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (sender, spans) = watch::channel(Vec::new());
        let incoming = TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(Desk(sender));
        let task = tokio::spawn(async move {
            let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, pending());
            if let Err(error) = serving.await {
                eprintln!("the collector ended: {error}");
            }
        });
        Ok(Self { endpoint, spans, task })
    }

    /// As programs are told of it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits until what was sent so far is as wanted.
    ///
    /// # Errors
    /// It does not become so; the last reason is told, and what there is.
    pub async fn until<T>(&self, wanted: impl Fn(&[Traced]) -> Result<T>) -> Result<T> {
        let mut spans = self.spans.clone();
        let judged = async {
            loop {
                let judgement = wanted(&spans.borrow_and_update());
                if judgement.is_ok() || spans.changed().await.is_err() {
                    return judgement;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, judged).await {
            Ok(judgement) => judgement,
            Err(_) => wanted(&self.spans.borrow())
                .with_context(|| format!("not within {PATIENCE:?} among {:#?}", self.names())),
        }
    }

    fn names(&self) -> Vec<String> {
        self.spans.borrow().iter().map(|span| format!("{} of {}", span.name, span.service)).collect()
    }
}

struct Desk(watch::Sender<Vec<Traced>>);

#[tonic::async_trait]
impl TraceService for Desk {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let sent = request.into_inner().resource_spans.into_iter().flat_map(|of_process| {
            let attributes = of_process.resource.unwrap_or_default().attributes;
            let of = |key| text(&attributes, key).unwrap_or_default().to_owned();
            let (service, instance) = (of("service.name"), of("service.instance.id"));
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans
                .map(|span| Traced {
                    name: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                    service: service.clone(),
                    instance: instance.clone(),
                    attributes: span.attributes,
                })
                .collect::<Vec<_>>()
        });
        self.0.send_modify(|spans| spans.extend(sent));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
