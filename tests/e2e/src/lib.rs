//! The real programs on loopback: `muster` and `muster-agent` as processes of their own, in folders and on ports of
//! their own, ended by their exact process ids when the test ends, however it ends.

pub mod agent;
pub mod answer;
pub mod binaries;
pub mod calendar;
pub mod collector;
pub mod fleet;
pub mod master;
pub mod program;

pub use agent::Agent;
pub use answer::Answer;
pub use fleet::Fleet;
pub use master::Master;
pub use program::Program;
