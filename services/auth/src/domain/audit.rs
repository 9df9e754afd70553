//! The audit log: what was done, by whom, to whom; each entry bound to the one before by its hash.

use muster_types::Timestamp;
use ring::digest::{Context, SHA256};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Found,
    RenewSigner,
    CreateLink,
    RevokeLink,
    Enroll,
    Renew,
    Issue,
    Revoke,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::RenewSigner => "renew-signer",
            Self::CreateLink => "create-link",
            Self::RevokeLink => "revoke-link",
            Self::Enroll => "enroll",
            Self::Renew => "renew",
            Self::Issue => "issue",
            Self::Revoke => "revoke",
        }
    }
}

/// One thing that was done, before it has its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    pub time: Timestamp,
    pub action: Action,
    /// Resource name of who did it; of an enrollment the link, `services/auth` for our own doing.
    pub actor: String,
    /// Resource name of whom it was done to.
    pub subject: String,
    /// What else matters: a serial, a reason. Never a secret.
    pub detail: String,
}

/// A deed in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    pub time: Timestamp,
    pub action: String,
    pub actor: String,
    pub subject: String,
    pub detail: String,
    pub hash: [u8; 32],
}

/// Before the first entry.
pub const GENESIS: [u8; 32] = [0; 32];

impl Entry {
    /// Puts `deed` behind the entry with hash `previous`.
    pub fn chain(previous: &[u8; 32], sequence: u64, deed: Deed) -> Self {
        let mut entry = Self {
            sequence,
            time: deed.time,
            action: deed.action.as_str().to_owned(),
            actor: deed.actor,
            subject: deed.subject,
            detail: deed.detail,
            hash: GENESIS,
        };
        entry.hash = entry.hash_after(previous);
        entry
    }

    /// SHA-256 over the previous hash, sequence, time, and the texts with their lengths, so that no two entries
    /// have one encoding.
    fn hash_after(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(b"muster audit v1");
        context.update(previous);
        context.update(&self.sequence.to_be_bytes());
        context.update(&self.time.as_micros().to_be_bytes());
        for text in [&self.action, &self.actor, &self.subject, &self.detail] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut hash = GENESIS;
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

/// The sequence number of the first entry that does not follow from those before it; `previous` is the hash before
/// the first.
pub fn first_break(previous: [u8; 32], entries: &[Entry]) -> Option<u64> {
    let mut previous = previous;
    for entry in entries {
        if entry.hash_after(&previous) != entry.hash {
            return Some(entry.sequence);
        }
        previous = entry.hash;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<Entry> {
        let mut previous = GENESIS;
        (1..=3)
            .map(|sequence| {
                let deed = Deed {
                    time: Timestamp::from_micros(1),
                    action: Action::Enroll,
                    actor: "links/a".into(),
                    subject: format!("nodes/{sequence}"),
                    detail: String::new(),
                };
                let entry = Entry::chain(&previous, sequence, deed);
                previous = entry.hash;
                entry
            })
            .collect()
    }

    #[test]
    fn a_changed_or_missing_entry_breaks_the_chain() {
        assert_eq!(first_break(GENESIS, &log()), None);
        let mut changed = log();
        changed[1].subject = "nodes/9".into();
        assert_eq!(first_break(GENESIS, &changed), Some(2));
        let mut moved = log();
        let subject = std::mem::take(&mut moved[1].subject);
        moved[1].actor.push_str(&subject);
        assert_eq!(first_break(GENESIS, &moved), Some(2));
        let mut missing = log();
        missing.remove(1);
        assert_eq!(first_break(GENESIS, &missing), Some(3));
    }
}
