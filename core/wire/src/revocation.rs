//! Which certificates and keys count no longer: signed, numbered increments from whatever source become one list that
//! answers for a certificate, and goes on to others as it came.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::payload_type::REVOCATION_LIST;
use muster_proto::trust::v1::{self, Envelope, RevocationReason};
use muster_types::{NodeId, Timestamp};
use prost::Message;

use crate::envelope::EnvelopeError;
use crate::error::WireError;
use crate::field;
use crate::trust::TrustStore;

/// Entries of one increment, or of the whole list: certificates live two weeks, and their entries no longer.
pub const ENTRIES: usize = 100_000;

/// Increments that one list keeps to pass on. Whoever is further behind hears of the older ones from the master.
const KEPT_INCREMENTS: usize = 1_024;

/// So far a restored master's numbers leap: further than any list has grown since the backup was taken.
pub const LEAP: u64 = 1 << 32;

/// From so many on the list is read anew.
const CROWDED: usize = KEPT_INCREMENTS - 256;

/// Signatures of one list; auth makes one.
const SIGNATURES: usize = 4;

/// An entry outlives its certificate by as much as clocks may differ.
const TOLERANCE: Duration = Duration::from_secs(24 * 3_600);

/// A certificate's serial number (RFC 5280, section 4.1.2.2).
const SERIAL_BYTES: usize = 20;

/// SHA-256 of a SubjectPublicKeyInfo.
pub type KeyHash = [u8; 32];

/// Why an increment was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the list of revocations: {0}")]
    Malformed(#[from] WireError),
    #[error("the list begins behind number {base}, and only what is up to {known} is known")]
    Gap { known: u64, base: u64 },
    #[error("the list has more than {ENTRIES} entries")]
    Full,
}

/// Why, and until when, one certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub number: u64,
    pub serial: Bytes,
    pub key: Option<KeyHash>,
    /// Of a node.
    pub node: Option<NodeId>,
    pub time: Timestamp,
    pub expires: Timestamp,
    pub reason: Reason,
}

/// RFC 5280, section 5.3.1, as far as it makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// For good.
    Revoked,
    /// Another certificate of the same holder counts in its place.
    Superseded,
    /// The device is lost: topology admits it for a signed lock or erase, nobody for anything else.
    Lost,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
        })
    }
}

/// Every revocation up to a number. Replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    number: u64,
    by_serial: HashMap<Bytes, Arc<Revocation>>,
    by_key: HashMap<KeyHash, Arc<Revocation>>,
    by_node: HashMap<NodeId, Arc<Revocation>>,
    increments: VecDeque<Increment>,
    /// Up to where the master's list went when it was restored.
    restored: Option<u64>,
    /// Lists that the master signed and then lost.
    past: Vec<Envelope>,
    /// Ids of the keys by which all of it is signed.
    signers: BTreeSet<Bytes>,
}

#[derive(Debug, Clone)]
struct Increment {
    base: u64,
    number: u64,
    sealed: Envelope,
}

impl Revocations {
    /// Every revocation up to this number is known.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Certificates in the list.
    pub fn len(&self) -> usize {
        self.by_serial.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_serial.is_empty()
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.by_serial.values().map(Arc::as_ref)
    }

    /// Takes in an increment from any source: the master, an LSN, another node, the DHT. It proves itself. `None`: nothing
    /// in it is new.
    ///
    /// # Errors
    /// No signer of this network made it, it is malformed, or something between this list and it is missing.
    pub fn with(&self, sealed: &Envelope, trust: &TrustStore) -> Result<Option<Self>, RevocationError> {
        let list = parse(&trust.open(sealed, REVOCATION_LIST)?)?;
        field::at_most("envelope.signatures", &sealed.signatures, SIGNATURES)?;
        self.extended(list, sealed)
    }

