//! Threats at the node, one test named after each: whoever brings an order, the node judges it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod world;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::control::v1::TaskOffer;
use muster_proto::payload_type::TASK;
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{Content, Finished, TaskClass, TaskOrder, TaskSpec, TaskState, content::Source};
use muster_proto::trust::v1::Envelope;
use muster_types::NodeId;
use muster_wire::OperatorPolicy;
use muster_wire::sealing::{self, ARGUMENTS, REPORTS, SealingKey, place_of_report, place_of_task};
use muster_wire::testing::operators::TestOperators;
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::time::{span_to_wire, to_wire};
use prost::Message;

use world::{Life, NODE, SEALING_SECRET, World, run};

async fn answer(world: &World, folder: &Path, offer: TaskOffer) -> Finished {
    world.keep(folder);
    let mut life = Life::begin(folder).await;
    life.tasks.offer(offer).await;
    let finished = life.until_finished(1).await.finished;
    life.end().await;
    finished
}

fn mark(folder: &Path) -> String {
    format!("echo done >> {}/mark", folder.display())
}

fn marks(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("mark")).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn forged_task() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    // Bytes that no signer signed, under a signature that one made.
    let mut offer = world.script(1, "true");
    let forged = world.order(1, run(&mark(folder.path())));
    offer.order.as_mut().unwrap().payload = forged.encode_to_vec().into();
    let refused = answer(&world, folder.path(), offer).await;
    assert_eq!((refused.state(), refused.reason_code.as_str()), (TaskState::Rejected, "BAD_SIGNATURE"));
    assert_eq!(marks(folder.path()), 0);
}

#[tokio::test]
async fn forged_task_of_another_networks_master() {
    let (world, other) = (World::new(), World::new());
    let folder = tempfile::tempdir().unwrap();
    world.keep(folder.path());
    let mut life = Life::begin(folder.path()).await;
    life.tasks.offer(other.script(1, &mark(folder.path()))).await;
    // What no signer of ours made is not even answered; the next order is.
    life.tasks.offer(world.script(2, "true")).await;
    assert_eq!(life.until_finished(2).await.finished.state(), TaskState::Succeeded);
    assert_eq!(marks(folder.path()), 0);
    life.end().await;
}

#[tokio::test]
async fn task_by_a_leaked_key_that_was_withdrawn() {
    let (mut world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let leaked = world.script(1, &mark(folder.path()));
    world.bundle = world.network.withdraw_signer();
    let refused = answer(&world, folder.path(), leaked).await;
    assert_eq!((refused.state(), refused.reason_code.as_str()), (TaskState::Rejected, "SIGNER_WITHDRAWN"));
    let mut life = Life::begin(folder.path()).await;
    life.tasks.offer(world.script(2, "true")).await;
    assert_eq!(life.until_finished(2).await.finished.state(), TaskState::Succeeded);
    life.end().await;
    assert_eq!(marks(folder.path()), 0);
}

#[tokio::test]
async fn replayed_task() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let offer = world.script(1, &mark(folder.path()));
    assert_eq!(answer(&world, folder.path(), offer.clone()).await.state(), TaskState::Succeeded);
    // Again, to the same node in its next life, by whatever route.
    let mut life = Life::begin(folder.path()).await;
    for _ in 0..3 {
        life.tasks.offer(offer.clone()).await;
    }
    life.tasks.offer(world.script(2, "true")).await;
    life.until_finished(2).await;
    life.end().await;
    assert_eq!(marks(folder.path()), 1);
}

#[tokio::test]
async fn expired_task() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let mut order = world.order(1, run(&mark(folder.path())));
    order.issue_time = Some(to_wire(NOW - Duration::from_secs(2 * 3_600)));
    order.lifetime = Some(span_to_wire(Duration::from_secs(3_600)));
    let refused = answer(&world, folder.path(), world.sign(&order)).await;
    assert_eq!(refused.state(), TaskState::Expired);
    assert_eq!(marks(folder.path()), 0);
}

