//! `muster doctor`: asks everything that a master needs, one check after the other, and says what mends what.
//!
//! What is near first (`local`: settings, folder, stores, bus), then the way in (`remote`: names, ports, TLS, API,
//! clock, the addresses that the master sees).

use crate::cli::{Doctor, Output, Place};
use crate::exit::{Exit, Failure};

mod check;
mod local;
mod remote;

pub use check::{Check, Outcome};

pub async fn run(place: &Place, output: Output, doctor: Doctor) -> Result<Exit, Failure> {
    let checks = match &doctor.master {
        Some(address) => remote::from_outside(address, &doctor.services).await,
        None => of_this_host(place, doctor).await,
    };
    check::show(output, &checks);
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fails);
    Ok(if failed { Exit::Unhealthy } else { Exit::Ok })
}

async fn of_this_host(place: &Place, doctor: Doctor) -> Vec<Check> {
    // A context names a master elsewhere: then there is nothing near to look at.
    if place.context.is_some() {
        return remote::as_operator(place, None).await;
    }
    match doctor.settings.resolve(place, "warn") {
        Err(failure) => vec![Check::fails("settings", failure.reason(), failure.remedy())],
        Ok(config) => {
            let mut checks = vec![Check::well("settings", "understood")];
            checks.extend(local::check(&config).await);
            checks.extend(remote::as_operator(place, Some(&config)).await);
            checks
        }
    }
}
