//! Task type `erase`: what the device's own configuration names is destroyed, once the master knows that it will be.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{EraseArguments, Progress};
use prost::Message;

use crate::config::EraseConfig;
use crate::platform::erase;
use crate::tasks::{Context, Job, Outcome, TaskType};

/// A disk that is overwritten takes hours.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How long the device waits for the master's word that it knows. The order came by this way just now; a thief who cuts it
/// does not keep the data by that.
const WORD: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Erase {
    config: EraseConfig,
}

impl Erase {
    pub fn new(config: EraseConfig) -> Self {
        Self { config }
    }
}

impl TaskType for Erase {
    fn name(&self) -> &'static str {
        "erase"
    }

    fn default_timeout(&self) -> Duration {
        DEFAULT_TIMEOUT
    }

    fn prepare(&self, arguments: Bytes) -> Result<Box<dyn Job>, String> {
        EraseArguments::decode(arguments).map_err(|error| error.to_string())?;
        Ok(Box::new(Erasure { config: self.config.clone() }))
    }
}

struct Erasure {
    config: EraseConfig,
}

impl Job for Erasure {
    fn run<'a>(self: Box<Self>, context: &'a mut Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.config == EraseConfig::default() {
                let reason = "this device's configuration names nothing to erase ([erase] in agent.toml)";
                return Outcome::failed("ERASE_NOT_CONFIGURED", reason);
            }
            let word = Progress {
                phase: "erase".to_owned(),
                percent: 0,
                text: "acknowledged; the device erases itself now and may not be heard again".to_owned(),
                ..Progress::default()
            };
            if !context.reporter.report_heard(Step::Progress(word), WORD).await {
                tracing::warn!(
                    "the master does not say that it knows; the device erases itself all the same"
                );
            }
            match erase::erase(&self.config).await {
                Ok(()) => Outcome::succeeded(),
                Err(failures) => Outcome::failed("ERASE_INCOMPLETE", failures.join("; ")),
            }
        })
    }
}
