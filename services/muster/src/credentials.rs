//! An operator's certificate and key with the master's addresses: of a context in one file, replaced whole; of the
//! master on this host in its data directory, where auth keeps them fresh.

use std::path::{Path, PathBuf};

use muster_auth::config::operator_file;
use muster_auth::join::{Joined, pem};
use muster_kit::files::{self, FileError};
use muster_kit::tls::Material;
use serde::{Deserialize, Serialize};

/// Addresses that a context remembers.
const ADDRESSES: usize = 16;

/// The file in a master's data directory that says where this host reaches it, an address a line.
pub const LOCAL_ADDRESS: &str = "address";

/// What makes a command line an operator's.
#[derive(Debug)]
pub struct Credentials {
    /// `host:port`, best first.
    pub addresses: Vec<String>,
    /// Whose SRV records name the master when it is not at its addresses; empty: none.
    pub discovery_domain: String,
    pub material: Material,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Write(#[from] FileError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    addresses: Vec<String>,
    #[serde(default)]
    discovery_domain: String,
    /// PEM: the key, leaf, intermediates and, last, the root.
    pem: String,
}

impl Credentials {
    /// Those of a context.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let stored: Stored = toml::from_str(&read(path)?).map_err(|error| damaged(path, error.message()))?;
        if stored.addresses.is_empty() {
            return Err(damaged(path, "it has no address"));
        }
        let Stored { addresses, discovery_domain, pem } = stored;
        Ok(Self { addresses, discovery_domain, material: material(path, &pem)? })
    }

    /// Those of the operator at the master whose data directory this is.
    pub fn load_local(data_dir: &Path) -> Result<Self, CredentialsError> {
        let path = operator_file(data_dir);
        let material = material(&path, &read(&path)?)?;
        let addresses = read(&data_dir.join(LOCAL_ADDRESS))?.lines().map(str::to_owned).collect();
        Ok(Self { addresses, discovery_domain: String::new(), material })
    }

    /// Takes over a renewed certificate, and where the master says that it is now; where it was comes after that.
    pub fn renewed(&mut self, by: Joined) {
        let before = std::mem::replace(&mut self.addresses, by.addresses);
        for address in before {
            if !self.addresses.contains(&address) && self.addresses.len() < ADDRESSES {
                self.addresses.push(address);
            }
        }
        self.discovery_domain = by.discovery_domain;
        self.material = by.material;
    }

    /// As a context.
    pub fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        let Self { addresses, discovery_domain, material } = self;
        let (addresses, discovery_domain) = (addresses.clone(), discovery_domain.clone());
        let stored = Stored { addresses, discovery_domain, pem: pem::to_pem(material) };
        let text = toml::to_string(&stored).map_err(|error| damaged(path, &error.to_string()))?;
        if let Some(folder) = path.parent() {
            files::create_private_dir(folder)?;
        }
        Ok(files::write_private(path, text.as_bytes())?)
    }
}

fn read(path: &Path) -> Result<String, CredentialsError> {
    std::fs::read_to_string(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

fn material(path: &Path, text: &str) -> Result<Material, CredentialsError> {
    match pem::from_pem(text) {
        Some(pem::State::Admitted(material)) => Ok(material),
        _ => Err(damaged(path, "it holds no key with certificates")),
    }
}

fn damaged(path: &Path, reason: &str) -> CredentialsError {
    CredentialsError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_kit::testing::pki::Pki;
    use muster_types::Role;

    #[test]
    fn a_context_is_read_back_and_stays_private() {
        let pki = Pki::new();
        let material = pki.leaf(&pki.identity(Role::Operator, "ada"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts/home.toml");
        let (addresses, discovery_domain) = (vec!["master:1".into()], "example.org".to_owned());
        let saved = Credentials { addresses, discovery_domain, material };
        saved.save(&path).unwrap();
        let loaded = Credentials::load(&path).unwrap();
        assert_eq!(
            (&loaded.addresses, &loaded.discovery_domain),
            (&saved.addresses, &saved.discovery_domain)
        );
        assert_eq!(loaded.material.chain, saved.material.chain);
        assert_eq!(loaded.material.roots, saved.material.roots);
        assert_eq!(loaded.material.key.secret_der(), saved.material.key.secret_der());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "addresses = []").unwrap();
        let error = Credentials::load(&path).unwrap_err().to_string();
        assert!(error.contains("x.toml is damaged"), "{error}");
    }
}
