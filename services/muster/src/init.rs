//! `muster init` founds the network of a store, once; `muster invite` lets a service of another process join it.
//!
//! Both open auth's store themselves, with the authority's secret, and need no master at work: they are what a chart
//! runs before its pods.

use std::path::Path;
use std::sync::Arc;

use muster_auth::join::pem;
use muster_auth::{Auth, Config, StartError, bootstrap, config as auth_config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::cli::{Init, Invite, Output, Place};
use crate::config::MasterConfig;
use crate::exit::{Exit, Failure};
use crate::master;
use crate::render::json;
use crate::target::Target;

/// What links say before any address is set.
const NO_ADDRESS: &str = "localhost:27431";

pub async fn run(place: &Place, output: Output, init: Init) -> Result<Exit, Failure> {
    let config = init.settings.resolve(place, "warn")?;
    let addresses =
        if config.addresses.is_empty() { vec![NO_ADDRESS.to_owned()] } else { config.addresses.clone() };
    let settings = master::auth_config(&config, addresses);
    if init.external_root {
        return prepare(output, &settings).await;
    }
    let opened = match &init.import {
        Some(file) => muster_auth::complete(&settings, &certificates(file)?).await,
        None => muster_auth::init(&settings).await,
    };
    let auth = opened.map_err(|error| failed(&error))?;
    let network = auth.authority().network();
    match output {
        Output::Json => json::print("Init", [("network", network.to_string().into())]),
        Output::Table => eprintln!("Network {network} is there. Repeated, this changes nothing."),
    }
    Ok(Exit::Ok)
}

/// Leaves a link for the service where it looks for one; the state of an earlier pod makes another one unnecessary.
pub async fn invite(place: &Place, output: Output, invite: Invite) -> Result<Exit, Failure> {
    let config = invite.settings.resolve(place, "warn")?;
    let service = invite.service;
    if service == Target::All || service == Target::Auth {
        return Err(Failure::usage(
            format!("{} needs no invitation", service.as_str()),
            "it has the authority's keys",
        ));
    }
    let file = auth_config::join_file(&config.data_dir, service.as_str());
    if !file.exists() {
        let auth = open(&config).await?;
        bootstrap::write_join_link(&auth, service.as_str(), &file)
            .await
            .map_err(|error| Failure::internal("no link could be made", error))?;
    }
    match output {
        Output::Json => json::print("Invite", [("file", file.display().to_string().into())]),
        Output::Table => eprintln!("{} lets {} join.", file.display(), service.as_str()),
    }
    Ok(Exit::Ok)
}

async fn open(config: &MasterConfig) -> Result<Arc<Auth>, Failure> {
    let address = config.auth_address.clone().ok_or_else(|| {
        Failure::usage("where is auth?", "the link must say where the service finds it")
            .next("--auth-address HOST:PORT")
    })?;
    muster_auth::open(&master::auth_config(config, vec![address]))
        .await
        .map_err(|error| Failure::internal("auth's store does not open", error).next("muster init, first"))
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
