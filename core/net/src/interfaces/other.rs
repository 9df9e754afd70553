//! Systems whose routes are not read yet: every interface that is up counts as leading out.

use std::collections::HashMap;
use std::net::IpAddr;

pub(super) fn default_routes() -> HashMap<String, Vec<IpAddr>> {
    netdev::get_interfaces().into_iter().map(|interface| (interface.name, Vec::new())).collect()
}

pub(super) fn is_bridge(_name: &str) -> bool {
    false
}
