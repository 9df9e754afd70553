//! `muster audit`: the log as JSON lines, and the proof that an exported one is whole.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use muster_auth::domain::audit::{Entry, Follower, Head};
use muster_proto::auth::v1::{self as auth, AuditHeads};
use muster_proto::trust::v1::Envelope;
use muster_wire::time as wire_time;
use prost::Message;
use serde_json::{Value, json};

use crate::cli::{AuditCommand, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::json;

/// Entries in one call.
const PAGE: i32 = 1_000;

/// Bytes of a line of an export: a detail has at most a thousand characters.
const LINE_BYTES: usize = 64 * 1024;

pub async fn run(place: &Place, output: Output, command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Export { after } => export(&Session::open(place).await?, after).await,
        AuditCommand::Verify { file } => verify(output, &file),
    }
}

async fn export(session: &Session, after: u64) -> Result<Exit, Failure> {
    let mut after_revision = after;
    loop {
        let request = auth::ListAuditEntriesRequest { after_revision, page_size: PAGE };
        let page = session.audit().list_audit_entries(request).await;
        let page = page.map_err(session.failed("cannot read the audit log"))?.into_inner();
        for entry in &page.entries {
            json::print("AuditEntry", [("entry", shown(entry))]);
        }
        after_revision = page.last_revision;
        if let Some(heads) = page.heads {
            json::print("AuditHeads", [("heads", heads_shown(&heads))]);
            return Ok(Exit::Ok);
        }
    }
}

fn shown(entry: &auth::AuditEntry) -> Value {
    let time = entry.time.and_then(wire_time::from_wire);
    json!({
        "revision": entry.revision,
        "chain": entry.chain,
        "sequence": entry.sequence,
        "time": json::time(entry.time),
        "micros": time.map(|time| time.as_micros()),
        "action": entry.action,
        "actor": entry.actor,
        "subject": entry.subject,
        "detail": entry.detail,
        "hash": HEXLOWER.encode(&entry.hash),
    })
}

/// The signed ends, as they were signed and in words.
fn heads_shown(sealed: &Envelope) -> Value {
    let heads = AuditHeads::decode(&sealed.payload[..]).unwrap_or_default();
    let shown = heads.heads.iter().map(
        |head| json!({ "chain": head.chain, "sequence": head.sequence, "hash": HEXLOWER.encode(&head.hash) }),
    );
    json!({ "ends": shown.collect::<Vec<_>>(), "signed": BASE64.encode(&sealed.encode_to_vec()) })
}

/// Reads an export from its first entry and says whether nothing was changed, added or left out.
fn verify(output: Output, file: &Path) -> Result<Exit, Failure> {
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}", file.display()), error);
    let opened = std::fs::File::open(file).map_err(|error| unreadable(&error))?;
    let (mut follower, mut entries, mut ends) = (Follower::default(), 0_u64, Vec::new());
    for line in BufReader::new(opened).lines() {
        let line = line.map_err(|error| unreadable(&error))?;
        let document =
            (line.len() <= LINE_BYTES).then(|| serde_json::from_str::<Value>(&line).ok()).flatten();
        let document = document.ok_or_else(|| unreadable(&format!("line {} is no JSON", entries + 1)))?;
        if let Some(entry) = document.get("entry") {
            let entry =
                entry_of(entry).ok_or_else(|| unreadable(&format!("line {} is no entry", entries + 1)))?;
            follower.follow(&entry).map_err(|error| broken(&error))?;
            entries += 1;
        } else if let Some(heads) = document.get("heads") {
            ends = ends_of(heads).ok_or_else(|| unreadable(&"its ends cannot be read"))?;
        }
    }
    follower.compare(&ends).map_err(|error| broken(&error))?;
    let chains: BTreeMap<_, _> =
        follower.heads().map(|head| (head.chain.clone(), HEXLOWER.encode(&head.hash))).collect();
    match output {
        Output::Json => {
            json::print("AuditVerified", [("entries", entries.into()), ("chains", json!(chains))])
        }
        Output::Table => {
            println!("{entries} entries, unbroken");
            chains.iter().for_each(|(chain, hash)| println!("  {chain} ends in {hash}"));
            if ends.is_empty() {
                eprintln!("The export has no signed ends: something may be missing after its last entry.");
            }
        }
    }
    Ok(Exit::Ok)
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::HostsFailed, "the audit log is not what was written", error)
}

fn entry_of(entry: &Value) -> Option<Entry> {
    let text = |name: &str| Some(entry.get(name)?.as_str()?.to_owned());
    Some(Entry {
        revision: entry.get("revision")?.as_u64()?,
        chain: text("chain")?,
        sequence: entry.get("sequence")?.as_u64()?,
        time: muster_types::Timestamp::from_micros(entry.get("micros")?.as_i64()?),
        action: text("action")?,
        actor: text("actor")?,
        subject: text("subject")?,
        detail: text("detail")?,
        hash: hash(&text("hash")?)?,
    })
}

fn ends_of(heads: &Value) -> Option<Vec<Head>> {
    let ends = heads.get("ends")?.as_array()?.iter();
    ends.map(|end| {
        Some(Head {
            chain: end.get("chain")?.as_str()?.to_owned(),
            sequence: end.get("sequence")?.as_u64()?,
            hash: hash(end.get("hash")?.as_str()?)?,
        })
    })
    .collect()
}

fn hash(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
