//! Task type `lock`: nobody uses this device until it is released.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use muster_proto::task::v1::LockArguments;
use prost::Message;

use crate::config::LockConfig;
use crate::platform::lock;
use crate::tasks::{Context, Job, Outcome, TaskType};

/// Ending every session of a busy host takes seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Characters shown at the login.
const MESSAGE: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Lock {
    config: LockConfig,
}

impl Lock {
    pub fn new(config: LockConfig) -> Self {
        Self { config }
    }
}

impl TaskType for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn default_timeout(&self) -> Duration {
        DEFAULT_TIMEOUT
    }

    fn prepare(&self, arguments: Bytes) -> Result<Box<dyn Job>, String> {
        let arguments = LockArguments::decode(arguments).map_err(|error| error.to_string())?;
        if arguments.message.chars().count() > MESSAGE {
            return Err(format!("a message of more than {MESSAGE} characters"));
        }
        Ok(Box::new(Locking { config: self.config.clone(), arguments }))
    }
}

struct Locking {
    config: LockConfig,
    arguments: LockArguments,
}

impl Job for Locking {
    fn run<'a>(self: Box<Self>, _: &'a mut Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let done = if self.arguments.release {
                lock::release(&self.config.file)
            } else {
                lock::lock(&self.config, &self.arguments.message).await
            };
            match done {
                Ok(()) => Outcome::succeeded(),
                Err(error) => Outcome::failed("LOCK_FAILED", error.to_string()),
            }
        })
    }
}
