//! What a restored store lost of revocations, taken back in from lists that this master signed before.
//!
//! nodes, hash table -> [`Auth::adopt_revocations`] -> the list, under new numbers. Nothing is taken back by an old list: at worst a
//! device that was found again is lost once more.

use std::collections::BTreeMap;

use muster_proto::payload_type::REVOCATION_LIST;
use muster_proto::trust::v1::{Envelope, Revocation, RevocationList, TrustBundle};
use muster_wire::TrustStore;
use muster_wire::revocation::LEAP;
use muster_wire::time::from_wire;
use prost::Message;
use rustls_pki_types::CertificateDer;

use super::{Auth, AuthError, OURSELVES, settle};
use crate::domain::audit::{Action, Deed};
use crate::domain::leaf::Serial;
use crate::domain::request::KeyHash;
use crate::domain::revocation::{Reason, RevocationError};
use crate::store::{Certificate, Change, Write};

/// Certificates in one transaction.
const BATCH: usize = 200;

/// Of whom the list says nothing: people and services are known by their serials alone.
const SOMEBODY: &str = "unknown/-";

impl Auth {
    /// The store is a backup's: what is numbered from now on is told from what was numbered since the backup.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open_past(&self, actor: &str) -> Result<(), AuthError> {
        let subject = format!("networks/{}", self.authority().network());
        let (action, detail) = (Action::Restore, String::new());
        let deed = Deed { time: self.now(), action, actor: actor.to_owned(), subject, detail };
        self.store.commit(Change { writes: vec![Write::OpenPast { leap: LEAP }], deed }).await?;
        Ok(())
    }

    /// Takes a list back in that this master signed and lost; says how many certificates are in the list again.
    ///
    /// # Errors
    /// Nothing was lost, none of our signers made it, or the store does not answer.
    pub async fn adopt_revocations(
        &self,
        actor: &str,
        sealed: &Envelope,
        bundle: &TrustBundle,
    ) -> Result<u32, AuthError> {
        let restored = self.store.restored_number().await?.ok_or(RevocationError::NotRestored)?;
        let list = self.open_list(sealed, bundle)?;
        let mut lost = BTreeMap::new();
        for entry in list.revocations {
            if entry.number <= restored || entry.number >= restored + LEAP {
                continue;
            }
            match Reason::from_code(entry.reason.into()) {
                Some(Reason::Removed) => lost.remove(&entry.certificate_serial),
                _ => lost.insert(entry.certificate_serial.clone(), entry),
            };
        }
        let lost: Vec<_> = lost.into_values().collect();
        let mut adopted = 0;
        for some in lost.chunks(BATCH) {
            adopted += settle(|| self.adopt_some(actor, some)).await?;
        }
        Ok(adopted)
    }

    fn open_list(&self, sealed: &Envelope, bundle: &TrustBundle) -> Result<RevocationList, AuthError> {
        let unbelieved = |error: String| AuthError::Revocation(RevocationError::Unbelieved(error));
        let authority = self.authority();
        let roots: Vec<_> =
            authority.roots().iter().map(|root| CertificateDer::from(root.as_slice())).collect();
        let mut trust =
            TrustStore::new(authority.network(), &roots).map_err(|error| unbelieved(error.to_string()))?;
        trust.load(bundle, self.now()).map_err(|error| unbelieved(error.to_string()))?;
        let payload = trust.open(sealed, REVOCATION_LIST).map_err(|error| unbelieved(error.to_string()))?;
        RevocationList::decode(payload).map_err(|error| unbelieved(error.to_string()))
    }

    async fn adopt_some(&self, actor: &str, lost: &[Revocation]) -> Result<u32, AuthError> {
        let (mut writes, mut adopted) = (Vec::new(), 0);
        for entry in lost {
            let known = self.store.certificate(&Serial(entry.certificate_serial.to_vec())).await?;
            if known.as_ref().is_some_and(|known| known.revoke_time.is_some()) {
                continue;
            }
            let certificate = match known {
                Some(known) => known,
                None => {
                    let Some(foreign) = self.foreign(entry) else { continue };
                    writes.push(Write::AddForeignCertificate(foreign.clone()));
                    foreign
                }
            };
            let time = entry.revoke_time.and_then(from_wire).unwrap_or_else(|| self.now());
            let reason = Reason::from_code(entry.reason.into()).unwrap_or_default();
            writes.push(Write::Revoke { certificate, time, reason });
            adopted += 1;
        }
        if adopted == 0 {
            return Ok(0);
        }
        let deed = Deed {
            time: self.now(),
            action: Action::Adopt,
            actor: actor.to_owned(),
            subject: OURSELVES.to_owned(),
            detail: format!("{adopted} certificates that were revoked after the backup"),
        };
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(adopted, "revocations of the lost past count again");
        self.wake.notify_waiters();
        Ok(adopted)
    }

    /// One that was issued after the backup was taken.
    fn foreign(&self, entry: &Revocation) -> Option<Certificate> {
        let holder = if entry.node_id.is_empty() {
            SOMEBODY.to_owned()
        } else {
            format!("nodes/{}", data_encoding::HEXLOWER.encode(&entry.node_id))
        };
        Some(Certificate {
            serial: Serial(entry.certificate_serial.to_vec()),
            key: KeyHash(entry.key_hash[..].try_into().ok()?),
            principal: holder,
            issuer: self.authority().issuing().first()?.name.clone(),
            not_after: entry.expire_time.and_then(from_wire)?,
            revoke_time: None,
            der: None,
        })
    }
}
