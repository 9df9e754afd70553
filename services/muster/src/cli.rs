//! The command line: what can be typed. What each command does stands in its own room.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::Settings;
use crate::exit::{self, Exit};
use crate::target::Target;

mod admission;
mod authority;
mod dht;
mod gsn;
mod hosts;
mod operator_root;
mod tasks;
mod upkeep;

pub use admission::{LinkCommand, LinkCreate, LinkRole, Lock, Login, Lost, Revoke, RevokeReason};
pub use authority::{AuditCommand, CaCommand, CaTier, RequestsCommand, SignerPurpose};
pub use dht::{DhtCommand, DhtKind};
pub use gsn::{GsnCommand, GsnState};
pub use hosts::{Clone, Forget, LabelChange, NodeState, NodesFilter, Ping, Refresh, Watch};
pub use operator_root::{OperatorRootCommand, OperatorRootPolicy, OperatorRootSign};
pub use tasks::{Inventory, Patience, Run, Section, Task, Tasks};
pub use upkeep::{Backup, Doctor, Init, Invite, Restore};

const BEGINNING: &str = "Begin with:\n  \
    muster up                      a master and an agent of this host, in one process\n  \
    muster link create             a link for the next device\n  \
    muster nodes                   who is there\n  \
    muster run --all -- uptime     a command on every host";

