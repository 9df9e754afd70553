//! Firewalls that let in only what was asked for: who is LSN where not everybody can be reached.

use std::time::Duration;

use muster_sim::churn::office_link;
use muster_sim::world::{HostId, Setup, World};

/// For contests between LSNs, doubts and their answers: some pauses between rivals, and a node's slow lease.
const SETTLED: Duration = Duration::from_secs(60);

/// The lower a host's number, the better its uptime: an LSN changes for a clearly better one.
fn world(nodes: usize, places: usize, datagrams: bool, seed: u64) -> World {
    let mut world = World::new(&Setup { nodes, places, link: office_link(), rest: false, datagrams }, seed);
    let uptime = |host: HostId| 9_000 - 800 * u16::try_from(host / places).expect("a place has a few hosts");
    (0..nodes).for_each(|host| world.attest(host, uptime(host)));
    world
}

fn boot_all(world: &mut World, hosts: impl Iterator<Item = HostId>) {
    for host in hosts {
        world.boot(host);
        world.run_for(Duration::from_millis(150));
    }
}

/// One LSN, which strangers reach, and which all others of the place are under.
fn gathered(world: &mut World, place: usize, blocked: &[HostId], what: &str) {
    let lsns = world.who_is_lsn(place, 0);
    let &[lsn] = lsns.as_slice() else { panic!("{what}: LSNs {lsns:?} where {blocked:?} are blocked") };
    assert!(!blocked.contains(&lsn), "{what}: the LSN {lsn} is one of {blocked:?}, which nobody reaches");
    let others: Vec<_> = world.running(place, 0).filter(|&host| host != lsn).collect();
    for host in others {
        let served = world.served_by(host);
        assert_eq!(served, Some(lsn), "{what}: host {host} is served by {served:?}, not by {lsn}");
    }
}

fn runs(seeds: u64) -> impl Iterator<Item = (u64, bool)> {
    (1..=seeds).flat_map(|seed| [(seed, true), (seed, false)])
}

#[test]
fn whoever_boots_first_the_cell_ends_under_an_lsn_that_can_be_reached() {
    for (seed, datagrams) in runs(10) {
        let mut world = world(8, 1, datagrams, seed);
        let blocked = [0, 1, 4];
        blocked.iter().for_each(|&host| world.block(host, true));
        // The blocked ones, and the best among them, are there first.
        boot_all(&mut world, 0..8);
        world.run_for(SETTLED);
        gathered(&mut world, 0, &blocked, &format!("seed {seed}, datagrams {datagrams}"));
    }
}

#[test]
fn an_lsn_that_newcomers_do_not_reach_any_more_gives_way() {
    for (seed, datagrams) in runs(10) {
        let (mut world, what) = (world(8, 1, datagrams, seed), format!("seed {seed}, datagrams {datagrams}"));
        boot_all(&mut world, 0..7);
        world.run_for(SETTLED);
        let lsns = world.who_is_lsn(0, 0);
        let &[lsn] = lsns.as_slice() else { panic!("{what}: LSNs {lsns:?} before anything happened") };
        world.block(lsn, true);
        world.run_for(SETTLED);
        assert_eq!(world.who_is_lsn(0, 0), [lsn], "{what}: sessions that stand are not cut by the firewall");
        world.boot(7);
        world.run_for(SETTLED);
        gathered(&mut world, 0, &[lsn], &what);
    }
}

#[test]
fn whichever_lsns_die_where_a_third_is_out_of_reach_each_cell_has_one_that_is_not() {
    for (seed, datagrams) in runs(3) {
        let (places, hosts) = (6, 60);
        let mut world = world(hosts, places, datagrams, seed);
        let blocked: Vec<_> = (0..hosts).filter(|host| (host / places + host % places) % 3 == 0).collect();
        blocked.iter().for_each(|&host| world.block(host, true));
        boot_all(&mut world, 0..hosts);
        for round in 0..5 {
            world.run_for(SETTLED);
            let mut killed = Vec::new();
            for place in 0..places {
                let what = format!("seed {seed}, datagrams {datagrams}, place {place} in round {round}");
                gathered(&mut world, place, &blocked, &what);
                killed.extend(world.who_is_lsn(place, 0));
            }
            killed.iter().for_each(|&lsn| world.kill(lsn));
            world.run_for(Duration::from_secs(20));
            boot_all(&mut world, killed.into_iter());
        }
    }
}

#[test]
fn where_nobody_reaches_anybody_each_is_a_cell_of_one() {
    let mut world = world(8, 1, true, 1);
    (0..8).for_each(|host| world.block(host, true));
    boot_all(&mut world, 0..8);
    world.run_for(SETTLED);
    // Discovery does not reach them either, so the oracle's own query stands for a stranger in their midst.
    assert_eq!(world.who_is_lsn(0, 0).len(), 8);
    assert!((0..8).all(|host| world.shown(host).is_some_and(|shown| shown.lsn == Some(host))));
    (0..8).for_each(|host| world.block(host, false));
    world.run_for(2 * SETTLED);
    gathered(&mut world, 0, &[], "after the firewalls");
}
