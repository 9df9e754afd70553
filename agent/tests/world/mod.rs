//! A master in memory for one agent's task engine: it signs orders, hears reports and acknowledges them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use muster_agent::config::{EraseConfig, LockConfig};
use muster_agent::journal::{Journal, Pairing, TaskKey, Trust};
use muster_agent::platform::processes::launcher::ARGUMENT;
use muster_agent::platform::processes::{LauncherCommand, Processes};
use muster_agent::tasks::admission::Admission;
use muster_agent::tasks::erase::Erase;
use muster_agent::tasks::inventory::Inventory;
use muster_agent::tasks::lock::Lock;
use muster_agent::tasks::reporter::{Outbox, Signer};
use muster_agent::tasks::run::Run;
use muster_agent::tasks::{Engine, Registry, Tasks};
use muster_kit::clock::{self, MasterClock};
use muster_proto::control::v1::{CancellationOrder, TaskOffer, TaskReportAck, UpstreamItem, upstream_item};
use muster_proto::payload_type::{TASK, TASK_CANCELLATION, TASK_REPORT};
use muster_proto::task::v1::task_report::Step;
use muster_proto::task::v1::{
    Content, Finished, OutputStream, RunArguments, TaskClass, TaskOrder, TaskReport, TaskSpec,
    content::Source,
};
use muster_proto::trust::v1::{Envelope, TrustBundle};
use muster_types::{NetworkId, NodeId};
use muster_wire::envelope::open_ed25519;
use muster_wire::sealing::SealingKey;
use muster_wire::testing::{NOW, TestNetwork};
use muster_wire::time::{span_to_wire, to_wire};
use muster_wire::{OperatorPolicy, TrustStore};
use prost::Message;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub const NODE: NodeId = NodeId([7; 20]);
/// The node's own; what is sealed to its public half only the node opens.
pub const SEALING_SECRET: [u8; 32] = [3; 32];
pub const SOON: Duration = Duration::from_secs(60);
pub const DAY: Duration = Duration::from_secs(86_400);

/// Who signs, and what the node needs to believe it. It can be kept in a folder, for several lives of an agent.
pub struct World {
    pub network: TestNetwork,
    pub bundle: TrustBundle,
    pub signing_key: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
        let network = TestNetwork::new();
        let signing_key = network.node(NODE).signing_key;
        Self { bundle: network.bundle(), network, signing_key }
    }

    pub fn order(&self, task: u8, spec: TaskSpec) -> TaskOrder {
        TaskOrder {
            network_id: Bytes::copy_from_slice(self.network.id.as_bytes()),
            task_id: Bytes::copy_from_slice(&[task; 16]),
            occurrence: String::new(),
            targets: vec![Bytes::copy_from_slice(NODE.as_bytes())],
            issue_time: Some(to_wire(NOW)),
            lifetime: Some(span_to_wire(DAY)),
            spec: Some(spec),
        }
    }

    pub fn sign(&self, order: &TaskOrder) -> TaskOffer {
        let order = Some(self.network.sign(TASK, order.encode_to_vec().into()));
        TaskOffer { order, traceparent: String::new() }
    }

    pub fn script(&self, task: u8, script: &str) -> TaskOffer {
        self.sign(&self.order(task, run(script)))
    }

    pub fn cancellation(&self, task: u8) -> Envelope {
        let order = CancellationOrder {
            network_id: Bytes::copy_from_slice(self.network.id.as_bytes()),
            task_id: Bytes::copy_from_slice(&[task; 16]),
            issue_time: Some(to_wire(NOW)),
        };
        self.network.sign(TASK_CANCELLATION, order.encode_to_vec().into())
    }

    /// Leaves in `folder` what a life of the agent needs: see [`Life::begin`].
    pub fn keep(&self, folder: &Path) {
        std::fs::write(folder.join("bundle"), self.bundle.encode_to_vec()).unwrap();
        std::fs::write(folder.join("network"), self.network.id.as_bytes()).unwrap();
        std::fs::write(folder.join("key"), &self.signing_key).unwrap();
    }
}

pub fn run(script: &str) -> TaskSpec {
    spec(RunArguments { script: script.to_owned(), ..RunArguments::default() })
}

pub fn spec(arguments: RunArguments) -> TaskSpec {
    TaskSpec {
        r#type: "run".to_owned(),
        arguments: Some(Content { source: Some(Source::Inline(arguments.encode_to_vec().into())) }),
        class: TaskClass::Open.into(),
        ..TaskSpec::default()
    }
}

/// One life of an agent's task engine, and the master's ear.
pub struct Life {
    pub tasks: Tasks,
    pub journal: Journal,
    engine: JoinHandle<()>,
    items: mpsc::Receiver<UpstreamItem>,
    public_key: Vec<u8>,
    acknowledging: bool,
}

impl Life {
    /// In a folder that [`World::keep`] prepared.
    pub async fn begin(folder: &Path) -> Self {
        let (journal, trusted) = Journal::open(folder).await.unwrap();
        Self::with(folder, journal, trusted).await
    }

