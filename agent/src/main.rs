//! `muster-agent`: see `muster-agent --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A task's program begins as this executable; nothing else may have happened before.
    muster_agent::launch_if_asked();
    muster_agent::cli::main()
}
