//! Firewalls that let in only what was asked for: who is LSN where not everybody can be reached.

use std::time::Duration;

use muster_sim::churn::office_link;
use muster_sim::world::{HostId, Setup, World};

const HOSTS: usize = 8;
/// For contests between LSNs, doubts and their answers: two pauses between rivals, and a node's slow lease.
const SETTLED: Duration = Duration::from_secs(60);

/// One place; the lower a host's number, the better its uptime.
fn place(datagrams: bool, seed: u64) -> World {
    let mut world =
        World::new(&Setup { nodes: HOSTS, places: 1, link: office_link(), rest: false, datagrams }, seed);
    (0..HOSTS).for_each(|host| world.attest(host, 9_000 - 1_000 * u16::try_from(host).expect("few hosts")));
    world
}

fn boot_all(world: &mut World, hosts: impl Iterator<Item = HostId>) {
    for host in hosts {
        world.boot(host);
        world.run_for(Duration::from_millis(150));
    }
}

/// One LSN, which all others are under, and which can be reached.
fn gathered(world: &mut World, blocked: &[HostId], seed: u64) {
    let lsns = world.who_is_lsn(0, 0);
    let &[lsn] = lsns.as_slice() else { panic!("seed {seed}: LSNs {lsns:?} where {blocked:?} are blocked") };
    assert!(
        !blocked.contains(&lsn),
        "seed {seed}: the LSN {lsn} is one of {blocked:?}, which nobody reaches"
    );
    for host in (0..HOSTS).filter(|&host| host != lsn) {
        let served = world.served_by(host);
        assert_eq!(served, Some(lsn), "seed {seed}: host {host} is served by {served:?}, not by {lsn}");
    }
}

#[test]
fn whoever_boots_first_the_cell_ends_under_an_lsn_that_can_be_reached() {
    for (seed, datagrams) in (1..=10).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = place(datagrams, seed);
        let blocked = [0, 1, 4];
        blocked.iter().for_each(|&host| world.block(host, true));
        // The blocked ones, and the best among them, are there first.
        boot_all(&mut world, 0..HOSTS);
        world.run_for(2 * SETTLED);
        gathered(&mut world, &blocked, seed);
    }
}

#[test]
fn an_lsn_that_newcomers_do_not_reach_any_more_gives_way() {
    for (seed, datagrams) in (1..=10).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = place(datagrams, seed);
        boot_all(&mut world, 0..HOSTS - 1);
        world.run_for(SETTLED);
        let lsns = world.who_is_lsn(0, 0);
        let &[lsn] = lsns.as_slice() else { panic!("seed {seed}: LSNs {lsns:?} before anything happened") };
        world.block(lsn, true);
        world.run_for(SETTLED);
        assert_eq!(
            world.who_is_lsn(0, 0),
            [lsn],
            "seed {seed}: sessions that stand are not cut by the firewall"
        );
        world.boot(HOSTS - 1);
        world.run_for(2 * SETTLED);
        gathered(&mut world, &[lsn], seed);
    }
}

#[test]
fn where_nobody_reaches_anybody_each_is_a_cell_of_one() {
    let mut world = place(true, 1);
    (0..HOSTS).for_each(|host| world.block(host, true));
    boot_all(&mut world, 0..HOSTS);
    world.run_for(SETTLED);
    assert_eq!(world.who_is_lsn(0, 0).len(), HOSTS);
    assert!((0..HOSTS).all(|host| world.shown(host).is_some_and(|shown| shown.lsn == Some(host))));
    (0..HOSTS).for_each(|host| world.block(host, false));
    world.run_for(2 * SETTLED);
    gathered(&mut world, &[], 1);
}
