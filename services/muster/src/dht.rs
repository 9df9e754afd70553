//! `muster dht ...`: the hash table through the master's bootstrap nodes.

use std::io::Read;

use data_encoding::{BASE64, HEXLOWER};
use muster_proto::dht::v1::{
    CrawlRequest, CrawlResponse, DhtContact, Effort, FindNodesRequest, FoundRecord, GetRecordsRequest,
    GetStatsRequest, NodeStats, PutRecordRequest, PutRecordResponse,
};
use muster_proto::overlay::v1::RecordKind;
use muster_types::Key;
use muster_wire::record::key_of;
use muster_wire::window;
use serde_json::{Value, json};

use crate::cli::{DhtCommand, DhtKind, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::table::Table;
use crate::render::{json, words};

pub async fn run(place: &Place, output: Output, command: DhtCommand) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    match command {
        DhtCommand::Get { key, kind } => get(&session, output, &key, kind).await,
        DhtCommand::Put { key, value } => put(&session, output, &key, value).await,
        DhtCommand::Find { key } => find(&session, output, &key).await,
        DhtCommand::Stats => stats(&session, output).await,
        DhtCommand::Crawl => crawl(&session, output).await,
    }
}

fn wire(key: Key) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(key.as_bytes())
}

fn kind(kind: DhtKind) -> RecordKind {
    match kind {
        DhtKind::Contact => RecordKind::Contact,
        DhtKind::Subnet => RecordKind::Subnet,
        DhtKind::Holders => RecordKind::Holders,
        DhtKind::NodeKeys => RecordKind::NodeKeys,
        DhtKind::Root => RecordKind::Root,
        DhtKind::Gsn => RecordKind::Gsn,
        DhtKind::Revocations => RecordKind::Revocations,
        DhtKind::Opaque => RecordKind::Opaque,
    }
}

async fn get(session: &Session, output: Output, key: &str, what: DhtKind) -> Result<Exit, Failure> {
    let wanted = key_of(key);
    let request = GetRecordsRequest { key: wire(wanted), kind: kind(what).into() };
    let answer = session.dht().get_records(request).await.map_err(session.failed("cannot get the record"))?;
    let answer = answer.into_inner();
    if output == Output::Json {
        let records = answer.records.iter().map(record).collect();
        json::print("Records", [("key", wanted.to_string().into()), ("records", records)]);
        return Ok(Exit::Ok);
    }
    for found in &answer.records {
        match std::str::from_utf8(&found.value) {
            Ok(text) if !text.is_empty() => println!("{text}"),
            _ => println!("{}", found.description),
        }
        eprintln!(
            "published by nodes/{} {}, expires {}",
            HEXLOWER.encode(&found.publisher_id),
            words::ago(found.publish_time),
            words::until(found.expire_time)
        );
    }
    effort(answer.effort.as_ref());
    Ok(Exit::Ok)
}

fn record(found: &FoundRecord) -> Value {
    json!({
        "publisher": format!("nodes/{}", HEXLOWER.encode(&found.publisher_id)),
        "publishTime": json::time(found.publish_time),
        "expireTime": json::time(found.expire_time),
        "value": BASE64.encode(&found.value),
        "text": std::str::from_utf8(&found.value).ok(),
        "description": found.description,
    })
}

async fn put(session: &Session, output: Output, key: &str, value: String) -> Result<Exit, Failure> {
    let wanted = key_of(key);
    let value = if value == "-" { stdin()? } else { value.into_bytes() };
    let request = PutRecordRequest { key: wire(wanted), value: value.into() };
    let answer = session.dht().put_record(request).await.map_err(session.failed("cannot store the value"))?;
    let kept = answer.into_inner();
    if output == Output::Json {
        json::print("Kept", [("key", wanted.to_string().into()), ("kept", kept_json(&kept))]);
        return Ok(Exit::Ok);
    }
    let holders = kept.holder_ids.len() + usize::from(kept.by_bootstrap);
    println!("{wanted}  kept by {}", words::hosts(holders));
    for (nodes, what) in [(&kept.silent_ids, "did not answer"), (&kept.refused_ids, "refused")] {
        for node in nodes {
            eprintln!("nodes/{} {what}", HEXLOWER.encode(node));
        }
    }
    effort(kept.effort.as_ref());
    Ok(Exit::Ok)
}

