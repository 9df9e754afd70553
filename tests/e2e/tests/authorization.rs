//! Who may call what: every RPC of every contract, as reflection lists them, with the certificate of every role.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_e2e::master::credentials_in;
use muster_e2e::{Agent, Master};
use muster_kit::connect::{AUTH, Master as Way, MasterChannel, TOPOLOGY};
use muster_kit::status;
use muster_kit::tls::{ClientTls, Material};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Who stands at the other end of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Without a certificate.
    Nobody,
    Node,
    Admin,
    Operator,
    Auditor,
    Cmdb,
    Service,
}

use Who::{Admin, Auditor, Cmdb, Nobody, Node, Operator, Service};

const ALL: [Who; 7] = [Nobody, Node, Admin, Operator, Auditor, Cmdb, Service];
/// Who commands the fleet.
const COMMANDERS: &[Who] = &[Admin, Operator, Cmdb];
/// Who sees it.
const READERS: &[Who] = &[Admin, Operator, Auditor, Cmdb];
const ADMINS: &[Who] = &[Admin];
const OPERATORS: &[Who] = &[Admin, Operator];
const AUDITORS: &[Who] = &[Admin, Auditor];
const NODES: &[Who] = &[Node];
const NODES_AND_READERS: &[Who] = &[Node, Admin, Operator, Auditor, Cmdb];
const SERVICES: &[Who] = &[Service];
const CERTIFIED: &[Who] = &[Node, Admin, Operator, Auditor, Cmdb, Service];
const ANYBODY: &[Who] = &ALL;
/// Of the agent's own socket, which no network reaches.
const LOCAL: &[Who] = &[];

/// A service's RPCs that the same callers may call: package and service, methods, callers.
type Row = (&'static str, &'static [&'static str], &'static [Who]);

/// The whole policy. What is not in it fails the test.
const TABLE: &[Row] = &[
    ("muster.auth.v1.EnrollmentService", &["Enroll", "Renew", "CreateRenewalChallenge"], ANYBODY),
    ("muster.auth.v1.LinkService", &["CreateLink", "RevokeLink"], COMMANDERS),
    ("muster.auth.v1.LinkService", &["ListLinks", "GetLink"], READERS),
    ("muster.auth.v1.EnrollmentRequestService", &["ListEnrollmentRequests"], READERS),
    (
        "muster.auth.v1.EnrollmentRequestService",
        &["ApproveEnrollmentRequest", "DenyEnrollmentRequest"],
        OPERATORS,
    ),
    ("muster.auth.v1.RevocationService", &["RevokeCertificate"], COMMANDERS),
    ("muster.auth.v1.RevocationService", &["ReinstateCertificate"], OPERATORS),
    ("muster.auth.v1.RevocationService", &["GetRevocationList"], CERTIFIED),
    ("muster.auth.v1.RevocationService", &["WatchRevocationList", "AdoptRevocationList"], SERVICES),
    ("muster.auth.v1.AuditService", &["RecordAuditEntries"], SERVICES),
    ("muster.auth.v1.AuditService", &["ListAuditEntries"], AUDITORS),
    ("muster.auth.v1.CertificateAuthorityService", &["GetCertificateAuthority"], READERS),
    (
        "muster.auth.v1.CertificateAuthorityService",
        &["RotateCertificateAuthority", "WithdrawSigners", "ImportCertificates"],
        ADMINS,
    ),
    ("muster.auth.v1.AuthorityService", &["Sign", "GetTrustBundle"], SERVICES),
    ("muster.auth.v1.AdmissionService", &["ListAdmissions", "PublishContacts"], SERVICES),
    ("muster.control.v1.ControlService", &["Attach", "FindLsns", "ListOwnTasks", "GetNodeTicket"], NODES),
    (
        "muster.fleet.v1.FleetService",
        &[
            "GetNode",
            "ListNodes",
            "GetTopology",
            "GetTask",
            "ListTasks",
            "ListTaskTargets",
            "ListTaskOutput",
            "WatchTask",
            "WatchEvents",
            "ListEvents",
        ],
        READERS,
    ),
    (
        "muster.fleet.v1.FleetService",
        &[
            "UpdateNodeLabels",
            "RefreshPresence",
            "DeleteNode",
            "ResolveClone",
            "CreateTask",
            "CancelTask",
            "ApproveTask",
        ],
        COMMANDERS,
    ),
    ("muster.relay.v1.RelayService", &["Carry"], NODES),
    ("muster.gsn.v1.RegistryService", &["IssueRelayTicket", "Offer", "ReportSuperNodes"], NODES),
    ("muster.gsn.v1.RegistryService", &["ListSuperNodes"], NODES_AND_READERS),
    ("muster.gsn.v1.RegistryService", &["ListCandidates"], READERS),
    ("muster.gsn.v1.RegistryService", &["RegisterRelay"], SERVICES),
    ("muster.dht.v1.BootstrapService", &["Contacts"], CERTIFIED),
    ("muster.dht.v1.BootstrapService", &["FindNodes", "GetRecords", "GetStats"], READERS),
    ("muster.dht.v1.BootstrapService", &["Crawl", "PutRecord"], COMMANDERS),
    (
        "muster.agent.v1.LocalService",
        &[
            "CheckNetwork",
            "FindNodes",
            "GetNodeKeys",
            "GetRecords",
            "GetStats",
            "GetStatus",
            "Leave",
            "PutRecord",
            "Reach",
            "ReadLetters",
            "SendLetter",
        ],
        LOCAL,
    ),
];

/// A stream that is let in says nothing until something happens; who is refused hears at once.
const SILENCE: Duration = Duration::from_secs(3);

fn callers(service: &str, method: &str) -> Option<&'static [Who]> {
    let row = TABLE.iter().find(|(name, methods, _)| *name == service && methods.contains(&method));
    row.map(|(_, _, callers)| *callers)
}

