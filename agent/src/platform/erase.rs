//! Destroys what this device's configuration names: a command first, then files and folders.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::EraseConfig;
use crate::platform::lock::run;

/// Does all of it, as far as it goes; a failure of one part keeps none of the others from being tried.
///
/// # Errors
/// What is not erased, and why.
pub async fn erase(config: &EraseConfig) -> Result<(), Vec<String>> {
    let mut failures = Vec::new();
    if let [program, arguments @ ..] = &config.command[..] {
        failures.extend(run(program, arguments).await.err());
    }
    for path in config.paths.clone() {
        let removed = tokio::task::spawn_blocking(move || remove(&path).map_err(|error| (path, error)));
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err((path, error))) => failures.push(format!("{}: {error}", path.display())),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

fn remove(path: &Path) -> std::io::Result<()> {
    if !path.is_absolute() {
        let reason = format!("{} is not absolute", PathBuf::from(path).display());
        return Err(std::io::Error::new(ErrorKind::InvalidInput, reason));
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_named_is_gone_and_what_is_linked_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("home/ada")).unwrap();
        std::fs::write(at("home/ada/letter"), "dear").unwrap();
        std::fs::write(at("kept"), "kept").unwrap();
        std::os::unix::fs::symlink(at("kept"), at("link")).unwrap();
        let config = EraseConfig {
            command: vec!["touch".to_owned(), at("wiped").display().to_string()],
            paths: vec![at("home"), at("link"), at("never there")],
        };
        erase(&config).await.unwrap();
        assert!(at("wiped").exists() && at("kept").exists());
        assert!(!at("home").exists() && !at("link").exists());
    }

    #[tokio::test]
    async fn a_part_that_fails_is_named_and_the_others_are_erased() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        std::fs::write(&gone, "").unwrap();
        let config =
            EraseConfig { command: vec!["false".to_owned()], paths: vec!["relative".into(), gone.clone()] };
        let failures = erase(&config).await.unwrap_err();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(!gone.exists());
    }
}
