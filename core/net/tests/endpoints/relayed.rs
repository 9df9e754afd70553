//! A session begins by a relay, moves to the direct path, back, and to another relay, and loses no byte on the way.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_net::{CloseCode, NetEvent, Path, Session};
use muster_wire::testing::TestNetwork;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::house::{Guest, guest};

/// Messages of one run, 1 kB each.
const MESSAGES: u32 = 2_000;

/// Two routes, one end in each endpoint, joined as a relay would. Ends when the handle is aborted, as a relay that is killed.
fn relay(left: &Guest, right: &Guest) -> (Path, JoinHandle<()>) {
    let (left, right) = (left.endpoint.relay_route().unwrap(), right.endpoint.relay_route().unwrap());
    let path = left.path();
    let ((left_in, mut left_out), (right_in, mut right_out)) = (left.split(), right.split());
    let carrying = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(packet) = left_out.recv() => right_in.deliver(packet),
                Some(packet) = right_out.recv() => left_in.deliver(packet),
                else => return,
            }
        }
    });
    (path, carrying)
}

/// A way between two ports that can be blocked, as by a translator that was switched off.
async fn passage(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let (outer, inner) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let at = outer.local_addr().unwrap();
    let (open, is_open) = watch::channel(true);
    tokio::spawn(async move {
        let (mut from_outer, mut from_inner) = ([0; 2_048], [0; 2_048]);
        let mut guest = None;
        loop {
            tokio::select! {
                Ok((length, from)) = outer.recv_from(&mut from_outer) => {
                    guest = Some(from);
                    if *is_open.borrow() { let _ = inner.send_to(&from_outer[..length], to).await; }
                }
                Ok((length, _)) = inner.recv_from(&mut from_inner) => {
                    if let Some(guest) = guest.filter(|_| *is_open.borrow()) {
                        let _ = outer.send_to(&from_inner[..length], guest).await;
                    }
                }
            }
        }
    });
    (at, open)
}

/// Sends numbered messages to the end, whatever carries them.
fn speak(session: Session) -> JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0..MESSAGES {
            let message = [&number.to_be_bytes()[..], &[0; 1_020]].concat();
            session.send(Bytes::from(message)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

async fn until_path(guest: &mut Guest, wanted: &str) {
    loop {
        if let NetEvent::PathChanged(session) = guest.next().await
            && session.path().as_str() == wanted
        {
            return;
        }
    }
}

/// Hears every message, in order and once; calls `at` with each number.
async fn hear_all(guest: &mut Guest, mut at: impl AsyncFnMut(u32)) {
    let mut expected = 0;
    while expected < MESSAGES {
        match guest.next().await {
            NetEvent::Message { bytes, .. } => {
                let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                assert_eq!(number, expected);
                expected += 1;
                at(number).await;
            }
            NetEvent::SessionClosed { reason, .. } => panic!("the session ended: {reason}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_session_moves_from_the_relay_to_the_direct_path_and_back_without_losing_a_byte() {
    let network = TestNetwork::new();
    let (mut left, mut right) = (guest(&network, 1).await, guest(&network, 2).await);
    let (path, _relay) = relay(&left, &right);
    let session = left.endpoint.connect_by(right.id, path).await.unwrap();
    assert_eq!(session.path().as_str(), "relay");
    let (at, open) = passage(SocketAddr::new(crate::house::V4, right.endpoint.port())).await;
    let speaker = speak(session.clone());
    hear_all(&mut right, async |number| match number {
        200 => {
            session.open_way(Path::Udp(at)).await.unwrap();
            assert_eq!(session.path(), Path::Udp(at));
        }
        // Without a word: no side learns of it but by silence.
        1_000 => {
            open.send_replace(false);
        }
        _ => {}
    })
    .await;
    speaker.await.unwrap();
    until_path(&mut left, "relay").await;
    assert_eq!(session.path().as_str(), "relay");
}

#[tokio::test]
async fn a_relay_that_is_killed_gives_way_to_a_second_one() {
    let network = TestNetwork::new();
    let (left, mut right) = (guest(&network, 1).await, guest(&network, 2).await);
    let (path, first) = relay(&left, &right);
    let (second, _carrying) = relay(&left, &right);
    let session = left.endpoint.connect_by(right.id, path).await.unwrap();
    let speaker = speak(session.clone());
    hear_all(&mut right, async |number| {
        if number == 500 {
            first.abort();
            session.open_way(second).await.unwrap();
        }
    })
    .await;
    assert_eq!(session.path(), second);
    speaker.await.unwrap();
}

#[tokio::test]
async fn a_channel_outlives_the_session_that_went_by_it() {
    let network = TestNetwork::new();
    let (left, mut right) = (guest(&network, 1).await, guest(&network, 2).await);
    let (path, _relay) = relay(&left, &right);
    for _ in 0..2 {
        let session = left.endpoint.connect_by(right.id, path).await.unwrap();
        session.send(Bytes::from_static(b"again")).await.unwrap();
        while !matches!(right.next().await, NetEvent::Message { .. }) {}
        session.close(CloseCode::Done, "enough");
        while !matches!(right.next().await, NetEvent::SessionClosed { .. }) {}
        while left.endpoint.session(right.id).is_some() {
            tokio::task::yield_now().await;
        }
    }
}
