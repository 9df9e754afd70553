//! Starts a relay, in the process of auth or elsewhere, and tells the registry of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use muster_kit::connect::{self, GSN_REGISTRY, RELAY};
use muster_kit::files;
use muster_relay::Config;
use muster_relay::registration::{self, Place, Registration};

use super::post::Post;
use crate::exit::Failure;
use crate::target::Target;

/// Beside the relay's certificate: by this name tickets mean this replica, and no other.
const NAME_FILE: &str = "relay.name";

pub(super) async fn start(post: &mut Post<'_>) -> Result<(), Failure> {
    let (tls, auth) = post.admitted(Target::Relay).await?;
    let (config, reached, shutdown) = (post.config, post.reached, post.shutdown);
    let name = match &config.relay_name {
        Some(name) => name.clone(),
        None => kept_name(&config.data_dir)?,
    };
    let socket = bind(config.listen.map_or(Ipv4Addr::UNSPECIFIED.into(), |listen| listen.ip()));
    let udp_port = socket.as_ref().and_then(|socket| socket.local_addr().ok()).map(|address| address.port());
    let address = match &config.gsn_registry_address {
        Some(address) => address.clone(),
        None => reached.auth_address(config, Target::Relay.as_str())?,
    };
    let registry = connect::Master::new([address], tls.client.clone()).service(GSN_REGISTRY);
    let places =
        config.relay_addresses(reached.addresses).iter().filter_map(|address| place(address, udp_port));
    let registration = Registration { name: name.clone(), places: places.collect() };
    shutdown.spawn(registration::keep(registry, registration, shutdown.clone()));
    let relay = Config::new(name, post.trust.network, post.trust.roots.clone());
    let (incoming, ended) = (post.incoming(RELAY, tls), shutdown.clone());
    post.spawn(Target::Relay, muster_relay::run(relay, incoming, socket, auth, ended));
    Ok(())
}

fn place(address: &str, udp_port: Option<u16>) -> Option<Place> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Place { host, tcp_port: port.parse().ok()?, udp_port })
}

/// The relay's own UDP port, or any if it is taken. Without one packets go by TCP alone.
fn bind(ip: IpAddr) -> Option<UdpSocket> {
    let at = |port| UdpSocket::bind(SocketAddr::new(ip, port));
    match at(muster_relay::config::UDP_PORT).or_else(|_| at(0)) {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(%error, "the relay has no UDP; packets go by TCP alone");
            None
        }
    }
}

fn kept_name(data_dir: &Path) -> Result<String, Failure> {
    let file = data_dir.join(NAME_FILE);
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let name = format!("relay-{:08x}", rand::random::<u32>());
            let kept = files::write_private(&file, name.as_bytes());
            kept.map_err(|error| Failure::internal("the relay's name cannot be kept", error))?;
            Ok(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_keeps_its_name_and_two_have_different_ones() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = kept_name(one.path()).unwrap();
        assert_eq!(kept_name(one.path()).unwrap(), name);
        assert_ne!(kept_name(other.path()).unwrap(), name);
    }

    #[test]
    fn an_address_of_either_family_is_a_place() {
        let six = place("[2001:db8::1]:443", Some(5)).unwrap();
        assert_eq!((six.host.as_str(), six.tcp_port, six.udp_port), ("2001:db8::1", 443, Some(5)));
        assert_eq!(place("master.example.org:27431", None).unwrap().host, "master.example.org");
    }
}
