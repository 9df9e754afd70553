//! Which master a command speaks with, and as whom: the one of this host, or one that `muster login` has met.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_auth::config::operator_file;
use muster_kit::connect::{AUTH, DHT_BOOTSTRAP, GSN_REGISTRY, Master, MasterChannel, TOPOLOGY};
use muster_kit::dirs;
use muster_kit::tls::{self, ClientTls};
use muster_proto::auth::v1::audit_service_client::AuditServiceClient;
use muster_proto::auth::v1::certificate_authority_service_client::CertificateAuthorityServiceClient;
use muster_proto::auth::v1::enrollment_request_service_client::EnrollmentRequestServiceClient;
use muster_proto::auth::v1::link_service_client::LinkServiceClient;
use muster_proto::auth::v1::revocation_service_client::RevocationServiceClient;
use muster_proto::dht::v1::bootstrap_service_client::BootstrapServiceClient;
use muster_proto::fleet::v1::fleet_service_client::FleetServiceClient;
use muster_proto::gsn::v1::registry_service_client::RegistryServiceClient;
use muster_types::NetworkId;
use tonic::Status;

use crate::cli::Place;
use crate::credentials::{Credentials, CredentialsError};
use crate::exit::{Exit, Failure};
use crate::login;

/// Often enough that a watch notices a dead master before its reader does.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A way to one master.
pub struct Session {
    master: Master,
    pub credentials: Credentials,
    /// The master as messages name it.
    pub place: String,
    pub network: NetworkId,
}

impl Session {
    /// Finds the master that is meant. Connects with the first call.
    pub async fn open(place: &Place) -> Result<Self, Failure> {
        let credentials = match find(place)? {
            Found::Local(folder) => Credentials::load_local(&folder).map_err(|error| unusable(&error))?,
            Found::Context(path) => {
                let mut credentials = Credentials::load(&path).map_err(|error| unusable(&error))?;
                login::renew_if_due(&path, &mut credentials).await;
                credentials
            }
        };
        let place = credentials.addresses.join(", ");
        let own = tls::peer_identity(&credentials.material.chain);
        let network =
            own.map_err(|error| Failure::usage("cannot act as an operator", error))?.identity.network;
        let tls = ClientTls::new(credentials.material.clone())
            .map_err(|error| Failure::usage("cannot act as an operator", error))?;
        let master = Master::new(credentials.addresses.iter().cloned(), tls)
            .found_by(&credentials.discovery_domain)
            .keep_alive(KEEP_ALIVE);
        Ok(Self { master, credentials, place, network })
    }

    pub fn fleet(&self) -> FleetServiceClient<MasterChannel> {
        FleetServiceClient::new(self.master.service(TOPOLOGY))
    }

    pub fn revocations(&self) -> RevocationServiceClient<MasterChannel> {
        RevocationServiceClient::new(self.master.service(AUTH))
    }

    pub fn requests(&self) -> EnrollmentRequestServiceClient<MasterChannel> {
        EnrollmentRequestServiceClient::new(self.master.service(AUTH))
    }

    pub fn audit(&self) -> AuditServiceClient<MasterChannel> {
        AuditServiceClient::new(self.master.service(AUTH))
    }

    pub fn authorities(&self) -> CertificateAuthorityServiceClient<MasterChannel> {
        CertificateAuthorityServiceClient::new(self.master.service(AUTH))
    }

    pub fn links(&self) -> LinkServiceClient<MasterChannel> {
        LinkServiceClient::new(self.master.service(AUTH))
    }

    pub fn dht(&self) -> BootstrapServiceClient<MasterChannel> {
        BootstrapServiceClient::new(self.master.service(DHT_BOOTSTRAP))
    }

    pub fn gsn(&self) -> RegistryServiceClient<MasterChannel> {
        RegistryServiceClient::new(self.master.service(GSN_REGISTRY))
    }

    /// For `map_err` behind a call.
    pub fn failed<'a>(&'a self, what: &'a str) -> impl Fn(Status) -> Failure + 'a {
        move |status| Failure::of_call(what, &status, &self.place)
    }
}

/// The file of one context.
pub fn context_file(name: &str) -> Result<PathBuf, Failure> {
    Ok(contexts_folder()?.join(format!("{name}.toml")))
}

fn contexts_folder() -> Result<PathBuf, Failure> {
    let folder =
        dirs::operator_config_dir().map_err(|error| Failure::usage("no context can be found", error))?;
    Ok(folder.join("contexts"))
}

/// Where credentials were found. A master renews those of its own host itself.
enum Found {
    /// A master's data directory.
    Local(PathBuf),
    /// A context's file.
    Context(PathBuf),
}

fn find(place: &Place) -> Result<Found, Failure> {
    if let Some(folder) = &place.data_dir {
        return Ok(Found::Local(folder.clone()));
    }
    if let Some(name) = &place.context {
        return Ok(Found::Context(context_file(name)?));
    }
    if let Ok(folder) = dirs::master_data_dir()
        && operator_file(&folder).exists()
    {
        return Ok(Found::Local(folder));
    }
    let folder = contexts_folder()?;
    match &names(&folder)[..] {
        [only] => Ok(Found::Context(context_file(only)?)),
        [] => Err(Failure::new(
            Exit::Unreachable,
            "no master is known",
            "there is none on this host, and no context",
        )
        .next("muster up, to begin one here; or muster login LINK")),
        several => Err(Failure::usage("which master?", format!("there are {}", several.join(", ")))
            .next("add --context NAME")),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn unusable(error: &CredentialsError) -> Failure {
    let failure = Failure::usage("cannot act as an operator", error);
    match error {
        CredentialsError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            failure.next("muster up, if no master was begun there yet; or muster login LINK")
        }
        CredentialsError::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure.next(
                "the same with sudo; or let its owner make you a link: muster link create --role operator",
            )
        }
        _ => failure.next("muster login LINK, with a new link"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_known_by_their_files_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert!(names(&folder.path().join("missing")).is_empty());
    }

    #[tokio::test]
    async fn a_folder_without_a_master_says_how_to_begin_one() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { data_dir: Some(folder.path().to_owned()), context: None };
        let Err(failure) = Session::open(&place).await else { panic!("there is nothing there") };
        assert_eq!(failure.exit, Exit::Usage);
    }
}
