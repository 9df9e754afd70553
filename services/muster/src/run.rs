//! `muster run`: a command or script becomes a task; its hosts' output, progress and ends are shown as they come.

use std::path::Path;

use muster_kit::backoff::Backoff;
use muster_proto::fleet::v1::watch_task_response::Update;
use muster_proto::fleet::v1::{self as fleet, CreateTaskRequest, OfflinePolicy, WatchTaskRequest};
use muster_proto::task::v1 as task;
use prost::Message;

use crate::cli::{Output, Patience, Place, Run};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::fleet as listing;
use crate::render::{json, words};
use crate::signing;
use board::Board;

mod board;
pub mod lines;
mod summary;

/// Attempts in a row to take up a broken watch, spread over two minutes or so.
const ATTEMPTS: u32 = 12;
/// As the hosts take it inline.
const SCRIPT_BYTES: usize = muster_types::limits::INLINE_BYTES - 8 * 1024;
/// Of a task's name, as lists show it.
const TITLE_CHARACTERS: usize = 60;

pub async fn run(place: &Place, output: Output, run: Run) -> Result<Exit, Failure> {
    run.selection.require()?;
    let arguments = arguments(&run)?;
    let title = title(&run);
    let session = Session::open(place).await?;
    let request = CreateTaskRequest {
        spec: Some(task::TaskSpec {
            r#type: "run".to_owned(),
            arguments: Some(inline(&arguments)),
            class: if run.confidential { task::TaskClass::Confidential } else { task::TaskClass::Open }
                .into(),
            lane: if run.exclusive { task::Lane::Exclusive } else { task::Lane::Parallel }.into(),
            timeout: run.timeout.map(words::to_duration),
            ..task::TaskSpec::default()
        }),
        display_name: if run.confidential { "confidential".to_owned() } else { title },
        validate_only: run.dry_run,
        ..request(&run.selection, &run.patience)
    };
    let request = signing::signed_if(&session, run.sign_with.as_deref(), request).await?;
    let created = session.fleet().create_task(request).await.map_err(session.failed("cannot run this"))?;
    let created = created.into_inner();
    if run.dry_run {
        return dry_run(&session, output, &run, &created).await;
    }
    if created.approval_wanted {
        let name = &created.name;
        eprintln!("It waits for a second person, who agrees by: muster approve {name}");
    }
    if run.detach {
        match output {
            Output::Json => json::print("Task", [("task", json::task(&created))]),
            Output::Table => println!("{}", created.name),
        }
        return Ok(Exit::Ok);
    }
    follow(&session, output, &created.name).await
}

/// What all tasks have in common: whom, and how long.
pub fn request(selection: &crate::selection::Selection, patience: &Patience) -> CreateTaskRequest {
    let policy = if patience.skip_offline { OfflinePolicy::Skip } else { OfflinePolicy::Queue };
    CreateTaskRequest {
        filter: (!selection.all).then(|| selection.filter()),
        all_nodes: selection.all,
        offline_policy: policy.into(),
        lifetime: patience.queue_for.map(words::to_duration),
        request_id: uuid::Uuid::now_v7().to_string(),
        ..CreateTaskRequest::default()
    }
}

/// Arguments of a task, as they travel.
pub fn inline(arguments: &impl Message) -> task::Content {
    task::Content { source: Some(task::content::Source::Inline(arguments.encode_to_vec().into())) }
}

/// Shows the task `name` until every target has ended. The first Ctrl-C says how to stop it, the second leaves.
pub async fn follow(session: &Session, output: Output, name: &str) -> Result<Exit, Failure> {
    let mut board = Board::new(output);
    let mut request = WatchTaskRequest { name: name.to_owned(), resume_token: String::new() };
    let (mut backoff, mut failures, mut asked) = (Backoff::new(), 0, false);
    loop {
        let ended = tokio::select! {
            ended = watch(session, &mut request, &mut board) => ended,
            _ = tokio::signal::ctrl_c(), if asked => return Ok(Exit::Interrupted),
            _ = tokio::signal::ctrl_c() => {
                asked = true;
                board.say(&format!(
                    "The task goes on without you. To stop it: muster cancel {name}\n\
                     To see it again: muster task {name} --follow. Ctrl-C once more leaves."
                ));
                continue;
            }
        };
        match ended {
            Ok(Some(done)) => return Ok(board.finish(&done)),
            // A watch that is cut short is taken up again where it was.
            Ok(None) => failures = 0,
            Err(failure) if failure.exit == Exit::Unreachable && failures < ATTEMPTS => failures += 1,
            Err(failure) => return Err(failure.next(format!("muster task {name} --follow"))),
        }
        tokio::time::sleep(backoff.next_delay(&mut rand::rng())).await;
    }
}

