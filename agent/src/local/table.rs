//! The hash table, for people on this host.

use bytes::Bytes;
use muster_kit::status::{Fault, fault};
use muster_net::dht::{Care, Dht, DhtError, Refusal, Wish};
use muster_proto::agent::v1::{GetNodeKeysRequest, GetNodeKeysResponse};
use muster_proto::dht::v1::{
    FindNodesRequest, FindNodesResponse, GetRecordsRequest, GetRecordsResponse, GetStatsResponse,
    PutRecordRequest, PutRecordResponse,
};
use muster_types::{Key, NodeId};
use muster_wire::record::{self, Value};
use muster_wire::time::to_wire;
use muster_wire::{WireError, window};
use tonic::Code;

use crate::keyring::{Keyring, KeysError};

pub(super) async fn records(dht: &Dht, request: &GetRecordsRequest) -> Result<GetRecordsResponse, Fault> {
    let kind = record::kind("kind", request.kind).map_err(|error| invalid("KIND_UNKNOWN", &error))?;
    let got = dht.get(key(&request.key)?, kind, Wish::Newest, Care::OnMiss).await.map_err(|e| refused(&e))?;
    let records = got.found.iter().map(window::found).collect();
    Ok(GetRecordsResponse { records, effort: Some(window::effort(&got.effort)) })
}

pub(super) async fn put(dht: &Dht, request: PutRecordRequest) -> Result<PutRecordResponse, Fault> {
    let put = dht.put(key(&request.key)?, Value::Opaque(request.value)).await;
    let (kept, effort) = put.map_err(|error| refused(&error))?;
    Ok(window::kept(&kept, &effort))
}

pub(super) async fn find(dht: &Dht, request: &FindNodesRequest) -> Result<FindNodesResponse, Fault> {
    let found = dht.find(key(&request.key)?, Care::Plain).await;
    let (closest, effort) = found.map_err(|error| refused(&error))?;
    let closest = closest.iter().map(window::contact).collect();
    Ok(FindNodesResponse { closest, effort: Some(window::effort(&effort)) })
}

pub(super) async fn stats(dht: &Dht) -> Result<GetStatsResponse, Fault> {
    let stats = dht.stats().await.map_err(|error| refused(&error))?;
    Ok(GetStatsResponse { nodes: vec![window::stats(None, &stats)] })
}

pub(super) async fn keys(
    keyring: &Keyring,
    request: &GetNodeKeysRequest,
) -> Result<GetNodeKeysResponse, Fault> {
    let node = NodeId::try_from(&request.node_id[..]).map_err(|error| invalid("NODE_INVALID", &error))?;
    let (ticket, source) = keyring.find(node).await.map_err(|error| {
        let (code, reason) = match &error {
            KeysError::Unknown { .. } => (Code::NotFound, "NO_KEYS"),
            KeysError::Revoked { .. } => (Code::FailedPrecondition, "NODE_REVOKED"),
            KeysError::Disbelieved { .. } => (Code::Internal, "KEYS_FORGED"),
        };
        fault(code, reason, error.to_string())
    })?;
    Ok(GetNodeKeysResponse {
        source: source.as_str().to_owned(),
        signing_key: Bytes::copy_from_slice(&ticket.signing_key),
        sealing_key: Bytes::copy_from_slice(&ticket.sealing_key),
        noise_key: Bytes::copy_from_slice(&ticket.noise_key),
        certificate_serial: ticket.certificate_serial,
        expire_time: Some(to_wire(ticket.not_after)),
    })
}

fn key(bytes: &[u8]) -> Result<Key, Fault> {
    Key::try_from(bytes).map_err(|error| invalid("KEY_INVALID", &error))
}

fn invalid(reason: &'static str, error: &impl ToString) -> Fault {
    fault(Code::InvalidArgument, reason, error.to_string())
}

/// Every reason that a person can meet.
fn refused(error: &DhtError) -> Fault {
    let (code, reason) = match error {
        DhtError::NoSuchKey { .. } => (Code::NotFound, "NO_SUCH_KEY"),
        DhtError::NobodyThere => (Code::Unavailable, "TABLE_EMPTY"),
        DhtError::Record(WireError::TooLarge { .. }) => (Code::InvalidArgument, "RECORD_TOO_LARGE"),
        DhtError::Record(_) => (Code::InvalidArgument, "RECORD_INVALID"),
        DhtError::Refused { first: Refusal::Full, .. } => (Code::ResourceExhausted, "QUOTA"),
        DhtError::Refused { .. } | DhtError::Silent { .. } => (Code::Unavailable, "NOT_KEPT"),
        DhtError::Ended => (Code::Unavailable, "AGENT_ENDING"),
    };
    fault(code, reason, error.to_string())
}
