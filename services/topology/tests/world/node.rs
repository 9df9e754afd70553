//! A node with real keys: certificate, ticket, Ed25519 key; what it sends is signed as the agent signs it.

use std::time::Duration;

use bytes::Bytes;
use muster_kit::clock;
use muster_kit::connect::MasterChannel;
use muster_kit::tls::Material;
use muster_proto::control::v1 as control;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::control::v1::{attach_request, attach_response, downstream, upstream_item};
use muster_proto::overlay::v1 as overlay;
use muster_proto::payload_type;
use muster_proto::task::v1 as task;
use muster_proto::trust::v1::{Envelope, NodeTicket};
use muster_types::{Identity, NodeId};
use muster_wire::envelope::sign_ed25519;
use muster_wire::time::to_wire;
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{LIMIT, World};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) key: Ed25519KeyPair,
    pub(crate) ticket: Envelope,
    pub(crate) material: Material,
    network: Bytes,
}

fn bytes(id: NodeId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

impl TestNode {
    pub(crate) fn enroll(world: &World, id: NodeId) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let now = clock::wall();
        let ticket = NodeTicket {
            node_id: bytes(id),
            certificate_serial: Bytes::copy_from_slice(&id.as_bytes()[..8]),
            noise_key: Bytes::from_static(&[1; 32]),
            sealing_key: Bytes::from_static(&[2; 32]),
            signing_key: Bytes::copy_from_slice(key.public_key().as_ref()),
            not_before_time: Some(to_wire(now - DAY)),
            not_after_time: Some(to_wire(now + DAY)),
            labels: [("fleet".to_owned(), "test".to_owned())].into(),
            enrollment_generation: 1,
        };
        let ticket = world.authority.seal(payload_type::NODE_TICKET, ticket.encode_to_vec().into());
        let material = world.pki.leaf(&Identity::node(world.pki.network, id));
        let network = Bytes::copy_from_slice(world.pki.network.as_bytes());
        Self { id, key, ticket, material, network }
    }

    pub(crate) fn client(&self, world: &World) -> ControlServiceClient<MasterChannel> {
        ControlServiceClient::new(world.channel(self.material.clone()))
    }

    pub(crate) fn presence(&self) -> control::NodePresence {
        control::NodePresence {
            host_name: format!("host-{}", self.id.short()),
            software_version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            ..control::NodePresence::default()
        }
    }

    /// A node in 192.168.1.0/24, without an LSN.
    pub(crate) fn hello(&self) -> control::Hello {
        control::Hello {
            protocol_version: 1,
            software_version: "0.1.0".to_owned(),
            boot_nonce: 7,
            ticket: Some(self.ticket.clone()),
            prefixes: vec![control::LocalPrefix {
                address: Bytes::copy_from_slice(&[192, 168, 1, self.id.0[0]]),
                length: 24,
            }],
            presence: Some(self.presence()),
            ..control::Hello::default()
        }
    }

    pub(crate) fn claim(&self, lineage: u64, epoch: u64) -> Envelope {
        let claim = overlay::Claim {
            network_id: self.network.clone(),
            lineage,
            epoch,
            claimant: Some(overlay::Contact { node_id: bytes(self.id), ..overlay::Contact::default() }),
            ..overlay::Claim::default()
        };
        sign_ed25519(payload_type::CLAIM, claim.encode_to_vec().into(), &self.key)
    }

    pub(crate) fn hello_as_lsn(&self, lineage: u64, epoch: u64) -> control::Hello {
        control::Hello { claim: Some(self.claim(lineage, epoch)), ..self.hello() }
    }

    /// Its consent to be shown under an LSN, signed with `key`.
    pub(crate) fn attach_signed_by(
        &self,
        key: &Ed25519KeyPair,
        lsn: NodeId,
        lineage: u64,
        epoch: u64,
    ) -> control::PresenceChange {
        let attach = overlay::Attach {
            node_id: bytes(self.id),
            lsn_id: bytes(lsn),
            lineage,
            epoch,
            attach_time: Some(to_wire(clock::wall())),
            boot_nonce: 7,
        };
        let attach = sign_ed25519(payload_type::ATTACH, attach.encode_to_vec().into(), key);
        let attached = control::NodePresence {
            attach: Some(attach),
            ticket: Some(self.ticket.clone()),
            ..self.presence()
        };
        let change = Some(control::presence_change::Change::Attached(attached));
        control::PresenceChange { node_id: bytes(self.id), change }
    }

    pub(crate) fn attach_under(&self, lsn: NodeId, lineage: u64, epoch: u64) -> control::PresenceChange {
        self.attach_signed_by(&self.key, lsn, lineage, epoch)
    }

    pub(crate) fn report(
        &self,
        task: &Bytes,
        sequence: u64,
        step: task::task_report::Step,
    ) -> control::Upstream {
        let report = task::TaskReport {
            task_id: task.clone(),
            node_id: bytes(self.id),
            sequence,
            report_time: Some(to_wire(clock::wall())),
            step: Some(step),
            ..task::TaskReport::default()
        };
        let sealed = sign_ed25519(payload_type::TASK_REPORT, report.encode_to_vec().into(), &self.key);
        self.upstream(upstream_item::Body::TaskReport(sealed))
    }

    pub(crate) fn upstream(&self, body: upstream_item::Body) -> control::Upstream {
        let item = control::UpstreamItem { class: 3, body: Some(body), ..Default::default() };
        control::Upstream { node_id: bytes(self.id), items: vec![item] }
    }

    /// Attaches and waits for Welcome.
    pub(crate) async fn attach(&self, world: &World, hello: control::Hello) -> (Link, control::Welcome) {
        let mut link = self.open(world, hello).await;
        match link.next().await {
            attach_response::Frame::Welcome(welcome) => (link, welcome),
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    /// Opens a stream and says hello.
    pub(crate) async fn open(&self, world: &World, hello: control::Hello) -> Link {
        let (up, requests) = mpsc::channel(16);
        let link_up = up.clone();
        let hello = control::AttachRequest { frame: Some(attach_request::Frame::Hello(hello)) };
        up.send(hello).await.unwrap();
        let down = self.client(world).attach(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Link { up: link_up, down }
    }
}

/// An open control stream.
pub(crate) struct Link {
    up: mpsc::Sender<control::AttachRequest>,
    down: Streaming<control::AttachResponse>,
}

impl Link {
    pub(crate) async fn send(&self, frame: attach_request::Frame) {
        self.up.send(control::AttachRequest { frame: Some(frame) }).await.unwrap();
    }

    pub(crate) async fn send_up(&self, upstream: control::Upstream) {
        self.send(attach_request::Frame::Upstream(upstream)).await;
    }

    pub(crate) async fn update(&self, number: u64, snapshot: bool, changes: Vec<control::PresenceChange>) {
        self.send(attach_request::Frame::Update(control::PresenceUpdate { number, snapshot, changes })).await;
    }

    pub(crate) async fn next(&mut self) -> attach_response::Frame {
        let message = tokio::time::timeout(LIMIT, self.down.message()).await.expect("a frame in time");
        message.unwrap().expect("the stream goes on").frame.unwrap()
    }

    /// The next frame that `pick` takes; uptime tickets and the like come at any time.
    pub(crate) async fn until<T>(&mut self, pick: impl Fn(attach_response::Frame) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn down<T>(&mut self, pick: impl Fn(downstream::Body) -> Option<T>) -> T {
        self.until(|frame| match frame {
            attach_response::Frame::Downstream(message) => pick(message.body?),
            _ => None,
        })
        .await
    }

    pub(crate) async fn offer(&mut self) -> Envelope {
        self.down(|body| match body {
            downstream::Body::TaskOffer(offer) => offer.order,
            _ => None,
        })
        .await
    }

    pub(crate) async fn acknowledged(&mut self, sequence: u64) {
        self.down(|body| match body {
            downstream::Body::TaskReportAck(ack) if ack.sequence >= sequence => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn update_ack(&mut self) -> control::UpdateAck {
        self.until(|frame| match frame {
            attach_response::Frame::UpdateAck(ack) => Some(ack),
            _ => None,
        })
        .await
    }

    pub(crate) async fn part(&mut self) -> control::Part {
        self.until(|frame| match frame {
            attach_response::Frame::Part(part) => Some(part),
            _ => None,
        })
        .await
    }

    /// Whether topology has closed the stream.
    pub(crate) async fn ended(&mut self) -> bool {
        loop {
            match tokio::time::timeout(LIMIT, self.down.message()).await.expect("an end in time") {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return true,
            }
        }
    }
}

pub(crate) fn finished(state: task::TaskState, exit_code: i32) -> task::task_report::Step {
    task::task_report::Step::Finished(task::Finished {
        state: state.into(),
        exit_code: Some(exit_code),
        ..task::Finished::default()
    })
}

pub(crate) fn output(text: &'static str) -> task::task_report::Step {
    task::task_report::Step::Output(task::Output {
        stream: task::OutputStream::Stdout.into(),
        offset: 0,
        data: Bytes::from_static(text.as_bytes()),
        ..task::Output::default()
    })
}