/// One connection's worth of a task. `Some`: it has ended everywhere.
async fn watch(
    session: &Session,
    request: &mut WatchTaskRequest,
    board: &mut Board,
) -> Result<Option<fleet::Task>, Failure> {
    let failed = session.failed("cannot watch the task");
    let mut updates = session.fleet().watch_task(request.clone()).await.map_err(&failed)?.into_inner();
    while let Some(next) = updates.message().await.map_err(&failed)? {
        if !next.resume_token.is_empty() {
            request.resume_token = next.resume_token;
        }
        match next.update {
            Some(Update::Done(task)) => return Ok(Some(task)),
            Some(Update::Target(target)) => board.target(target),
            Some(Update::Output(output)) => board.output(output),
            Some(Update::Progress(progress)) => board.progress(progress),
            None => {}
        }
    }
    Ok(None)
}

fn arguments(run: &Run) -> Result<task::RunArguments, Failure> {
    let environment =
        run.environment.iter().map(|variable| (variable.key.clone(), variable.value.clone())).collect();
    let user = run.user.clone().unwrap_or_default();
    let common = task::RunArguments { environment, user, ..task::RunArguments::default() };
    match &run.script {
        None if run.command.is_empty() => {
            Err(Failure::usage("there is nothing to run", "no command and no --script")
                .next("muster run --all -- uptime"))
        }
        None => Ok(task::RunArguments { argv: run.command.clone(), ..common }),
        Some(file) => {
            let script = read_script(file)?;
            let interpreter = interpreter(&script);
            Ok(task::RunArguments { script, interpreter, script_arguments: run.command.clone(), ..common })
        }
    }
}

fn read_script(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let what = || format!("cannot send {}", file.display());
    let text = text.map_err(|error| Failure::usage(what(), error))?;
    if text.len() > SCRIPT_BYTES {
        let why = format!("it has {} bytes, and a task carries {SCRIPT_BYTES}", text.len());
        return Err(Failure::usage(what(), why).next("fetch the large part from within the script"));
    }
    Ok(text)
}

/// What the script's first line asks for; empty leaves it to the host. `env` and options are not for this: they fall to /bin/sh.
fn interpreter(script: &str) -> String {
    let first = script.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or_default().trim();
    let plain = !first.contains(char::is_whitespace);
    if plain { first.to_owned() } else { String::new() }
}

fn title(run: &Run) -> String {
    let script = run.script.as_ref().map(|file| file.display().to_string());
    let words = script.into_iter().chain(run.command.iter().cloned());
    words.collect::<Vec<_>>().join(" ").chars().take(TITLE_CHARACTERS).collect()
}

async fn dry_run(
    session: &Session,
    output: Output,
    run: &Run,
    planned: &fleet::Task,
) -> Result<Exit, Failure> {
    let nodes = listing::nodes(session, run.selection.filter()).await?;
    match output {
        Output::Json => json::print(
            "DryRun",
            [("task", json::task(planned)), ("nodes", nodes.iter().map(json::node).collect())],
        ),
        Output::Table => {
            eprintln!(
                "Would run on {}, {}: {}",
                run.selection.describe(),
                words::hosts(planned.target_count as usize),
                title(run)
            );
            for node in &nodes {
                println!("{}  {}", words::host(&node.host_name, &node.name), words::node_state(node.state()));
            }
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_first_line_names_its_interpreter() {
        assert_eq!(interpreter("#!/bin/bash\necho"), "/bin/bash");
        assert_eq!(interpreter("echo"), "");
        assert_eq!(interpreter("#! /usr/bin/env python3\n"), "");
    }
}
