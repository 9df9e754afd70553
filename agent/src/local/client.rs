//! The command line's side of the local socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use muster_proto::agent::v1::local_service_client::LocalServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Why the agent of this host does not answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(
        "the agent does not run: nobody listens on {0}.\nStart it with `systemctl start muster-agent`, or `muster-agent run`."
    )]
    NotRunning(PathBuf),
    #[error("only root, or whoever runs the agent, may ask it: {0} is closed to you.\nTry again with sudo.")]
    NotAllowed(PathBuf),
    #[error("the agent's socket {path} cannot be used: {reason}")]
    Broken { path: PathBuf, reason: String },
}

/// Connects to the agent of this host.
///
/// # Errors
/// It does not run, or the caller may not ask it.
pub async fn connect(socket: &Path) -> Result<LocalServiceClient<Channel>, LocalError> {
    let path = socket.to_owned();
    let broken = |reason: String| LocalError::Broken { path: path.clone(), reason };
    let first = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => LocalError::NotRunning(path.clone()),
        ErrorKind::PermissionDenied => LocalError::NotAllowed(path.clone()),
        _ => broken(error.to_string()),
    })?;
    // One connection is all there is: one question, one answer.
    let mut first = Some(first);
    let connector = tower::service_fn(move |_| {
        let stream = first.take().ok_or_else(|| std::io::Error::from(ErrorKind::NotConnected));
        async move { stream.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://agent.local").connect_with_connector(connector).await;
    Ok(LocalServiceClient::new(channel.map_err(|error| broken(error.to_string()))?))
}
