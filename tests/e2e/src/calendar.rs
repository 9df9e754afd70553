//! A calendar that is put back for one program alone: dates move (libfaketime), spans of time do not.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Below `/usr/lib/{architecture}`, of Debian's package `libfaketime`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The environment of programs for which it is so many days ago.
///
/// # Errors
/// The library is not installed.
pub fn days_ago(days: u32) -> Result<[(&'static str, String); 3]> {
    Ok([
        ("LD_PRELOAD", library()?.display().to_string()),
        ("FAKETIME", format!("-{days}d")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}

fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join(LIBRARY));
    libraries.find(|library| library.exists()).context("install the package libfaketime")
}
