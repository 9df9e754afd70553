//! `muster-agent dht ...`: the hash table as this node finds it.

use std::process::ExitCode;

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use muster_proto::agent::v1::GetNodeKeysRequest;
use muster_proto::agent::v1::local_service_client::LocalServiceClient;
use muster_proto::dht::v1::{
    Effort, FindNodesRequest, GetRecordsRequest, GetStatsRequest, PutRecordRequest, PutRecordResponse,
};
use muster_proto::overlay::v1::RecordKind;
use muster_types::NodeId;
use muster_wire::record::key_of;
use muster_wire::window;
use tonic::transport::Channel;

use super::status::date;
use super::{NOT_HERE, runtime};
use crate::config::Config;
use crate::local;

#[derive(Debug, Subcommand)]
#[command(after_help = "A KEY is 40 hexadecimal digits, nodes/ID, or any name.")]
pub(super) enum Dht {
    /// What stands under a key
    Get {
        key: String,
        #[arg(long, value_enum, default_value_t = Kind::Opaque)]
        kind: Kind,
    },
    /// Store a text, published by this node for a day
    Put { key: String, value: String },
    /// The nodes closest to a key
    Find { key: String },
    /// The keys of any node, verified against the network's root
    Keys {
        /// Its whole id, as `nodes/3cf0053e...` or the 40 hexadecimal digits alone
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// This node's part in the table
    Stats,
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    Contact,
    Subnet,
    Holders,
    NodeKeys,
    Root,
    Gsn,
    Revocations,
    Opaque,
}

fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.strip_prefix("nodes/").unwrap_or(text);
    id.parse().map_err(|_| "a node's whole id has 40 hexadecimal digits".to_owned())
}

pub(super) fn run(command: &Dht, config: &Config) -> anyhow::Result<ExitCode> {
    let socket = config.socket()?;
    let done: anyhow::Result<()> = runtime()?.block_on(async {
        let agent = local::connect(&socket).await?;
        command.ask(agent).await
    });
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<local::LocalError>() => {
            eprintln!("muster-agent: {error}");
            Ok(ExitCode::from(NOT_HERE))
        }
        Err(error) => match error.downcast_ref::<tonic::Status>() {
            Some(status) => {
                eprintln!("muster-agent: {}", status.message());
                Ok(ExitCode::FAILURE)
            }
            None => Err(error),
        },
    }
}

fn wire(key: &str) -> Bytes {
    Bytes::copy_from_slice(key_of(key).as_bytes())
}

impl Dht {
    async fn ask(&self, mut agent: LocalServiceClient<Channel>) -> anyhow::Result<()> {
        match self {
            Self::Get { key, kind } => {
                let request = GetRecordsRequest { key: wire(key), kind: kind.to_wire().into() };
                let found = agent.get_records(request).await?.into_inner();
                for record in &found.records {
                    match std::str::from_utf8(&record.value) {
                        Ok(text) if !text.is_empty() => println!("{text}"),
                        _ => println!("{}", record.description),
                    }
                    eprintln!("published by nodes/{}", HEXLOWER.encode(&record.publisher_id));
                }
                effort(found.effort.as_ref());
            }
            Self::Put { key, value } => {
                let request = PutRecordRequest { key: wire(key), value: value.clone().into_bytes().into() };
                let kept = agent.put_record(request).await?.into_inner();
                print_kept(key, &kept);
                effort(kept.effort.as_ref());
            }
            Self::Find { key } => {
                let found = agent.find_nodes(FindNodesRequest { key: wire(key) }).await?.into_inner();
                for contact in &found.closest {
                    let at = window::contact_from_wire(contact).map(|contact| contact.at.to_string());
                    println!("nodes/{}  {}", HEXLOWER.encode(&contact.node_id), at.unwrap_or_default());
                }
                effort(found.effort.as_ref());
            }
            Self::Keys { node } => {
                let node_id = Bytes::copy_from_slice(node.as_bytes());
                let found = agent.get_node_keys(GetNodeKeysRequest { node_id }).await?.into_inner();
                println!("signing      {}", HEXLOWER.encode(&found.signing_key));
                println!("sealing      {}", HEXLOWER.encode(&found.sealing_key));
                println!("noise        {}", HEXLOWER.encode(&found.noise_key));
                println!("certificate  {}", HEXLOWER.encode(&found.certificate_serial));
                println!("valid until  {}", date(found.expire_time));
                println!("known from   {}", found.source);
            }
            Self::Stats => {
                for node in agent.get_stats(GetStatsRequest {}).await?.into_inner().nodes {
                    let service =
                        node.service().as_str_name().trim_start_matches("DHT_SERVICE_").to_lowercase();
                    println!("part       {service}");
                    println!("contacts   {}, {} of them away", node.contacts, node.away);
                    println!("servers    about {}", node.estimated_servers);
                    println!("records    {} in {} bytes", node.records, node.record_bytes);
                    println!("sessions   {}, after {} handshakes", node.sessions, node.handshakes);
                }
            }
        }
        Ok(())
    }
}

fn print_kept(key: &str, kept: &PutRecordResponse) {
    println!("{}  kept by {} nodes", key_of(key), kept.holder_ids.len() + usize::from(kept.by_bootstrap));
    for (nodes, what) in [(&kept.silent_ids, "did not answer"), (&kept.refused_ids, "refused")] {
        for node in nodes {
            eprintln!("nodes/{} {what}", HEXLOWER.encode(node));
        }
    }
}

fn effort(effort: Option<&Effort>) {
    if let Some(Effort { hops, asked, answered, .. }) = effort {
        eprintln!("{answered} of {asked} nodes asked answered, {hops} hops");
    }
}

impl Kind {
    fn to_wire(self) -> RecordKind {
        match self {
            Self::Contact => RecordKind::Contact,
            Self::Subnet => RecordKind::Subnet,
            Self::Holders => RecordKind::Holders,
            Self::NodeKeys => RecordKind::NodeKeys,
            Self::Root => RecordKind::Root,
            Self::Gsn => RecordKind::Gsn,
            Self::Revocations => RecordKind::Revocations,
            Self::Opaque => RecordKind::Opaque,
        }
    }
}
