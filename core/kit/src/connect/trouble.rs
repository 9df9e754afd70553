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
    /// The proxy on the way does not carry us, and there is no way without it.
    Proxy,
    /// Whoever answered has a certificate of another root: another network's master, or a proxy that re-signs TLS.
    UntrustedRoot,
    /// The certificate is one of our network, but not the service's.
    WrongName,
    /// The service's certificate is not valid now: its clock or ours is wrong, or it was not renewed.
    NotValidNow,
    /// The master refuses our certificate: expired, revoked or of another network.
    CertificateRefused,
    /// The master has more callers than it takes now, and said when to try again.
    Busy,
    /// The connection stood and was lost.
    Lost,
}

/// The alerts by which a server says that it does not accept the client's certificate (RFC 8446, section 6.2).
const REFUSALS: &[AlertDescription] = &[
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateRequired,
    AlertDescription::DecryptError,
];

/// `None` where the master itself answered.
pub fn diagnose(status: &Status) -> Option<Trouble> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    let transport = next.is_some();
    while let Some(error) = next {
        let found = error
            .downcast_ref::<ConnectError>()
            .map(of_connecting)
            .or_else(|| error.downcast_ref::<rustls::Error>().map(of_tls))
            .or_else(|| error.downcast_ref::<io::Error>().and_then(of_io));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    // In TLS 1.3 a server that refuses our certificate may close before its alert is read.
    let cut = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    (transport && cut).then_some(Trouble::Lost)
}

/// What stood in the way of a connection, if a call ended because there was none.
pub fn connect_error(status: &Status) -> Option<&ConnectError> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// h2 keeps of an error below it only the text, so an alert that came after the handshake is known by that.
fn of_io(error: &io::Error) -> Option<Trouble> {
    let inner = error.get_ref()?;
    let by_type = inner.downcast_ref::<rustls::Error>().map(of_tls);
    by_type.or_else(|| {
        let text = inner.to_string();
        let alert = text.strip_prefix("received fatal alert: ")?;
        REFUSALS.iter().any(|refusal| format!("{refusal:?}") == alert).then_some(Trouble::CertificateRefused)
    })
}

fn of_connecting(error: &ConnectError) -> Trouble {
    match error {
        ConnectError::NoAddress | ConnectError::Unresolved { .. } => Trouble::NotResolved,
        ConnectError::Unreachable { .. } | ConnectError::Slow { .. } | ConnectError::NotHere { .. } => {
            Trouble::NotReached
        }
        ConnectError::Busy { .. } => Trouble::Busy,
        ConnectError::Proxy { .. } => Trouble::Proxy,
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
        rustls::Error::AlertReceived(alert) if REFUSALS.contains(alert) => Trouble::CertificateRefused,
        _ => Trouble::NotAMaster,
    }
}
