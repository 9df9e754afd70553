//! What one transaction reads and changes, and the commands that do.

use std::collections::{BTreeMap, BTreeSet};

use muster_types::limits::CELL_NODES;
use muster_types::{NodeId, SubnetKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::cell::{Cell, CellId};
use super::deed::{Action, Deed};
use super::event::{EventBody, NewEvent};
use super::filter::place_of;
use super::log::{LogBody, LogEntry, Standing};
use super::node::{Node, Position};
use super::opaque::Opaque;
use super::table::{Change, Table};
use super::target::Target;
use super::task::{Task, TaskId};

/// A change of the fleet: reads what it wants, changes the ledger, answers. It may be applied again, to fresh
/// rows, when another writer was faster.
pub trait Command: Send + 'static {
    type Answer: Send + 'static;

    fn wants(&self, wanted: &mut Wanted);
    fn apply(&self, ledger: &mut Ledger) -> Self::Answer;
}

/// What commands read. Whatever is loaded brings along: nodes their cells, cells their LSNs or the cell that
/// their last one went to, LSNs their attachments.
#[derive(Debug, Default)]
pub struct Wanted {
    pub nodes: BTreeSet<NodeId>,
    /// Nodes that bring nothing along: they are read, and not changed.
    pub bare_nodes: BTreeSet<NodeId>,
    /// Nodes whose presence comes by these.
    pub carried_by: BTreeSet<NodeId>,
    pub cells: BTreeSet<CellId>,
    pub lineages: BTreeSet<u64>,
    /// Cells with these, and how many nodes they have.
    pub keys: BTreeSet<SubnetKey>,
    /// How many nodes these cells have.
    pub counts: BTreeSet<CellId>,
    pub attachments: BTreeSet<NodeId>,
    pub targets: BTreeSet<(TaskId, NodeId)>,
    /// Targets of these nodes that have not ended.
    pub open_targets_of: BTreeSet<NodeId>,
    pub requests: BTreeSet<Request>,
}

/// A caller's id of one call: repeated, it has the first call's result.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub caller: String,
    pub id: String,
}

/// Something that readers should look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wake {
    /// There may be something to send down this node's stream.
    Carrier(NodeId),
    Task(TaskId),
    Events,
    /// Targets may be ripe for an end by the master.
    Sweep,
}

/// A task to be written with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    pub task: Task,
    /// Signed; a target's `part` is the index.
    pub orders: Vec<Opaque>,
    pub request: Option<Request>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    pub task: TaskId,
    pub at: Timestamp,
    /// Signed.
    pub order: Opaque,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub now: Timestamp,
    pub nodes: Table<NodeId, Node>,
    pub cells: Table<CellId, Cell>,
    pub attachments: Table<NodeId, Attachment>,
    pub targets: Table<(TaskId, NodeId), Target>,
    pub members: BTreeMap<CellId, usize>,
    /// Request -> the task that it made.
    pub requests: BTreeMap<Request, TaskId>,
    pub tasks: Vec<NewTask>,
    pub cancellations: Vec<Cancellation>,
    /// Tasks as they are after somebody's word.
    pub approvals: Vec<Task>,
    pub log: Vec<LogEntry>,
    pub events: Vec<NewEvent>,
    pub deeds: Vec<Deed>,
    pub wakes: BTreeSet<Wake>,
}

/// What the store writes in one durable transaction.
#[derive(Debug, Default)]
pub struct Changes {
    pub nodes: Vec<Change<NodeId, Node>>,
    pub cells: Vec<Change<CellId, Cell>>,
    pub attachments: Vec<Change<NodeId, Attachment>>,
    pub targets: Vec<Change<(TaskId, NodeId), Target>>,
    pub tasks: Vec<NewTask>,
    pub cancellations: Vec<Cancellation>,
    pub approvals: Vec<Task>,
    pub log: Vec<LogEntry>,
    pub events: Vec<NewEvent>,
    pub deeds: Vec<Deed>,
    /// How many targets of each task ended; a task without open targets is done, and an event says so.
    pub ended: BTreeMap<TaskId, u32>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.cells.is_empty()
            && self.attachments.is_empty()
            && self.targets.is_empty()
            && self.tasks.is_empty()
            && self.cancellations.is_empty()
            && self.approvals.is_empty()
            && self.log.is_empty()
            && self.events.is_empty()
            && self.deeds.is_empty()
    }
}

