//! The overlay's machines in a simulated world.

pub mod model;
