//! Rules and state without framework: who the nodes are, and how well the table is.

pub mod health;
pub mod identity;