/// An LSN that keeps an order until it suits it cannot keep it longer than it lives, and an order that would live for ever is
/// none.
#[tokio::test]
async fn held_back_task() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let mut order = world.order(1, run(&mark(folder.path())));
    order.issue_time = Some(to_wire(NOW - Duration::from_secs(40 * 86_400)));
    order.lifetime = Some(span_to_wire(Duration::from_secs(365 * 86_400)));
    let refused = answer(&world, folder.path(), world.sign(&order)).await;
    assert_eq!((refused.state(), refused.reason_code.as_str()), (TaskState::Rejected, "BAD_LIFETIME"));
    assert_eq!(marks(folder.path()), 0);
}

#[tokio::test]
async fn misdirected_task() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let mut order = world.order(1, run(&mark(folder.path())));
    order.targets = vec![Bytes::copy_from_slice(NodeId([9; 20]).as_bytes())];
    let refused = answer(&world, folder.path(), world.sign(&order)).await;
    assert_eq!((refused.state(), refused.reason_code.as_str()), (TaskState::Rejected, "NOT_A_TARGET"));
    let mut order = world.order(1, run(&mark(folder.path())));
    order.network_id = Bytes::from_static(&[9; 16]);
    let folder = tempfile::tempdir().unwrap();
    let refused = answer(&world, folder.path(), world.sign(&order)).await;
    assert_eq!(refused.reason_code, "WRONG_NETWORK");
}

/// The master's envelope with the operator's signature beside the master's.
fn countersigned(operators: &TestOperators, offer: TaskOffer) -> TaskOffer {
    TaskOffer { order: offer.order.map(|envelope| operators.countersign(TASK, envelope)), ..offer }
}

fn pin(folder: &Path, policy: &Envelope) {
    std::fs::write(folder.join("operators"), policy.encode_to_vec()).unwrap();
}

#[tokio::test]
async fn compromised_master_against_a_network_that_requires_operator_signatures() {
    let (world, operators, strangers) = (World::new(), TestOperators::new(), TestOperators::new());
    let folder = tempfile::tempdir().unwrap();
    pin(folder.path(), &operators.policy(&operators.says(world.network.id, 1, true)));
    let own = world.script(1, &mark(folder.path()));
    // The master alone; the master with an operators' root of its own; an operator without the master.
    for (attempt, offer) in [own.clone(), countersigned(&strangers, own.clone())].into_iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        pin(place.path(), &operators.policy(&operators.says(world.network.id, 1, true)));
        let refused = answer(&world, place.path(), offer).await;
        assert_eq!(refused.reason_code, "OPERATOR_SIGNATURE_REQUIRED", "attempt {attempt}");
    }
    assert_eq!(marks(folder.path()), 0);
    let finished = answer(&world, folder.path(), countersigned(&operators, own)).await;
    assert_eq!(finished.state(), TaskState::Succeeded, "{finished:?}");
    assert_eq!(marks(folder.path()), 1);
}

#[tokio::test]
async fn withdrawn_operator() {
    let (world, operators) = (World::new(), TestOperators::new());
    let folder = tempfile::tempdir().unwrap();
    let mut policy = operators.says(world.network.id, 2, true);
    policy.withdrawn_key_ids.push(operators.operator_key_id());
    pin(folder.path(), &operators.policy(&policy));
    let offer = countersigned(&operators, world.script(1, &mark(folder.path())));
    let refused = answer(&world, folder.path(), offer).await;
    assert_eq!(refused.reason_code, "OPERATOR_SIGNATURE_REQUIRED");
    assert!(refused.reason.contains("withdrawn"), "{}", refused.reason);
}

