//! The operating system, one module for each concern. What a port to another system must write stands here.

pub mod erase;
pub mod interfaces;
pub mod lock;
pub mod processes;
pub mod service;
pub mod sleep;
pub mod users;
