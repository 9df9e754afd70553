//! The agent's folder: what it keeps, under which names, and how it is never half-written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_kit::files::{self, FileError};
use muster_proto::trust::v1::Envelope;
use muster_types::{EnrollmentLink, NetworkId, RootKey};
use muster_wire::OperatorPolicy;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::KeptKeys;
use super::learned::Learned;
use super::revoked::KeptRevocations;
use super::{CredentialError, DeviceKeys, Identity, KeyError};

/// The identity: its presence is what "enrolled" means.
const IDENTITY: &str = "identity.json";
/// Keys of an enrollment that has not been answered yet.
const ENROLLING: &str = "enrolling.json";
const LEARNED: &str = "learned.json";
/// The operators' policy, as it was pinned.
const OPERATORS: &str = "operator-policy";
/// The proxy that the environment named when this device was enrolled, for a service does not inherit that.
pub const PROXY: &str = "proxy";

/// Version of the files' form.
const FORM: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("this device is not enrolled: {0} does not exist")]
    NotEnrolled(PathBuf),
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

#[derive(Serialize, Deserialize)]
struct KeptIdentity {
    form: u32,
    keys: KeptKeys,
    /// Encoded `Credentials`, in base64.
    credentials: String,
    root_key: String,
    link_address: String,
}

#[derive(Serialize, Deserialize)]
struct KeptEnrolling {
    /// SHA-256 of the link's token, in hexadecimal.
    token: String,
    keys: KeptKeys,
}

/// An enrollment under way: the same link must find the same keys, for a lost answer is repeated to them only.
pub struct Enrolling {
    pub keys: Arc<DeviceKeys>,
}

/// The agent's folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_enrolled(&self) -> bool {
        self.path.join(IDENTITY).exists()
    }

    /// Reads who this device is.
    ///
    /// # Errors
    /// It is not enrolled, or the file is damaged.
    pub fn identity(&self) -> Result<Identity, StateError> {
        let path = self.path.join(IDENTITY);
        let kept: KeptIdentity = read(&path)?.ok_or_else(|| StateError::NotEnrolled(path.clone()))?;
        let damaged = |reason: &str| StateError::Damaged { path: path.clone(), reason: reason.to_owned() };
        let credentials =
            super::learned::decoded(&kept.credentials).ok_or_else(|| damaged("the credentials"))?;
        let point = data_encoding::BASE64URL_NOPAD.decode(kept.root_key.as_bytes()).unwrap_or_default();
        let root_key = RootKey::from_point(&point).map_err(|_| damaged("the root's key"))?;
        let keys = Arc::new(DeviceKeys::take(&kept.keys)?);
        Ok(Identity::assembled(keys, credentials, root_key, kept.link_address)?)
    }

    /// Makes the identity durable: from now on, this device is enrolled.
    ///
    /// # Errors
    /// It cannot be written; what was before is unchanged.
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), StateError> {
        let kept = KeptIdentity {
            form: FORM,
            keys: identity.keys.keep(),
            credentials: data_encoding::BASE64.encode(&identity.credentials.encode_to_vec()),
            root_key: identity.root_key.to_string(),
            link_address: identity.link_address.clone(),
        };
        self.write(IDENTITY, &kept)?;
        self.forget_enrolling()
    }

    /// The keys for this link: those of an earlier, unanswered attempt, else new ones, kept before they are used.
    ///
    /// # Errors
    /// They cannot be made or kept.
    pub fn enrolling(&self, link: &EnrollmentLink) -> Result<Enrolling, StateError> {
        files::create_private_dir(&self.path)?;
        let token = data_encoding::HEXLOWER.encode(&link.token.hash());
        let kept: Option<KeptEnrolling> = read(&self.path.join(ENROLLING)).unwrap_or_default();
        if let Some(kept) = kept.filter(|kept| kept.token == token) {
            return Ok(Enrolling { keys: Arc::new(DeviceKeys::take(&kept.keys)?) });
        }
        let keys = DeviceKeys::generate()?;
        self.write(ENROLLING, &KeptEnrolling { token, keys: keys.keep() })?;
        Ok(Enrolling { keys: Arc::new(keys) })
    }

    /// The attempt was refused for good, or succeeded.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_enrolling(&self) -> Result<(), StateError> {
        let path = self.path.join(ENROLLING);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(StateError::Read { path, source }),
            _ => Ok(()),
        }
    }

    /// The operators' policy that this device has pinned, if its network has one.
    ///
    /// # Errors
    /// There is one and it cannot be read: without it nobody knows whom to believe.
    pub fn operator_policy(&self, network: NetworkId) -> Result<Option<OperatorPolicy>, StateError> {
        let path = self.path.join(OPERATORS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path, source }),
        };
        let damaged = |reason: String| StateError::Damaged { path: path.clone(), reason };
        let sealed = Envelope::decode(&bytes[..]).map_err(|error| damaged(error.to_string()))?;
        OperatorPolicy::restored(&sealed, network).map(Some).map_err(|error| damaged(error.to_string()))
    }

    /// Pins a policy that was checked.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_operator_policy(&self, sealed: &Envelope) -> Result<(), StateError> {
        Ok(files::write_private(&self.path.join(OPERATORS), &sealed.encode_to_vec())?)
    }

    /// # Errors
    /// It cannot be written.
    pub fn keep_proxy(&self, variables: &str) -> Result<(), StateError> {
        Ok(files::write_private(&self.path.join(PROXY), variables.as_bytes())?)
    }

    /// Who is not admitted any more, as far as earlier lives knew.
    pub fn revocations(&self) -> KeptRevocations {
        KeptRevocations::of(&self.path)
    }

    /// What earlier lives learnt; nothing if it cannot be read.
    pub fn learned(&self) -> Learned {
        read(&self.path.join(LEARNED)).unwrap_or_default().unwrap_or_default()
    }

    /// # Errors
    /// It cannot be written.
    pub fn keep_learned(&self, learned: &Learned) -> Result<(), StateError> {
        self.write(LEARNED, learned)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        match fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StateError::Read { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.path.join(name);
        let damaged =
            |error: serde_json::Error| StateError::Damaged { path: path.clone(), reason: error.to_string() };
        let bytes = serde_json::to_vec_pretty(value).map_err(damaged)?;
        Ok(files::write_private(&path, &bytes)?)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::Damaged { path: path.to_owned(), reason: error.to_string() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path: path.to_owned(), source }),
    }
}
