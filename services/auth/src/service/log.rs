//! The audit log: what other services tell, what auditors read, and the ends of other replicas' chains.

use bytes::Bytes;
use muster_proto::auth::v1::{AuditHead, AuditHeads};
use muster_proto::payload_type::AUDIT_HEADS;
use muster_proto::trust::v1::Envelope;
use muster_types::Timestamp;
use muster_wire::{envelope, time};
use prost::Message;

use super::{Auth, AuthError, OURSELVES};
use crate::domain::audit::{Action, Deed, Entry, Head};
use crate::domain::signer::Purpose;
use crate::store::{Change, Request, StoreError, Write};

/// A deed that another service tells.
#[derive(Debug, Clone)]
pub struct Told {
    /// Makes a repeated call record it once.
    pub id: String,
    pub deed: Deed,
}

impl Auth {
    /// Records what `service` (resource name) did or saw done, in this order. What it told before is not recorded again.
    ///
    /// # Errors
    /// The store does not answer; some may be recorded then.
    pub async fn record(&self, service: &str, told: Vec<Told>) -> Result<(), AuthError> {
        for told in told {
            self.record_one(service, told).await?;
        }
        Ok(())
    }

    async fn record_one(&self, service: &str, told: Told) -> Result<(), AuthError> {
        let request =
            Request { caller: service.to_owned(), id: told.id, link: String::new(), time: self.now() };
        let change = Change { writes: vec![Write::AddRequest(request)], deed: told.deed };
        match self.store.commit(change).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The log behind revision `after`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn audit(&self, after: u64, limit: u32) -> Result<Vec<Entry>, AuthError> {
        Ok(self.store.audit(after, limit).await?)
    }

    /// The ends of all chains, signed now: whoever keeps them notices later if something was cut off.
    ///
    /// # Errors
    /// The store does not answer, or the system has no randomness to sign with.
    pub async fn signed_heads(&self) -> Result<Envelope, AuthError> {
        Ok(self.sign_heads(&self.store.heads().await?, self.now())?)
    }

    fn sign_heads(&self, heads: &[Head], now: Timestamp) -> Result<Envelope, StoreError> {
        let heads = heads.iter().map(|head| AuditHead {
            chain: head.chain.clone(),
            sequence: head.sequence,
            hash: Bytes::copy_from_slice(&head.hash),
        });
        let payload = AuditHeads { heads: heads.collect(), issue_time: Some(time::to_wire(now)) };
        let authority = self.authority();
        let signer = authority.signer(Purpose::Receipts);
        let payload = payload.encode_to_vec().into();
        envelope::sign_p256(AUDIT_HEADS, payload, &signer.key, envelope::key_id(&signer.spki))
            .map_err(|_| StoreError::Unavailable("the system has no randomness to sign with".to_owned()))
    }

    /// Notes the ends of the other replicas' chains in our own, signed, if they moved.
    pub(super) async fn witness(&self) -> Result<usize, AuthError> {
        let ours = self.store.chain().to_owned();
        let mut witnessed = 0;
        for head in self.store.heads().await?.into_iter().filter(|head| head.chain != ours) {
            let id = format!("{}/{}", head.chain, head.sequence);
            let now = self.now();
            let sealed = self.sign_heads(std::slice::from_ref(&head), now)?;
            let signature = sealed.signatures.first().map(|signature| signature.value.clone());
            let deed = Deed {
                time: now,
                action: Action::Witness,
                actor: OURSELVES.to_owned(),
                subject: format!("auditChains/{}", head.chain),
                detail: format!(
                    "entry {} hash {} signature {}",
                    head.sequence,
                    data_encoding::HEXLOWER.encode(&head.hash),
                    data_encoding::BASE64.encode(&signature.unwrap_or_default()),
                ),
            };
            // The same end is noted once, however often we look; a witness alone is no reason for another one.
            let before = self.store.request(&format!("auditChains/{ours}"), &id).await?;
            let only_witnesses = self.only_witnesses_since(&head).await?;
            if before.is_some() || only_witnesses {
                continue;
            }
            let request =
                Request { caller: format!("auditChains/{ours}"), id, link: String::new(), time: now };
            match self.store.commit(Change { writes: vec![Write::AddRequest(request)], deed }).await {
                Ok(_) => witnessed += 1,
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(witnessed)
    }

    /// Whether a chain's last entry is itself a witness: two idle replicas would else note each other's notes for ever.
    async fn only_witnesses_since(&self, head: &Head) -> Result<bool, AuthError> {
        /// Entries looked at from the end, over all chains.
        const LOOK: u32 = 1_000;
        let newest = self.store.newest_revision().await?;
        let entries = self.store.audit(newest.saturating_sub(u64::from(LOOK)), LOOK).await?;
        let last = entries.iter().rev().find(|entry| entry.chain == head.chain);
        Ok(last.is_none_or(|entry| entry.action == Action::Witness.as_str()))
    }
}
