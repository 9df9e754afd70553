//! Every loss of the connection is remembered until it is found again: why, when, and for how long.

use muster_types::Instant;

use crate::intent::{Disconnection, LossReason};

#[derive(Debug, Default)]
pub(crate) struct Losses(Option<(LossReason, Instant)>);

impl Losses {
    /// The connection is gone since `began`. The first reason stands: what follows, follows from it.
    pub(crate) fn begin(&mut self, reason: LossReason, began: Instant) {
        self.0.get_or_insert((reason, began));
    }

    /// The node has an LSN again, or is one.
    pub(crate) fn end(&mut self, now: Instant) -> Option<Disconnection> {
        let (reason, began) = self.0.take()?;
        Some(Disconnection { reason, began, lasted: now.since(began) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_loss_keeps_its_first_reason_and_lasts_until_the_end() {
        let at = |seconds| Instant::from_elapsed(Duration::from_secs(seconds));
        let mut losses = Losses::default();
        assert_eq!(losses.end(at(1)), None);
        losses.begin(LossReason::LsnLost, at(1));
        losses.begin(LossReason::NetworkLost, at(2));
        let loss =
            Disconnection { reason: LossReason::LsnLost, began: at(1), lasted: Duration::from_secs(4) };
        assert_eq!(losses.end(at(5)), Some(loss));
        assert_eq!(losses.end(at(6)), None);
    }
}
