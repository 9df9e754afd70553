//! Revocation: taking certificates out of use, and the list that tells everybody.

use muster_types::Timestamp;

use super::{Auth, AuthError, settle};
use crate::domain::audit::{Action, Deed};
use crate::domain::principal;
use crate::domain::revocation::{COMMENT_CHARS, Reason, RevocationError, Revoked, Subject, may_revoke};
use crate::store::{Certificate, Change, Write};

/// Certificates that one principal may have: every renewal of the time in which a certificate still renews, several times over.
const CERTIFICATES: u32 = 500;

/// Entries that are looked through for those that are lost: what a network of a million loses in two bad weeks.
const LOST: u32 = 20_000;

/// Entries of one list: some 120 bytes each, they fit into one message of a session (256 KiB). A list that is longer ends
/// before its last number, and who holds it asks for the rest.
pub const LIST: u32 = 1_500;

/// What an operator wants to be revoked.
#[derive(Debug, Clone)]
pub struct RevocationRequest {
    pub subject: Subject,
    pub reason: Reason,
    pub comment: String,
    /// Say what would be, and do nothing.
    pub validate_only: bool,
}

/// What was revoked, or reinstated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Resource name of whom it concerns.
    pub principal: String,
    pub certificates: Vec<Certificate>,
    /// Number of the first list that has it; 0 if nothing changed.
    pub number: u64,
}

/// The list of revoked certificates from behind a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    pub number: u64,
    pub base: u64,
    pub entries: Vec<Revoked>,
    pub time: Timestamp,
    /// Up to where the numbers went when the store was last restored.
    pub restored: Option<u64>,
}

impl Auth {
    /// Ends a principal's admission, or that of one of its certificates or keys. None of these certificates renews, none of
    /// these keys enrolls again; but who is lost renews, to stay reachable.
    ///
    /// # Errors
    /// Nothing was issued to the subject, `actor` may not take it out, or the store does not answer.
    pub async fn revoke(&self, actor: &str, request: &RevocationRequest) -> Result<Revocation, AuthError> {
        check_comment(&request.comment)?;
        if request.reason == Reason::Removed {
            return Err(RevocationError::Reason.into());
        }
        settle(|| self.try_revoke(actor, request)).await
    }

    async fn try_revoke(&self, actor: &str, request: &RevocationRequest) -> Result<Revocation, AuthError> {
        let RevocationRequest { subject, reason, comment, .. } = request;
        let (name, certificates) = self.meant(subject).await?;
        may_revoke(actor, &name)?;
        let stored = self.store.principal(&name).await?;
        // What is revoked for good stays as it is; what was lost may become worse.
        let lost = self.lost(&certificates).await?;
        let fresh = |certificate: &&Certificate| {
            certificate.revoke_time.is_none() || *reason != Reason::Lost && lost.contains(&certificate.serial)
        };
        let concerned: Vec<_> = certificates.iter().filter(fresh).cloned().collect();
        let whole = matches!(subject, Subject::Name(_));
        let unchanged = stored.as_ref().is_none_or(|stored| {
            !whole || stored.record.is_revoked() || *reason == Reason::Lost && stored.record.is_lost()
        });
        if request.validate_only || concerned.is_empty() && unchanged {
            return Ok(Revocation { principal: name, certificates: concerned, number: 0 });
        }
        let now = self.now();
        let mut writes: Vec<_> = concerned
            .iter()
            .map(|certificate| Write::Revoke { certificate: certificate.clone(), time: now, reason: *reason })
            .collect();
        if let Some(stored) = stored.filter(|_| !unchanged) {
            let mut principal = stored.record;
            principal.revocation =
                Some(principal::Revocation { time: now, reason: *reason, comment: comment.clone() });
            writes.push(Write::PutPrincipal { principal, expected: Some(stored.revision) });
        }
        let detail = format!("{reason:?}, {} certificates; {comment}", concerned.len());
        let deed = Deed {
            time: now,
            action: Action::Revoke,
            actor: actor.to_owned(),
            subject: name.clone(),
            detail,
        };
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(principal = name, ?reason, "revoked");
        self.wake.notify_waiters();
        let number = self.store.revocation_number().await?;
        Ok(Revocation { principal: name, certificates: concerned, number })
    }

