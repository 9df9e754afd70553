//! A program on the master's own machine that makes calls and tells how long each took: one JSON line to stdout.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use muster_e2e::Fleet;
use muster_e2e::fleet::command;
use muster_kit::connect::{Master, TOPOLOGY};
use muster_kit::tls::{ClientTls, Material};
use muster_proto::fleet::v1::{NodeFilter, RefreshPresenceRequest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// Calls before those that count: connections stand, statements are prepared.
const WARMING: usize = 5;

#[derive(Debug, Clone, Args)]
pub(crate) struct Caller {
    /// The master's folder
    #[arg(long)]
    data_dir: PathBuf,
    /// Names of nodes
    #[arg(long = "on", required = true)]
    nodes: Vec<String>,
    #[arg(long)]
    calls: usize,
}

/// What it found, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// From CreateTask until every node's end has been seen.
    pub(crate) commands: Vec<f64>,
    /// From RefreshPresence to its answer: the same way there and back without a disk.
    pub(crate) round_trips: Vec<f64>,
}

impl Caller {
    pub(crate) async fn run(self) -> Result<()> {
        let fleet = connect(&self.data_dir)?;
        let mut found = Found { commands: Vec::new(), round_trips: Vec::new() };
        for call in 0..WARMING + self.calls {
            let (command, round_trip) = (self.command(&fleet).await?, self.round_trip(&fleet).await?);
            if call >= WARMING {
                found.commands.push(command);
                found.round_trips.push(round_trip);
            }
        }
        println!("{}", serde_json::to_string(&found)?);
        Ok(())
    }

    async fn command(&self, fleet: &Fleet) -> Result<f64> {
        let nodes: Vec<&str> = self.nodes.iter().map(String::as_str).collect();
        let request = command(&nodes, &["true"], "");
        let began = Instant::now();
        let task = fleet.create(&request).await?;
        fleet.until_done(&task).await?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    async fn round_trip(&self, fleet: &Fleet) -> Result<f64> {
        let filter = NodeFilter { names: self.nodes.clone(), ..NodeFilter::default() };
        let request = RefreshPresenceRequest { filter: Some(filter), ..Default::default() };
        let began = Instant::now();
        let answer = fleet.client().refresh_presence(request).await?.into_inner();
        let took = began.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.silent.is_empty(), "{} nodes were silent", answer.silent.len());
        Ok(took)
    }
}

fn connect(data_dir: &Path) -> Result<Fleet> {
    let pem = std::fs::read(data_dir.join("operator.pem"))?;
    let mut chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>()?;
    let root = chain.pop().context("the operator has no certificate")?;
    let material = Material { chain, key: PrivateKeyDer::from_pem_slice(&pem)?, roots: vec![root] };
    let address = std::fs::read_to_string(data_dir.join("address"))?.trim().to_owned();
    Ok(Fleet::new(Master::new([address], ClientTls::new(material)?).service(TOPOLOGY)))
}
