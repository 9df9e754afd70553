//! The end of one life of the agent: who is told, in which order, and for how long.

use std::time::Duration;

use muster_overlay::Input;
use muster_overlay::intent::Station;
use muster_overlay::message::PartCode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::driver::{Driver, Inbox, Then};

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// While leaving, ends are looked for this often.
const FAREWELL_STEP: Duration = Duration::from_millis(20);

impl Driver {
    /// Says goodbye, ends tasks, and lets the machine hand over what it holds.
    pub(super) async fn leave(
        mut self,
        inbox: &mut Inbox,
        code: PartCode,
        description: String,
        told: Option<oneshot::Sender<()>>,
    ) -> Then {
        // Nobody is sent here any more.
        self.volunteer = None;
        self.tasks.finish().await;
        let farewell = async {
            let contacts = self.table.last_sample().await;
            self.keep_table_contacts(&contacts);
            self.table.leave().await;
            self.overlay.handle(Input::Leave { code, description });
            self.act().await;
            while self.overlay.station() != Station::Parted || !self.engine.is_finished() {
                let timer = Instant::now() + self.overlay.until_timer().min(FAREWELL_STEP);
                tokio::select! {
                    Some(event) = inbox.net.recv() => self.on_net(event).await,
                    Some(item) = inbox.outbox.recv() => { self.on_item(item, &mut inbox.outbox); }
                    () = tokio::time::sleep_until(timer) => { self.on_timer().await; }
                }
            }
            while let Ok(item) = inbox.outbox.try_recv() {
                self.on_item(item, &mut inbox.outbox);
            }
        };
        if tokio::time::timeout(GOODBYE, farewell).await.is_err() {
            tracing::warn!("not everybody could be told that this node leaves");
        }
        self.on_spool_due();
        self.control.close(self.farewell).await;
        self.parts.keep_learned();
        self.parts.processes.close();
        self.overlay.close().await;
        if let Some(told) = told {
            // Who asked may have gone.
            let _ = told.send(());
        }
        self.then
    }
}