/// A master cannot talk a node out of what the operators' root said: not by an older policy, not by one of its own.
#[test]
fn downgrade_of_the_operators_policy() {
    let (network, operators, master) = (TestNetwork::new(), TestOperators::new(), TestOperators::new());
    let says =
        |root: &TestOperators, version, required| root.policy(&root.says(network.id, version, required));
    let pinned = OperatorPolicy::pin(&says(&operators, 5, true), network.id).unwrap();
    let older = says(&operators, 4, false);
    assert!(pinned.successor(&older, network.id).unwrap().is_none());
    let foreign = says(&master, 9, false);
    assert!(pinned.successor(&foreign, network.id).is_err());
    let other_network = TestNetwork::new();
    let elsewhere = operators.policy(&operators.says(other_network.id, 9, false));
    assert!(pinned.successor(&elsewhere, network.id).is_err());
    let next = says(&operators, 6, false);
    assert!(!pinned.successor(&next, network.id).unwrap().unwrap().is_required());
}

fn confidential(
    world: &World,
    to: &[u8],
    place_of: NodeId,
    result_key: &SealingKey,
    script: &str,
) -> TaskOrder {
    let plain = run(script).arguments.unwrap();
    let Some(Source::Inline(plain)) = plain.source else { panic!("inline") };
    let place = place_of_task(world.network.id, &[1; 16], place_of);
    let sealed = sealing::seal(to, ARGUMENTS, &place, &plain).unwrap();
    world.order(
        1,
        TaskSpec {
            r#type: "run".to_owned(),
            arguments: Some(Content { source: Some(Source::Inline(sealed.encode_to_vec().into())) }),
            class: TaskClass::Confidential.into(),
            result_key: Bytes::copy_from_slice(result_key.public()),
            ..TaskSpec::default()
        },
    )
}

#[tokio::test]
async fn confidential_arguments_and_results_are_read_at_their_ends_alone() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.keep(folder.path());
    let (node, reader) = (SealingKey::new(SEALING_SECRET), SealingKey::new([4; 32]));
    let order = confidential(&world, node.public(), NODE, &reader, "echo a-secret; exit 3");
    assert!(!order.encode_to_vec().windows(8).any(|bytes| bytes == b"a-secret"));
    let mut life = Life::begin(folder.path()).await;
    life.tasks.offer(world.sign(&order)).await;
    let (mut read, mut exit_code) = (Vec::new(), None);
    while exit_code.is_none() {
        let report = life.report().await;
        assert!(!report.encode_to_vec().windows(8).any(|bytes| bytes == b"a-secret"), "{report:?}");
        let place = place_of_report(&report.task_id, "", NODE, report.sequence);
        match report.step.unwrap() {
            Step::Output(output) => {
                assert!(output.data.is_empty());
                read.extend(reader.open(REPORTS, &place, &output.sealed.unwrap()).unwrap());
            }
            Step::Finished(seen) => {
                assert_eq!((seen.state(), seen.exit_code), (TaskState::Failed, None));
                let plain = reader.open(REPORTS, &place, &seen.sealed.unwrap()).unwrap();
                exit_code = Finished::decode(plain).unwrap().exit_code;
            }
            _ => {}
        }
    }
    assert_eq!((&read[..], exit_code), (&b"a-secret\n"[..], Some(3)));
    life.end().await;
}

/// What was sealed to one node is of no use on another, nor under another task.
#[tokio::test]
async fn misdirected_sealed_arguments() {
    let world = World::new();
    let (node, other) = (SealingKey::new(SEALING_SECRET), SealingKey::new([5; 32]));
    let folder = tempfile::tempdir().unwrap();
    let script = mark(folder.path());
    for order in [
        confidential(&world, other.public(), NODE, &other, &script),
        confidential(&world, node.public(), NodeId([9; 20]), &other, &script),
    ] {
        let place = tempfile::tempdir().unwrap();
        let refused = answer(&world, place.path(), world.sign(&order)).await;
        assert_eq!(
            (refused.state(), refused.reason_code.as_str()),
            (TaskState::Rejected, "NOT_SEALED_TO_US")
        );
    }
    assert_eq!(marks(folder.path()), 0);
}
