//! What stood between a call and the master, read from the error that tonic hands out.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tonic::{Code, Status};

use super::ConnectError;

/// Why a call did not come through, as far as this side can tell. Each wants another advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The master's name has no address.
    NotResolved,
    /// Nobody listens there, or nobody is there.
    NotReached,
    /// Somebody listens, and it is not a Muster master: no TLS, or another protocol inside.
    NotAMaster,
    /// Whoever answered has a certificate of another root: another network's master, or a proxy that re-signs TLS.
    UntrustedRoot,
    /// The certificate is one of our network, but not the service's.
    WrongName,
    /// The service's certificate is not valid now: its clock or ours is wrong, or it was not renewed.
    NotValidNow,
    /// The master refuses our certificate: expired, revoked or of another network.
    CertificateRefused,
    /// The connection stood and was lost.
    Lost,
}

/// `None` where the master itself answered.
pub fn diagnose(status: &Status) -> Option<Trouble> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    let transport = next.is_some();
    while let Some(error) = next {
        let found = error
            .downcast_ref::<ConnectError>()
            .map(of_connecting)
            .or_else(|| error.downcast_ref::<rustls::Error>().map(of_tls))
            .or_else(|| error.downcast_ref::<io::Error>().and_then(inside).map(of_tls));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    // In TLS 1.3 a server that refuses our certificate may close before its alert is read.
    let cut = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (transport && cut).then_some(Trouble::Lost)
}

fn inside(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn of_connecting(error: &ConnectError) -> Trouble {
    match error {
        ConnectError::NoAddress | ConnectError::Unresolved { .. } => Trouble::NotResolved,
        ConnectError::Unreachable { .. } | ConnectError::Slow { .. } => Trouble::NotReached,
        ConnectError::NotTls { .. } | ConnectError::BadName(_) => Trouble::NotAMaster,
        ConnectError::Tls { source, .. } => of_tls(source),
    }
}

fn of_tls(error: &rustls::Error) -> Trouble {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Trouble::WrongName,
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                Trouble::NotValidNow
            }
            _ => Trouble::UntrustedRoot,
        },
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError,
        ) => Trouble::CertificateRefused,
        _ => Trouble::NotAMaster,
    }
}
