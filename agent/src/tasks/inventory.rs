//! Task type `inventory`: what the host is made of, as one document.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_proto::control::v1::TrafficClass;
use muster_proto::task::v1::{Content, ContentReference, InventoryArguments, OutputStream, content::Source};
use muster_types::limits::{INLINE_BYTES, OUTPUT_CHUNK_BYTES};
use prost::Message;

use crate::inventory::{self, Section};
use crate::tasks::{Context, Job, Outcome, TaskType};

/// A collection that takes longer is stuck on a device or a file system.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The largest document; tens of thousands of packages are below 2 MiB.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The source that says: the document came as output of the stream RESULT.
pub const RESULT_STREAM: &str = "output:result";

#[derive(Debug, Clone, Copy, Default)]
pub struct Inventory;

impl TaskType for Inventory {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn default_timeout(&self) -> Duration {
        DEFAULT_TIMEOUT
    }

    fn prepare(&self, arguments: Bytes) -> Result<Box<dyn Job>, String> {
        let arguments = InventoryArguments::decode(arguments).map_err(|error| error.to_string())?;
        let sections =
            arguments.sections.iter().map(|name| name.parse()).collect::<Result<Vec<_>, String>>()?;
        let sections = if sections.is_empty() { Section::ALL.to_vec() } else { sections };
        Ok(Box::new(Collection { sections }))
    }
}

struct Collection {
    sections: Vec<Section>,
}

impl Job for Collection {
    fn run<'a>(self: Box<Self>, context: &'a mut Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // Large, and alike on all hosts: an LSN packs those of its cell together.
            context.reporter.send_as(TrafficClass::Telemetry);
            let collected = tokio::task::spawn_blocking(move || inventory::collect(&self.sections));
            let document = tokio::select! {
                collected = collected => match collected {
                    Ok(document) => Bytes::from(document.encode_to_vec()),
                    Err(error) => return Outcome::failed("INTERNAL", error.to_string()),
                },
                // The thread ends by itself and nobody looks at what it found.
                stop = context.stopped() => return Outcome::stopped(stop),
            };
            if document.len() > DOCUMENT_BYTES {
                return Outcome::failed("TOO_LARGE", format!("{} bytes of inventory", document.len()));
            }
            Outcome::succeeded().with_result(deliver(document, context).await)
        })
    }
}

/// A small document goes with the last report, a larger one before it.
async fn deliver(document: Bytes, context: &mut Context) -> Content {
    if document.len() <= INLINE_BYTES {
        return Content { source: Some(Source::Inline(document)) };
    }
    let mut offset = 0;
    for chunk in document.chunks(OUTPUT_CHUNK_BYTES) {
        context.reporter.output(OutputStream::Result, offset, document.slice_ref(chunk)).await;
        offset += chunk.len() as u64;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, &document);
    let reference = ContentReference {
        sha256: Bytes::copy_from_slice(hash.as_ref()),
        size_bytes: document.len() as u64,
        sources: vec![RESULT_STREAM.to_owned()],
    };
    Content { source: Some(Source::Reference(reference)) }
}
