//! The list of revoked certificates as X.509 knows it (RFC 5280, section 5): one for each authority, for everybody who does
//! not hear our own.

use std::time::Duration;

use muster_types::Timestamp;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};

use super::authority::{AuthorityError, Subordinate};
use super::leaf::{CLOCK_TOLERANCE, date, whole_seconds};
use super::revocation::{Reason, Revoked};

/// How long a list may be used: through a weekend without us, and no longer.
pub const CRL_LIFETIME: Duration = Duration::from_secs(4 * 24 * 3_600);

/// The list of one authority, in DER. `number` rises with every list.
///
/// # Errors
/// It could not be encoded.
pub fn crl(
    subordinate: &Subordinate,
    revoked: &[Revoked],
    number: u64,
    now: Timestamp,
) -> Result<Vec<u8>, AuthorityError> {
    let listed = |entry: &&Revoked| entry.issuer == subordinate.name && entry.reason != Reason::Removed;
    let ours = revoked.iter().filter(listed);
    let revoked_certs = ours
        .map(|entry| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&entry.serial.0),
                revocation_time: date(whole_seconds(entry.revoke_time))?,
                reason_code: reason(entry.reason),
                invalidity_date: None,
            })
        })
        .collect::<Result<_, AuthorityError>>()?;
    let params = CertificateRevocationListParams {
        this_update: date(whole_seconds(now - CLOCK_TOLERANCE))?,
        next_update: date(whole_seconds(now + CRL_LIFETIME))?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(&subordinate.issuer)?.der().to_vec())
}

fn reason(reason: Reason) -> Option<RevocationReason> {
    match reason {
        // RFC 5280, section 5.3.1: unspecified is said by saying nothing.
        Reason::Unspecified => None,
        Reason::KeyCompromise => Some(RevocationReason::KeyCompromise),
        Reason::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
        Reason::Superseded => Some(RevocationReason::Superseded),
        Reason::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        Reason::Lost => Some(RevocationReason::CertificateHold),
        Reason::Removed => Some(RevocationReason::RemoveFromCrl),
        Reason::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
    }
}
