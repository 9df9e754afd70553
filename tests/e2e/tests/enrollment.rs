//! Links that do not work: each says what is wrong in words and in its exit code, and leaves nothing half-written.

#[path = "enrollment/proxy.rs"]
mod proxy;

use anyhow::{Context, Result, ensure};
use muster_e2e::agent::IDENTITY;
use muster_e2e::master::free_port;
use muster_e2e::{Agent, Answer, Master};
use muster_kit::connect::{AUTH, Master as Way};
use muster_kit::tls::ClientTls;
use muster_proto::auth::v1::CreateRenewalChallengeRequest;
use muster_proto::auth::v1::enrollment_service_client::EnrollmentServiceClient;
use proxy::Proxy;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

/// Exit codes of `muster-agent` (its module `cli` lists them).
const NOT_UNDERSTOOD: i32 = 2;
const REFUSED: i32 = 3;
const NOT_REACHED: i32 = 4;
const NOT_TRUSTED: i32 = 5;
const ENROLLED_ALREADY: i32 = 6;

/// The refusal names the cause and what to do next, and no identity is left.
fn refused(agent: &Agent, answer: &Answer, code: i32, cause: &str) -> Result<()> {
    ensure!(answer.code == code && answer.stderr.contains(cause), "{answer}");
    ensure!(answer.stderr.trim().lines().count() >= 2, "it does not say what to do next\n{answer}");
    ensure!(!agent.kept().contains(&IDENTITY.to_owned()), "an identity was written: {:?}", agent.kept());
    Ok(())
}

/// A link that will never work leaves no keys for it either.
fn nothing_left(agent: &Agent) -> Result<()> {
    ensure!(agent.kept().is_empty(), "something was left: {:?}", agent.kept());
    Ok(())
}

#[tokio::test]
async fn a_link_works_once() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&[]).await?;
    Agent::new()?.enroll(&link).await?.expect(0)?;
    let late = Agent::new()?;
    refused(&late, &late.enroll(&link).await?, REFUSED, "the link was used already")?;
    nothing_left(&late)
}

#[tokio::test]
async fn of_two_that_race_for_a_link_one_gets_it() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&[]).await?;
    let (one, other) = (Agent::new()?, Agent::new()?);
    let (first, second) = tokio::join!(one.enroll(&link), other.enroll(&link));
    let mut codes = [first?.code, second?.code];
    codes.sort_unstable();
    ensure!(codes == [0, REFUSED], "{codes:?}");
    Ok(())
}

#[tokio::test]
async fn an_expired_link_says_so() -> Result<()> {
    let master = Master::up().await?;
    let created = master.muster(&["link", "create", "--output", "json"]).await?.expect(0)?;
    let document = created.document("Link")?;
    let url = document["url"].as_str().context("a new link has an URL")?;
    // A link lives a minute at least; so its end is moved, and not awaited.
    expire_links(&master).await?;
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(url).await?, REFUSED, "the link has expired")?;
    nothing_left(&agent)
}

async fn expire_links(master: &Master) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(master.data_dir().join("auth.db"));
    let mut store = SqliteConnection::connect_with(&options).await?;
    sqlx::query("UPDATE links SET expire_time = create_time + 1").execute(&mut store).await?;
    Ok(store.close().await?)
}

#[tokio::test]
async fn a_revoked_link_says_so() -> Result<()> {
    let master = Master::up().await?;
    let created = master.muster(&["link", "create", "--output", "json"]).await?.expect(0)?;
    let document = created.document("Link")?;
    let name = document["link"]["name"].as_str().context("a link has a name")?;
    master.muster(&["link", "revoke", name]).await?.expect(0)?;
    let agent = Agent::new()?;
    let url = document["url"].as_str().context("a new link has an URL")?;
    refused(&agent, &agent.enroll(url).await?, REFUSED, "the link was revoked")?;
    nothing_left(&agent)
}

#[tokio::test]
async fn an_unknown_token_says_so() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&[]).await?;
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&with_other_token(&link)?).await?, REFUSED, "does not know this link")?;
    nothing_left(&agent)
}

/// The same link with a token that nobody made.
fn with_other_token(link: &str) -> Result<String> {
    let (head, rest) = link.split_once("#1.").context("a link has a fragment")?;
    let (token, root) = rest.split_once('.').context("a fragment has two parts")?;
    Ok(format!("{head}#1.{}.{root}", "a".repeat(token.len())))
}

