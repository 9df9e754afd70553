//! A simulated host: real keys, enrolled by the real auth; what it says is signed as the agent signs it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use muster_agent::identity::{DeviceKeys, Identity};
use muster_kit::clock;
use muster_kit::connect::{AUTH, Master, MasterChannel};
use muster_kit::tls::{ClientTls, Material};
use muster_proto::auth::v1::EnrollRequest;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use muster_proto::control::v1 as control;
use muster_proto::control::v1::{presence_change, upstream_item};
use muster_proto::overlay::v1 as overlay;
use muster_proto::payload_type;
use muster_proto::task::v1::{self as task, task_report::Step};
use muster_proto::trust::v1::Envelope;
use muster_types::{EnrollmentLink, NodeId, version};
use muster_wire::envelope::sign_ed25519;
use muster_wire::time::to_wire;
use prost::Message;

/// Every host has started once.
const BOOT: u64 = 7;

/// Nobody has succeeded anybody.
const EPOCH: u64 = 1;

/// An answer, on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Host(Identity);

/// So many hosts by one link, over one connection.
pub(super) async fn enroll(link: &EnrollmentLink, count: usize, at_once: usize) -> Result<Vec<Arc<Host>>> {
    let tls = ClientTls::trusting(&link.root_key)?;
    let auth = EnrollmentServiceClient::new(Master::new([link.address.clone()], tls).service(AUTH));
    let hosts = (0..count).map(|at| Host::enroll(auth.clone(), link, at));
    stream::iter(hosts).buffered(at_once).try_collect().await
}

impl Host {
    async fn enroll(
        mut auth: EnrollmentServiceClient<MasterChannel>,
        link: &EnrollmentLink,
        at: usize,
    ) -> Result<Arc<Self>> {
        let keys = Arc::new(DeviceKeys::generate()?);
        let request = keys.certificate_request()?;
        let request = EnrollRequest {
            token: link.token.reveal(),
            node_keys: Some(keys.node_keys(&request)),
            certificate_request: request,
            host_name: format!("load-{at}"),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..EnrollRequest::default()
        };
        let answer = tokio::time::timeout(PATIENCE, auth.enroll(request)).await??.into_inner();
        let credentials = answer.credentials.context("no credentials")?;
        Ok(Arc::new(Self(Identity::assembled(keys, credentials, link.root_key, link.address.clone())?)))
    }

    pub(super) fn id(&self) -> NodeId {
        self.0.node
    }

    /// As the API names it.
    pub(super) fn name(&self) -> String {
        format!("nodes/{}", self.0.node)
    }

    pub(super) fn material(&self) -> Material {
        self.0.material()
    }

    fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.node.as_bytes())
    }

    fn sign(&self, payload_type: &'static str, payload: &impl Message) -> Envelope {
        sign_ed25519(payload_type, payload.encode_to_vec().into(), &self.0.keys.signing())
    }

    fn presence(&self) -> control::NodePresence {
        control::NodePresence {
            host_name: format!("host-{}", self.0.node.short()),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            os: "linux".to_owned(),
            ..control::NodePresence::default()
        }
    }

    /// As the LSN of the subnet with this number, and as the first of its line.
    pub(super) fn hello(&self, subnet: usize) -> Result<control::Hello> {
        let claim = overlay::Claim {
            network_id: Bytes::copy_from_slice(self.0.network.as_bytes()),
            lineage: lineage(self.id()),
            epoch: EPOCH,
            claimant: Some(overlay::Contact { node_id: self.bytes(), ..overlay::Contact::default() }),
            ..overlay::Claim::default()
        };
        let [_, _, high, low] = u32::try_from(subnet)?.to_be_bytes();
        Ok(control::Hello {
            protocol_version: version::PROTOCOL,
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_nonce: BOOT,
            ticket: Some(self.0.ticket()?.clone()),
            claim: Some(self.sign(payload_type::CLAIM, &claim)),
            prefixes: vec![control::LocalPrefix {
                address: Bytes::copy_from_slice(&[10, high, low, 1]),
                length: 24,
            }],
            presence: Some(self.presence()),
            ..control::Hello::default()
        })
    }

    /// Its consent to be shown under this LSN.
    pub(super) fn attached_under(&self, lsn: NodeId) -> Result<control::PresenceChange> {
        let attach = overlay::Attach {
            node_id: self.bytes(),
            lsn_id: Bytes::copy_from_slice(lsn.as_bytes()),
            lineage: lineage(lsn),
            epoch: EPOCH,
            attach_time: Some(to_wire(clock::wall())),
            boot_nonce: BOOT,
        };
        let attached = control::NodePresence {
            attach: Some(self.sign(payload_type::ATTACH, &attach)),
            ticket: Some(self.0.ticket()?.clone()),
            ..self.presence()
        };
        let change = Some(presence_change::Change::Attached(attached));
        Ok(control::PresenceChange { node_id: self.bytes(), change })
    }

    /// All that it ever says of a task: delivered, started, succeeded.
    pub(super) fn reports(&self, task: &Bytes) -> control::Upstream {
        let finished = task::Finished {
            state: task::TaskState::Succeeded.into(),
            exit_code: Some(0),
            ..task::Finished::default()
        };
        let steps =
            [Step::Delivered(task::Delivered {}), Step::Started(task::Started {}), Step::Finished(finished)];
        let items = (1..).zip(steps).map(|(sequence, step)| {
            let report = task::TaskReport {
                task_id: task.clone(),
                node_id: self.bytes(),
                sequence,
                report_time: Some(to_wire(clock::wall())),
                step: Some(step),
                ..task::TaskReport::default()
            };
            let sealed = self.sign(payload_type::TASK_REPORT, &report);
            let class = control::TrafficClass::Task.into();
            control::UpstreamItem {
                class,
                body: Some(upstream_item::Body::TaskReport(sealed)),
                ..Default::default()
            }
        });
        control::Upstream { node_id: self.bytes(), items: items.collect() }
    }
}

/// Drawn at random by an agent; here it is known to whoever consents.
fn lineage(lsn: NodeId) -> u64 {
    lsn.as_bytes().iter().take(8).fold(1, |lineage, byte| lineage << 8 | u64::from(*byte))
}
