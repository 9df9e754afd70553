//! What auth counts, each name defined once. Counters begin at 0, so that rates see their first event.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use muster_kit::status::Fault;
use muster_types::Timestamp;

use crate::domain::signer::Purpose;
use crate::service::{Created, Tended};

const ENROLLMENTS: &str = "muster_auth_enrollments_total";
const RENEWALS: &str = "muster_auth_renewals_total";
const LINKS: &str = "muster_auth_links_created_total";
const SIGNATURES: &str = "muster_auth_signatures_total";
const REVOCATIONS: &str = "muster_auth_revocations_total";
const DEVICES: &str = "muster_auth_device_requests_total";
const FORGOTTEN: &str = "muster_auth_records_forgotten_total";
const SERVICE_EXPIRY: &str = "muster_auth_service_certificate_expiry_timestamp_seconds";

/// Describes the metrics to whichever exporter is installed.
pub fn describe() {
    describe_counter!(ENROLLMENTS, "Enrollments, by outcome: ok, or the reason of the refusal");
    describe_counter!(RENEWALS, "Renewals, by outcome: ok, or the reason of the refusal");
    describe_counter!(LINKS, "Enrollment links made, by role");
    describe_counter!(SIGNATURES, "Payloads signed, by signer");
    describe_counter!(REVOCATIONS, "Certificates revoked");
    describe_counter!(DEVICES, "Requests of devices without our agent, by protocol and outcome");
    describe_counter!(FORGOTTEN, "Expired records purged from the store");
    describe_gauge!(SERVICE_EXPIRY, "When the certificate of this process's auth service expires");
    for name in [ENROLLMENTS, RENEWALS] {
        counter!(name, "outcome" => outcome(None)).absolute(0);
    }
    for name in [REVOCATIONS, FORGOTTEN] {
        counter!(name).absolute(0);
    }
}

pub(crate) fn count_enrollment(refused: Option<&Fault>) {
    counter!(ENROLLMENTS, "outcome" => outcome(refused)).increment(1);
}

pub(crate) fn count_renewal(refused: Option<&Fault>) {
    counter!(RENEWALS, "outcome" => outcome(refused)).increment(1);
}

pub(crate) fn count_link(created: &Created) {
    if created.secret.is_some() {
        counter!(LINKS, "role" => created.link.terms.role.as_str()).increment(1);
    }
}

pub(crate) fn count_signature(purpose: Purpose) {
    counter!(SIGNATURES, "signer" => purpose.as_str()).increment(1);
}

pub(crate) fn count_revocations(certificates: usize) {
    counter!(REVOCATIONS).increment(certificates as u64);
}

/// `protocol` is scep or est; `outcome` ok, pending or refused.
pub(crate) fn count_device(protocol: &'static str, outcome: &'static str) {
    counter!(DEVICES, "protocol" => protocol, "outcome" => outcome).increment(1);
}

pub(crate) fn count_tended(tended: Tended) {
    counter!(FORGOTTEN).increment(tended.records_forgotten);
}

pub(crate) fn show_service_expiry(not_after: Timestamp) {
    gauge!(SERVICE_EXPIRY).set(not_after.as_micros() as f64 / 1e6);
}

/// Reasons are constants of the code: a closed set.
fn outcome(refused: Option<&Fault>) -> &'static str {
    refused.map_or("ok", |fault| fault.reason)
}
