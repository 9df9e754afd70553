//! Making, showing and revoking links.

use muster_types::{EnrollmentLink, Identity, Token};

use super::{Auth, AuthError, settle};
use crate::domain::Link;
use crate::domain::audit::{Action, Deed};
use crate::domain::link::{Binding, Protocol, Terms};
use crate::store::{Change, Cursor, Request, Write};

/// A link as somebody wants it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub terms: Terms,
    /// Makes a repeated call return the first one's link.
    pub request_id: Option<String>,
    /// Say what would be, and make nothing.
    pub validate_only: bool,
}

/// A link that was made, now or by the same call before.
#[derive(Debug, Clone)]
pub struct Created {
    pub link: Link,
    /// With its secret; only where it was made just now.
    pub secret: Option<String>,
}

impl Auth {
    /// # Errors
    /// The creator may not make such a link, or the store does not answer.
    pub async fn create_link(&self, creator: &Identity, wanted: &Wanted) -> Result<Created, AuthError> {
        wanted.terms.check(creator.role)?;
        settle(|| self.try_create_link(creator, wanted)).await
    }

    async fn try_create_link(&self, creator: &Identity, wanted: &Wanted) -> Result<Created, AuthError> {
        let creator = creator.resource_name();
        if let Some(id) = &wanted.request_id
            && let Some(answered) = self.store.request(&creator, id).await?
        {
            let link = self.link(&answered.link).await?;
            return Ok(Created { link, secret: None });
        }
        let now = self.now();
        let (link, token) = Link::draw(wanted.terms.clone(), creator.clone(), now, &mut rand::rng());
        if wanted.validate_only {
            return Ok(Created { link, secret: None });
        }
        let mut writes = vec![Write::AddLink(link.clone())];
        if let Some(id) = wanted.request_id.clone() {
            writes.push(Write::AddRequest(Request {
                caller: creator.clone(),
                id,
                link: link.id.clone(),
                time: now,
            }));
        }
        let deed = Deed {
            time: now,
            action: Action::CreateLink,
            actor: creator,
            subject: link.resource_name(),
            detail: described(&link),
        };
        self.store.commit(Change { writes, deed }).await?;
        tracing::info!(link = link.id, role = %link.terms.role, "made a link");
        Ok(Created { secret: Some(self.secret(&link, token)), link })
    }

    /// What is handed out: the link's URL, or the challenge alone.
    fn secret(&self, link: &Link, token: Token) -> String {
        match link.terms.protocol {
            Protocol::Challenge => token.reveal(),
            Protocol::Muster => self.url(token).reveal(),
        }
    }

    fn url(&self, token: Token) -> EnrollmentLink {
        EnrollmentLink { address: self.address.clone(), token, root_key: *self.authority().root_key() }
    }

    /// # Errors
    /// There is no such link, or the store does not answer.
    pub async fn link(&self, id: &str) -> Result<Link, AuthError> {
        let stored = self.store.link(id).await?;
        Ok(stored.ok_or_else(|| AuthError::NotFound(format!("links/{id}")))?.record)
    }

    /// A page of links, newest first, from behind `after`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn links(&self, after: Option<&Cursor>, limit: u32) -> Result<Vec<Link>, AuthError> {
        let page = self.store.links(after, limit).await?;
        Ok(page.into_iter().map(|stored| stored.record).collect())
    }

    /// An unused link stops working; a used one stays as it is.
    ///
    /// # Errors
    /// There is no such link, or the store does not answer.
    pub async fn revoke_link(&self, actor: &Identity, id: &str) -> Result<Link, AuthError> {
        settle(|| self.try_revoke_link(actor, id)).await
    }

    async fn try_revoke_link(&self, actor: &Identity, id: &str) -> Result<Link, AuthError> {
        let stored = self.store.link(id).await?;
        let stored = stored.ok_or_else(|| AuthError::NotFound(format!("links/{id}")))?;
        let mut link = stored.record.clone();
        let now = self.now();
        link.revoke(now);
        if link == stored.record {
            return Ok(link);
        }
        let deed = Deed {
            time: now,
            action: Action::RevokeLink,
            actor: actor.resource_name(),
            subject: link.resource_name(),
            detail: String::new(),
        };
        let writes = vec![Write::ReplaceLink { link: link.clone(), expected: stored.revision }];
        self.store.commit(Change { writes, deed }).await?;
        Ok(link)
    }
}

/// A link's terms as the audit log shows them.
fn described(link: &Link) -> String {
    let Terms { role, use_limit, needs_approval, protocol, binding, .. } = &link.terms;
    let mut detail = format!("role {role}, {use_limit} uses, by {}", protocol.as_str());
    if *needs_approval {
        detail.push_str(", to be approved");
    }
    if *binding != Binding::default() {
        detail.push_str(", bound");
    }
    detail
}
