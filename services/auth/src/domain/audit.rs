//! The audit log: what was done, by whom, to whom; each entry bound to the one before in its chain by its hash.
//!
//! Each replica writes a chain of its own, and now and then the ends of the others' into it: who rewrites one chain has to
//! rewrite all of them.

use std::collections::BTreeMap;

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
    Reinstate,
    /// Somebody was refused who held something: a link, a certificate.
    Refuse,
    ApproveEnrollment,
    DenyEnrollment,
    RequestEnrollment,
    Rotate,
    /// Nothing counts any more that a signer's key signed.
    WithdrawSigner,
    /// The end of another replica's chain was seen.
    Witness,
    CreateTask,
    CancelTask,
    ApproveTask,
    DenyTask,
    ChangeRole,
    ChangeLabels,
    ChangeScope,
    DeleteNode,
    /// Topology had no room for deeds of hosts while auth was away.
    Omit,
    /// The store is a backup's.
    Restore,
    /// Revocations of a lost past are in the list again.
    Adopt,
    HoldNode,
    ResolveClone,
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
            Self::Reinstate => "reinstate",
            Self::Refuse => "refuse",
            Self::ApproveEnrollment => "approve-enrollment",
            Self::DenyEnrollment => "deny-enrollment",
            Self::RequestEnrollment => "request-enrollment",
            Self::Rotate => "rotate",
            Self::WithdrawSigner => "withdraw-signer",
            Self::Witness => "witness",
            Self::CreateTask => "create-task",
            Self::CancelTask => "cancel-task",
            Self::ApproveTask => "approve-task",
            Self::DenyTask => "deny-task",
            Self::ChangeRole => "change-role",
            Self::ChangeLabels => "change-labels",
            Self::ChangeScope => "change-scope",
            Self::DeleteNode => "delete-node",
            Self::Omit => "omit",
            Self::Restore => "restore",
            Self::Adopt => "adopt",
            Self::HoldNode => "hold-node",
            Self::ResolveClone => "resolve-clone",
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
    /// Rises over all chains.
    pub revision: u64,
    /// The replica that wrote it.
    pub chain: String,
    /// In its chain, from 1.
    pub sequence: u64,
    pub time: Timestamp,
    pub action: String,
    pub actor: String,
    pub subject: String,
    pub detail: String,
    pub hash: [u8; 32],
}

/// The chain of a network with one replica.
pub const MAIN_CHAIN: &str = "main";

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub chain: String,
    pub sequence: u64,
    pub hash: [u8; 32],
}

impl Head {
    /// Before the first entry of `chain`: another hash for each, so that no entry fits two chains.
    pub fn genesis(chain: &str) -> Self {
        let mut hash = [0; 32];
        if chain != MAIN_CHAIN {
            let mut context = Context::new(&SHA256);
            context.update(b"muster audit chain v1");
            context.update(chain.as_bytes());
            hash.copy_from_slice(context.finish().as_ref());
        }
        Self { chain: chain.to_owned(), sequence: 0, hash }
    }
}

impl Entry {
    /// Puts `deed` behind `head`.
    pub fn behind(head: &Head, revision: u64, deed: Deed) -> Self {
        let mut entry = Self {
            revision,
            chain: head.chain.clone(),
            sequence: head.sequence + 1,
            time: deed.time,
            action: deed.action.as_str().to_owned(),
            actor: deed.actor,
            subject: deed.subject,
            detail: deed.detail,
            hash: [0; 32],
        };
        entry.hash = entry.hash_after(&head.hash);
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
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    pub fn head(&self) -> Head {
        Head { chain: self.chain.clone(), sequence: self.sequence, hash: self.hash }
    }
}

/// Why a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    #[error(
        "entry {sequence} of chain {chain:?} does not follow from the one before: something was changed, added or left out"
    )]
    Chain { chain: String, sequence: u64 },
    #[error(
        "chain {chain:?} ends at entry {found}, and its signed end is {expected}: something is missing at the end"
    )]
    Short { chain: String, found: u64, expected: u64 },
    #[error("chain {0:?} ends otherwise than its signed end")]
    End(String),
}

