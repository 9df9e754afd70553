//! One role for each certificate, and nothing that is not allowed.

use anyhow::{Context, Result, ensure};
use muster_e2e::{Agent, Master};
use muster_proto::auth::v1::link_service_client::LinkServiceClient;
use muster_proto::auth::v1::{CreateLinkRequest, ListLinksRequest};
use muster_proto::control::v1::AttachRequest;
use muster_proto::control::v1::control_service_client::ControlServiceClient;
use muster_proto::fleet::v1::fleet_service_client::FleetServiceClient;
use muster_proto::fleet::v1::{CreateTaskRequest, ListNodesRequest};
use tonic::{Code, Status};

fn is_denied<T>(answer: Result<T, Status>) -> Result<()> {
    let status = answer.err().context("it was allowed")?;
    ensure!(status.code() == Code::PermissionDenied, "{status:?}");
    ensure!(muster_kit::status::reason(&status).is_some(), "it gives programs no reason: {status:?}");
    Ok(())
}

#[tokio::test]
async fn a_nodes_certificate_is_denied_at_fleet_and_at_the_making_of_links() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::enrolled(&master, &[]).await?;
    let mut fleet = FleetServiceClient::new(master.topology_as(agent.stolen_credentials()?)?);
    is_denied(fleet.list_nodes(ListNodesRequest::default()).await)?;
    is_denied(fleet.create_task(CreateTaskRequest::default()).await)?;
    let mut links = LinkServiceClient::new(master.auth_as(agent.stolen_credentials()?)?);
    is_denied(links.list_links(ListLinksRequest::default()).await)?;
    is_denied(links.create_link(CreateLinkRequest::default()).await)
}

#[tokio::test]
async fn an_operators_certificate_is_denied_at_control() -> Result<()> {
    let master = Master::up().await?;
    let mut control = ControlServiceClient::new(master.topology_as(master.operator()?)?);
    let silent = futures::stream::pending::<AttachRequest>();
    is_denied(control.attach(silent).await)
}

#[tokio::test]
async fn without_a_certificate_nobody_reaches_topology() -> Result<()> {
    let master = Master::up().await?;
    let roots = master.operator()?.roots;
    let tls = muster_kit::tls::ClientTls::anonymous(&roots)?;
    let way = muster_kit::connect::Master::new([master.address()], tls);
    let mut fleet = FleetServiceClient::new(way.service(muster_kit::connect::TOPOLOGY));
    let refused = fleet.list_nodes(ListNodesRequest::default()).await;
    ensure!(refused.is_err_and(|status| status.code() != Code::PermissionDenied), "TLS let it in");
    Ok(())
}

#[tokio::test]
async fn a_certificate_of_another_network_opens_nothing() -> Result<()> {
    let (ours, theirs) = (Master::up().await?, Master::up().await?);
    let mut material = theirs.operator()?;
    material.roots = ours.operator()?.roots;
    let mut fleet = FleetServiceClient::new(ours.topology_as(material)?);
    ensure!(fleet.list_nodes(ListNodesRequest::default()).await.is_err(), "it was let in");
    Ok(())
}

#[tokio::test]
async fn an_operator_logs_in_by_a_link_and_works_from_elsewhere() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&["--role", "operator", "--name", "ada"]).await?;
    let elsewhere = Master::nowhere()?;
    elsewhere.muster_elsewhere(&["login", "-", "--name", "home"], &link).await?.expect(0)?;
    let listed = elsewhere.muster_elsewhere(&["nodes", "--output", "json", "--context", "home"], "").await?;
    listed.expect(0)?.document("Nodes")?;
    Ok(())
}
