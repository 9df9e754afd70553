//! What the table stores. To the machine a record is opaque: whoever feeds it in has verified the publisher's signature, once
//! for each record and not once for each hop.

use std::sync::Arc;

use muster_types::{Instant, Key, NodeId};

/// Encoded and signed, whatever is in it (issue and answers must fit one datagram).
pub const RECORD_BYTES: usize = 1_024;

/// What a record is about. Records of different kinds under one key do not know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Node id -> where the node is.
    Contact,
    /// Subnet key -> its LSN.
    Subnet,
    /// Content hash -> who holds it.
    Holders,
    /// Node id -> the node's public keys.
    NodeKeys,
    /// The trust root.
    Root,
    /// A GSN and its reliability.
    Gsn,
    /// What has been revoked.
    Revocations,
    Opaque,
}

impl Kind {
    pub const ALL: &[Self] = &[
        Self::Contact,
        Self::Subnet,
        Self::Holders,
        Self::NodeKeys,
        Self::Root,
        Self::Gsn,
        Self::Revocations,
        Self::Opaque,
    ];
}

/// Under one key and kind stands a set of these, one for each publisher, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    pub kind: Kind,
    pub publisher: NodeId,
    /// Of two records of one publisher the higher counts; among publishers it orders a set. Microseconds of the master's
    /// clock at the signing, so that it does both; records from the future are refused before they get here.
    pub sequence: u64,
    /// By this machine's clock, worked out from the date that was signed.
    pub expires: Instant,
    /// As signed.
    pub bytes: Arc<[u8]>,
}

impl Record {
    /// Names this state of this record in offers: two nodes that hold the same say the same.
    pub fn digest(&self) -> u64 {
        let (kind, sequence) = ([self.kind as u8], self.sequence.to_be_bytes());
        let parts: [&[u8]; 4] = [self.key.as_bytes(), &kind, self.publisher.as_bytes(), &sequence];
        parts
            .into_iter()
            .flatten()
            .fold(FNV_OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
    }
}

/// FNV-1a, 64 bit (RFC 9923). A collision costs one missed offer until the next sweep; nothing is trusted to it.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