fn kept_json(kept: &PutRecordResponse) -> Value {
    let ids =
        |ids: &[bytes::Bytes]| -> Value { ids.iter().map(|id| Value::from(HEXLOWER.encode(id))).collect() };
    json!({
        "holders": ids(&kept.holder_ids),
        "silent": ids(&kept.silent_ids),
        "refused": ids(&kept.refused_ids),
        "byBootstrap": kept.by_bootstrap,
    })
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // More than any record may have is refused by the service, with the limit in its words.
    let read = std::io::stdin().take(64 * 1024).read_to_end(&mut value);
    read.map_err(|error| Failure::usage("cannot read stdin", error))?;
    Ok(value)
}

async fn find(session: &Session, output: Output, key: &str) -> Result<Exit, Failure> {
    let wanted = key_of(key);
    let request = FindNodesRequest { key: wire(wanted) };
    let answer =
        session.dht().find_nodes(request).await.map_err(session.failed("cannot search the table"))?;
    let found = answer.into_inner();
    if output == Output::Json {
        let closest = found.closest.iter().map(contact).collect();
        json::print("Closest", [("key", wanted.to_string().into()), ("closest", closest)]);
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NODE", "ADDRESS"]);
    for contact in &found.closest {
        table.row([format!("nodes/{}", HEXLOWER.encode(&contact.node_id)), address(contact)]);
    }
    table.print();
    effort(found.effort.as_ref());
    Ok(Exit::Ok)
}

fn contact(contact: &DhtContact) -> Value {
    json!({ "node": format!("nodes/{}", HEXLOWER.encode(&contact.node_id)), "address": address(contact) })
}

fn address(contact: &DhtContact) -> String {
    window::contact_from_wire(contact).map_or_else(|_| "-".to_owned(), |contact| contact.at.to_string())
}

fn effort(effort: Option<&Effort>) {
    if let Some(effort) = effort {
        let took = words::span(effort.duration);
        eprintln!(
            "{} of {} nodes asked answered, {} hops, {took}",
            effort.answered, effort.asked, effort.hops
        );
    }
}

async fn stats(session: &Session, output: Output) -> Result<Exit, Failure> {
    let answer = session.dht().get_stats(GetStatsRequest {}).await;
    let stats = answer.map_err(session.failed("cannot look at the bootstrap nodes"))?.into_inner();
    if output == Output::Json {
        json::print("TableStats", [("nodes", stats.nodes.iter().map(node).collect())]);
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["NODE", "ADDRESS", "CONTACTS", "AWAY", "SERVERS", "RECORDS", "SESSIONS"]);
    for node in &stats.nodes {
        let contact = node.contact.clone().unwrap_or_default();
        table.row([
            words::short(&format!("nodes/{}", HEXLOWER.encode(&contact.node_id))).to_owned(),
            address(&contact),
            node.contacts.to_string(),
            node.away.to_string(),
            format!("~{}", node.estimated_servers),
            node.records.to_string(),
            node.sessions.to_string(),
        ]);
    }
    table.print();
    Ok(Exit::Ok)
}

fn node(node: &NodeStats) -> Value {
    json!({
        "contact": node.contact.as_ref().map(contact),
        "contacts": node.contacts,
        "away": node.away,
        "estimatedServers": node.estimated_servers,
        "records": node.records,
        "recordBytes": node.record_bytes,
        "sessions": node.sessions,
        "handshakes": node.handshakes,
        "droppedDatagrams": node.dropped_datagrams,
    })
}

async fn crawl(session: &Session, output: Output) -> Result<Exit, Failure> {
    let answer = session.dht().crawl(CrawlRequest {}).await;
    let crawl = answer.map_err(session.failed("cannot walk the table"))?.into_inner();
    if output == Output::Json {
        json::print("Crawl", [("crawl", crawl_json(&crawl))]);
        return Ok(Exit::Ok);
    }
    println!("servers          {} alive, {} dead", crawl.alive, crawl.dead);
    println!("routing tables   {:.1} % of what they name as closest is right", crawl.table_health * 100.0);
    println!("healthy servers  {:.1} %", crawl.healthy_share * 100.0);
    println!("root's record    held by {}", words::hosts(crawl.root_holders as usize));
    println!("taken            {} in {}", words::ago(crawl.crawl_time), words::span(crawl.duration));
    if crawl.truncated {
        eprintln!("the table is larger than one crawl");
    }
    Ok(Exit::Ok)
}

fn crawl_json(crawl: &CrawlResponse) -> Value {
    json!({
        "crawlTime": json::time(crawl.crawl_time),
        "seconds": json::seconds(crawl.duration),
        "alive": crawl.alive,
        "dead": crawl.dead,
        "tableHealth": crawl.table_health,
        "healthyShare": crawl.healthy_share,
        "rootHolders": crawl.root_holders,
        "truncated": crawl.truncated,
    })
}
