//! The sockets that probes leave by. Nothing else goes through them, and nobody answers: so a candidate never has a
//! reason to write to them, and what comes from them proves something.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use muster_net::interfaces;
use muster_wire::probe::{self, Token};

/// Addresses of this host that are probed from.
const ADDRESSES: usize = 8;

/// Sockets on each: two different sources are what it takes to prove an address.
const EACH: usize = 2;

pub(crate) struct Probing {
    sockets: Vec<UdpSocket>,
}

impl Probing {
    /// On these addresses; if there are none, on those of the default route, and without any wherever the system sends
    /// from. A family that this host does not have is left out.
    ///
    /// # Errors
    /// Not one socket can be bound.
    pub(crate) fn bind(wanted: &[IpAddr]) -> io::Result<Self> {
        let own = || interfaces::default_route().into_iter().flat_map(|it| it.addresses).map(|(ip, _)| ip);
        let mut addresses = if wanted.is_empty() { own().collect() } else { wanted.to_vec() };
        if addresses.is_empty() {
            addresses = vec![IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        }
        addresses.truncate(ADDRESSES);
        let (mut sockets, mut failed) = (Vec::new(), None);
        for address in addresses.into_iter().flat_map(|address| [address; EACH]) {
            match Self::socket(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) => failed = Some((address, error)),
            }
        }
        match failed {
            Some((_, error)) if sockets.is_empty() => return Err(error),
            Some((address, error)) => tracing::warn!(%address, %error, "no probes leave from here"),
            None => {}
        }
        Ok(Self { sockets })
    }

    fn socket(address: IpAddr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    pub(crate) fn sources(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// One datagram, which may be lost.
    pub(crate) fn send(&self, socket: usize, to: SocketAddr, token: &Token) {
        let Some(socket) = self.sockets.get(socket) else { return };
        if let Err(error) = socket.send_to(&probe::encode(token), to) {
            tracing::debug!(%error, "a probe does not leave");
        }
    }
}
