//! `muster serve`: some of the master's services, until a signal.

use muster_kit::shutdown::Shutdown;
use muster_kit::telemetry;

use crate::cli::{Place, Serve};
use crate::exit::{Exit, Failure};
use crate::master::{Master, Network};
use crate::target::Target;

pub async fn run(place: &Place, serve: Serve) -> Result<Exit, Failure> {
    if serve.list_targets {
        for target in Target::SERVICES.into_iter().chain([Target::All]) {
            println!("{:<14} {}", target.as_str(), target.about());
        }
        return Ok(Exit::Ok);
    }
    let config = serve.settings.resolve(place, "info")?;
    let _telemetry = telemetry::init("muster", &config.telemetry)
        .map_err(|error| Failure::usage("cannot log as configured", error))?;
    let shutdown = Shutdown::on_signals().map_err(|error| Failure::internal("cannot hear signals", error))?;
    let targets = Target::expand(&serve.targets);
    let master = Master::start(&config, &targets, Network::MustBeThere, &shutdown).await?;
    tracing::info!(address = %master.api, network = %master.network, "serving");
    master.wait(&shutdown).await
}
