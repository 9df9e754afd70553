//! What nodes tell of themselves for the event feed: lost connections, failed background operations.

use super::event::{EventBody, NewEvent};
use super::ledger::{Command, Ledger, Wanted};

/// Each with the key that its node gave it: a repeated one makes no second event.
#[derive(Debug, Clone)]
pub struct Incidents {
    pub incidents: Vec<(String, EventBody)>,
}

impl Command for Incidents {
    type Answer = ();

    fn wants(&self, _: &mut Wanted) {}

    fn apply(&self, ledger: &mut Ledger) {
        let at = ledger.now;
        for (key, body) in &self.incidents {
            ledger.events.push(NewEvent { at, body: body.clone(), key: Some(key.clone()) });
        }
    }
}
