//! The local network: datagrams by multicast (both families) and broadcast, on every interface that leads out.
//! They are sent from the endpoint's own sockets, so that answers find this agent and no other of the host; they
//! are heard on one fixed port that all agents of a host share.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use muster_types::limits;
use muster_wire::datagram::Kind;
use muster_wire::meeting;
use muster_wire::{probe, relay};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::demux::Owner;
use crate::endpoint::Shared;
use crate::event::NetEvent;
use crate::interfaces::{self, Interface};
use crate::path::canonical;
use crate::quic::{Tap, Tapped};
use crate::sealed::Sealed;
use crate::sent::Sent;
use crate::socket::Sockets;
use crate::stun;
use crate::usage::{Traffic, Usage};

/// Heard by every agent, whatever its own port.
pub const PORT: u16 = 27432;

/// Of the organisation-local scope (RFC 2365, section 6.2), which routers at a site's edge stop; hops: 1.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 27, 43);

/// Link-local and transient (RFC 4291, section 2.7): never assigned, never routed.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0x6d75, 0x7374, 0x6572);

/// Datagrams that wait to be looked at; a LAN that sends more than this at once is not discovering, and a meeting sends a
/// tenth of it in a round.
const HEARD: usize = 512;

/// Where discovery listens and speaks.
#[derive(Debug, Clone)]
pub struct Config {
    pub port: u16,
    /// Fixed interfaces instead of those with a default route: for tests and odd hosts.
    pub interfaces: Option<Vec<Interface>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { port: PORT, interfaces: None }
    }
}

pub(crate) struct Discovery {
    config: Option<Config>,
    /// Clones of the endpoint's sockets.
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    hearing_v4: Option<tokio::net::UdpSocket>,
    hearing_v6: Option<tokio::net::UdpSocket>,
    /// Also the lock that keeps a datagram's interface its own: it is an option of the socket.
    interfaces: Mutex<Vec<Interface>>,
    usage: Arc<Usage>,
    sent_to: Arc<Sent>,
}

impl Discovery {
    pub(crate) fn new(
        config: Option<Config>,
        sockets: &Sockets,
        usage: Arc<Usage>,
        sent_to: Arc<Sent>,
    ) -> io::Result<Self> {
        let clone = |socket: &Option<UdpSocket>| socket.as_ref().map(UdpSocket::try_clone).transpose();
        let hear = |address: IpAddr, wanted: bool| {
            let port = config.as_ref().filter(|_| wanted)?.port;
            hearing_socket(SocketAddr::new(address, port))
                .inspect_err(|error| tracing::warn!(%error, "the local network is not heard on {address}"))
                .ok()
        };
        let discovery = Self {
            v4: clone(&sockets.udp_v4)?,
            v6: clone(&sockets.udp_v6)?,
            hearing_v4: hear(Ipv4Addr::UNSPECIFIED.into(), sockets.udp_v4.is_some()),
            hearing_v6: hear(Ipv6Addr::UNSPECIFIED.into(), sockets.udp_v6.is_some()),
            interfaces: Mutex::default(),
            config,
            usage,
            sent_to,
        };
        discovery.rejoin();
        Ok(discovery)
    }

    /// The queue of datagrams that come to the endpoint's own sockets.
    pub(crate) fn tap() -> (Tap, mpsc::Receiver<Tapped>) {
        mpsc::channel(HEARD)
    }

    /// Listens on the interfaces that are there now.
    pub(crate) fn rejoin(&self) {
        let Some(config) = &self.config else { return };
        let now = config.interfaces.clone().unwrap_or_else(interfaces::default_route);
        for interface in &now {
            // Errors: joined before (the system forgets a group when its interface goes), or a family is missing.
            if let Some(socket) = &self.hearing_v4
                && let Some(own) = own_v4(interface)
                && let Err(error) = socket.join_multicast_v4(GROUP_V4, own)
            {
                tracing::debug!(%error, interface = interface.name, "IPv4 group not joined");
            }
            if let Some(socket) = &self.hearing_v6
                && let Err(error) = socket.join_multicast_v6(&GROUP_V6, interface.index)
            {
                tracing::debug!(%error, interface = interface.name, "IPv6 group not joined");
            }
        }
        *self.interfaces.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// To all who listen, on every interface; a failure on one is none on another.
    pub(crate) fn multicast(&self, datagram: &[u8]) {
        let Some(config) = &self.config else { return };
        let interfaces = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        for interface in interfaces.iter() {
            if let (Some(socket), Some(own)) = (&self.v4, own_v4(interface)) {
                let group = SockRef::from(socket).set_multicast_if_v4(&own);
                self.sent(group.and_then(|()| socket.send_to(datagram, (GROUP_V4, config.port))));
                for broadcast in broadcasts(interface) {
                    self.sent(socket.send_to(datagram, (broadcast, config.port)));
                }
            }
            if let Some(socket) = &self.v6 {
                let group = SockRef::from(socket).set_multicast_if_v6(interface.index);
                let to = SocketAddrV6::new(GROUP_V6, config.port, 0, interface.index);
                self.sent(group.and_then(|()| socket.send_to(datagram, to)));
            }
        }
    }

    pub(crate) fn answer(&self, to: SocketAddr, datagram: &[u8]) {
        self.send(to, datagram, Traffic::Discovery);
    }

    /// From the endpoint's own socket.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8], traffic: Traffic) {
        let to = canonical(to);
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket {
            self.sent_to.note(to.ip());
            self.account(socket.send_to(datagram, to), traffic);
        }
    }

