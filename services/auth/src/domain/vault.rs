//! Private keys at rest: sealed under a secret that lives beside the database, not in it, so that a dump of the
//! database alone is no certificate authority. With a token only the names of authorities' keys are sealed.

use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::custody::Token;

/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// Why a sealed key stayed shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("the secret is not 64 hexadecimal digits")]
    Secret,
    #[error(
        "the secret does not open the authority's keys: it belongs to another network, or one of the two is damaged"
    )]
    Shut,
}

/// The secret under which private keys are sealed. It cannot be printed.
pub struct Vault {
    key: LessSafeKey,
    /// Where the keys of authorities are made.
    token: Option<Arc<dyn Token>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(secret)")
    }
}

impl Vault {
    /// A new secret, as the text of its file.
    pub fn draw(rng: &mut impl CryptoRng) -> String {
        let mut secret = [0; SECRET_BYTES];
        rng.fill_bytes(&mut secret);
        format!("{}\n", HEXLOWER.encode(&secret))
    }

    /// The vault of the secret whose file holds `text`.
    ///
    /// # Errors
    /// The text is no secret.
    pub fn open(text: &str) -> Result<Self, VaultError> {
        let secret = HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| VaultError::Secret)?;
        let key = UnboundKey::new(&AES_256_GCM, &secret).map_err(|_| VaultError::Secret)?;
        Ok(Self { key: LessSafeKey::new(key), token: None })
    }

    /// The same vault, with authorities' keys in `token` from now on.
    #[must_use]
    pub fn with_token(self, token: Arc<dyn Token>) -> Self {
        Self { token: Some(token), ..self }
    }

    pub(super) fn token(&self) -> Option<&Arc<dyn Token>> {
        self.token.as_ref()
    }

    /// Seals a private key; `label` says whose it is and must be the same at [`Vault::unseal`].
    ///
    /// # Errors
    /// Only if `plain` is larger than AES-GCM can take.
    pub fn seal(&self, label: &str, plain: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, VaultError> {
        // Random nonces are safe for 2^32 messages under one secret (NIST SP 800-38D, section 8.3); we seal dozens.
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(label), &mut sealed)
            .map_err(|_| VaultError::Shut)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// # Errors
    /// Another secret sealed it, for another label, or it was changed.
    pub fn unseal(&self, label: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Shut)?;
        let mut plain = sealed.to_vec();
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(label), &mut plain)
            .map_err(|_| VaultError::Shut)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_sealed_key_opens_with_its_secret_and_label_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let secret = Vault::draw(&mut rng);
        let vault = Vault::open(&secret).unwrap();
        let sealed = vault.seal("root/1", b"a private key", &mut rng).unwrap();
        assert!(!sealed.windows(13).any(|window| window == b"a private key"));
        assert_eq!(Vault::open(&secret).unwrap().unseal("root/1", &sealed).unwrap(), b"a private key");
        assert_eq!(vault.unseal("issuing/1", &sealed), Err(VaultError::Shut));
        let other = Vault::open(&Vault::draw(&mut rng)).unwrap();
        assert_eq!(other.unseal("root/1", &sealed), Err(VaultError::Shut));
    }

    #[test]
    fn a_file_that_holds_no_secret_is_named() {
        for text in ["", "abc", &"0".repeat(62), &"z".repeat(64)] {
            assert!(matches!(Vault::open(text), Err(VaultError::Secret)), "{text:?}");
        }
    }
}
