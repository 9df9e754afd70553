//! Certificates and links for the processes and people at the master's own host, made in process.
//!
//! What is issued here is kept: each certificate has a keeper, a task on the shutdown that makes the next one in time
//! and puts it where the old one was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_kit::files::{FileError, create_private_dir, write_private};
use muster_kit::shutdown::Shutdown;
use muster_kit::tls::{CallerCertificate, ClientTls, ServerTls, TlsError};
use muster_types::limits::CERTIFICATE_LIFETIME;
use muster_types::{EnrollmentLink, Identity, Role};

use crate::domain::label::Labels;
use crate::domain::link::{MAX_LIFETIME, Terms, node_terms};
use crate::domain::signer::SERVICES;
use crate::join::pem::to_pem;
use crate::service::{Auth, AuthError, Issued, Wanted};

/// A certificate is renewed when a third of its life is over (design, section 6).
pub(crate) const RENEWAL_AGE: Duration = Duration::from_secs(CERTIFICATE_LIFETIME.as_secs() / 3);

/// How often keepers look at the date; also the pause after a failure.
pub(crate) const RENEWAL_LOOK: Duration = Duration::from_secs(600);

/// How often keepers look whether root or issuing authority were replaced.
pub(crate) const ROTATION_LOOK: Duration = Duration::from_secs(1);

/// The name of the admin who sits at the master.
const LOCAL_ADMIN: &str = "local";

/// Why the master's own do not get their certificates.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// A service's TLS identity, to serve and to call others with. Both sides follow each renewal.
#[derive(Debug, Clone)]
pub struct ServiceTls {
    pub server: Arc<ServerTls>,
    pub client: Arc<ClientTls>,
}

/// The TLS identity of a service in this process, kept until the shutdown.
///
/// # Errors
/// The certificate could not be made.
pub async fn service_tls(
    auth: &Arc<Auth>,
    service: &'static str,
    callers: CallerCertificate,
    shutdown: &Shutdown,
) -> Result<ServiceTls, BootstrapError> {
    let issued = auth.issue(Role::Service, service).await?;
    let tls = ServiceTls {
        server: ServerTls::new(issued.material(), callers)?,
        client: ClientTls::new(issued.material())?,
    };
    show_expiry(service, &issued);
    let kept = tls.clone();
    let put = move |issued: &Issued| {
        show_expiry(service, issued);
        kept.server.reload(issued.material())?;
        Ok(kept.client.reload(issued.material())?)
    };
    shutdown.spawn(keep(auth.clone(), Role::Service, service, put, shutdown.clone()));
    Ok(tls)
}

/// Writes the credentials of the local admin into `path` (PEM: key, chain, root; 0600), kept until the shutdown.
///
/// # Errors
/// The certificate could not be made or the file not written.
pub async fn local_admin(auth: &Arc<Auth>, path: PathBuf, shutdown: &Shutdown) -> Result<(), BootstrapError> {
    let issued = auth.issue(Role::Admin, LOCAL_ADMIN).await?;
    write_issued(&path, &issued)?;
    let put = move |issued: &Issued| write_issued(&path, issued);
    shutdown.spawn(keep(auth.clone(), Role::Admin, LOCAL_ADMIN, put, shutdown.clone()));
    Ok(())
}

/// A link for one device, made by the master itself.
///
/// # Errors
/// The labels are not well formed, or the store does not answer.
pub async fn node_link(auth: &Auth, labels: Labels) -> Result<EnrollmentLink, BootstrapError> {
    let terms = Terms { labels, ..node_terms() };
    Ok(link(auth, terms).await?)
}

/// The link for the next device, in place of the one that was made so before, whose id stands in `record`: unless that
/// one was used it stops working. The secret itself is kept nowhere.
///
/// # Errors
/// The store does not answer, or the record cannot be written.
pub async fn next_node_link(auth: &Auth, record: &Path) -> Result<EnrollmentLink, BootstrapError> {
    if let Ok(last) = std::fs::read_to_string(record) {
        match auth.revoke_link(&ourselves(auth), last.trim()).await {
            // Forgotten meanwhile: it had expired.
            Ok(_) | Err(AuthError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (id, link) = create(auth, node_terms()).await?;
    write_private(record, id.as_bytes())?;
    Ok(link)
}

/// Puts a link for `service` into `path` (0600), with which it joins from another process; see [`crate::join`].
/// Any earlier link there stays good until it is used or expires.
///
/// # Errors
/// There is no such service, or the file cannot be written.
pub async fn write_join_link(auth: &Auth, service: &str, path: &Path) -> Result<(), BootstrapError> {
    let terms = Terms { lifetime: MAX_LIFETIME, ..Terms::of(Role::Service, service) };
    let link = link(auth, terms).await?;
    if let Some(folder) = path.parent() {
        create_private_dir(folder)?;
    }
    Ok(write_private(path, format!("{}\n", link.reveal()).as_bytes())?)
}

/// Services that may join from another process: all but auth itself.
pub fn joining_services() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().filter(|service| *service != "auth")
}

async fn link(auth: &Auth, terms: Terms) -> Result<EnrollmentLink, AuthError> {
    Ok(create(auth, terms).await?.1)
}

fn ourselves(auth: &Auth) -> Identity {
    Identity { network: auth.authority().network(), role: Role::Service, name: "auth".to_owned() }
}

/// A new link, with its id.
async fn create(auth: &Auth, terms: Terms) -> Result<(String, EnrollmentLink), AuthError> {
    let wanted = Wanted { terms, request_id: None, validate_only: false };
    let created = auth.create_link(&ourselves(auth), &wanted).await?;
    // Without a request id every call makes a link of its own, and with it a URL.
    let url = created.secret.and_then(|secret| secret.parse().ok());
    let url = url.ok_or_else(|| AuthError::NotFound(created.link.resource_name()))?;
    Ok((created.link.id, url))
}

/// Makes the next certificate when a third of the last one's life is over, until the shutdown.
async fn keep(
    auth: Arc<Auth>,
    role: Role,
    name: &'static str,
    put: impl Fn(&Issued) -> Result<(), BootstrapError> + Send + 'static,
    shutdown: Shutdown,
) {
    let mut made = auth.now();
    let mut version = auth.authority().version();
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(ROTATION_LOOK) => {}
        }
        // The date decides, not the time slept: a suspended host's timers stand still. A new root or issuing authority is
        // shown to others at once.
        let newest = auth.authority().version();
        if auth.now().since(made) < RENEWAL_AGE && newest == version {
            continue;
        }
        let renewed = match auth.issue(role, name).await {
            Ok(issued) => put(&issued),
            Err(error) => Err(error.into()),
        };
        match renewed {
            Ok(()) => (made, version) = (auth.now(), newest),
            Err(error) => tracing::warn!(%error, %role, name, "could not renew a certificate of our own"),
        }
    }
}

fn write_issued(path: &Path, issued: &Issued) -> Result<(), BootstrapError> {
    let pem = to_pem(&issued.material());
    Ok(write_private(path, pem.as_bytes())?)
}

fn show_expiry(service: &str, issued: &Issued) {
    if service == "auth" {
        crate::metrics::show_service_expiry(issued.not_after);
    }
}
