//! Packets by UDP: bursts in, their heads rewritten in place, bursts out. A packet keeps its length, so what one
//! sender sent at once to one peer leaves at once.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_kit::shutdown::Shutdown;
use muster_net::stun::Responder;
use muster_net::{Burst, BurstSocket, Bursts};
use muster_overlay::relay::Seat;
use muster_wire::relay::{self, AddressProof, Datagram, HEADER, PACKET_BYTES, UdpToken};

use crate::hall::{Hall, Unbound};
use crate::metrics::{self, Way};

/// Until the shutdown, and after it for as long as sessions last: the process ends this task.
pub(crate) async fn run(hall: Arc<Hall>, socket: Arc<BurstSocket>, shutdown: Shutdown) {
    let mut bursts = Bursts::default();
    let mut responder = Responder::default();
    loop {
        tokio::select! {
            () = drained(&hall, &shutdown) => return,
            received = socket.receive(&mut bursts) => if let Err(error) = received {
                tracing::warn!(%error, "the relay no longer hears UDP; packets go by gRPC");
                return;
            },
        }
        for mut burst in bursts.iter_mut() {
            forward(&hall, &socket, &mut burst, &mut responder);
        }
    }
}

/// Once the last session has gone elsewhere; sessions have as long for that as calls have to end.
async fn drained(hall: &Hall, shutdown: &Shutdown) {
    shutdown.triggered().await;
    // Whoever stays longer is cut.
    let _ = tokio::time::timeout(muster_kit::grpc::DRAIN_LIMIT, hall.emptied()).await;
}

fn forward(hall: &Hall, socket: &BurstSocket, burst: &mut Burst<'_>, responder: &mut Responder) {
    let (from, size) = (burst.from, burst.size);
    let Some(sender) = hall.sender(from) else { return strangers(hall, socket, burst, responder) };
    // What lies side by side and goes to one address is sent as one.
    let mut run = Run { to: None, start: 0, end: 0 };
    let mut start = 0;
    while start < burst.bytes.len() {
        let end = burst.bytes.len().min(start + size);
        let to = redirect(hall, socket, from, sender, &mut burst.bytes[start..end]);
        if to != run.to {
            run.send(socket, burst);
            run = Run { to, start, end };
        }
        (run.end, start) = (end, end);
    }
    run.send(socket, burst);
}

/// Datagrams side by side, all to one address.
struct Run {
    to: Option<SocketAddr>,
    start: usize,
    end: usize,
}

impl Run {
    fn send(&self, socket: &BurstSocket, burst: &Burst<'_>) {
        let Some(to) = self.to else { return };
        let bytes = &burst.bytes[self.start..self.end];
        let packets = bytes.len().div_ceil(burst.size);
        metrics::carried(Way::Udp, packets, bytes.len() - packets * HEADER);
        socket.send(to, bytes, burst.size);
    }
}

/// Writes the receiver's head over the sender's. `None`: it does not go by UDP, or nowhere.
fn redirect(
    hall: &Hall,
    socket: &BurstSocket,
    from: SocketAddr,
    sender: Seat,
    datagram: &mut [u8],
) -> Option<SocketAddr> {
    match relay::decode(datagram)? {
        Datagram::Data(channel) if datagram.len() <= HEADER + PACKET_BYTES => {
            let (to, channel) = hall.route(sender, channel, &datagram[HEADER..])?;
            datagram[..HEADER].copy_from_slice(&relay::header(channel));
            Some(to)
        }
        Datagram::Bind { token, counter, proof } => {
            answer(hall, socket, from, (&token, counter, &proof));
            None
        }
        Datagram::Data(_) | Datagram::Bound { .. } | Datagram::Prove { .. } => None,
    }
}

/// From an address that nobody is bound to, only a bind is heard, and "how do you see me?" (STUN).
fn strangers(hall: &Hall, socket: &BurstSocket, burst: &Burst<'_>, responder: &mut Responder) {
    for datagram in burst.bytes.chunks(burst.size) {
        if let Some(answer) = responder.answer(burst.from, datagram) {
            socket.send(burst.from, &answer, answer.len());
            continue;
        }
        match relay::decode(datagram) {
            Some(Datagram::Bind { token, counter, proof }) => {
                answer(hall, socket, burst.from, (&token, counter, &proof));
            }
            _ => metrics::stray(),
        }
    }
}

fn answer(
    hall: &Hall,
    socket: &BurstSocket,
    from: SocketAddr,
    (token, counter, proof): (&UdpToken, u64, &AddressProof),
) {
    let datagram = match hall.bind(token, counter, proof, from) {
        Ok(()) => relay::bound(counter),
        Err(Unbound::Unproven(proof)) => relay::prove(&proof),
        Err(Unbound::Refused) => return metrics::stray(),
    };
    socket.send(from, &datagram, datagram.len());
}
