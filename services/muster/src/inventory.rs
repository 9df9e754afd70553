//! `muster inventory`: the hosts' own account of themselves, fetched as a task and shown when all have answered.

use muster_proto::fleet::v1::watch_task_response::Update;
use muster_proto::fleet::v1::{CreateTaskRequest, TaskTarget, WatchTaskRequest};
use muster_proto::task::v1::{self as task, OutputStream, TaskState};
use prost::Message;
use serde_json::{Value, json};

use crate::cli::{Inventory, Output, Place, Section};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::glpi;
use crate::render::table::Table;
use crate::render::{json, words};
use crate::run;

pub async fn run(place: &Place, output: Output, wanted: Inventory) -> Result<Exit, Failure> {
    wanted.selection.require()?;
    let session = Session::open(place).await?;
    let sections = wanted.sections.iter().map(|section| name(*section).to_owned()).collect();
    let request = CreateTaskRequest {
        spec: Some(task::TaskSpec {
            r#type: "inventory".to_owned(),
            arguments: Some(run::inline(&task::InventoryArguments { sections })),
            class: task::TaskClass::Open.into(),
            ..task::TaskSpec::default()
        }),
        display_name: "inventory".to_owned(),
        ..run::request(&wanted.selection, &wanted.patience)
    };
    let created =
        session.fleet().create_task(request).await.map_err(session.failed("cannot ask for inventories"))?;
    let name = created.into_inner().name;
    wait(&session, &name).await?;

    let targets = listing::targets(&session, &name).await?;
    let mut table = Table::new(&["HOST", "SYSTEM", "MODEL", "CPU", "MEMORY", "PACKAGES"]);
    let mut missing = 0;
    for target in &targets {
        match document(&session, &name, target).await? {
            Some(inventory) if wanted.glpi => println!("{}", glpi::document(&target.node, &inventory)),
            Some(inventory) if output == Output::Json => json::print(
                "Inventory",
                [("node", target.node.clone().into()), ("inventory", value(&inventory))],
            ),
            Some(inventory) => row(&mut table, target, &inventory),
            None => {
                missing += 1;
                let host = words::host(&target.host_name, &target.node);
                eprintln!("{host}: {} {}", words::task_state(target.state()), crate::tasks::result(target));
            }
        }
    }
    if output == Output::Table && !wanted.glpi {
        table.print();
    }
    Ok(if missing == 0 { Exit::Ok } else { Exit::Incomplete })
}

fn name(section: Section) -> &'static str {
    match section {
        Section::Host => "host",
        Section::Hardware => "hardware",
        Section::Packages => "packages",
    }
}

async fn wait(session: &Session, name: &str) -> Result<(), Failure> {
    let failed = session.failed("cannot watch the task");
    let request = WatchTaskRequest { name: name.to_owned(), resume_token: String::new() };
    let mut updates = session.fleet().watch_task(request).await.map_err(&failed)?.into_inner();
    while let Some(next) = updates.message().await.map_err(&failed)? {
        if matches!(next.update, Some(Update::Done(_))) {
            break;
        }
    }
    Ok(())
}

/// The document comes with the last report, or, when it is large, as chunks of output of its own stream.
async fn document(
    session: &Session,
    name: &str,
    target: &TaskTarget,
) -> Result<Option<task::Inventory>, Failure> {
    if target.state() != TaskState::Succeeded {
        return Ok(None);
    }
    let source = target.finished.as_ref().and_then(|finished| finished.result.as_ref()?.source.as_ref());
    let bytes = match source {
        Some(task::content::Source::Inline(bytes)) => bytes.to_vec(),
        _ => {
            let mut chunks = listing::output(session, name, &target.node).await?;
            chunks.retain(|chunk| chunk.stream() == OutputStream::Result);
            chunks.sort_by_key(|chunk| chunk.offset);
            chunks.iter().flat_map(|chunk| chunk.data.to_vec()).collect()
        }
    };
    task::Inventory::decode(&bytes[..]).map(Some).map_err(|error| {
        Failure::internal(format!("{} sent an inventory that cannot be read", target.node), error)
    })
}

fn row(table: &mut Table, target: &TaskTarget, inventory: &task::Inventory) {
    let host = inventory.host.clone().unwrap_or_default();
    let hardware = inventory.hardware.clone().unwrap_or_default();
    let packages = inventory.packages.as_ref();
    table.row([
        words::host(&target.host_name, &target.node),
        format!("{} {} {}", host.os_name, host.os_version, host.architecture),
        format!("{} {}", hardware.vendor, hardware.model).trim().to_owned(),
        format!("{} x {}", hardware.cpu_cores, hardware.cpu_model),
        words::bytes(hardware.memory_bytes),
        packages.map_or_else(
            || "-".to_owned(),
            |section| format!("{} ({})", section.packages.len(), section.source),
        ),
    ]);
}

fn value(inventory: &task::Inventory) -> Value {
    json!({
        "collectTime": json::time(inventory.collect_time),
        "host": inventory.host.as_ref().map(|host| json!({
            "hostName": host.host_name,
            "osName": host.os_name,
            "osVersion": host.os_version,
            "kernel": host.kernel,
            "architecture": host.architecture,
            "bootTime": json::time(host.boot_time),
            "timeZone": host.time_zone,
            "machineId": host.machine_id,
        })),
        "hardware": inventory.hardware.as_ref().map(hardware),
        "packages": inventory.packages.as_ref().map(|section| json!({
            "source": section.source,
            "packages": section.packages.iter().map(|package| json!({
                "name": package.name,
                "version": package.version,
                "architecture": package.architecture,
            })).collect::<Value>(),
        })),
    })
}

fn hardware(hardware: &task::HardwareSection) -> Value {
    json!({
        "vendor": hardware.vendor,
        "model": hardware.model,
        "serial": hardware.serial,
        "uuid": hardware.uuid,
        "cpuModel": hardware.cpu_model,
        "cpuCores": hardware.cpu_cores,
        "memoryBytes": hardware.memory_bytes,
        "disks": hardware.disks.iter().map(|disk| json!({
            "name": disk.name,
            "mountPoint": disk.mount_point,
            "fileSystem": disk.file_system,
            "totalBytes": disk.total_bytes,
            "availableBytes": disk.available_bytes,
        })).collect::<Value>(),
        "interfaces": hardware.interfaces.iter().map(|interface| json!({
            "name": interface.name,
            "mac": interface.mac,
            "addresses": interface.addresses,
            "up": interface.up,
        })).collect::<Value>(),
        "keys": hardware.keys.iter().map(|key| json!({
            "kind": words::hardware_key(key.kind()),
            "value": key.value,
            "confidence": words::confidence(key.confidence()),
            "reason": key.reason,
        })).collect::<Value>(),
    })
}
