//! `muster`: see `muster --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A task's program begins as this executable where an agent runs in it; nothing else may have happened before.
    muster_agent::launch_if_asked();
    muster::main()
}