    pub async fn with(folder: &Path, journal: Journal, trusted: Trust) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let bundle = TrustBundle::decode(&read("bundle")[..]).unwrap();
        let network = NetworkId::try_from(&read("network")[..]).unwrap();
        let root = CertificateDer::from(bundle.roots[0].to_vec());
        let mut trust = TrustStore::new(network, &[root]).unwrap();
        trust.load(&bundle, NOW).unwrap();
        let key = Arc::new(Ed25519KeyPair::from_pkcs8(&read("key")).unwrap());
        let clock = MasterClock::from_offset_micros(NOW.as_micros() - clock::wall().as_micros());
        let (outbox, items) = Outbox::new(journal.clone());
        let owner = format!("test-{}-{}", std::process::id(), folder.file_name().unwrap().to_string_lossy());
        let processes = Arc::new(Processes::detect(&owner, launcher()));
        let registry = Registry::default()
            .with(Run::new(processes, temporary(folder), "test".to_owned()))
            .with(Inventory)
            .with(Lock::new(lock_config(folder)))
            .with(Erase::new(EraseConfig { paths: vec![folder.join("home")], ..EraseConfig::default() }));
        let policy = std::fs::read(folder.join("operators"))
            .ok()
            .map(|bytes| OperatorPolicy::pin(&Envelope::decode(&bytes[..]).unwrap(), network).unwrap());
        let admission = Admission::new(
            NODE,
            Arc::new(ArcSwap::from_pointee(trust)),
            registry,
            SealingKey::new(SEALING_SECRET),
            Arc::new(ArcSwapOption::from_pointee(policy)),
        );
        let signer = Signer { node: NODE, key: key.clone(), clock };
        let pairing = Pairing::of(folder);
        let (tasks, engine) = Engine::start(admission, signer, outbox, trusted, pairing).await.unwrap();
        let public_key = key.public_key().as_ref().to_vec();
        tasks.route_up().await;
        Self { tasks, journal, engine, items, public_key, acknowledging: true }
    }

    /// A master that hears and does not answer.
    pub fn unacknowledged(mut self) -> Self {
        self.acknowledging = false;
        self
    }

    /// The next report, verified and acknowledged.
    pub async fn report(&mut self) -> TaskReport {
        let next = async {
            loop {
                let item = self.items.recv().await.expect("the engine runs");
                let Some(upstream_item::Body::TaskReport(envelope)) = item.body else { continue };
                let payload = open_ed25519(&envelope, TASK_REPORT, &self.public_key).unwrap();
                return TaskReport::decode(payload).unwrap();
            }
        };
        let report = tokio::time::timeout(SOON, next).await.expect("a report in time");
        if self.acknowledging {
            let (task_id, occurrence) = (report.task_id.clone(), report.occurrence.clone());
            self.tasks.acknowledged(TaskReportAck { task_id, occurrence, sequence: report.sequence }).await;
        }
        report
    }

    /// Everything of one task, until its end.
    pub async fn until_finished(&mut self, task: u8) -> Heard {
        let mut heard = Heard::default();
        loop {
            let report = self.report().await;
            if report.task_id[..] != [task; 16] {
                continue;
            }
            heard.sequences.push(report.sequence);
            match report.step.unwrap() {
                Step::Delivered(_) => heard.steps.push("delivered"),
                Step::Started(_) => heard.steps.push("started"),
                Step::Output(output) => {
                    let (bytes, chunks) = match output.stream() {
                        OutputStream::Stderr => (&mut heard.stderr, &mut heard.stderr_chunks),
                        _ => (&mut heard.stdout, &mut heard.stdout_chunks),
                    };
                    chunks.push((output.offset, output.data.len()));
                    bytes.extend_from_slice(&output.data);
                }
                Step::Progress(progress) => heard.progress.push((progress.percent, progress.text)),
                Step::Finished(finished) => {
                    heard.finished = finished;
                    return heard;
                }
            }
        }
    }

    pub async fn until_started(&mut self, task: u8) {
        loop {
            let report = self.report().await;
            if report.task_id[..] == [task; 16] && matches!(report.step, Some(Step::Started(_))) {
                return;
            }
        }
    }

    pub async fn end(self) {
        self.tasks.finish().await;
        self.engine.await.unwrap();
    }
}

#[derive(Debug, Default)]
pub struct Heard {
    pub steps: Vec<&'static str>,
    pub sequences: Vec<u64>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub stdout_chunks: Vec<(u64, usize)>,
    pub stderr_chunks: Vec<(u64, usize)>,
    pub progress: Vec<(u32, String)>,
    pub finished: Finished,
}

impl Heard {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

pub fn key(task: u8) -> TaskKey {
    TaskKey::new(&[task; 16], "").unwrap()
}

pub fn launcher() -> LauncherCommand {
    LauncherCommand { program: env!("CARGO_BIN_EXE_muster-agent").into(), argument: ARGUMENT.into() }
}

/// Harmless to the host that the test runs on.
fn lock_config(folder: &Path) -> LockConfig {
    let ended = folder.join("sessions-ended").display().to_string();
    LockConfig { file: folder.join("nologin"), command: vec!["touch".to_owned(), ended] }
}

/// Where executions make their directories.
pub fn temporary(folder: &Path) -> PathBuf {
    let path = folder.join("tmp");
    std::fs::create_dir_all(&path).unwrap();
    path
}
