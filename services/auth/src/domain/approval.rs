//! Enrollments that wait for an operator's word: one for each link and key, decided once.

use muster_types::Timestamp;
use rand::CryptoRng;

use super::request::KeyHash;

/// Random bytes of a request's id.
const ID_BYTES: usize = 8;

/// Requests that one link may have waiting: whoever has the link cannot fill the store with it.
pub const PENDING: u32 = 1_000;

/// An enrollment that waits, or waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// 16 hexadecimal digits.
    pub id: String,
    /// Id of the link.
    pub link: String,
    pub key: KeyHash,
    /// As it calls itself.
    pub host_name: String,
    pub hardware_serial: String,
    /// The address it came from.
    pub source: String,
    pub create_time: Timestamp,
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Pending,
    /// By whom (resource name), and when.
    Approved(String, Timestamp),
    Denied(String, Timestamp),
}

/// Why an enrollment does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    #[error("this enrollment waits for an operator's word, as {0}")]
    Pending(String),
    #[error("an operator denied this enrollment")]
    Denied,
    #[error("{PENDING} enrollments by this link wait already: decide on them first")]
    TooMany,
    #[error("{0} was decided already")]
    Decided(String),
}

impl Approval {
    pub fn draw(link: &str, key: KeyHash, now: Timestamp, rng: &mut impl CryptoRng) -> Self {
        let mut id = [0; ID_BYTES];
        rng.fill_bytes(&mut id);
        Self {
            id: data_encoding::HEXLOWER.encode(&id),
            link: link.to_owned(),
            key,
            host_name: String::new(),
            hardware_serial: String::new(),
            source: String::new(),
            create_time: now,
            verdict: Verdict::Pending,
        }
    }

    /// `enrollmentRequests/{id}`
    pub fn resource_name(&self) -> String {
        format!("enrollmentRequests/{}", self.id)
    }

    /// Whether the enrollment goes on.
    ///
    /// # Errors
    /// It waits, or was denied.
    pub fn check(&self) -> Result<(), ApprovalError> {
        match self.verdict {
            Verdict::Pending => Err(ApprovalError::Pending(self.resource_name())),
            Verdict::Denied(..) => Err(ApprovalError::Denied),
            Verdict::Approved(..) => Ok(()),
        }
    }

    /// # Errors
    /// Somebody decided before.
    pub fn decide(&mut self, verdict: Verdict) -> Result<(), ApprovalError> {
        if self.verdict != Verdict::Pending {
            return Err(ApprovalError::Decided(self.resource_name()));
        }
        self.verdict = verdict;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_request_is_decided_once() {
        let now = Timestamp::from_micros(1);
        let mut request = Approval::draw("a", KeyHash([1; 32]), now, &mut StdRng::seed_from_u64(1));
        assert!(matches!(request.check(), Err(ApprovalError::Pending(_))));
        request.decide(Verdict::Denied("operators/a".into(), now)).unwrap();
        assert_eq!(request.check(), Err(ApprovalError::Denied));
        assert!(request.decide(Verdict::Approved("operators/b".into(), now)).is_err());
    }
}