    /// The list as this program once verified and kept it: its signers may have gone since.
    pub fn restored<'a>(kept: impl IntoIterator<Item = &'a Envelope>) -> Self {
        let mut whole = Self::default();
        for sealed in kept {
            let list = parse(&sealed.payload).map_err(RevocationError::from);
            match list.and_then(|list| whole.extended(list, sealed)) {
                Ok(Some(longer)) => whole = longer,
                Ok(None) => {}
                Err(_) => break,
            }
        }
        whole
    }

    fn extended(&self, list: List, sealed: &Envelope) -> Result<Option<Self>, RevocationError> {
        if list.number <= self.number {
            return Ok(None);
        }
        if list.base > self.number {
            return Err(RevocationError::Gap { known: self.number, base: list.base });
        }
        // A whole list stands for all that was before.
        let mut next = match list.restored.filter(|it| self.restored != Some(*it)) {
            _ if list.base == 0 => self.renewed(list.restored),
            Some(restored) => Self { past: self.lost_since(restored), ..self.clone() },
            None => self.clone(),
        };
        next.signers.extend(sealed.signatures.iter().map(|signature| signature.key_id.clone()));
        next.restored = list.restored.or(next.restored);
        next.number = list.number;
        if next.increments.len() == KEPT_INCREMENTS {
            next.increments.pop_front();
        }
        let (base, number) = (list.base, list.number);
        next.increments.push_back(Increment { base, number, sealed: sealed.clone() });
        list.changes.into_iter().for_each(|change| next.change(change));
        next.forget_before(list.issued - TOLERANCE);
        if next.len() > ENTRIES {
            return Err(RevocationError::Full);
        }
        Ok(Some(next))
    }

    /// Nothing, but for what a restored master has lost.
    fn renewed(&self, restored: Option<u64>) -> Self {
        let Some(restored) = restored else { return Self::default() };
        let mut next = Self { past: self.lost_since(restored), ..Self::default() };
        for it in self.by_serial.values().filter(|it| is_past(it.number, restored)) {
            next.change(Change::Revoke(it.as_ref().clone()));
        }
        next
    }

    fn lost_since(&self, restored: u64) -> Vec<Envelope> {
        let lost = self.increments.iter().filter(|it| is_past(it.number, restored));
        let lost = self.past.iter().cloned().chain(lost.map(|it| it.sealed.clone()));
        lost.take(KEPT_INCREMENTS).collect()
    }

    /// Whether a key of which `of` says so signed some of it.
    pub(crate) fn is_by(&self, of: impl Fn(&Bytes) -> bool) -> bool {
        self.signers.iter().any(of)
    }

    /// Whether its beginning will soon be forgotten: then it is to be read anew, in fewer and longer increments.
    pub fn is_crowded(&self) -> bool {
        self.increments.len() >= CROWDED
    }

    /// The same entries, until the next whole list, whatever its number: nobody is admitted meanwhile who was not before.
    /// None of it is passed on.
    #[must_use]
    pub fn doubted(&self) -> Self {
        let Self { by_serial, by_key, by_node, .. } = self.clone();
        Self { by_serial, by_key, by_node, ..Self::default() }
    }

    /// Lists that the master has lost with its store, as long as their entries are not in its own again.
    pub fn lost_by_master(&self) -> &[Envelope] {
        let lost = |restored| self.by_serial.values().any(|it| is_past(it.number, restored));
        if self.restored.is_some_and(lost) { &self.past } else { &[] }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Revoke(revocation) => {
                let revocation = Arc::new(revocation);
                if let Some(key) = revocation.key {
                    self.by_key.insert(key, revocation.clone());
                }
                if let Some(node) = revocation.node.filter(|_| revocation.reason != Reason::Superseded) {
                    self.by_node.insert(node, revocation.clone());
                }
                self.by_serial.insert(revocation.serial.clone(), revocation);
            }
            Change::Reinstate(serial) => {
                if let Some(gone) = self.by_serial.remove(&serial) {
                    self.by_key.retain(|_, it| it.serial != gone.serial);
                    self.by_node.retain(|_, it| it.node != gone.node);
                }
            }
        }
    }

    fn forget_before(&mut self, horizon: Timestamp) {
        self.by_serial.retain(|_, it| it.expires > horizon);
        self.by_key.retain(|_, it| it.expires > horizon);
        self.by_node.retain(|_, it| it.expires > horizon);
    }

    /// What whoever knows everything up to `known` lacks, in order; nothing if that is further behind than what is kept.
    pub fn after(&self, known: u64) -> impl Iterator<Item = &Envelope> {
        let reached = self.increments.front().is_some_and(|oldest| oldest.base <= known);
        let lacking = self.increments.iter().filter(move |it| reached && it.number > known);
        lacking.map(|increment| &increment.sealed)
    }

    /// As much of the same as fits into so many bytes, one increment at least; and up to where that goes.
    pub fn page_after(&self, known: u64, bytes: usize) -> (Vec<Envelope>, u64) {
        let (mut page, mut size, mut reached) = (Vec::new(), 0, self.number);
        for sealed in self.after(known) {
            size += sealed.payload.len();
            if size > bytes && !page.is_empty() {
                reached = page
                    .last()
                    .and_then(|last: &Envelope| parse(&last.payload).ok())
                    .map_or(known, |it| it.number);
                break;
            }
            page.push(sealed.clone());
        }
        (page, reached)
    }

    /// Why a certificate does not count: its serial or its key is in the list.
    pub fn of_certificate(&self, serial: &[u8], key: Option<&KeyHash>) -> Option<&Revocation> {
        let by_key = || key.and_then(|key| self.by_key.get(key));
        self.by_serial.get(serial).or_else(by_key).map(Arc::as_ref)
    }

    /// Why the holder of a certificate is not admitted. A lost node is lost with its next certificate too, which the list
    /// may not have yet.
    pub fn of_holder(&self, node: NodeId, serial: &[u8], key: Option<&KeyHash>) -> Option<&Revocation> {
        let lost = || self.of_node(node).filter(|it| it.reason == Reason::Lost);
        self.of_certificate(serial, key).or_else(lost)
    }

    /// Why a node is not admitted, where nothing but its id is at hand.
    pub fn of_node(&self, node: NodeId) -> Option<&Revocation> {
        self.by_node.get(&node).map(Arc::as_ref)
    }
}