impl Ledger {
    pub fn at(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    /// Whether the node's own stream stands.
    pub fn is_attached(&self, node: NodeId) -> bool {
        self.attachments.find(&node).is_some_and(Attachment::is_live)
    }

    /// Whether the cell's LSN serves it.
    pub fn is_served(&self, cell: &Cell) -> bool {
        cell.lsn.is_some_and(|lsn| {
            self.attachments.find(&lsn).is_some_and(|it| it.is_live() && it.cell == Some(cell.id))
        })
    }

    /// Whether the cell takes nobody more: its LSN is nobody's rival, and nobody's to join.
    pub fn is_full(&self, cell: CellId) -> bool {
        self.members.get(&cell).is_some_and(|members| *members >= CELL_NODES)
    }

    /// The cell, or the one that its last LSN went to: whichever is served.
    pub fn living<'a>(&'a self, cell: &'a Cell) -> Option<&'a Cell> {
        let next = || self.cells.find(&self.nodes.find(&cell.former?)?.cell?);
        Some(cell).filter(|cell| self.is_served(cell)).or_else(|| next().filter(|cell| self.is_served(cell)))
    }

    /// Tells the watchers of a task that a target changed.
    pub fn log_standing(&mut self, target: &Target) {
        let body = LogBody::State(Standing { state: target.state, ending: target.ending.clone() });
        self.log.push(LogEntry { task: target.task, node: target.node, at: self.now, body });
        self.wakes.insert(Wake::Task(target.task));
    }

    pub fn emit(&mut self, body: EventBody) {
        self.events.push(NewEvent { at: self.now, body, key: None });
    }

    /// Tells the audit log.
    pub fn note(&mut self, action: Action, actor: &str, subject: &str, detail: &str) {
        self.deeds.push(Deed::new(self.now, action, actor, subject, detail));
    }

    fn place(&self, node: &Node) -> String {
        let cell = node.cell.and_then(|id| self.cells.find(&id));
        place_of(node, cell.map(Cell::display_name).as_deref())
    }

    /// What is to be written, with the events that it makes, and who is to be woken then.
    pub fn close(mut self) -> (Changes, BTreeSet<Wake>) {
        let nodes = std::mem::take(&mut self.nodes).into_changes();
        for change in &nodes {
            self.node_event(change);
        }
        let targets = std::mem::take(&mut self.targets).into_changes();
        let mut ended = BTreeMap::new();
        for change in &targets {
            let open = |target: &Option<Target>| target.as_ref().is_none_or(|it| !it.state.is_terminal());
            if open(&change.before) && !open(&change.after) {
                *ended.entry(change.key.0).or_default() += 1;
            }
        }
        if !self.events.is_empty() || !ended.is_empty() {
            self.wakes.insert(Wake::Events);
        }
        let changes = Changes {
            nodes,
            cells: self.cells.into_changes(),
            attachments: self.attachments.into_changes(),
            targets,
            tasks: self.tasks,
            cancellations: self.cancellations,
            approvals: self.approvals,
            log: self.log,
            events: self.events,
            deeds: self.deeds,
            ended,
        };
        (changes, self.wakes)
    }

    fn node_event(&mut self, change: &Change<NodeId, Node>) {
        let Some(node) = change.after.as_ref().or(change.before.as_ref()) else { return };
        let deleted = change.after.is_none();
        let changed = change.before.as_ref().map_or_else(Vec::new, |before| node.changed_fields(before));
        if change.before.is_some() && changed.is_empty() && !deleted {
            return;
        }
        if node.is_online() && !deleted {
            self.wakes.insert(Wake::Carrier(node.carrier()));
        } else {
            self.wakes.insert(Wake::Sweep);
        }
        self.note_role(node, change.before.as_ref(), deleted);
        let body = EventBody::NodeChanged {
            node: Box::new(node.clone()),
            place: self.place(node),
            changed,
            previous: change.before.as_ref().map(|before| before.presence),
            reason: node.reason.clone(),
            deleted,
        };
        self.emit(body);
    }

    fn note_role(&mut self, node: &Node, before: Option<&Node>, deleted: bool) {
        let leads = |node: &Node| node.is_online() && node.position == Position::Lsn;
        let name = format!("nodes/{}", node.id);
        let cell = node.cell.map(|cell| cell.to_string()).unwrap_or_default();
        match (before.is_some_and(leads), leads(node) && !deleted) {
            (false, true) => self.note(Action::ChangeRole, &name, &name, &format!("LSN of cell {cell}")),
            (true, false) => {
                let detail = format!("not the LSN of cell {cell} any more; {}", node.reason);
                self.note(Action::ChangeRole, &name, &name, detail.trim_end_matches("; "));
            }
            _ => {}
        }
    }
}