    /// Whom a subject means, with the certificates that it means.
    async fn meant(&self, subject: &Subject) -> Result<(String, Vec<Certificate>), AuthError> {
        let unknown = |what: String| AuthError::Revocation(RevocationError::Unknown(what));
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        match subject {
            Subject::Name(name) => {
                let certificates = self.store.certificates_of(name, CERTIFICATES).await?;
                if certificates.is_empty() && self.store.principal(name).await?.is_none() {
                    return Err(unknown(name.clone()));
                }
                Ok((name.clone(), certificates))
            }
            Subject::Serial(serial) => {
                let found = self.store.certificate(serial).await?;
                let found = found.ok_or_else(|| unknown(format!("serial {}", hex(&serial.0))))?;
                Ok((found.principal.clone(), vec![found]))
            }
            Subject::Key(key) => {
                let found = self.store.certificate_by_key(*key).await?;
                let name = found.ok_or_else(|| unknown(format!("key {}", hex(&key.0))))?.principal;
                let mut certificates = self.store.certificates_of(&name, CERTIFICATES).await?;
                certificates.retain(|certificate| certificate.key == *key);
                Ok((name, certificates))
            }
        }
    }

    /// Serials of those that are listed as lost.
    async fn lost(
        &self,
        certificates: &[Certificate],
    ) -> Result<Vec<crate::domain::leaf::Serial>, AuthError> {
        if certificates.iter().all(|certificate| certificate.revoke_time.is_none()) {
            return Ok(Vec::new());
        }
        let listed = self.store.revocations(0, LOST).await?;
        let lost = listed.into_iter().filter(|entry| entry.reason == Reason::Lost);
        Ok(lost.map(|entry| entry.serial).collect())
    }

    /// A lost device was found: its certificates count again.
    ///
    /// # Errors
    /// It is not lost, or the store does not answer.
    pub async fn reinstate(&self, actor: &str, name: &str, comment: &str) -> Result<Revocation, AuthError> {
        check_comment(comment)?;
        settle(|| self.try_reinstate(actor, name, comment)).await
    }

    async fn try_reinstate(&self, actor: &str, name: &str, comment: &str) -> Result<Revocation, AuthError> {
        let not_lost = || AuthError::Revocation(RevocationError::NotLost(name.to_owned()));
        let stored = self.store.principal(name).await?;
        let stored = stored.filter(|stored| stored.record.is_lost()).ok_or_else(not_lost)?;
        let certificates = self.store.certificates_of(name, CERTIFICATES).await?;
        let lost = self.lost(&certificates).await?;
        let certificates: Vec<_> =
            certificates.into_iter().filter(|certificate| lost.contains(&certificate.serial)).collect();
        let now = self.now();
        let mut writes: Vec<_> = certificates
            .iter()
            .map(|certificate| {
                let certificate = certificate.clone();
                Write::Revoke { certificate, time: now, reason: Reason::Removed }
            })
            .collect();
        let mut principal = stored.record;
        principal.revocation = None;
        writes.push(Write::PutPrincipal { principal, expected: Some(stored.revision) });
        let deed = Deed {
            time: now,
            action: Action::Reinstate,
            actor: actor.to_owned(),
            subject: name.to_owned(),
            detail: comment.to_owned(),
        };
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(principal = name, "found again");
        self.wake.notify_waiters();
        let number = self.store.revocation_number().await?;
        Ok(Revocation { principal: name.to_owned(), certificates, number })
    }

    /// Everything that is revoked.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn revoked(&self) -> Result<Vec<Revoked>, AuthError> {
        let mut list = self.revocation_list(0).await?;
        let mut all = std::mem::take(&mut list.entries);
        loop {
            let next = self.revocation_list(list.number).await?;
            if next.number <= list.number {
                return Ok(all);
            }
            all.extend(next.entries.iter().filter(|entry| entry.reason != Reason::Removed).cloned());
            list = next;
        }
    }

    /// What changed behind list `after`, as far as one list goes; from the beginning for 0.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn revocation_list(&self, after: u64) -> Result<List, AuthError> {
        // Read first: what comes in meanwhile has a higher number and is in the next list.
        let newest = self.store.revocation_number().await?;
        // Whoever knows more than we do knows another network's list, or one from before a backup: the whole list corrects it.
        let base = if after > newest { 0 } else { after };
        let mut entries = self.store.revocations(base, LIST).await?;
        let cut = entries.len() >= LIST as usize;
        let number = entries.last().filter(|_| cut).map_or(newest, |last| last.number.min(newest));
        entries.retain(|entry| entry.number <= newest && (base > 0 || entry.reason != Reason::Removed));
        let restored = self.store.restored_number().await?;
        Ok(List { number, base, entries, time: self.now(), restored })
    }

    /// Returns when the list may have changed here; elsewhere it changes without a word.
    pub async fn revocations_changed(&self) {
        self.wake.notified().await;
    }
}

fn check_comment(comment: &str) -> Result<(), RevocationError> {
    let good = comment.chars().count() <= COMMENT_CHARS && !comment.chars().any(char::is_control);
    if good { Ok(()) } else { Err(RevocationError::Comment) }
}
