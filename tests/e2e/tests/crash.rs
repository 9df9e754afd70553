//! The crash matrix: every named step of a task's and of an enrollment's way, killed there as by `kill -9`.
//!
//! A kill counts only when it hits its step: the process must say so and end by SIGKILL, or the test fails. Afterwards
//! every target has ended in one state for good, no effect has happened twice, nothing acknowledged is lost, and the
//! next task works. `MUSTER_CRASH_REPEAT` says how often each step is hit.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod crash {
    pub(crate) mod enrollment;
    pub(crate) mod lsn;
    pub(crate) mod master;
    pub(crate) mod node;
    pub(crate) mod points;
    pub(crate) mod scene;
}