/// Connects your CMDB with the devices it manages.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    propagate_version = true,
    after_help = BEGINNING,
    after_long_help = format!("{BEGINNING}\n\n{}", exit::HELP),
)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    /// Tables for people, or JSON of the schema muster.v1 for programs
    #[arg(long, short, global = true, env = "MUSTER_OUTPUT", value_enum, default_value_t)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// Which master is meant.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The folder of a master on this host [default: /var/lib/muster for root, else ~/.local/share/muster]
    #[arg(long, global = true, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A master that `muster login` has met [default: the master on this host, else the only context there is]
    #[arg(long, global = true, env = "MUSTER_CONTEXT", value_name = "NAME", conflicts_with = "data_dir")]
    pub context: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole master here, with an agent of this host beside it
    #[command(after_help = "Examples:\n  \
        muster up                                    state in the usual folder, the API on port 27431\n  \
        muster up --address master.example.org:443   what links say, behind a router or a balancer\n  \
        muster up --data-dir ./try --listen 127.0.0.1:4000 --no-agent")]
    Up(Box<Up>),
    /// Found the network of a store, if there is none yet; what a chart runs as a job. Safe to repeat
    #[command(after_help = "Examples:\n  \
        muster init\n  \
        muster init --secret-file /run/secrets/muster      keys encrypted under a secret kept elsewhere\n  \
        muster init --pkcs11-module /usr/lib/softhsm/libsofthsm2.so --pkcs11-token muster \\\n    \
          --pkcs11-pin-file /run/secrets/pin               keys made in a token, and kept there\n  \
        muster init --external-root > requests.pem         the root stays offline: sign these there,\n  \
        muster init --import signed.pem                    and bring back what it signed")]
    Init(Box<Init>),
    /// Run some of the master's services
    #[command(after_help = "Examples:\n  \
        muster serve --list-targets\n  \
        muster serve --target auth --listen 10.0.0.5:27431\n  \
        muster serve --target topology --auth-address 10.0.0.5:27431")]
    Serve(Box<Serve>),
    /// Meet a master by an operator's link; its commands work from here then
    #[command(after_help = "Examples:\n  \
        muster login 'https://master:27431/enroll#1....'\n  \
        muster login - < link.txt      keeps the link out of the shell's history")]
    Login(Login),
    /// Links that enroll devices, operators and CMDBs
    #[command(subcommand)]
    Link(LinkCommand),
    /// Enrollments that wait for an operator's word
    #[command(subcommand)]
    Requests(RequestsCommand),
    /// The certificate authority: look at it, replace it, or sign by a root that is kept offline
    #[command(subcommand)]
    Ca(CaCommand),
    /// What was done, by whom, to whom
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Every host, and whether it is there
    #[command(after_help = "Examples:\n  \
        muster nodes --state online\n  \
        muster nodes --place office --label role=till")]
    Nodes(NodesFilter),
    /// One host in full
    Node {
        /// Id, the beginning of an id, or host name
        node: String,
    },
    /// The network as a tree: places, their LSNs, their hosts
    Topology,
    /// What happens, as it happens
    #[command(after_help = "Examples:\n  \
        muster watch                   until Ctrl-C\n  \
        muster watch --all             every host as it is first, then changes\n  \
        muster watch -o json --resume TOKEN")]
    Watch(Watch),
    /// Tasks, newest first
    Tasks(Tasks),
    /// One task, host by host
    #[command(after_help = "Examples:\n  \
        muster task 0193a5c8           states and reasons\n  \
        muster task 0193a5c8 --logs    what the hosts wrote\n  \
        muster task 0193a5c8 --follow  until its end")]
    Task(Task),
    /// Run a command or a script on hosts, and watch it live
    #[command(after_help = "Examples:\n  \
        muster run --all -- uptime\n  \
        muster run --on build-7 --timeout 5m -- apt-get -y upgrade\n  \
        muster run --place office --script fix-printer.sh -- --verbose\n  \
        muster run --label role=till --queue-for 7d -- reboot\n  \
        muster run --all --dry-run -- rm -rf /tmp/cache\n  \
        MUSTER_OTLP_ENDPOINT=http://127.0.0.1:4317 muster run --all -- uptime   one trace, to the hosts and back")]
    Run(Box<Run>),
    /// Ask hosts what they are and have: system, hardware, installed packages
    #[command(after_help = "Examples:\n  \
        muster inventory --on build-7\n  \
        muster inventory --all -o json --section packages\n  \
        muster inventory --all --glpi > fleet.jsonl    for a CMDB that takes GLPI's format")]
    Inventory(Inventory),
    /// End somebody's admission for good: a host, an operator, a CMDB
    #[command(after_help = "Examples:\n  \
        muster revoke build-7 --reason ceased\n  \
        muster revoke operators/ada --reason key-compromise --comment 'laptop sold'")]
    Revoke(Revoke),
    /// A host is lost: it is cut off from everything but its lock or erase
    #[command(after_help = "Examples:\n  \
        muster lost laptop-12 --lock   whenever it comes back, it is locked\n  \
        muster lost laptop-12 --erase  whenever it comes back, it is erased")]
    Lost(Lost),
    /// A lost host was found: it takes part again
    Found {
        /// Id, the beginning of an id, or host name
        node: String,
    },
    /// A host is gone for good: it is shown no more, and what it still owed ends. It has to be offline; revoke it, too
    #[command(after_help = "Examples:\n  \
        muster revoke build-7 --reason ceased && muster forget build-7\n  \
        muster forget old-1 old-2 old-3")]
    Forget(Forget),
    /// A held host: several devices, copies of one disk perhaps, have its identity. Decide about them
    #[command(after_help = "Examples:\n  \
        muster node build-7                            which devices there are\n  \
        muster clone build-7 --renew 53ab09f200c1d2e4  that one becomes a host of its own\n  \
        muster clone build-7 --gone                    only one is left")]
    Clone(Clone),
    /// Lock a host: logins are blocked, sessions ended
    Lock(Lock),
    /// Erase a host: what its own configuration names is destroyed
    Erase {
        /// Id, the beginning of an id, or host name
        node: String,
        /// Sign with this key of the operators' root
        #[arg(long, value_name = "FILE", env = "MUSTER_SIGN_WITH")]
        sign_with: Option<PathBuf>,
    },
    /// The operators' own authority, made offline: tasks that no master can sign alone
    #[command(subcommand)]
    OperatorRoot(OperatorRootCommand),
    /// Agree to a task that waits for a second person
    Approve {
        /// Id of the task, or its beginning
        task: String,
    },
    /// Look into the hash table: records, nodes, health
    #[command(
        subcommand,
        after_help = "A KEY is 40 hexadecimal digits, nodes/ID, or any name.\n\nExamples:\n  \
        muster dht crawl\n  \
        muster dht put motd 'closed on Friday'\n  \
        muster dht get motd\n  \
        muster dht get nodes/0193... --kind contact"
    )]
    Dht(DhtCommand),
    /// Global super nodes: hosts that anybody can reach, and that bring others together
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        muster gsn list\n  \
        muster gsn list --state unproven      who offered, and what is missing"
    )]
    Gsn(GsnCommand),
    /// The relays that carry packets between hosts that cannot meet
    Relays,
    /// Stop a task, also where it runs
    Cancel {
        /// Id of the task, or its beginning
        task: String,
    },
    /// Ask hosts themselves, now, whether they are there
    Refresh(Refresh),
    /// Ask one host whether it is there, and see how soon its answer comes: by its LSN and back, as a task would go
    #[command(after_help = "Examples:\n  \
        muster ping build-7\n  \
        muster ping build-7 --count 10 --timeout 2s\n  \
        muster ping 3f6c0e -o json           for scripts; exit code 5 if an answer is missing\n\n\
        Between two hosts: muster-agent ping NODE, on one of them.")]
    Ping(Ping),
    /// By whom a host's words come to the master, hop by hop, with addresses and round trips
    #[command(after_help = "Examples:\n  \
        muster path build-7\n  \
        muster path build-7 -o json          exit code 5 if it has none now\n\n\
        Between two hosts: muster-agent ping NODE, on one of them, says what was tried too.")]
    Path {
        /// Id, the beginning of an id, or host name
        node: String,
    },
    /// Set or remove labels of a host
    #[command(after_help = "Examples:\n  \
        muster label build-7 role=builder floor=3\n  \
        muster label build-7 floor-    removes it")]
    Label(LabelChange),
    /// Check everything that a master needs, from this host, and say what mends what
    #[command(after_help = "Examples:\n  \
        muster doctor                        the master on this host, and the way to it\n  \
        muster doctor --context office       a master elsewhere, as its operator\n  \
        muster doctor --master host:27431    as a device that knows nothing but the address\n  \
        muster doctor -o json                for scripts; exit code 7 if a check fails")]
    Doctor(Box<Doctor>),
    /// Copy a master's truth into a folder, while it works
    #[command(after_help = "Examples:\n  \
        muster backup /backup/2026-11-22")]
    Backup(Box<Backup>),
    /// Bring a backup back, into an empty data directory, and open a new epoch
    #[command(after_help = "Examples:\n  \
        muster restore /backup/2026-11-22 --data-dir /var/lib/muster\n  \
        muster restore --reopen              after pg_restore; no replica may run")]
    Restore(Box<Restore>),
    /// Let a service of another process join: leaves a link in its data directory
    Invite(Box<Invite>),
    /// Every setting of a master: file, environment, flag, default
    ConfigReference,
    /// A script for your shell that completes muster's commands
    #[command(after_help = "Examples:\n  \
        muster completions bash > /etc/bash_completion.d/muster\n  \
        muster completions zsh  > ~/.zfunc/_muster")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub settings: Settings,
    /// Leave out the agent of this host
    #[arg(long)]
    pub no_agent: bool,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Which services; `all` is every one there is
    #[arg(long = "target", value_delimiter = ',', required_unless_present = "list_targets")]
    pub targets: Vec<Target>,
    /// Say which services there are
    #[arg(long)]
    pub list_targets: bool,
    #[command(flatten)]
    pub settings: Settings,
}

/// Writes the completion script to stdout.
pub fn completions(shell: clap_complete::Shell) -> Exit {
    clap_complete::generate(shell, &mut Arguments::command(), "muster", &mut std::io::stdout());
    Exit::Ok
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_commands_own_options_are_left_alone() {
        let line = "muster run --all --timeout 5m -- ls --color=auto -o json";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(run) = arguments.command else { panic!("{line}") };
        assert_eq!(run.command, ["ls", "--color=auto", "-o", "json"]);
        assert_eq!(run.timeout, Some(Duration::from_secs(300)));
        assert_eq!(arguments.output, Output::Table);
    }
}