/// Follows a log's chains from their beginnings, in the order of their revisions.
#[derive(Debug, Default)]
pub struct Follower {
    heads: BTreeMap<String, Head>,
}

impl Follower {
    /// # Errors
    /// The entry does not follow from the one before it in its chain.
    pub fn follow(&mut self, entry: &Entry) -> Result<(), Break> {
        let head = self.heads.entry(entry.chain.clone()).or_insert_with(|| Head::genesis(&entry.chain));
        if entry.sequence != head.sequence + 1 || entry.hash_after(&head.hash) != entry.hash {
            return Err(Break::Chain { chain: entry.chain.clone(), sequence: entry.sequence });
        }
        *head = entry.head();
        Ok(())
    }

    /// Compares with ends that were seen elsewhere, at this time or earlier.
    ///
    /// # Errors
    /// A chain is shorter than it was, or ends otherwise.
    pub fn compare(&self, expected: &[Head]) -> Result<(), Break> {
        for head in expected {
            let found = self.heads.get(&head.chain).cloned().unwrap_or_else(|| Head::genesis(&head.chain));
            if found.sequence < head.sequence {
                let (chain, found, expected) = (head.chain.clone(), found.sequence, head.sequence);
                return Err(Break::Short { chain, found, expected });
            }
            if found.sequence == head.sequence && found.hash != head.hash {
                return Err(Break::End(head.chain.clone()));
            }
        }
        Ok(())
    }

    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<Entry> {
        let mut heads = [Head::genesis(MAIN_CHAIN), Head::genesis("b")];
        (1..=6)
            .map(|revision| {
                let deed = Deed {
                    time: Timestamp::from_micros(1),
                    action: Action::Enroll,
                    actor: "links/a".into(),
                    subject: format!("nodes/{revision}"),
                    detail: String::new(),
                };
                let head = &mut heads[revision as usize % 2];
                let entry = Entry::behind(head, revision, deed);
                *head = entry.head();
                entry
            })
            .collect()
    }

    fn first_break(log: &[Entry]) -> Option<Break> {
        let mut follower = Follower::default();
        log.iter().find_map(|entry| follower.follow(entry).err())
    }

    #[test]
    fn a_changed_moved_or_missing_entry_breaks_its_chain() {
        assert_eq!(first_break(&log()), None);
        let broken = |chain: &str, sequence| Some(Break::Chain { chain: chain.to_owned(), sequence });
        let mut changed = log();
        changed[2].subject = "nodes/9".into();
        assert_eq!(first_break(&changed), broken("b", 2));
        let mut moved = log();
        let subject = std::mem::take(&mut moved[2].subject);
        moved[2].actor.push_str(&subject);
        assert_eq!(first_break(&moved), broken("b", 2));
        let mut missing = log();
        missing.remove(3);
        assert_eq!(first_break(&missing), broken("main", 3));
        let mut elsewhere = log();
        elsewhere[0].chain = "c".into();
        assert_eq!(first_break(&elsewhere), broken("c", 1));
    }

    #[test]
    fn a_log_that_was_cut_at_its_end_is_shorter_than_its_signed_end() {
        let log = log();
        let ends = [log[4].head(), log[5].head()];
        let mut follower = Follower::default();
        for entry in &log[..5] {
            follower.follow(entry).unwrap();
        }
        assert!(matches!(follower.compare(&ends), Err(Break::Short { found: 2, expected: 3, .. })));
        follower.follow(&log[5]).unwrap();
        assert_eq!(follower.compare(&ends), Ok(()));
        let other = Head { hash: [9; 32], ..ends[0].clone() };
        assert_eq!(follower.compare(&[other]), Err(Break::End("b".into())));
    }
}
