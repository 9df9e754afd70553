//! The rules of topology: what is known of nodes, cells and tasks, and how it changes.
//!
//! Synchronous, `now` as an argument, no I/O. A [`ledger::Command`] says what it needs to read, changes the
//! [`ledger::Ledger`] it is given, and answers; the writer commits what the ledger then holds.

pub mod admission;
pub mod attach;
pub mod attachment;
pub mod cell;
pub mod clone;
pub mod deed;
pub mod departure;
pub mod event;
pub mod expulsion;
pub mod filter;
pub mod incident;
pub mod labels;
pub mod ledger;
pub mod log;
pub mod node;
pub mod opaque;
pub mod removal;
pub mod reports;
pub mod scope;
pub mod table;
pub mod target;
pub mod task;
pub mod tasks;
pub mod update;
pub mod uptime;
