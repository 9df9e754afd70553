//! The shelf of X.509 revocation lists: made anew when something was revoked, read by whoever serves them.
//!
//! `/crl/{authority}.crl` as in `/crl/issuing-1.crl`, in DER, over plain HTTP: the lists are signed, and whoever needs them
//! cannot yet trust a TLS that they decide on (RFC 5280, section 4.2.1.13).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use muster_kit::shutdown::Shutdown;
use muster_types::Timestamp;

use crate::domain::crl::{CRL_LIFETIME, crl};
use crate::service::{Auth, AuthError};

/// How often it looks whether something was revoked elsewhere.
const LOOK: Duration = Duration::from_secs(1);

/// Lists are made anew after this part of their life, also when nothing changed.
const RENEWALS: u32 = 4;

/// What a list is served as (RFC 2585, section 4.2).
pub const CONTENT_TYPE: &str = "application/pkix-crl";

/// The lists, by path.
#[derive(Debug, Default)]
pub struct Shelf {
    lists: ArcSwap<BTreeMap<String, Bytes>>,
    /// Serial numbers that auth itself refuses.
    revoked: ArcSwap<HashSet<Vec<u8>>>,
}

impl Shelf {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Where the list of an authority lies, as in `issuing/1`.
    pub fn path(authority: &str) -> String {
        format!("/crl/{}.crl", authority.replace('/', "-"))
    }

    /// The list at `path`.
    pub fn list(&self, path: &str) -> Option<Bytes> {
        self.lists.load().get(path).cloned()
    }

    /// Whether the certificate with this serial number counts no longer.
    pub fn is_revoked(&self, serial: &[u8]) -> bool {
        self.revoked.load().contains(serial)
    }

    /// Keeps the lists fresh until the shutdown.
    pub fn keep(self: Arc<Self>, auth: Arc<Auth>, shutdown: &Shutdown) {
        let ended = shutdown.clone();
        shutdown.spawn(async move {
            let mut made: Option<(u64, u64, Timestamp)> = None;
            loop {
                match self.fill(&auth, made).await {
                    Ok(filled) => made = filled.or(made),
                    Err(error) => tracing::warn!(%error, "could not make the revocation lists; trying again"),
                }
                tokio::select! {
                    () = ended.triggered() => return,
                    _ = tokio::time::timeout(LOOK, auth.revocations_changed()) => {}
                }
            }
        });
    }

    /// Makes the lists unless those of `made` (number, version of the keys, time) are still good.
    async fn fill(
        &self,
        auth: &Auth,
        made: Option<(u64, u64, Timestamp)>,
    ) -> Result<Option<(u64, u64, Timestamp)>, AuthError> {
        let (authority, now) = (auth.authority(), auth.now());
        let number = auth.store().revocation_number().await?;
        if let Some((of, by, at)) = made
            && (of, by) == (number, authority.version())
            && now.since(at) < CRL_LIFETIME / RENEWALS
        {
            return Ok(None);
        }
        let revoked = auth.revoked().await?;
        // Rises with the time too, as each list must (RFC 5280, section 5.2.3).
        let crl_number = now.as_micros().unsigned_abs();
        let mut lists = BTreeMap::new();
        for subordinate in authority.issuing().iter().chain(authority.devices()) {
            lists.insert(
                Self::path(&subordinate.name),
                Bytes::from(crl(subordinate, &revoked, crl_number, now)?),
            );
        }
        let revoked = revoked.into_iter().map(|entry| entry.serial.0).collect();
        self.revoked.store(Arc::new(revoked));
        self.lists.store(Arc::new(lists));
        Ok(Some((number, authority.version(), now)))
    }
}
