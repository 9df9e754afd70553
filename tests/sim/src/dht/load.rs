//! Nodes use the table: they put, get and find. What comes of it is compared with what the sorted list knows.

use std::sync::Arc;
use std::time::Duration;

use muster_overlay::dht::{Care, Effort, Input, Intent, Kept, Kind, Names, OpId, Record, Wish};
use muster_types::{Instant, Key, NodeId};
use rand::Rng;

use super::names::Handle;
use super::network::{Life, Network};
use crate::measure::{Sample, Traffic};

/// A signed record of the usual size.
const RECORD: usize = 300;
/// Between the beginnings of two operations.
const PACE: Duration = Duration::from_millis(2);
/// No operation takes longer; one that does has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// What so many operations came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub count: usize,
    /// Ended with what was wanted: a value, or all of the closest.
    pub right: usize,
    pub hops: f64,
    /// Requests that each took, copies and checks not counted.
    pub requests: f64,
    pub lasted: Sample,
    /// Of puts: how many said that they keep it; of finds: how many of the k closest were found.
    pub nodes: f64,
    pub fewest_nodes: usize,
    /// Everything that was sent meanwhile.
    pub traffic: Traffic,
}

impl Report {
    pub fn share(&self) -> f64 {
        self.right as f64 / self.count.max(1) as f64
    }

    fn add(&mut self, effort: &Effort, right: bool, nodes: usize) {
        self.fewest_nodes = if self.count == 0 { nodes } else { self.fewest_nodes.min(nodes) };
        self.count += 1;
        self.right += usize::from(right);
        self.hops += f64::from(effort.hops);
        self.requests += f64::from(effort.asked);
        self.nodes += nodes as f64;
        self.lasted.add(effort.lasted);
    }

    fn close(mut self, begun: usize, traffic: Traffic) -> Self {
        // What has not ended is counted as failed.
        let ended = self.count.max(1) as f64;
        (self.hops, self.requests, self.nodes) =
            (self.hops / ended, self.requests / ended, self.nodes / ended);
        (self.count, self.traffic) = (begun, traffic);
        self
    }
}

impl Network {
    /// A record that nobody has published yet.
    pub fn record(&mut self, publisher: Handle, life: Duration) -> Record {
        let publisher = NodeId(self.ids.key(publisher).0);
        Record {
            key: Key(self.rng.random()),
            kind: Kind::Opaque,
            publisher,
            sequence: self.now().elapsed().as_micros() as u64,
            expires: self.now() + life,
            bytes: Arc::from([0; RECORD]),
        }
    }

    /// Random nodes publish new records.
    pub fn put_many(&mut self, count: usize, life: Duration, care: Care) -> (Vec<Record>, Report) {
        let records: Vec<_> = (0..count)
            .map(|_| {
                let publisher = self.anybody();
                self.record(publisher, life)
            })
            .collect();
        let report = self.put_all(&records, care);
        (records, report)
    }

    /// Random nodes publish these.
    pub fn put_all(&mut self, records: &[Record], care: Care) -> Report {
        let begin = |op: OpId| Input::Put { op, record: records[op.0 as usize].clone(), care };
        self.operate(records.len(), begin, |network, _, told, report| {
            let Intent::Put { op, kept, effort } = told else { return };
            let holders = network.honest_holders(&kept);
            report.add(&effort, holders > 0 && (op.0 as usize) < records.len(), kept.count());
        })
    }

    fn honest_holders(&self, kept: &Kept<Handle>) -> usize {
        let honest = kept.holders.iter().filter(|&&holder| self.life(holder) == Life::Up);
        honest.count() + usize::from(kept.by_this_node)
    }

