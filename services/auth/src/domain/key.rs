//! The authority's keys as the store holds them: private parts sealed, one row for each generation.

use muster_types::Timestamp;
use rand::CryptoRng;

use super::authority::AuthorityError;
use super::signer::Purpose;
use super::vault::Vault;

/// What a stored key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    Root,
    /// Signs the certificates of nodes, people and services.
    Issuing,
    /// Signs the certificates of devices without our agent, which are nobody in our network.
    Devices,
    Signer(Purpose),
    /// HMAC over renewal challenges; shared by all replicas.
    Challenge,
    /// A root's certificate by another root; without a key.
    Cross,
    /// The RSA key of SCEP's registration authority.
    Registration,
    /// The certificate that withdraws a signer's key; without a key.
    Withdrawal,
}

impl KeyKind {
    pub const ALL: [Self; 10] = [
        Self::Root,
        Self::Issuing,
        Self::Devices,
        Self::Signer(Purpose::Tasks),
        Self::Signer(Purpose::Tickets),
        Self::Signer(Purpose::Receipts),
        Self::Challenge,
        Self::Cross,
        Self::Registration,
        Self::Withdrawal,
    ];

    /// What a root signs.
    pub const AUTHORITIES: [Self; 2] = [Self::Issuing, Self::Devices];

    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::Devices => "devices",
            Self::Signer(Purpose::Tasks) => "signer-tasks",
            Self::Signer(Purpose::Tickets) => "signer-tickets",
            Self::Signer(Purpose::Receipts) => "signer-receipts",
            Self::Challenge => "challenge",
            Self::Cross => "cross",
            Self::Registration => "registration",
            Self::Withdrawal => "withdrawal",
        }
    }

    /// The subject of an authority.
    pub(super) fn common_name(self) -> &'static str {
        match self {
            Self::Devices => "Muster device authority",
            _ => "Muster issuing authority",
        }
    }
}

/// One of the authority's keys as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub kind: KeyKind,
    /// Counts from 1; the highest is in use.
    pub generation: u32,
    /// The private key, or its name in a token, sealed by the vault for this kind and generation; empty where it is elsewhere.
    pub sealed: Vec<u8>,
    /// DER; empty for a key without certificate, and of an authority that waits for its root's signature.
    pub certificate: Vec<u8>,
    pub create_time: Timestamp,
}

impl StoredKey {
    pub(crate) fn seal(
        kind: KeyKind,
        generation: u32,
        plain: &[u8],
        certificate: Vec<u8>,
        (vault, now): (&Vault, Timestamp),
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AuthorityError> {
        let sealed = vault.seal(&label(kind, generation), plain, rng)?;
        Ok(Self { kind, generation, sealed, certificate, create_time: now })
    }

    /// A certificate whose key is elsewhere.
    pub(super) fn elsewhere(kind: KeyKind, generation: u32, certificate: Vec<u8>, now: Timestamp) -> Self {
        Self { kind, generation, sealed: Vec::new(), certificate, create_time: now }
    }

    pub(crate) fn unseal(&self, vault: &Vault) -> Result<Vec<u8>, AuthorityError> {
        Ok(vault.unseal(&label(self.kind, self.generation), &self.sealed)?)
    }

    /// Whether we can sign by the private key.
    pub fn is_here(&self) -> bool {
        !self.sealed.is_empty()
    }

    pub(super) fn name(&self) -> String {
        label(self.kind, self.generation)
    }
}

/// As in `issuing/2`.
pub(super) fn label(kind: KeyKind, generation: u32) -> String {
    format!("{}/{generation}", kind.as_str())
}

/// All generations of a kind, the newest first.
pub(super) fn generations(keys: &[StoredKey], kind: KeyKind) -> Vec<&StoredKey> {
    let mut found: Vec<_> = keys.iter().filter(|key| key.kind == kind).collect();
    found.sort_by_key(|key| std::cmp::Reverse(key.generation));
    found
}

/// The newest with a certificate.
pub(super) fn newest(keys: &[StoredKey], kind: KeyKind) -> Result<&StoredKey, AuthorityError> {
    let usable = |key: &&StoredKey| kind == KeyKind::Challenge || !key.certificate.is_empty();
    generations(keys, kind).into_iter().find(usable).ok_or(AuthorityError::Missing(kind))
}

/// The generation that a new key of a kind gets.
pub(super) fn next_generation(keys: &[StoredKey], kind: KeyKind) -> u32 {
    generations(keys, kind).first().map_or(1, |key| key.generation + 1)
}
