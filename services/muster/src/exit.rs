//! How the program ends: stable codes for scripts, and for people what failed, why, and what to type next.

use std::fmt::Display;
use std::process::ExitCode;

use muster_kit::connect::{Trouble, connect_error, diagnose};
use muster_kit::status;
use tonic::{Code, Status};

/// Exit codes; also in `muster --help`. They do not change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// At least one host ran the task and failed.
    HostsFailed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The master did not answer, or is not the one we know.
    Unreachable = 3,
    /// The master knows us and says no, or does not know us.
    Refused = 4,
    /// No host failed, but not all did it: offline, expired, timed out, cancelled, lost.
    Incomplete = 5,
    /// What was named does not exist, or is not in the state that the command needs.
    NotFound = 6,
    /// `muster doctor` found something that does not work.
    Unhealthy = 7,
    /// A fault of ours.
    Internal = 70,
    /// Left by Ctrl-C.
    Interrupted = 130,
}

/// The codes as `--help` tells them.
pub const HELP: &str = "Exit codes:\n  \
    0    done\n  \
    1    at least one host ran the task and failed\n  \
    2    the command line or the configuration is wrong\n  \
    3    the master did not answer, or is not the one we know\n  \
    4    the master refused\n  \
    5    no host failed, but not all did it: offline, expired, timed out, cancelled, lost\n  \
    6    what was named does not exist, or is not in the state that the command needs\n  \
    7    muster doctor found something that does not work\n  \
    70   a fault of muster itself\n  \
    130  left by Ctrl-C";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    what: String,
    why: String,
    next: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>, why: impl Display) -> Self {
        Self { exit, what: what.into(), why: why.to_string(), next: None }
    }

    pub fn usage(what: impl Into<String>, why: impl Display) -> Self {
        Self::new(Exit::Usage, what, why)
    }

    pub fn internal(what: impl Into<String>, why: impl Display) -> Self {
        Self::new(Exit::Internal, what, why)
    }

    /// Says what to type next.
    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    /// What a call's error means to an operator. `place` is the master as the operator knows it.
    pub fn of_call(what: impl Into<String>, status: &Status, place: &str) -> Self {
        let what = what.into();
        if let Some(trouble) = diagnose(status) {
            if let (Trouble::Proxy, Some(error)) = (trouble, connect_error(status)) {
                let failure = Self::new(Exit::Unreachable, what, error);
                return failure.next("the same command again, with HTTPS_PROXY or NO_PROXY corrected");
            }
            return of_trouble(what, trouble, place);
        }
        let why = match status::reason(status) {
            Some(reason) => format!("{} ({reason})", status.message()),
            None => format!("{} ({:?})", status.message(), status.code()),
        };
        let exit = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Exit::Refused,
            Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Exit::NotFound,
            Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
            Code::ResourceExhausted => Exit::Refused,
            _ => Exit::Internal,
        };
        let failure = Self::new(exit, what, why);
        match status.code() {
            Code::Unauthenticated => {
                failure.next("muster login LINK, with a link that an operator made for you")
            }
            Code::Unavailable | Code::DeadlineExceeded => failure.next("the same command again in a moment"),
            _ => failure,
        }
    }

    /// What failed, and why.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.what, self.why)
    }

    /// What to type next, if anything helps.
    pub fn remedy(&self) -> &str {
        self.next.as_deref().unwrap_or("read the master's log")
    }

    /// Tells stderr, and gives the code.
    pub fn report(&self) -> ExitCode {
        let Self { exit, what, why, next } = self;
        eprintln!("error: {what}: {why}");
        if let Some(next) = next {
            eprintln!(" next: {next}");
        }
        (*exit).into()
    }
}

fn of_trouble(what: String, trouble: Trouble, place: &str) -> Failure {
    let fail =
        |exit, why: &str, next: &str| Failure::new(exit, what.clone(), why.replace("{}", place)).next(next);
    let start = "muster up, on the master; or --context NAME for another master";
    match trouble {
        Trouble::NotResolved => {
            fail(Exit::Unreachable, "the name of {} cannot be resolved", "check the name and your network")
        }
        Trouble::NotReached => fail(Exit::Unreachable, "nobody answers at {}", start),
        Trouble::NotAMaster => fail(
            Exit::Unreachable,
            "whoever answers at {} is no Muster master",
            "check the address; is a proxy or another program on that port?",
        ),
        Trouble::Proxy => fail(
            Exit::Unreachable,
            "the proxy on the way to {} does not carry us",
            "the same command again, with HTTPS_PROXY or NO_PROXY corrected",
        ),
        Trouble::UntrustedRoot => fail(
            Exit::Unreachable,
            "{} shows a certificate of another root: it is another network's master, or a proxy re-signs TLS on the way",
            "muster login LINK if the master was set up anew; else exempt it from TLS inspection",
        ),
        Trouble::WrongName => fail(
            Exit::Unreachable,
            "{} shows the certificate of another service",
            "check which services run there: muster serve --list-targets",
        ),
        Trouble::NotValidNow => fail(
            Exit::Unreachable,
            "the certificate of {} is not valid at this time",
            "compare the clocks of this host and the master",
        ),
        Trouble::CertificateRefused => fail(
            Exit::Refused,
            "{} does not accept our certificate: it has expired, was revoked, or is of another network",
            "muster login LINK, with a link that an operator made for you",
        ),
        Trouble::Busy => fail(
            Exit::Unreachable,
            "{} has more callers than it admits now",
            "the same command again in a moment",
        ),
        Trouble::Lost => fail(
            Exit::Unreachable,
            "the connection to {} was lost",
            "the same command again; if it fails again, look at the master's log",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_kit::status::fault;

    #[test]
    fn a_refusal_of_the_master_keeps_its_reason() {
        let status = fault(Code::PermissionDenied, "ROLE_NOT_ALLOWED", "nodes/ab may not call this").into();
        let failure = Failure::of_call("cannot list nodes", &status, "master:1");
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.why, "nodes/ab may not call this (ROLE_NOT_ALLOWED)");
    }

    #[test]
    fn every_code_stands_in_the_help() {
        for exit in [
            Exit::Ok,
            Exit::HostsFailed,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Refused,
            Exit::Incomplete,
            Exit::NotFound,
            Exit::Unhealthy,
            Exit::Internal,
            Exit::Interrupted,
        ] {
            assert!(HELP.contains(&format!("\n  {:<4} ", exit as u8)), "{exit:?}");
        }
    }
}