/// Given out before the master's store was lost, and not in the backup.
fn is_past(number: u64, restored: u64) -> bool {
    number > restored && number < restored + LEAP
}

struct List {
    base: u64,
    number: u64,
    issued: Timestamp,
    restored: Option<u64>,
    changes: Vec<Change>,
}

enum Change {
    Revoke(Revocation),
    Reinstate(Bytes),
}

/// The number that an increment follows, as it says itself.
///
/// # Errors
/// It is malformed.
pub fn base_of(sealed: &Envelope) -> Result<u64, WireError> {
    Ok(parse(&sealed.payload)?.base)
}

fn parse(payload: &[u8]) -> Result<List, WireError> {
    let wire: v1::RevocationList = field::parse("revocation list", payload)?;
    field::at_most("revocation_list.revocations", &wire.revocations, ENTRIES)?;
    let (base, number) = (wire.base_number, wire.number);
    let strays = wire.revocations.iter().any(|it| it.number <= base || it.number > number);
    if number < base || strays {
        return Err(WireError::invalid("revocation_list.number", "an entry lies outside the list's span"));
    }
    let issued = wire.issue_time.and_then(crate::time::from_wire);
    let issued = field::required("revocation_list.issue_time", issued)?;
    let changes = wire.revocations.into_iter().map(change).collect::<Result<_, _>>()?;
    // One that no counter reaches is nobody's.
    let restored = wire.restored_number.filter(|number| number.checked_add(LEAP).is_some());
    Ok(List { base, number, issued, restored, changes })
}

fn change(wire: v1::Revocation) -> Result<Change, WireError> {
    const SERIAL: &str = "revocation.certificate_serial";
    if wire.certificate_serial.is_empty() || wire.certificate_serial.len() > SERIAL_BYTES {
        return Err(WireError::invalid(SERIAL, format!("it has {} bytes", wire.certificate_serial.len())));
    }
    let reason = match wire.reason() {
        RevocationReason::RemovedFromList => return Ok(Change::Reinstate(wire.certificate_serial)),
        RevocationReason::Lost => Reason::Lost,
        RevocationReason::Superseded => Reason::Superseded,
        // What a later version may name is no reason to admit anybody.
        _ => Reason::Revoked,
    };
    let key = (!wire.key_hash.is_empty()).then(|| wire.key_hash[..].try_into());
    let key = key.transpose().map_err(|_| WireError::invalid("revocation.key_hash", "it is no SHA-256"))?;
    let date = |name, time: Option<prost_types::Timestamp>| {
        field::required(name, time.and_then(crate::time::from_wire))
    };
    Ok(Change::Revoke(Revocation {
        number: wire.number,
        serial: wire.certificate_serial,
        key,
        node: field::optional_node("revocation.node_id", &wire.node_id)?,
        time: date("revocation.revoke_time", wire.revoke_time)?,
        expires: date("revocation.expire_time", wire.expire_time)?,
        reason,
    }))
}

/// Up to where the list went when its master was restored, as it says itself.
///
/// # Errors
/// It is malformed.
pub fn restored_of(sealed: &Envelope) -> Result<Option<u64>, WireError> {
    Ok(parse(&sealed.payload)?.restored)
}

/// An increment before it is signed, for whoever stands in for auth in a test or a simulation.
pub fn encode(base: u64, number: u64, issued: Timestamp, revocations: &[Revocation]) -> Bytes {
    let one = |it: &Revocation| v1::Revocation {
        number: it.number,
        certificate_serial: it.serial.clone(),
        key_hash: it.key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key)),
        node_id: it.node.map_or_else(Bytes::new, |node| Bytes::copy_from_slice(node.as_bytes())),
        revoke_time: Some(crate::time::to_wire(it.time)),
        expire_time: Some(crate::time::to_wire(it.expires)),
        reason: match it.reason {
            Reason::Revoked => RevocationReason::PrivilegeWithdrawn,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::Lost => RevocationReason::Lost,
        }
        .into(),
    };
    let list = v1::RevocationList {
        number,
        base_number: base,
        issue_time: Some(crate::time::to_wire(issued)),
        revocations: revocations.iter().map(one).collect(),
        restored_number: None,
    };
    list.encode_to_vec().into()
}
