//! Who serves: as many as are needed, the best of each place first.

use std::collections::{BTreeMap, BTreeSet};

use muster_types::{NodeId, Prefix};

/// A challenger takes a lease from who holds it only if it is better by this, in basis points.
const INCUMBENT: u16 = 500;

/// A proven candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    pub node: NodeId,
    pub serving: bool,
    pub reliability: u16,
    pub place: Prefix,
}

/// The same from the same contenders, whoever decides: replicas need not agree on it otherwise.
pub fn choose(contenders: &[Contender], wanted: usize) -> BTreeSet<NodeId> {
    let score = |it: &Contender| it.reliability.saturating_add(if it.serving { INCUMBENT } else { 0 });
    let mut by_score: Vec<_> = contenders.iter().collect();
    by_score.sort_by_key(|it| (std::cmp::Reverse(score(it)), it.node));
    let mut ranks: BTreeMap<(std::net::IpAddr, u8), usize> = BTreeMap::new();
    let mut ranked: Vec<_> = by_score
        .into_iter()
        .map(|it| {
            let rank = ranks.entry((it.place.network(), it.place.length())).or_default();
            *rank += 1;
            (*rank, std::cmp::Reverse(score(it)), it.node)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(wanted).map(|(_, _, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::locality::place;

    fn contender(number: u8, network: u8, reliability: u16, serving: bool) -> Contender {
        let place = place([192, network, 2, number].into());
        Contender { node: NodeId([number; 20]), serving, reliability, place }
    }

    fn chosen(contenders: &[Contender], wanted: usize) -> Vec<u8> {
        choose(contenders, wanted).into_iter().map(|node| node.0[0]).collect()
    }

    #[test]
    fn no_more_serve_than_are_needed_and_every_place_comes_first() {
        let all = [contender(1, 0, 9_000, false), contender(2, 0, 8_000, false), contender(3, 1, 100, false)];
        assert_eq!(chosen(&all, 1), [1]);
        assert_eq!(chosen(&all, 2), [1, 3], "another place before a second of the first");
        assert_eq!(chosen(&all, 9), [1, 2, 3]);
    }

    #[test]
    fn who_serves_goes_on_unless_another_is_clearly_better() {
        let serving = contender(1, 0, 5_000, true);
        assert_eq!(chosen(&[serving, contender(2, 0, 5_400, false)], 1), [1]);
        assert_eq!(chosen(&[serving, contender(2, 0, 5_600, false)], 1), [2]);
    }
}
