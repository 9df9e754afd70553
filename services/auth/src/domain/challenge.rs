//! Nonces for renewal: issued without being kept. Time and randomness under an HMAC that all replicas share.

use std::time::Duration;

use muster_types::Timestamp;
use rand::CryptoRng;
use ring::hmac;

use super::Authority;

/// How long a challenge may be answered.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(60);

/// Clocks of replicas agree this well.
const REPLICA_SKEW: Duration = Duration::from_secs(5);

const TIME_BYTES: usize = 8;
const NONCE_BYTES: usize = 16;
const BODY_BYTES: usize = TIME_BYTES + NONCE_BYTES;

/// Why a challenge does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    #[error("the challenge is not one of this network's")]
    Foreign,
    #[error("the challenge is older than a minute: ask for another")]
    Expired,
}

/// A new challenge: issue time, nonce, HMAC-SHA256 over both.
pub fn issue(authority: &Authority, now: Timestamp, rng: &mut impl CryptoRng) -> Vec<u8> {
    let mut challenge = now.as_micros().to_be_bytes().to_vec();
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    challenge.extend_from_slice(&nonce);
    let tag = hmac::sign(authority.challenge_key(), &challenge);
    challenge.extend_from_slice(tag.as_ref());
    challenge
}

/// # Errors
/// We did not issue it, or not within the last minute.
pub fn check(authority: &Authority, challenge: &[u8], now: Timestamp) -> Result<(), ChallengeError> {
    let (body, tag) = challenge.split_at_checked(BODY_BYTES).ok_or(ChallengeError::Foreign)?;
    hmac::verify(authority.challenge_key(), body, tag).map_err(|_| ChallengeError::Foreign)?;
    let time = body.first_chunk::<TIME_BYTES>().ok_or(ChallengeError::Foreign)?;
    let issued = Timestamp::from_micros(i64::from_be_bytes(*time));
    if now.since(issued) > CHALLENGE_LIFETIME || issued.since(now) > REPLICA_SKEW {
        return Err(ChallengeError::Expired);
    }
    Ok(())
}