/// Every `service` and method of the contracts, from the descriptors that reflection serves.
fn methods() -> Result<BTreeSet<(String, String)>> {
    let descriptors = FileDescriptorSet::decode(muster_proto::DESCRIPTORS)?;
    let mut methods = BTreeSet::new();
    for file in &descriptors.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| (name.clone(), method.name().to_owned())));
        }
    }
    Ok(methods)
}

/// One certificate of each role, of a network whose services run apart.
struct Cast {
    auth: Master,
    topology: Master,
    agent: Agent,
    /// Who came by a link: one for each role, on a computer of its own.
    people: Vec<(Who, Master)>,
}

impl Cast {
    async fn assemble() -> Result<Self> {
        let (mut auth, mut topology) = (Master::nowhere()?, Master::nowhere()?);
        auth.muster(&["init", "--address", &auth.address()]).await?.expect(0)?;
        auth.serve(&["--target", "auth"], &topology.address()).await?;
        std::fs::create_dir_all(topology.data_dir().join("join"))?;
        let link = "join/topology.link";
        std::fs::copy(auth.data_dir().join(link), topology.data_dir().join(link))?;
        topology.serve(&["--target", "topology"], &auth.address()).await?;
        let agent = Agent::enrolled(&auth, &[]).await?;
        let mut people = Vec::new();
        for (who, role) in [(Admin, "admin"), (Operator, "operator"), (Auditor, "auditor"), (Cmdb, "cmdb")] {
            let link = auth.link(&["--role", role, "--name", "ada"]).await?;
            let place = Master::nowhere()?;
            place.muster_elsewhere(&["login", "-", "--name", "home"], &link).await?.expect(0)?;
            people.push((who, place));
        }
        Ok(Self { auth, topology, agent, people })
    }

    fn material(&self, who: Who) -> Result<Option<Material>> {
        Ok(Some(match who {
            Nobody => return Ok(None),
            Node => self.agent.stolen_credentials()?,
            Admin | Operator | Auditor | Cmdb => {
                let place = self.people.iter().find(|(it, _)| *it == who).context("nobody has this role")?;
                credentials_in(&place.1.folder().join("config/muster/contexts/home.toml"))?
            }
            Service => credentials_in(&self.topology.data_dir().join("topology.pem"))?,
        }))
    }

    fn way(&self, who: Who, service: &str) -> Result<MasterChannel> {
        let roots = self.auth.operator()?.roots;
        let tls = match self.material(who)? {
            Some(material) => ClientTls::new(material)?,
            None => ClientTls::anonymous(&roots)?,
        };
        let at_auth = service.starts_with("muster.auth.");
        let (address, name) =
            if at_auth { (self.auth.address(), AUTH) } else { (self.topology.address(), TOPOLOGY) };
        Ok(Way::new([address], tls).service(name))
    }
}

/// Whether the policy lets the call through to whatever the service then says of an empty request.
async fn is_let_in(channel: MasterChannel, service: &str, method: &str) -> Result<bool> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| anyhow::anyhow!("not ready: {error}"))?;
    let path: PathAndQuery = format!("/{service}/{method}").parse()?;
    let call = client.server_streaming(Request::new(()), path, ProstCodec::<(), ()>::default());
    Ok(match tokio::time::timeout(SILENCE, call).await {
        Err(_) | Ok(Ok(_)) => true,
        Ok(Err(status)) => !is_refusal(&status),
    })
}

fn is_refusal(status: &Status) -> bool {
    match status::reason(status).as_deref() {
        Some(reason) => matches!(reason, "ROLE_NOT_ALLOWED" | "CERTIFICATE_REQUIRED"),
        // TLS itself lets nobody in without a certificate.
        None => true,
    }
}

#[test]
fn every_rpc_of_every_contract_stands_in_the_table() -> Result<()> {
    let unlisted: Vec<_> =
        methods()?.into_iter().filter(|(service, method)| callers(service, method).is_none()).collect();
    ensure!(unlisted.is_empty(), "nobody has said who may call {unlisted:?}");
    Ok(())
}

#[tokio::test]
async fn each_role_is_let_in_where_the_table_says_so_and_nowhere_else() -> Result<()> {
    let cast = Cast::assemble().await?;
    let mut entered = BTreeSet::new();
    let mut wrong = Vec::new();
    for who in ALL {
        for (service, method) in methods()? {
            let Some(allowed) = callers(&service, &method) else { continue };
            let channel = cast.way(who, &service).context("a way")?;
            let expected = allowed.contains(&who);
            let is_in = is_let_in(channel, &service, &method).await?;
            if is_in {
                entered.insert(service.clone());
            }
            if is_in != expected {
                let word = if expected { "is refused" } else { "is let in" };
                wrong.push((service.clone(), format!("{who:?} {word} at {service}/{method}")));
            }
        }
    }
    // What lets nobody in anywhere is served by other processes than these two.
    wrong.retain(|(service, _)| entered.contains(service));
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
