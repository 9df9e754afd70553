//! The key of SCEP's registration authority, and the certificates of servers that are no services of ours.

use muster_types::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};

use super::{Auth, AuthError, Issued, OURSELVES};
use crate::domain::audit::{Action, Deed};
use crate::domain::authority::AuthorityError;
use crate::domain::key::{KeyKind, StoredKey};
use crate::domain::leaf::SIGNER_LIFETIME;
use crate::domain::server;
use crate::store::{Change, StoreError, Write};

/// Bits of the key: what every client of SCEP can do, and good enough for what it opens, which is worth nothing in 14 days.
const RSA_BITS: usize = 2_048;

/// SCEP's own key, with its certificate by the authority for devices.
#[derive(Clone)]
pub struct Registration {
    pub key: RsaPrivateKey,
    /// DER
    pub certificate: Vec<u8>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registration")
    }
}

impl Auth {
    /// The registration authority's key, made when it is first needed, or needed under a new authority.
    ///
    /// # Errors
    /// There is no authority for devices, or the store does not answer.
    pub async fn registration(&self) -> Result<Registration, AuthError> {
        let authority = self.authority();
        let device = authority.devices().first().ok_or(AuthorityError::Missing(KeyKind::Devices))?;
        let good = |known: &&StoredKey| {
            device.signed(&known.certificate) && self.now().since(known.create_time) < SIGNER_LIFETIME / 2
        };
        for attempt in 0..2 {
            let keys = self.store.keys().await?;
            if let Some(known) = newest(&keys).filter(good) {
                return self.open_registration(known);
            }
            if attempt == 0 {
                self.make_registration(&keys).await?;
            }
        }
        Err(AuthorityError::Missing(KeyKind::Registration).into())
    }

    /// The key that clients have known longest, of those that still count: it vouches for the authority that follows.
    ///
    /// # Errors
    /// As [`Self::registration`].
    pub async fn eldest_registration(&self) -> Result<Registration, AuthError> {
        let keys = self.store.keys().await?;
        let counts = |known: &&StoredKey| {
            known.kind == KeyKind::Registration && self.now().since(known.create_time) < SIGNER_LIFETIME / 2
        };
        match keys.iter().filter(counts).min_by_key(|known| known.generation) {
            Some(eldest) => self.open_registration(eldest),
            None => self.registration().await,
        }
    }

    fn open_registration(&self, stored: &StoredKey) -> Result<Registration, AuthError> {
        let plain = stored.unseal(&self.vault)?;
        let key = RsaPrivateKey::from_pkcs8_der(&plain).map_err(|error| AuthorityError::Unreadable {
            kind: KeyKind::Registration,
            reason: error.to_string(),
        })?;
        Ok(Registration { key, certificate: stored.certificate.clone() })
    }

    async fn make_registration(&self, keys: &[StoredKey]) -> Result<(), AuthError> {
        // Drawing primes takes up to a second: not on a thread that serves others.
        let drawn =
            tokio::task::spawn_blocking(|| RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS)).await;
        let encoding = |error: &dyn std::fmt::Display| AuthorityError::Encoding(error.to_string());
        let key = drawn.map_err(|error| encoding(&error))?.map_err(|error| encoding(&error))?;
        let plain = key.to_pkcs8_der().map_err(|error| encoding(&error))?;
        let spki = key.to_public_key().to_public_key_der().map_err(|error| encoding(&error))?;
        let now = self.now();
        let certificate = server::registration(&self.authority(), spki.as_bytes(), now, &mut rand::rng())?;
        let generation = newest(keys).map_or(1, |known| known.generation + 1);
        let stored = StoredKey::seal(
            KeyKind::Registration,
            generation,
            plain.as_bytes(),
            certificate,
            (&self.vault, now),
            &mut rand::rng(),
        )?;
        let deed = Deed {
            time: now,
            action: Action::Rotate,
            actor: OURSELVES.to_owned(),
            subject: "signers/registration".to_owned(),
            detail: format!("generation {generation}"),
        };
        match self.store.commit(Change { writes: vec![Write::AddKey(stored)], deed }).await {
            // Another replica was first: its key is as good.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A certificate for a server at `hosts` (names or addresses) that is no service of ours.
    ///
    /// # Errors
    /// A host's name cannot stand in a certificate, or the store does not answer.
    pub async fn issue_server(&self, name: &str, hosts: &[String]) -> Result<Issued, AuthError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let (authority, now): (_, Timestamp) = (self.authority(), self.now());
        let leaf =
            server::issue(&authority, name, hosts, &key.subject_public_key_info(), now, &mut rand::rng())?;
        let deed = Deed {
            time: now,
            action: Action::Issue,
            actor: OURSELVES.to_owned(),
            subject: leaf.principal.clone(),
            detail: format!("serial {}", data_encoding::HEXLOWER.encode(&leaf.serial.0)),
        };
        let writes = vec![Write::AddDeviceCertificate(leaf.clone())];
        self.store.commit(Change { writes, deed }).await?;
        Ok(Issued {
            name: leaf.principal,
            chain: [vec![leaf.der], authority.chain()].concat(),
            key: key.serialize_der(),
            roots: authority.roots().to_vec(),
            not_after: leaf.not_after,
        })
    }
}

fn newest(keys: &[StoredKey]) -> Option<&StoredKey> {
    keys.iter().filter(|key| key.kind == KeyKind::Registration).max_by_key(|key| key.generation)
}
