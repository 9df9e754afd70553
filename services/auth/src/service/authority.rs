//! New generations of root and authorities, made here or signed elsewhere.

use super::{Auth, AuthError};
use crate::domain::audit::Action;
use crate::domain::key::{KeyKind, StoredKey};
use crate::domain::rotation;
use crate::domain::signer::Purpose;

impl Auth {
    /// A new issuing authority beside the old one. Where the root is elsewhere only its key is made: what [`Self::requests`]
    /// says is to be signed there.
    ///
    /// # Errors
    /// The keys cannot be made or stored.
    pub async fn rotate_issuing(&self, actor: &str) -> Result<(), AuthError> {
        let keys = self.store.keys().await?;
        let made = rotation::rotate_issuing(&keys, &self.vault, self.now(), &mut rand::rng())?;
        self.adopt(actor, made).await
    }

    /// A new root beside the old one, with new authorities below it.
    ///
    /// # Errors
    /// The root's key is elsewhere, or the keys cannot be stored.
    pub async fn rotate_root(&self, actor: &str) -> Result<(), AuthError> {
        let keys = self.store.keys().await?;
        let made = rotation::rotate_root(&keys, &self.vault, self.now(), &mut rand::rng())?;
        self.adopt(actor, made).await
    }

    /// New keys to sign tasks, tickets and receipts with. What the old ones signed counts for a while.
    ///
    /// # Errors
    /// The keys cannot be made or stored.
    pub async fn rotate_signers(&self, actor: &str) -> Result<(), AuthError> {
        let (keys, network) = (self.store.keys().await?, self.authority().network());
        let made = rotation::rotate_signers(&keys, &self.vault, network, self.now(), &mut rand::rng())?;
        self.adopt(actor, made).await
    }

    /// New keys in place of all that sign for these purposes, and did: nothing counts any more that the old ones signed.
    ///
    /// # Errors
    /// The keys cannot be made or stored.
    pub async fn withdraw_signers(&self, actor: &str, purposes: &[Purpose]) -> Result<(), AuthError> {
        let (keys, network) = (self.store.keys().await?, self.authority().network());
        let (vault, now) = (&self.vault, self.now());
        let made = rotation::withdraw_signers(&keys, vault, purposes, network, now, &mut rand::rng())?;
        self.adopt_by(Action::WithdrawSigner, actor, made).await
    }

    /// The requests of authorities that wait for their root's signature.
    ///
    /// # Errors
    /// The store does not answer, or a key is damaged.
    pub async fn requests(&self) -> Result<Vec<(KeyKind, Vec<u8>)>, AuthError> {
        Ok(rotation::requests(&self.store.keys().await?, &self.vault)?)
    }

    /// Takes in certificates (DER) that a root elsewhere signed.
    ///
    /// # Errors
    /// One of them does not fit; none is taken then.
    pub async fn import(&self, actor: &str, certificates: &[Vec<u8>]) -> Result<(), AuthError> {
        let keys = self.store.keys().await?;
        let made = rotation::import(&keys, certificates, &self.vault, self.now(), &mut rand::rng())?;
        self.adopt(actor, made).await
    }

    async fn adopt(&self, actor: &str, made: Vec<StoredKey>) -> Result<(), AuthError> {
        self.adopt_by(Action::Rotate, actor, made).await
    }

    async fn adopt_by(&self, action: Action, actor: &str, made: Vec<StoredKey>) -> Result<(), AuthError> {
        let subject = format!("networks/{}", self.authority().network());
        Self::add_keys((self.store.as_ref(), &self.vault), made, action, actor, subject, self.now()).await?;
        self.refresh().await?;
        Ok(())
    }
}
