//! `send` and `inbox`: letters from node to node.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use data_encoding::{BASE64, HEXLOWER};
use muster_proto::agent::v1::{ReadLettersRequest, ReceivedLetter, SendLetterRequest};
use muster_types::{NodeId, limits};
use muster_wire::time::{from_wire, span_from_wire, span_to_wire};
use serde_json::json;

use super::network::answered;
use super::{NOT_HERE, Output, runtime};
use crate::config::Config;
use crate::local;

/// Versions of the JSON's forms; they change when a field does, not when one is added.
const SEND_SCHEMA: &str = "muster.agent.send/v1";
const INBOX_SCHEMA: &str = "muster.agent.inbox/v1";

#[derive(Debug, Args)]
#[command(
    after_help = "EXAMPLES:\n  echo hello | muster-agent send 3f6c0e5d2b7a49188c1f0e9d7b6a5c4d3e2f1a0b -\n  \
    muster-agent send nodes/3f6c0e5d2b7a49188c1f0e9d7b6a5c4d3e2f1a0b note.txt --for 3d --detach"
)]
pub(super) struct Send {
    /// The other node's id, as `muster nodes` shows it
    node: String,
    /// What to send, at most 16 KiB; `-` for standard input
    file: PathBuf,
    /// The other node may be away for so long, at most 7 days
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    life: Duration,
    /// Do not wait until it has arrived
    #[arg(long)]
    detach: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:\n  muster-agent inbox\n  muster-agent inbox --take --wait 1h > letter")]
pub(super) struct Inbox {
    /// Write the oldest letter's content to standard output, and forget it
    #[arg(long)]
    take: bool,
    /// With no letter there, wait so long for one, at most 1 h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Send {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let id = self.node.strip_prefix("nodes/").unwrap_or(&self.node);
        let node: NodeId =
            id.parse::<NodeId>().map_err(|error| anyhow::anyhow!("{id:?} is no node's id: {error}"))?;
        let request = SendLetterRequest {
            node_id: Bytes::copy_from_slice(node.as_bytes()),
            content: self.content()?.into(),
            lifetime: Some(span_to_wire(self.life)),
            detach: self.detach,
        };
        let socket = config.socket()?;
        let asked = runtime()?.block_on(async {
            anyhow::Ok(local::connect(&socket).await?.send_letter(request).await?.into_inner())
        });
        let Some(sent) = answered(asked)? else { return Ok(ExitCode::from(NOT_HERE)) };
        let millis = sent.elapsed.and_then(span_from_wire).map_or(0, |span| span.as_millis());
        let id = HEXLOWER.encode(&sent.letter_id);
        match self.output {
            Output::Json => {
                let document = json!({
                    "schema": SEND_SCHEMA, "letter": id, "arrived": sent.arrived,
                    "elapsed_millis": millis, "reason": sent.reason,
                });
                println!("{}", serde_json::to_string_pretty(&document)?);
            }
            Output::Text if sent.arrived => println!("{id} has arrived after {millis} ms"),
            Output::Text if sent.reason.is_empty() => println!("{id} is on its way"),
            Output::Text => {
                eprintln!("muster-agent: it has not arrived within {:?}: {}", self.life, sent.reason);
            }
        }
        Ok(if sent.reason.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// No more is read than a letter may have, and the byte that tells that it has more.
    fn content(&self) -> anyhow::Result<Vec<u8>> {
        let mut content = Vec::new();
        let most = limits::LETTER_BYTES as u64 + 1;
        let path = self.file.as_path();
        if path.as_os_str() == "-" {
            std::io::stdin().take(most).read_to_end(&mut content).context("standard input")?;
        } else {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            file.take(most).read_to_end(&mut content).with_context(|| path.display().to_string())?;
        }
        let limit = limits::LETTER_BYTES;
        anyhow::ensure!(
            content.len() <= limit,
            "a letter has at most {limit} bytes: send the name of a file"
        );
        Ok(content)
    }
}

impl Inbox {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let socket = config.socket()?;
        let read = |request| {
            let socket = socket.clone();
            async move { anyhow::Ok(local::connect(&socket).await?.read_letters(request).await?.into_inner()) }
        };
        let page_size = u32::from(self.take);
        let first =
            ReadLettersRequest { forget_ids: Vec::new(), wait: Some(span_to_wire(self.wait)), page_size };
        let runtime = runtime()?;
        let Some(found) = answered(runtime.block_on(read(first)))? else {
            return Ok(ExitCode::from(NOT_HERE));
        };
        if found.letters.is_empty() && self.take {
            eprintln!("muster-agent: there is no letter");
            return Ok(ExitCode::FAILURE);
        }
        self.print(&found.letters)?;
        // Printed first: what breaks here is read again.
        if let Some(letter) = found.letters.first().filter(|_| self.take) {
            let forget_ids = vec![letter.letter_id.clone()];
            runtime.block_on(read(ReadLettersRequest { forget_ids, wait: None, page_size: 1 }))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, letters: &[ReceivedLetter]) -> anyhow::Result<()> {
        match (self.output, self.take) {
            (Output::Json, _) => {
                let letters: Vec<_> = letters.iter().map(document).collect();
                let document = json!({ "schema": INBOX_SCHEMA, "letters": letters });
                println!("{}", serde_json::to_string_pretty(&document)?);
            }
            (Output::Text, true) => {
                let mut out = std::io::stdout();
                letters.iter().try_for_each(|letter| out.write_all(&letter.content))?;
                out.flush()?;
            }
            (Output::Text, false) if letters.is_empty() => println!("There is no letter."),
            (Output::Text, false) => {
                println!("{:<32}  {:<40}  {:<20}  BYTES", "LETTER", "FROM", "RECEIVED");
                for letter in letters {
                    println!(
                        "{:<32}  {:<40}  {:<20}  {}",
                        HEXLOWER.encode(&letter.letter_id),
                        HEXLOWER.encode(&letter.from_id),
                        date(letter.receive_time),
                        letter.content.len()
                    );
                }
            }
        }
        Ok(())
    }
}

fn document(letter: &ReceivedLetter) -> serde_json::Value {
    json!({
        "letter": HEXLOWER.encode(&letter.letter_id),
        "from": HEXLOWER.encode(&letter.from_id),
        "send_time": date(letter.send_time),
        "receive_time": date(letter.receive_time),
        "content_base64": BASE64.encode(&letter.content),
    })
}

fn date(time: Option<prost_types::Timestamp>) -> String {
    let micros = time.and_then(from_wire).map_or(0, |time| time.as_micros());
    let at = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_seconds(at).to_string()
}
