//! Tasks are made, cancelled, and ended where no host will.

use muster_types::NodeId;

use super::deed::Action;
use super::event::EventBody;
use super::ledger::{Cancellation, Command, Ledger, NewTask, Request, Wake, Wanted};
use super::opaque::Opaque;
use super::target::{Target, TargetState};
use super::task::{Approval, MasterEnding, OfflinePolicy, Task, TaskId};

/// One durable transaction: the task, its signed orders and its frozen targets.
#[derive(Debug, Clone)]
pub struct CreateTask {
    pub task: Task,
    pub orders: Vec<Opaque>,
    /// Each with the order that names it.
    pub targets: Vec<(NodeId, u32)>,
    pub request: Option<Request>,
}

impl Command for CreateTask {
    /// The task, or the one that the same request made before.
    type Answer = TaskId;

    fn wants(&self, wanted: &mut Wanted) {
        wanted.bare_nodes.extend(self.targets.iter().map(|(node, _)| *node));
        wanted.requests.extend(self.request.clone());
    }

    fn apply(&self, ledger: &mut Ledger) -> TaskId {
        if let Some(made) = self.request.as_ref().and_then(|request| ledger.requests.get(request)) {
            return *made;
        }
        let (id, now) = (self.task.id, ledger.now);
        if let Some(request) = &self.request {
            ledger.requests.insert(request.clone(), id);
        }
        ledger.tasks.push(NewTask {
            task: self.task.clone(),
            orders: self.orders.clone(),
            request: self.request.clone(),
        });
        for (node, part) in &self.targets {
            let mut target = Target::queued(id, *node, *part, now);
            let carrier = ledger.nodes.find(node).filter(|node| node.is_online()).map(|node| node.carrier());
            match carrier {
                Some(carrier) => {
                    ledger.wakes.insert(Wake::Carrier(carrier));
                }
                None if self.task.offline == OfflinePolicy::Skip => {
                    let ending = MasterEnding::Away;
                    target.end(TargetState::Expired, ending.code(), ending.reason(), now);
                    ledger.log_standing(&target);
                }
                None => {}
            }
            ledger.targets.put((id, *node), target);
        }
        ledger.emit(EventBody::TaskChanged { task: id });
        let wanted = if self.task.approval == Approval::Wanted { ", to be approved" } else { "" };
        let detail = format!("{} on {} hosts{wanted}", self.task.kind, self.task.target_count);
        ledger.note(Action::CreateTask, &self.task.creator, &format!("tasks/{id}"), &detail);
        id
    }
}

/// The operator wants no more of it. Hosts that have it are told; queued ones end by the sweep.
#[derive(Debug, Clone)]
pub struct CancelTask {
    pub task: TaskId,
    pub actor: String,
    pub order: Opaque,
    /// Whose streams the cancellation goes down.
    pub carriers: Vec<NodeId>,
}

impl Command for CancelTask {
    type Answer = ();

    fn wants(&self, _: &mut Wanted) {}

    fn apply(&self, ledger: &mut Ledger) {
        let at = ledger.now;
        ledger.cancellations.push(Cancellation { task: self.task, at, order: self.order.clone() });
        ledger.wakes.extend(self.carriers.iter().copied().map(Wake::Carrier));
        ledger.wakes.extend([Wake::Sweep, Wake::Task(self.task)]);
        ledger.emit(EventBody::TaskChanged { task: self.task });
        ledger.note(Action::CancelTask, &self.actor, &format!("tasks/{}", self.task), "");
    }
}

/// A second person agrees: hosts may hear of the task.
#[derive(Debug, Clone)]
pub struct ApproveTask {
    /// As it is from now on.
    pub task: Task,
    /// Whose streams the orders go down.
    pub carriers: Vec<NodeId>,
}

impl Command for ApproveTask {
    type Answer = ();

    fn wants(&self, _: &mut Wanted) {}

    fn apply(&self, ledger: &mut Ledger) {
        ledger.approvals.push(self.task.clone());
        ledger.wakes.extend(self.carriers.iter().copied().map(Wake::Carrier));
        ledger.wakes.insert(Wake::Task(self.task.id));
        ledger.emit(EventBody::TaskChanged { task: self.task.id });
        if let Approval::Given { by, .. } = &self.task.approval {
            ledger.note(Action::ApproveTask, by, &format!("tasks/{}", self.task.id), "");
        }
    }
}

/// A target that no host will end, and what it was when that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    pub task: TaskId,
    pub node: NodeId,
    pub found: TargetState,
    pub ending: MasterEnding,
}

#[derive(Debug, Clone)]
pub struct EndTargets {
    pub overdue: Vec<Overdue>,
}

impl Command for EndTargets {
    type Answer = ();

    fn wants(&self, wanted: &mut Wanted) {
        wanted.targets.extend(self.overdue.iter().map(|it| (it.task, it.node)));
    }

    fn apply(&self, ledger: &mut Ledger) {
        for Overdue { task, node, found, ending } in &self.overdue {
            if let Some(target) =
                ledger.targets.find(&(*task, *node)).filter(|it| it.state == *found).cloned()
            {
                end(ledger, target, *ending);
            }
        }
    }
}

/// Ends a target by the master's decision.
pub(super) fn end(ledger: &mut Ledger, mut target: Target, ending: MasterEnding) {
    let state = match (ending, target.state) {
        (MasterEnding::CancelledBeforeDelivery, _) => TargetState::Cancelled,
        (_, TargetState::Started) => TargetState::Lost,
        _ => TargetState::Expired,
    };
    if target.end(state, ending.code(), ending.reason(), ledger.now) {
        ledger.log_standing(&target);
        ledger.targets.put((target.task, target.node), target);
    }
}