    fn sent(&self, result: io::Result<usize>) {
        self.account(result, Traffic::Discovery);
    }

    fn account(&self, result: io::Result<usize>, traffic: Traffic) {
        match result {
            Ok(bytes) => self.usage.sent(traffic, bytes),
            Err(error) => tracing::debug!(%error, ?traffic, "datagram not sent"),
        }
    }

    /// The interface that a datagram came by, as far as its source tells.
    fn interface_of(&self, from: SocketAddr) -> Option<u32> {
        let interfaces = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        match from {
            SocketAddr::V6(from) if from.scope_id() != 0 => Some(from.scope_id()),
            _ => interfaces.iter().find(|interface| interface.contains(from.ip())).map(|found| found.index),
        }
    }
}

fn own_v4(interface: &Interface) -> Option<Ipv4Addr> {
    interface.addresses.iter().find_map(|(ip, _)| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    })
}

/// The directed broadcast address of each IPv4 prefix that has one.
fn broadcasts(interface: &Interface) -> impl Iterator<Item = Ipv4Addr> {
    interface.addresses.iter().filter_map(|(_, prefix)| match prefix.network() {
        IpAddr::V4(network) if prefix.length() <= 30 => {
            let host = u32::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
            Some(Ipv4Addr::from_bits(network.to_bits() | host))
        }
        _ => None,
    })
}

/// Shared by all agents of a host: each gets a copy of what is sent to a group or broadcast.
fn hearing_socket(address: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Brings what is heard to the endpoint's owner.
pub(crate) fn start(shared: &Arc<Shared>, tapped: mpsc::Receiver<Tapped>) {
    shared.spawn(hear_answers(Arc::clone(shared), tapped));
    let Some(config) = &shared.discovery.config else { return };
    shared.spawn(hear(Arc::clone(shared)));
    if config.interfaces.is_none() {
        shared.spawn(interfaces::watch(Arc::clone(shared)));
    }
}

async fn hear_answers(shared: Arc<Shared>, mut tapped: mpsc::Receiver<Tapped>) {
    let mut responder = stun::Responder::default();
    while let Some(Tapped { from, interface, bytes }) = tapped.recv().await {
        let owner = bytes.first().map(|first| Owner::of(*first));
        if owner == Some(Owner::Stun) {
            stun::heard(&shared, &mut responder, from, &bytes);
        } else if meeting::claimed(&bytes).is_some() {
            shared.usage.received(Traffic::Probe, bytes.len());
            if shared.probes.try_send(Sealed { from, bytes }).is_err() {
                tracing::debug!(%from, "dropped a probe: nobody keeps up");
            }
        } else if let Some(datagram) = relay::decode(&bytes) {
            shared.usage.received(Traffic::Relayed, bytes.len());
            if let Some(answer) = shared.legs.heard(from, datagram, bytes) {
                shared.discovery.send(from, &answer, Traffic::Relayed);
            }
        } else if let Some(token) = probe::decode(&bytes) {
            reached(&shared, from, token);
        } else if Kind::of(&bytes).is_none() {
            heard(&shared, from, bytes, interface);
        } else {
            shared.usage.received(Traffic::Sealed, bytes.len());
            if shared.sealed.try_send(Sealed { from, bytes }).is_err() {
                tracing::debug!(%from, "dropped a sealed datagram: nobody keeps up");
            }
        }
    }
}

async fn hear(shared: Arc<Shared>) {
    let mut v4 = [0; limits::DATAGRAM_BYTES + 1];
    let mut v6 = v4;
    loop {
        let (received, buffer) = tokio::select! {
            received = receive(shared.discovery.hearing_v4.as_ref(), &mut v4) => (received, &v4),
            received = receive(shared.discovery.hearing_v6.as_ref(), &mut v6) => (received, &v6),
        };
        match received {
            Ok((length, from)) => {
                let interface = shared.discovery.interface_of(from);
                heard(&shared, from, Bytes::copy_from_slice(&buffer[..length]), interface);
            }
            Err(error) => {
                tracing::debug!(%error, "discovery receive");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn receive(
    socket: Option<&tokio::net::UdpSocket>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// A probe of somebody to whom this node need not have written. When nobody keeps up it is lost: another one comes.
fn reached(shared: &Shared, from: SocketAddr, token: probe::Token) {
    if shared.events.try_send(NetEvent::Reached { from, token }).is_err() {
        tracing::debug!(%from, "dropped a probe: nobody keeps up");
    }
}

/// What is too large, not ours, or one too many is dropped: the local network is nobody's friend.
fn heard(shared: &Shared, from: SocketAddr, bytes: Bytes, interface: Option<u32>) {
    let ours = bytes.first().is_some_and(|first| Owner::of(*first) == Owner::Overlay);
    if !ours || bytes.len() > limits::DATAGRAM_BYTES {
        return tracing::trace!(%from, "dropped a datagram");
    }
    shared.usage.received(Traffic::Discovery, bytes.len());
    if shared.events.try_send(NetEvent::Discovery { from, bytes, interface }).is_err() {
        tracing::debug!(%from, "dropped a discovery datagram: nobody keeps up");
    }
}