#[tokio::test]
async fn a_malformed_link_says_what_is_wrong_with_it() -> Result<()> {
    let agent = Agent::new()?;
    for link in
        ["https://master:27431/enroll", "http://master:27431/enroll#1.a.b", "hello", "https://m/enroll#9.x.y"]
    {
        refused(&agent, &agent.enroll(link).await?, NOT_UNDERSTOOD, "this is not an enrollment link")?;
        nothing_left(&agent)?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unreachable_master_says_so_and_the_same_link_works_later() -> Result<()> {
    let mut master = Master::up().await?;
    let link = master.link(&[]).await?;
    master.stop().await?;
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&link).await?, NOT_REACHED, "the master cannot be reached at")?;
    master.start(&[]).await?;
    agent.enroll(&link).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_says_so() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&[]).await?.replace(&master.address(), "nowhere.invalid:27431");
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&link).await?, NOT_REACHED, "cannot be resolved")
}

#[tokio::test]
async fn another_networks_master_is_told_from_the_links_own() -> Result<()> {
    let (ours, theirs) = (Master::up().await?, Master::up().await?);
    let link = ours.link(&[]).await?.replace(&ours.address(), &theirs.address());
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&link).await?, NOT_TRUSTED, "is another master than the link's")
}

#[tokio::test]
async fn a_proxy_that_re_signs_tls_is_named_and_reads_nothing_and_without_it_the_same_link_works()
-> Result<()> {
    let master = Master::up().await?;
    let proxy = Proxy::before(&master.address(), &master.operator()?.roots).await?;
    let link = master.link(&[]).await?;
    let agent = Agent::new()?;
    let refusal = agent.enroll(&link.replace(&master.address(), &proxy.address)).await?;
    refused(&agent, &refusal, NOT_TRUSTED, "re-signs TLS")?;
    ensure!(refusal.stderr.contains(&proxy.address), "it does not say where\n{refusal}");
    ensure!(proxy.opened() == 0, "the link's token went through a proxy that reads");
    // It does work, for who believes in it.
    let believing = Way::new([proxy.address.clone()], ClientTls::anonymous(&[proxy.root()])?);
    let mut auth = EnrollmentServiceClient::new(believing.service(AUTH));
    auth.create_renewal_challenge(CreateRenewalChallengeRequest {}).await?;
    ensure!(proxy.opened() == 1);
    agent.enroll(&link).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn who_is_no_master_is_named() -> Result<()> {
    let master = Master::up().await?;
    let port = free_port()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let imposter = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let link = master.link(&[]).await?.replace(&master.address(), &format!("127.0.0.1:{port}"));
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&link).await?, NOT_REACHED, "it is not a Muster master")?;
    imposter.abort();
    Ok(())
}

#[tokio::test]
async fn an_operators_link_enrolls_no_device() -> Result<()> {
    let master = Master::up().await?;
    let link = master.link(&["--role", "operator", "--name", "ada"]).await?;
    let agent = Agent::new()?;
    refused(&agent, &agent.enroll(&link).await?, REFUSED, "muster login")
}

#[tokio::test]
async fn an_enrolled_device_is_not_enrolled_again() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::enrolled(&master, &[]).await?;
    let before = agent.kept_identity()?;
    let again = agent.enroll(&master.link(&[]).await?).await?;
    ensure!(again.code == ENROLLED_ALREADY && again.stderr.contains("is enrolled already"), "{again}");
    ensure!(agent.kept_identity()? == before);
    Ok(())
}

#[tokio::test]
async fn a_link_is_read_from_stdin_and_from_a_file() -> Result<()> {
    let master = Master::up().await?;
    let (piped, filed) = (Agent::new()?, Agent::new()?);
    let link = master.link(&[]).await?;
    piped.says(&["enroll", "--no-service", "-"], &link).await?.expect(0)?;
    let file = filed.folder().join("link");
    std::fs::write(&file, master.link(&[]).await?)?;
    filed.says(&["enroll", "--no-service", "--file", &file.to_string_lossy()], "").await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn without_a_service_manager_enroll_says_how_to_go_on_before_the_link_is_used() -> Result<()> {
    let master = Master::up().await?;
    let agent = Agent::new()?;
    let link = master.link(&[]).await?;
    if !std::path::Path::new("/run/systemd/system").is_dir() {
        let answer = agent.says(&["enroll", &link], "").await?;
        ensure!(answer.code == 1 && answer.stderr.contains("--foreground"), "{answer}");
        agent.enroll(&link).await?.expect(0)?;
    }
    Ok(())
}
