//! Enrollments that wait for an operator's word.

use muster_types::Identity;

use super::{Auth, AuthError, settle};
use crate::domain::Link;
use crate::domain::approval::{Approval, ApprovalError, PENDING, Verdict};
use crate::domain::audit::{Action, Deed};
use crate::domain::link::Presenter;
use crate::store::{Change, Write};

impl Auth {
    /// Goes on if the link asks for nobody's word, or if it was given for this key; else notes that somebody waits.
    pub(super) async fn approved(
        &self,
        link: &Link,
        who: Presenter<'_>,
        source: &str,
    ) -> Result<(), AuthError> {
        if !link.terms.needs_approval {
            return Ok(());
        }
        if let Some(known) = self.store.approval_of(&link.id, who.key).await? {
            return Ok(known.record.check()?);
        }
        if self.store.waiting(&link.id).await? >= PENDING {
            return Err(ApprovalError::TooMany.into());
        }
        let now = self.now();
        let approval = Approval {
            host_name: who.host_name.to_owned(),
            hardware_serial: who.hardware_serial.to_owned(),
            source: source.to_owned(),
            ..Approval::draw(&link.id, who.key, now, &mut rand::rng())
        };
        let waits = approval.check();
        let deed = Deed {
            time: now,
            action: Action::RequestEnrollment,
            actor: link.resource_name(),
            subject: approval.resource_name(),
            detail: format!("{} from {source}", who.host_name),
        };
        tracing::info!(
            request = approval.id,
            host = who.host_name,
            "an enrollment waits for an operator's word"
        );
        let writes = vec![Write::PutApproval { approval, expected: None }];
        self.store.commit(Change { writes, deed }).await?;
        Ok(waits?)
    }

    /// Enrollment requests, the waiting ones first, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn approvals(&self, limit: u32) -> Result<Vec<Approval>, AuthError> {
        Ok(self.store.approvals(limit).await?)
    }

    /// Lets an enrollment go on, or ends it.
    ///
    /// # Errors
    /// There is no such request, it was decided already, or the store does not answer.
    pub async fn decide(&self, actor: &Identity, id: &str, approve: bool) -> Result<Approval, AuthError> {
        settle(|| self.try_decide(actor, id, approve)).await
    }

    async fn try_decide(&self, actor: &Identity, id: &str, approve: bool) -> Result<Approval, AuthError> {
        let stored = self.store.approval(id).await?;
        let stored = stored.ok_or_else(|| AuthError::NotFound(format!("enrollmentRequests/{id}")))?;
        let (mut approval, now, actor) = (stored.record, self.now(), actor.resource_name());
        let (verdict, action) = if approve {
            (Verdict::Approved(actor.clone(), now), Action::ApproveEnrollment)
        } else {
            (Verdict::Denied(actor.clone(), now), Action::DenyEnrollment)
        };
        approval.decide(verdict)?;
        let deed = Deed {
            time: now,
            action,
            actor,
            subject: approval.resource_name(),
            detail: format!("links/{}, {}", approval.link, approval.host_name),
        };
        let writes = vec![Write::PutApproval { approval: approval.clone(), expected: Some(stored.revision) }];
        self.store.commit(Change { writes, deed }).await?;
        Ok(approval)
    }
}
