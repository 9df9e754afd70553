//! Locks this device: nobody logs in, and who is logged in is not any more. It holds over restarts, until it is released.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use muster_kit::files;
use tokio::process::Command;

use crate::config::LockConfig;

/// What ending the sessions may take.
const LIMIT: Duration = Duration::from_secs(60);

/// For whoever tries to log in, if the order names nothing else.
const MESSAGE: &str = "This device is locked. Please bring it to its owner.";

/// Why the device is not locked, or not altogether.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("logins are not blocked: {0}")]
    File(#[from] files::FileError),
    #[error("{path} cannot be removed: {source}")]
    Release { path: String, source: std::io::Error },
    #[error("logins are blocked, but sessions go on: {0}")]
    Sessions(String),
}

/// Blocks logins first, durably, then ends the sessions that there are.
///
/// # Errors
/// One of the two did not work; the text says which.
pub async fn lock(config: &LockConfig, message: &str) -> Result<(), LockError> {
    let message = if message.is_empty() { MESSAGE } else { message };
    files::write_public(&config.file, format!("{message}\n").as_bytes())?;
    match &config.command[..] {
        [] => end_sessions().await,
        [program, arguments @ ..] => run(program, arguments).await.map(drop),
    }
    .map_err(LockError::Sessions)
}

/// Lets people in again.
///
/// # Errors
/// The file that blocks logins cannot be removed.
pub fn release(file: &Path) -> Result<(), LockError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(LockError::Release { path: file.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

async fn end_sessions() -> Result<(), String> {
    let list = run("loginctl", &["list-sessions".to_owned(), "--no-legend".to_owned()]).await?;
    let mut failures = Vec::new();
    for session in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let ended = run("loginctl", &["terminate-session".to_owned(), session.to_owned()]).await;
        failures.extend(ended.err());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// What it wrote, if it did what it was told within the limit.
pub(super) async fn run(program: &str, arguments: &[String]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} ended with {}: {}", output.status, said.trim()))
        }
        Ok(Err(error)) => Err(format!("{program} does not start: {error}")),
        Err(_) => Err(format!("{program} did not end within {LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_locked_device_blocks_logins_and_ends_sessions_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let (file, ended) = (folder.path().join("nologin"), folder.path().join("ended"));
        let touch = vec!["touch".to_owned(), ended.display().to_string()];
        let config = LockConfig { file: file.clone(), command: touch };
        lock(&config, "call 555").await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "call 555\n");
        assert!(ended.exists());
        release(&file).unwrap();
        assert!(!file.exists());
        release(&file).unwrap();
    }

    #[tokio::test]
    async fn logins_are_blocked_even_if_sessions_cannot_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            LockConfig { file: folder.path().join("nologin"), command: vec!["/no/such/program".to_owned()] };
        assert!(matches!(lock(&config, "").await, Err(LockError::Sessions(_))));
        assert!(config.file.exists());
    }
}
