//! Tests that run inside: the test starts its own binary again on a stage, for this one test.

use std::ffi::OsString;
use std::future::Future;

use anyhow::Result;

use crate::stage::{self, Stage};

/// Runs a test's body on a stage of its own. `body` must be an async block written in the test function itself: by
/// its type's name the copy inside finds the test again.
pub fn in_lab<F: Future<Output = Result<()>>>(body: F) {
    let outcome = match stage::entered() {
        Some(_) => stage::perform(body),
        None => outside(&test_name(std::any::type_name::<F>())),
    };
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

fn outside(test: &str) -> Result<()> {
    let arguments = ["--exact", test, "--nocapture", "--include-ignored"].map(OsString::from);
    let status = Stage::enter(&arguments)?.wait()?;
    anyhow::ensure!(status.success(), "the test failed inside its lab: {status}");
    Ok(())
}

/// `crate::module::test::{{closure}}` without its two ends.
fn test_name(closure: &str) -> String {
    let path = closure.split("::{{closure}}").next().unwrap_or(closure);
    path.split_once("::").map_or(path, |(_, test)| test).to_owned()
}
