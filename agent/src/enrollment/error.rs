//! What stood between a link and an identity: what happened, why, and what to do now.

use std::path::PathBuf;

use muster_kit::connect::{Proxies, Trouble, diagnose, presented_root};
use muster_kit::{status, tls};
use muster_types::EnrollmentLink;
use muster_types::link::LinkError;
use tonic::{Code, Status};

use crate::identity::{CredentialError, StateError};

/// Why a device was not enrolled. Each is told in a sentence for what, why and what next.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(
        "this is not an enrollment link: {0}\nCopy the whole link again, in quotes, or pass it with --file or on standard input (-)."
    )]
    Malformed(#[from] LinkError),
    #[error(
        "no link could be read from {from}: {source}.\nName a file that holds the link, or pass - and the link on standard input."
    )]
    Unreadable { from: String, source: std::io::Error },
    #[error(
        "the link was used already: each link enrolls one device.\nCreate another one on the master with `muster link create`."
    )]
    Used,
    #[error(
        "the link has expired.\nCreate another one on the master with `muster link create` (--ttl lengthens its life)."
    )]
    Expired,
    #[error(
        "the master does not know this link: it was made by another master, or its record is gone.\nCreate another one on the master with `muster link create`."
    )]
    Unknown,
    #[error(
        "the link was revoked by an operator.\nAsk them why, or create another one with `muster link create`."
    )]
    Revoked,
    #[error(
        "the link is for {0}, not for a device.\nUse it with `muster login`, or create one for a device with `muster link create`."
    )]
    WrongRole(String),
    #[error(
        "the name in {address} cannot be resolved.\nCheck this host's DNS, or create a link with an address that it can resolve."
    )]
    NotResolved { address: String },
    #[error(
        "the master cannot be reached at {address}: {detail}.\nCheck that it runs, and that no firewall drops TCP to that port."
    )]
    Unreachable { address: String, detail: String },
    #[error(
        "{address} answers, but it is not a Muster master: {detail}.\nCheck host and port in the link; a captive portal or a proxy may be answering."
    )]
    NotAMaster { address: String, detail: String },
    #[error(
        "{detail}.\nNo way without it was found. Correct the proxy where it is named; then enroll again with the same link."
    )]
    Proxy { detail: String },
    #[error(
        "something between this host and {address} re-signs TLS: the master there has the root of this link, but the certificate that arrives was signed by somebody else.\nMuster never accepts that. Exempt {address} from TLS inspection, then enroll again with the same link."
    )]
    ReSigned { address: String },
    #[error(
        "{address} is another master than the link's: its root is {presented}, the link's is {expected}.\nWas the master reinstalled? Create a new link there with `muster link create`."
    )]
    AnotherRoot { address: String, presented: String, expected: String },
    #[error(
        "the certificate at {address} does not lead to the link's root. Either another master answers there, or something on the way re-signs TLS; it does not say which.\nCheck the address, or exempt it from TLS inspection, then enroll again with the same link."
    )]
    Untrusted { address: String },
    #[error(
        "the master's certificate is not valid by this host's clock, which says {host_time}.\nSet the clock (for instance `timedatectl set-ntp true`), then enroll again with the same link."
    )]
    Clock { host_time: String },
    #[error(
        "this device is enrolled already, as node {node}; its state is in {state}.\nTo enroll it anew, run `muster-agent uninstall` first."
    )]
    AlreadyEnrolled { node: String, state: PathBuf },
    #[error("the master refuses: {0}.\nThe link was not used up; correct this and enroll again.")]
    Refused(String),
    #[error(
        "the master failed: {0}.\nTry again in a while with the same link: this device's keys are kept for it."
    )]
    Master(String),
    #[error(
        "what the master answered does not fit this device: {0}.\nNothing was kept. Try again with the same link; if it stays so, report it."
    )]
    Credentials(#[from] CredentialError),
    #[error("{0}.\nCheck that the folder can be written, by root if the agent runs as a service.")]
    State(#[from] StateError),
    #[error("something went wrong inside the agent: {0}")]
    Internal(String),
}

impl EnrollError {
    /// Reads a failed call, and looks once at what answers there if TLS was not trusted.
    pub(super) async fn of(status: &Status, link: &EnrollmentLink, proxies: &Proxies) -> Self {
        let address = link.address.clone();
        let detail = || root_cause(status);
        match diagnose(status) {
            Some(Trouble::NotResolved) => Self::NotResolved { address },
            Some(Trouble::Busy) => Self::Master(detail()),
            Some(Trouble::NotReached | Trouble::Lost) => Self::Unreachable { address, detail: detail() },
            Some(Trouble::NotAMaster | Trouble::WrongName) => Self::NotAMaster { address, detail: detail() },
            Some(Trouble::Proxy) => Self::Proxy { detail: detail() },
            Some(Trouble::UntrustedRoot) => untrusted(link, proxies).await,
            Some(Trouble::NotValidNow) => Self::Clock { host_time: host_time() },
            Some(Trouble::CertificateRefused) => Self::Refused(detail()),
            None => Self::answered(status),
        }
    }

    fn answered(status: &Status) -> Self {
        let message = status.message().to_owned();
        match status::reason(status).as_deref() {
            Some("LINK_USED") => Self::Used,
            Some("LINK_EXPIRED") => Self::Expired,
            Some("LINK_REVOKED") => Self::Revoked,
            Some("LINK_UNKNOWN") => Self::Unknown,
            Some("WRONG_ROLE") => Self::WrongRole("an operator or a CMDB".to_owned()),
            _ => match status.code() {
                Code::NotFound => Self::Unknown,
                Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition => {
                    Self::Refused(message)
                }
                _ => Self::Master(message),
            },
        }
    }

    /// The link will never work again: the keys made for it are of no use.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Used | Self::Expired | Self::Unknown | Self::Revoked | Self::WrongRole(_))
    }

    /// Exit codes that scripts can tell apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Malformed(_) | Self::Unreadable { .. } => 2,
            Self::Used
            | Self::Expired
            | Self::Unknown
            | Self::Revoked
            | Self::WrongRole(_)
            | Self::Refused(_) => 3,
            Self::NotResolved { .. }
            | Self::Unreachable { .. }
            | Self::NotAMaster { .. }
            | Self::Proxy { .. }
            | Self::Master(_) => 4,
            Self::ReSigned { .. }
            | Self::AnotherRoot { .. }
            | Self::Untrusted { .. }
            | Self::Clock { .. } => 5,
            Self::AlreadyEnrolled { .. } => 6,
            Self::Credentials(_) | Self::State(_) | Self::Internal(_) => 1,
        }
    }
}

/// Tells a proxy from a foreign master by the root that is served in the clear. Only a diagnosis: nothing is trusted.
async fn untrusted(link: &EnrollmentLink, proxies: &Proxies) -> EnrollError {
    let address = link.address.clone();
    let Ok(root) = presented_root(&address, proxies).await else { return EnrollError::Untrusted { address } };
    match tls::root_key(&root) {
        Ok(key) if key == link.root_key => EnrollError::ReSigned { address },
        Ok(key) => {
            let expected = link.root_key.common_name();
            EnrollError::AnotherRoot { address, presented: key.common_name(), expected }
        }
        Err(_) => EnrollError::Untrusted { address },
    }
}

/// The innermost reason of a transport error; what stands around it only repeats that it failed.
fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

fn host_time() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}
