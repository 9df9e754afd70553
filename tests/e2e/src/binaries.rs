//! Where the programs lie: beside this test, where one build puts them all.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// A program of this name, built together with the running test.
///
/// # Errors
/// It is not there; the error names the command that builds it.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/debug/deps/test -> target/debug
    let mut folders = own.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.with_context(|| {
        format!("{name} was not built beside {}.\nBuild it: cargo build --workspace --bins", own.display())
    })
}
