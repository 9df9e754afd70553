//! A bootstrap node's identity: keys drawn once, an id that follows from them, a port that stays.

use bytes::Bytes;
use muster_proto::trust::v1::Envelope;
use muster_types::{NodeId, Timestamp};
use muster_wire::ticket::{bootstrap_id, bootstrap_ticket};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use x25519_dalek::{PublicKey, StaticSecret};

/// The system gives no randomness, or a kept key is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the system gives no randomness")]
    NoRandomness,
    #[error("the kept keys of bootstrap node {0} are damaged")]
    Damaged(u16),
}

/// What is kept of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// 0, 1, 2, ...
    pub slot: u16,
    pub noise_secret: [u8; 32],
    /// PKCS #8
    pub signing_key: Vec<u8>,
    /// Zero before it was first bound.
    pub port: u16,
}

impl Identity {
    /// Draws a new one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn draw(slot: u16) -> Result<Self, IdentityError> {
        let random = SystemRandom::new();
        let mut noise_secret = [0; 32];
        random.fill(&mut noise_secret).map_err(|_| IdentityError::NoRandomness)?;
        let signing_key = Ed25519KeyPair::generate_pkcs8(&random)
            .map_err(|_| IdentityError::NoRandomness)?
            .as_ref()
            .to_vec();
        Ok(Self { slot, noise_secret, signing_key, port: 0 })
    }

    pub fn noise_key(&self) -> [u8; 32] {
        *PublicKey::from(&StaticSecret::from(self.noise_secret)).as_bytes()
    }

    /// # Errors
    /// The kept key is damaged.
    pub fn signing_pair(&self) -> Result<Ed25519KeyPair, IdentityError> {
        Ed25519KeyPair::from_pkcs8(&self.signing_key).map_err(|_| IdentityError::Damaged(self.slot))
    }

    /// Follows from the key: so auth can see that it is nobody else's, and nobody can choose it.
    pub fn node(&self) -> NodeId {
        bootstrap_id(&self.noise_key())
    }

    /// What auth is asked to sign.
    ///
    /// # Errors
    /// The kept key is damaged.
    pub fn ticket(&self, now: Timestamp) -> Result<Bytes, IdentityError> {
        let signing = self.signing_pair()?;
        Ok(bootstrap_ticket(&self.noise_key(), signing.public_key().as_ref(), now))
    }

    /// # Errors
    /// The kept key is damaged.
    pub fn signer(
        &self,
        network: muster_types::NetworkId,
        ticket: &Envelope,
    ) -> Result<muster_wire::Signer, IdentityError> {
        Ok(muster_wire::Signer::new(network, self.node(), self.signing_pair()?, ticket.clone(), 0))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}, {:?})", self.slot, self.node())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_follows_from_the_key_and_two_nodes_differ() {
        let (a, b) = (Identity::draw(0).unwrap(), Identity::draw(1).unwrap());
        assert_ne!(a.node(), b.node());
        let again = Identity { port: 9, ..a.clone() };
        assert_eq!(again.node(), a.node());
    }
}