    /// Random nodes get these. Right is who gets the newest.
    pub fn get_all(&mut self, records: &[Record], count: usize, wish: Wish, care: Care) -> Report {
        let begin = |op: OpId| {
            let Record { key, kind, .. } = records[op.0 as usize % records.len()];
            Input::Get { op, key, kind, wish, care }
        };
        self.operate(count, begin, |_, _, told, report| {
            let Intent::Got { op, records: found, effort } = told else { return };
            let sought = &records[op.0 as usize % records.len()];
            report.add(
                &effort,
                found.first().is_some_and(|found| found.sequence >= sought.sequence),
                found.len(),
            );
        })
    }

    /// Random nodes look for the closest to random keys. Right is who finds all that are up.
    pub fn find_all(&mut self, count: usize, care: Care) -> Report {
        let targets: Vec<_> = (0..count).map(|_| Key(self.rng.random())).collect();
        let begin = |op: OpId| Input::Find { op, target: targets[op.0 as usize], care };
        self.operate(count, begin, |network, seeker, told, report| {
            let Intent::Found { op, closest, effort } = told else { return };
            let k = network.settings.k;
            let up =
                |node: Handle| network.life(node) != Life::Down && network.serves(node) && node != seeker;
            let truth = network.ids.closest(targets[op.0 as usize], k, up);
            let hits = truth.iter().filter(|node| closest.contains(node)).count();
            report.add(&effort, hits == truth.len(), hits);
        })
    }

    fn operate(
        &mut self,
        count: usize,
        begin: impl Fn(OpId) -> Input<Handle>,
        mut end: impl FnMut(&Self, Handle, Intent<Handle>, &mut Report),
    ) -> Report {
        let (before, mut report) = (self.traffic(), Report::default());
        self.told.clear();
        for op in 0..count {
            let node = self.anybody();
            self.input(node, begin(OpId(op as u64)));
            self.run_for(PACE);
            self.hear_all(&mut report, &mut end);
        }
        let limit = self.now() + LIMIT;
        while report.count < count && self.now() < limit {
            self.run_for(PACE);
            self.hear_all(&mut report, &mut end);
        }
        let traffic = self.traffic().since(&before);
        report.close(count, traffic)
    }

    fn hear_all(
        &mut self,
        report: &mut Report,
        end: &mut impl FnMut(&Self, Handle, Intent<Handle>, &mut Report),
    ) {
        for (node, told) in std::mem::take(&mut self.told) {
            end(self, node, told, report);
        }
    }

    /// How many honest nodes that are up hold this, copies not counted.
    pub fn holders(&self, record: &Record) -> usize {
        let near = self.ids.closest(record.key, 4 * self.settings.k, |node| self.life(node) == Life::Up);
        let holds = |node: &&Handle| {
            let mut held = self.machines[**node as usize].records();
            held.any(|held| held.key == record.key && held.sequence >= record.sequence)
        };
        near.iter().filter(holds).count()
    }

    /// Of so many servers drawn at random: the share that knows at least 18 of its 20 closest, and how many they know in the
    /// mean.
    pub fn health(&mut self, sample: usize) -> Health {
        let (mut healthy, mut known) = (0, 0.0);
        for _ in 0..sample {
            let node = self.anybody();
            let own = self.ids.key(node);
            let k = self.settings.k;
            let truth = self
                .ids
                .closest(own, k, |other| other != node && self.life(other) == Life::Up && self.serves(other));
            let believed = self.machines[node as usize].closest(own, 2 * k, &self.ids);
            let hits = truth.iter().filter(|other| believed.contains(other)).count();
            healthy += usize::from(10 * hits >= 9 * truth.len());
            known += hits as f64;
        }
        Health { healthy: healthy as f64 / sample as f64, known: known / sample as f64 }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Health {
    pub healthy: f64,
    pub known: f64,
}

impl Health {
    /// With whom a table starts into the world.
    pub fn at(self, time: Instant) -> String {
        let hours = time.elapsed().as_secs_f64() / 3_600.0;
        format!("{hours:>5.1} h  {:>6.2} % healthy  {:>5.2} known", self.healthy * 100.0, self.known)
    }
}
