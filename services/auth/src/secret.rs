//! The file with the secret that opens the authority's keys: made once, readable by its owner alone.

use std::io;
use std::path::{Path, PathBuf};
use std::{fs, process};

use muster_kit::files::{FileError, create_private_dir, write_private};

use crate::domain::vault::{Vault, VaultError};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the store holds the keys of a network, but {} is missing, the secret that opens them: restore it from a backup",
        .0.display()
    )]
    Missing(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Unusable { path: PathBuf, source: VaultError },
    #[error(transparent)]
    Unwritable(#[from] FileError),
    #[error("cannot make {}: {source}", path.display())]
    Uncreatable { path: PathBuf, source: io::Error },
}

/// Opens the vault of `path`. A missing file is made only for a network that is yet to be founded.
///
/// # Errors
/// The file is missing although it is needed, cannot be read or made, or holds no secret.
pub(crate) fn open(path: &Path, founded: bool) -> Result<Vault, SecretError> {
    match fs::read_to_string(path) {
        Ok(text) => vault(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && founded => {
            Err(SecretError::Missing(path.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(source) => Err(SecretError::Unreadable { path: path.to_owned(), source }),
    }
}

/// Makes the file unless somebody else makes it first; then theirs counts.
fn make(path: &Path) -> Result<Vault, SecretError> {
    if let Some(folder) = path.parent() {
        create_private_dir(folder)?;
    }
    let draft = path.with_extension(format!("draft-{}", process::id()));
    write_private(&draft, Vault::draw(&mut rand::rng()).as_bytes())?;
    // A link, unlike a rename, never replaces what is there.
    let made = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(SecretError::Uncreatable { path: path.to_owned(), source })
        }
        _ => {
            sync_folder(path)?;
            let text = fs::read_to_string(path)
                .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
            vault(path, &text)
        }
    }
}

/// The secret must be durable before anything is sealed under it.
fn sync_folder(path: &Path) -> Result<(), SecretError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| SecretError::Uncreatable { path: path.to_owned(), source })
}

fn vault(path: &Path, text: &str) -> Result<Vault, SecretError> {
    Vault::open(text).map_err(|source| SecretError::Unusable { path: path.to_owned(), source })
}
