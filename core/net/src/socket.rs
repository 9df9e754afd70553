//! Opens the sockets: one UDP socket and one TCP listener for each family, all on one port number.
//!
//! One socket a family rather than one for both: hosts without IPv6 need no special case, IPv4's multicast and
//! broadcast options work on every system, and a family that fails takes nothing with it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Ports that the system proposes and another socket of ours then cannot have.
const PORT_ATTEMPTS: usize = 16;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Room for a burst from a whole cell; the system may grant less.
const UDP_BUFFER: usize = 1024 * 1024;

/// All sockets of one endpoint.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) port: u16,
    pub(crate) udp_v4: Option<UdpSocket>,
    pub(crate) udp_v6: Option<UdpSocket>,
    pub(crate) tcp: Vec<TcpListener>,
}

impl Sockets {
    /// On `port`, or on any if it is taken.
    pub(crate) fn open(addresses: &[IpAddr], port: u16, udp: bool, tcp: bool) -> io::Result<Self> {
        let mut result = Self::on(addresses, port, udp, tcp);
        for _ in 0..PORT_ATTEMPTS {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    result = Self::on(addresses, 0, udp, tcp);
                }
                _ => break,
            }
        }
        result
    }

    /// The first socket decides the port if it is zero. A family that this host does not have is left out.
    fn on(addresses: &[IpAddr], port: u16, udp: bool, tcp: bool) -> io::Result<Self> {
        let mut sockets = Self { port, udp_v4: None, udp_v6: None, tcp: Vec::new() };
        let mut absent = None;
        for address in addresses {
            match sockets.add(*address, udp, tcp) {
                Err(error) if is_absent(&error) => absent = Some(error),
                other => other?,
            }
        }
        if sockets.udp_v4.is_none() && sockets.udp_v6.is_none() && sockets.tcp.is_empty() {
            return Err(absent.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
        Ok(sockets)
    }

    fn add(&mut self, address: IpAddr, udp: bool, tcp: bool) -> io::Result<()> {
        if udp {
            let socket = udp_socket(SocketAddr::new(address, self.port))?;
            self.port = socket.local_addr()?.port();
            let family = if address.is_ipv4() { &mut self.udp_v4 } else { &mut self.udp_v6 };
            *family = Some(socket);
        }
        if tcp {
            let listener = tcp_listener(SocketAddr::new(address, self.port))?;
            self.port = listener.local_addr()?.port();
            self.tcp.push(listener);
        }
        Ok(())
    }
}

/// The host has no such family, or no such address.
fn is_absent(error: &io::Error) -> bool {
    let families = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| families.contains(&errno))
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    if address.is_ipv4() {
        // Queries go by broadcast too, where multicast is filtered.
        socket.set_broadcast(true)?;
    }
    if let Err(error) = socket.set_recv_buffer_size(UDP_BUFFER) {
        tracing::debug!(%error, "the UDP receive buffer keeps its size");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // A restarted agent has its port at once, although connections of its last run linger (TIME_WAIT).
    socket.set_reuse_address(cfg!(unix))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Vec<IpAddr> {
        vec![IpAddr::from([127, 0, 0, 1])]
    }

    #[test]
    fn udp_and_tcp_share_the_port_and_a_second_agent_takes_another() {
        let first = Sockets::open(&loopback(), 0, true, true).unwrap();
        assert_eq!(first.tcp[0].local_addr().unwrap().port(), first.port);
        assert_eq!(first.udp_v4.as_ref().unwrap().local_addr().unwrap().port(), first.port);
        let second = Sockets::open(&loopback(), first.port, true, true).unwrap();
        assert_ne!(second.port, first.port);
    }
}
