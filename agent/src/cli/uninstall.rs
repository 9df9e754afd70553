//! `muster-agent uninstall`: part, stop, remove.

use std::process::ExitCode;

use clap::Args;
use muster_proto::agent::v1::LeaveRequest;

use super::runtime;
use crate::config::Config;
use crate::identity::StateDir;
use crate::local;
use crate::platform::service;

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    /// Keep keys and journal, so that the same device can be started again
    #[arg(long)]
    keep_state: bool,
}

impl Uninstall {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let socket = config.socket()?;
        let parted = runtime()?.block_on(async {
            let mut agent = local::connect(&socket).await?;
            agent.leave(LeaveRequest { reason: "uninstalled".to_owned() }).await?;
            anyhow::Ok(())
        });
        match parted {
            Ok(()) => println!("Left the network."),
            Err(error) => eprintln!("muster-agent: the network was not told: {error}"),
        }
        service::manager().remove()?;
        if !self.keep_state {
            StateDir::new(config.state_dir()?).remove()?;
        }
        match std::fs::remove_dir_all(config.run_dir()?) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        println!("Removed. The master still lists this device until an operator removes it there.");
        Ok(ExitCode::SUCCESS)
    }
}
