//! The master in one binary, and the operator's command line.
//!
//! [`cli`] says what can be typed. `up` and `serve` run services ([`master`], by [`config`]); every other command speaks
//! the services' gRPC ([`context`] finds the way) and shows what they answer ([`render`]). Data goes to stdout, messages
//! go to stderr, and [`exit`] has the codes.

use std::process::ExitCode;

use clap::Parser;
use tracing::Instrument;

use cli::{Arguments, Command, Output, Place};
use exit::{Exit, Failure};

pub mod audit;
pub mod backup;
pub mod ca;
pub mod cli;
pub mod clone;
pub mod config;
pub mod context;
pub mod credentials;
pub mod database;
pub mod dht;
pub mod doctor;
pub mod exit;
pub mod fleet;
pub mod glpi;
pub mod gsn;
pub mod init;
pub mod inventory;
pub mod link;
pub mod login;
pub mod master;
pub mod nodes;
pub mod operator_root;
pub mod ping;
pub mod reference;
pub mod render;
pub mod requests;
pub mod revoke;
pub mod run;
pub mod selection;
pub mod serve;
pub mod signing;
pub mod target;
pub mod tasks;
pub mod topology;
pub mod up;
pub mod watch;

/// As a shell shows a program that SIGPIPE ended.
const NO_READER: i32 = 141;

/// A reader that has seen enough, as `head` has, is nobody's fault: the program ends without a word.
fn end_quietly_without_a_reader() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|text| text.ends_with("Broken pipe (os error 32)")) {
            std::process::exit(NO_READER);
        }
        report(panic);
    }));
}

/// The whole program.
pub fn main() -> ExitCode {
    end_quietly_without_a_reader();
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("cannot start", error))
        .and_then(|runtime| runtime.block_on(dispatch(arguments)));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

async fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { place, output, command } = arguments;
    // What serves has telemetry among its settings, and one span for each call.
    if matches!(command, Command::Up(_) | Command::Serve(_)) {
        return perform(place, output, command).await;
    }
    let _telemetry = config::operator_telemetry()?;
    perform(place, output, command).instrument(tracing::info_span!("muster")).await
}

async fn perform(place: Place, output: Output, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(up) => up::run(&place, output, *up).await,
        Command::Init(init) => init::run(&place, output, *init).await,
        Command::Requests(command) => requests::run(&place, output, command).await,
        Command::Ca(command) => ca::run(&place, output, command).await,
        Command::Audit(command) => audit::run(&place, output, command).await,
        Command::Serve(serve) => serve::run(&place, *serve).await,
        Command::Login(login) => login::run(output, login).await,
        Command::Link(command) => link::run(&place, output, command).await,
        Command::Nodes(filter) => nodes::list(&place, output, filter).await,
        Command::Node { node } => nodes::show(&place, output, &node).await,
        Command::Refresh(refresh) => nodes::refresh(&place, output, refresh).await,
        Command::Ping(ping) => ping::ping(&place, output, ping).await,
        Command::Path { node } => ping::path(&place, output, &node).await,
        Command::Label(label) => nodes::label(&place, output, label).await,
        Command::Dht(command) => dht::run(&place, output, command).await,
        Command::Gsn(command) => gsn::run(&place, output, command).await,
        Command::Relays => gsn::relays(&place, output).await,
        Command::Topology => topology::show(&place, output).await,
        Command::Watch(watch) => watch::run(&place, output, watch).await,
        Command::Tasks(tasks) => tasks::list(&place, output, tasks).await,
        Command::Task(task) => tasks::show(&place, output, task).await,
        Command::Revoke(revoke) => revoke::revoke(&place, output, revoke).await,
        Command::Lost(lost) => revoke::lost(&place, output, lost).await,
        Command::Clone(clone) => clone::decide(&place, output, clone).await,
        Command::Forget(forget) => nodes::forget(&place, output, forget).await,
        Command::Found { node } => revoke::found(&place, output, &node).await,
        Command::Lock(lock) => revoke::lock(&place, output, lock).await,
        Command::Erase { node, sign_with } => revoke::erase(&place, output, &node, sign_with).await,
        Command::OperatorRoot(command) => operator_root::run(&place, command),
        Command::Approve { task } => tasks::approve(&place, output, &task).await,
        Command::Cancel { task } => tasks::cancel(&place, output, &task).await,
        Command::Run(run) => run::run(&place, output, *run).await,
        Command::Inventory(inventory) => inventory::run(&place, output, inventory).await,
        Command::Doctor(doctor) => doctor::run(&place, output, *doctor).await,
        Command::Backup(backup) => backup::take(&place, output, *backup).await,
        Command::Restore(restore) => backup::restore(&place, output, *restore).await,
        Command::Invite(invite) => init::invite(&place, output, *invite).await,
        Command::ConfigReference => Ok(reference::print()),
        Command::Completions { shell } => Ok(cli::completions(shell)),
    }
}
