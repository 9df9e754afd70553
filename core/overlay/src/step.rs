//! What a room decides: to stay, or to which state the node goes next.

use std::time::Duration;

use muster_types::NodeId;

use crate::claim::Claim;
use crate::intent::LossReason;
use crate::membership::Membership;
use crate::message::{Neighbor, Part};
use crate::search::Search;

#[derive(Debug)]
pub(crate) enum Step {
    Stay,
    /// Look for an LSN from the first source on; with the reason why there is none any more.
    Look(Option<LossReason>),
    /// Go on looking where it was left off.
    Resume(Search),
    /// Ask this claimant to take us in, after a moment.
    Pursue {
        claim: Claim,
        search: Search,
        after: Duration,
        reason: Option<LossReason>,
    },
    /// An LSN took us in.
    Settle(Box<Membership>),
    /// Become LSN.
    Ascend(Box<Ascent>),
    /// Gone for good.
    Depart,
}

/// How a node comes to be LSN.
#[derive(Debug)]
pub(crate) struct Ascent {
    pub(crate) claim: Claim,
    /// The predecessor's children, who are to be told.
    pub(crate) roll: Vec<Neighbor>,
    pub(crate) predecessor: Option<Predecessor>,
}

#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) node: NodeId,
    /// Its own words, if it left with any.
    pub(crate) part: Option<Part>,
}
