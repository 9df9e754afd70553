//! What waits to go down one session: news first and all of it, then packets, of which the oldest give way.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use muster_overlay::relay::Channel;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Packets that wait: a window of a few. What waits longer is sent again by those who sealed it.
const PACKETS: usize = 128;

/// News that waits; a client that lets so much pile up does not read, and is cut.
const NEWS: usize = 1_024;

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Item<N> {
    News(N),
    Packet(Channel, Bytes),
}

#[derive(Debug)]
pub(crate) struct Outbox<N> {
    queue: Mutex<Queue<N>>,
    filled: Notify,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Queue<N> {
    news: VecDeque<N>,
    packets: VecDeque<(Channel, Bytes)>,
}

impl<N> Outbox<N> {
    pub(crate) fn new() -> Self {
        let queue = Queue { news: VecDeque::new(), packets: VecDeque::new() };
        Self { queue: Mutex::new(queue), filled: Notify::new(), closed: CancellationToken::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<N>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, news: N) {
        let mut queue = self.lock();
        if queue.news.len() >= NEWS {
            self.closed.cancel();
        } else {
            queue.news.push_back(news);
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// `false`: the oldest packet had to give way.
    pub(crate) fn carry(&self, channel: Channel, packet: Bytes) -> bool {
        let mut queue = self.lock();
        let fits = queue.packets.len() < PACKETS;
        if !fits {
            queue.packets.pop_front();
        }
        queue.packets.push_back((channel, packet));
        drop(queue);
        self.filled.notify_one();
        fits
    }

    /// Ends the session once its news is told.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.filled.notify_one();
    }

    /// Completes once nothing but the last news goes down any more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// `None`: closed.
    pub(crate) async fn next(&self) -> Option<Item<N>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.lock();
                if let Some(news) = queue.news.pop_front() {
                    return Some(Item::News(news));
                }
                if self.closed.is_cancelled() {
                    return None;
                }
                if let Some((channel, packet)) = queue.packets.pop_front() {
                    return Some(Item::Packet(channel, packet));
                }
            }
            filled.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_packets_give_way_and_no_news_does() {
        let outbox = Outbox::new();
        for number in 0..PACKETS + 2 {
            let fits = outbox.carry(Channel(0), Bytes::from(vec![number as u8]));
            assert_eq!(fits, number < PACKETS);
        }
        outbox.tell("news");
        assert!(matches!(outbox.next().await, Some(Item::News("news"))));
        let Some(Item::Packet(_, first)) = outbox.next().await else { panic!("a packet waits") };
        assert_eq!(first[..], [2]);
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_cut() {
        let outbox = Outbox::new();
        (0..NEWS + 5).for_each(|number| outbox.tell(number));
        outbox.closed().await;
        for _ in 0..NEWS {
            assert!(outbox.next().await.is_some());
        }
        assert!(outbox.next().await.is_none());
    }
}
