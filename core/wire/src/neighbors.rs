//! What an LSN tells its children of each other and of its terms.

use std::time::Duration;

use muster_overlay::message::{Neighbor, NeighborList, PartCode, Terms};
use muster_proto::overlay::v1;
use muster_types::limits;

use crate::error::WireError;
use crate::field;

/// Codes have three digits, as in HTTP (proto: `Part.code`).
const PART_CODES: std::ops::RangeInclusive<u32> = 100..=599;

pub(crate) fn to_wire(list: &NeighborList) -> v1::NeighborList {
    v1::NeighborList {
        number: list.number,
        neighbors: list.neighbors.iter().take(limits::CELL_NODES).map(neighbor_to_wire).collect(),
    }
}

fn neighbor_to_wire(neighbor: &Neighbor) -> v1::Neighbor {
    v1::Neighbor {
        contact: Some(field::contact_to_wire(&neighbor.contact)),
        uptime_basis_points: neighbor.uptime.0.into(),
        standing: Some(field::standing_to_wire(neighbor.standing)),
    }
}

pub(crate) fn from_wire(wire: v1::NeighborList) -> Result<NeighborList, WireError> {
    field::at_most("neighbor_list.neighbors", &wire.neighbors, limits::CELL_NODES)?;
    let neighbors = wire.neighbors.into_iter().map(neighbor_from_wire).collect::<Result<_, _>>()?;
    Ok(NeighborList { number: wire.number, neighbors })
}

fn neighbor_from_wire(wire: v1::Neighbor) -> Result<Neighbor, WireError> {
    Ok(Neighbor {
        contact: field::contact("neighbor.contact", wire.contact)?,
        uptime: field::uptime("neighbor.uptime_basis_points", wire.uptime_basis_points)?,
        standing: field::standing(wire.standing),
    })
}

pub(crate) fn terms_to_wire(terms: Terms) -> v1::Terms {
    v1::Terms { lease_millis: millis(terms.lease), ping_interval_millis: millis(terms.ping_interval) }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

pub(crate) fn terms_from_wire(wire: Option<v1::Terms>) -> Result<Terms, WireError> {
    let wire = field::required("join_answer.terms", wire)?;
    Ok(Terms {
        lease: span("terms.lease_millis", wire.lease_millis)?,
        ping_interval: span("terms.ping_interval_millis", wire.ping_interval_millis)?,
    })
}

fn span(field: &'static str, millis: u32) -> Result<Duration, WireError> {
    if millis == 0 {
        return Err(WireError::invalid(field, "it must not be zero"));
    }
    Ok(Duration::from_millis(millis.into()))
}

pub(crate) fn part_code(code: u32) -> Result<PartCode, WireError> {
    let valid = u16::try_from(code).ok().filter(|_| PART_CODES.contains(&code));
    valid.map(PartCode).ok_or_else(|| WireError::invalid("part.code", format!("{code} is no part code")))
}
