//! The real programs in network namespaces: an internet, places behind routers that run the simulator's own model of
//! address translation and links, and hosts that can be moved, cut off and killed. Nothing of it touches this
//! computer's own network, and all of it ends with the process that built it.

pub mod counters;
pub mod dns;
pub mod fleet;
pub mod gateway;
pub mod host;
pub mod lab;
pub mod layers;
pub mod machine;
pub mod meeting;
pub mod picture;
pub mod place;
pub mod plan;
pub mod probe;
pub mod program;
pub mod relay_death;
pub mod roster;
pub mod router;
pub mod scenario;
pub mod sorts;
pub mod stage;
pub mod super_node;
pub mod testing;

pub use fleet::Fleet;
pub use host::{Host, UdpBlock};
pub use lab::{Builder, Lab};
pub use machine::Machine;
pub use place::Place;
pub use plan::{Family, PlacePlan, Translation};
