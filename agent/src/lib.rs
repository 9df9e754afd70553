//! The agent of a managed device.
