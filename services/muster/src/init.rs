//! `muster init`: founds a network, once; or the two halves of it where the root is kept elsewhere.

use std::path::Path;

use muster_auth::join::pem;
use muster_auth::{Config, StartError, bootstrap, config as auth_config};
use muster_kit::telemetry;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::cli::{Init, Output, Place};
use crate::config::MasterConfig;
use crate::exit::{Exit, Failure};
use crate::render::json;
use crate::target::Target;

pub async fn run(place: &Place, output: Output, init: Init) -> Result<Exit, Failure> {
    let config = init.settings.resolve(place, "warn")?;
    let _telemetry = telemetry::init("muster", &config.telemetry)
        .map_err(|error| Failure::usage("cannot log as configured", error))?;
    let auth = auth_config_of(&config);
    if init.external_root {
        return prepare(output, &auth).await;
    }
    let opened = match &init.import {
        Some(file) => muster_auth::complete(&auth, &certificates(file)?).await,
        None => muster_auth::init(&auth).await,
    };
    let auth = opened.map_err(|error| failed(&error))?;
    for target in Target::SERVICES.into_iter().filter(|target| *target != Target::Auth) {
        let file = auth_config::join_file(&config.data_dir, target.as_str());
        if !file.exists() {
            bootstrap::write_join_link(&auth, target.as_str(), &file)
                .await
                .map_err(|error| Failure::internal("cannot let services join", error))?;
        }
    }
    let network = auth.authority().network().to_string();
    let join = config.data_dir.join("join").display().to_string();
    match output {
        Output::Json => json::print(
            "Init",
            [
                ("network", network.into()),
                ("dataDir", config.data_dir.display().to_string().into()),
                ("joinLinks", join.into()),
            ],
        ),
        Output::Table => {
            println!("network {network}");
            eprintln!("Links by which services join from elsewhere: {join}");
            eprintln!("Keep the secret apart from the database, and a copy of both: {}", secret(&config));
        }
    }
    Ok(Exit::Ok)
}

fn secret(config: &MasterConfig) -> String {
    let usual = config.data_dir.join("auth.secret");
    config.secret_file.as_ref().unwrap_or(&usual).display().to_string()
}

/// Auth's configuration as far as founding needs it.
fn auth_config_of(config: &MasterConfig) -> Config {
    // Links name an address; who founds may not know it yet.
    let addresses = match config.addresses.is_empty() {
        true => vec![format!("{}:{}", crate::config::own_address(), muster_types::limits::DEFAULT_PORT)],
        false => config.addresses.clone(),
    };
    Config {
        database_url: config.database_url.clone(),
        secret_file: config.secret_file.clone(),
        ..Config::embedded(&config.data_dir, addresses)
    }
}

async fn prepare(output: Output, auth: &Config) -> Result<Exit, Failure> {
    let requests = muster_auth::prepare(auth).await.map_err(|error| failed(&error))?;
    if requests.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            "nothing is to be signed",
            "this network is founded already",
        ));
    }
    let text: String = requests.iter().map(|(_, der)| pem::section("CERTIFICATE REQUEST", der)).collect();
    match output {
        Output::Json => json::print("CertificateRequests", [("pem", text.into())]),
        Output::Table => {
            print!("{text}");
            eprintln!(
                "Where the root is: muster ca sign --root root.pem --key root.key < requests.pem > signed.pem"
            );
            eprintln!("Then here: muster init --import signed.pem");
        }
    }
    Ok(Exit::Ok)
}

/// The certificates of a PEM file.
pub fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}", file.display()), error);
    let text = std::fs::read(file).map_err(|error| unreadable(&error))?;
    let found = CertificateDer::pem_slice_iter(&text).map(|der| der.map(|der| der.to_vec()));
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"it has no certificate in PEM")) } else { Ok(found) }
}

fn failed(error: &StartError) -> Failure {
    let failure = Failure::new(Exit::NotFound, "the network is not founded", error);
    match error {
        StartError::RootMissing(_) => failure.next("muster init --import FILE, with what the root signed"),
        StartError::NotFounded(_) => {
            failure.next("muster init --external-root, for the requests to be signed")
        }
        _ => failure,
    }
}
