//! Links and enrollment requests to protobuf messages and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_kit::status::Fault;
use muster_proto::auth::v1 as wire;
use muster_types::Timestamp;
use muster_wire::time;

use crate::domain::Link;
use crate::domain::approval::{Approval, Verdict};
use crate::domain::link::{Binding, DEFAULT_LIFETIME, LinkState, Protocol, Terms};
use crate::domain::request::KeyHash;
use crate::grpc::fault;
use crate::grpc::wire::{is_uuid, role_from_wire, role_to_wire};
use crate::service::Wanted;

pub(in crate::grpc) fn link_to_wire(link: &Link, now: Timestamp) -> wire::Link {
    let state = match link.state(now) {
        LinkState::Open => wire::LinkState::Open,
        LinkState::Used => wire::LinkState::Used,
        LinkState::Expired => wire::LinkState::Expired,
        LinkState::Revoked => wire::LinkState::Revoked,
    };
    let protocol = match link.terms.protocol {
        Protocol::Muster => wire::LinkProtocol::Unspecified,
        Protocol::Challenge => wire::LinkProtocol::Challenge,
    };
    let (usage, contest) = (link.last_use.as_ref(), link.contest.as_ref());
    wire::Link {
        name: link.resource_name(),
        role: role_to_wire(link.terms.role).into(),
        state: state.into(),
        create_time: Some(time::to_wire(link.create_time)),
        expire_time: Some(time::to_wire(link.expire_time)),
        use_time: usage.map(|usage| time::to_wire(usage.time)),
        enrolled_name: usage.map(|usage| usage.enrolled.clone()).unwrap_or_default(),
        labels: link.terms.labels.clone().into_iter().collect(),
        creator: link.creator.clone(),
        display_name: link.terms.display_name.clone(),
        use_limit: link.terms.use_limit,
        use_count: link.use_count,
        binding: Some(binding_to_wire(&link.terms.binding)),
        needs_approval: link.terms.needs_approval,
        contest_count: contest.map_or(0, |contest| contest.count),
        contest_time: contest.map(|contest| time::to_wire(contest.time)),
        contest_source: contest.map(|contest| contest.source.clone()).unwrap_or_default(),
        protocol: protocol.into(),
    }
}

fn binding_to_wire(binding: &Binding) -> wire::LinkBinding {
    wire::LinkBinding {
        host_name: binding.host_name.clone(),
        hardware_serial: binding.hardware_serial.clone(),
        key_hash: binding.key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key.0)),
    }
}

fn binding_from_wire(binding: wire::LinkBinding) -> Result<Binding, Fault> {
    let key = match &binding.key_hash[..] {
        [] => None,
        hash => Some(KeyHash(hash.try_into().map_err(|_| {
            fault::invalid("LINK_TERMS_INVALID", "binding.key_hash is no SHA-256 of 32 bytes")
        })?)),
    };
    Ok(Binding { host_name: binding.host_name, hardware_serial: binding.hardware_serial, key })
}

pub(in crate::grpc) fn wanted(request: wire::CreateLinkRequest) -> Result<Wanted, Fault> {
    let lifetime = match request.time_to_live {
        None => DEFAULT_LIFETIME,
        Some(span) => time::span_from_wire(span)
            .ok_or_else(|| fault::invalid("LINK_TERMS_INVALID", "time_to_live is no span of time"))?,
    };
    let protocol = match wire::LinkProtocol::try_from(request.protocol) {
        Ok(wire::LinkProtocol::Unspecified) => Protocol::Muster,
        Ok(wire::LinkProtocol::Challenge) => Protocol::Challenge,
        Err(_) => return Err(fault::invalid("LINK_TERMS_INVALID", "protocol is unknown")),
    };
    let terms = Terms {
        role: role_from_wire(request.role)?,
        lifetime,
        labels: request.labels.into_iter().collect::<BTreeMap<_, _>>(),
        display_name: request.display_name,
        use_limit: request.use_limit.max(1),
        binding: binding_from_wire(request.binding.unwrap_or_default())?,
        needs_approval: request.needs_approval,
        protocol,
    };
    let request_id = (!request.request_id.is_empty()).then_some(request.request_id);
    if request_id.as_ref().is_some_and(|id| !is_uuid(id)) {
        return Err(fault::invalid("REQUEST_ID_INVALID", "request_id is no UUID"));
    }
    Ok(Wanted { terms, request_id, validate_only: request.validate_only })
}

pub(in crate::grpc) fn approval_to_wire(approval: &Approval) -> wire::EnrollmentRequest {
    use wire::EnrollmentRequestState::{Approved, Denied, Pending};
    let (state, decider, decide_time) = match &approval.verdict {
        Verdict::Pending => (Pending, String::new(), None),
        Verdict::Approved(by, at) => (Approved, by.clone(), Some(time::to_wire(*at))),
        Verdict::Denied(by, at) => (Denied, by.clone(), Some(time::to_wire(*at))),
    };
    wire::EnrollmentRequest {
        name: approval.resource_name(),
        state: state.into(),
        link: format!("links/{}", approval.link),
        host_name: approval.host_name.clone(),
        hardware_serial: approval.hardware_serial.clone(),
        key_hash: Bytes::copy_from_slice(&approval.key.0),
        source: approval.source.clone(),
        create_time: Some(time::to_wire(approval.create_time)),
        decider,
        decide_time,
    }
}
