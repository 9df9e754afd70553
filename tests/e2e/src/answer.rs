//! A command that runs to its end: what it wrote and how it ended.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Nothing that is asked here takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Of every JSON document of the operator's command line.
pub const SCHEMA: &str = "muster.v1";

#[derive(Debug, Clone)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end with `input` on its stdin.
///
/// # Errors
/// It does not start, does not end, or is ended by a signal.
pub async fn ask(mut command: Command, input: &str) -> Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let asked = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("start {asked}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read its stdin closes it.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{asked} did not end within {LIMIT:?}"))??;
    Ok(Answer {
        code: output.status.code().with_context(|| format!("{asked}: {}", output.status))?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// This answer, if it ended with `code`.
    ///
    /// # Errors
    /// It ended otherwise; the error has all it wrote.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "it ended with {} and not {code}\n{self}", self.code);
        Ok(self)
    }

    /// Its documents, one a line, each in the versioned envelope.
    ///
    /// # Errors
    /// A line is no document of the schema.
    pub fn documents(&self) -> Result<Vec<Value>> {
        let read = |line: &str| -> Result<Value> {
            let document: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(document["schema"] == SCHEMA, "not of the schema {SCHEMA}: {line}");
            ensure!(document["kind"].is_string(), "it does not say what it is: {line}");
            Ok(document)
        };
        self.stdout.lines().map(read).collect()
    }

    /// Its only document, which must be of `kind`.
    ///
    /// # Errors
    /// There are more or none, or it is of another kind.
    pub fn document(&self, kind: &str) -> Result<Value> {
        match &mut self.documents()?[..] {
            [one] if one["kind"] == kind => Ok(one.take()),
            _ => bail!("not one document of kind {kind}\n{self}"),
        }
    }

    /// The first of its documents that is of `kind`.
    ///
    /// # Errors
    /// There is none.
    pub fn document_among(&self, kind: &str) -> Result<Value> {
        let found = self.documents()?.into_iter().find(|document| document["kind"] == kind);
        found.with_context(|| format!("no document of kind {kind}\n{self}"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit {code}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}
