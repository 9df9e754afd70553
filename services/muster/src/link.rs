//! `muster link`: make, list and revoke enrollment links.

use muster_proto::auth::v1::{self as auth, Link};

use crate::cli::{LinkCommand, LinkCreate, LinkRole, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::table::Table;
use crate::render::{json, words};

/// Links in one page of the listing.
const PAGE: i32 = 500;

pub async fn run(place: &Place, output: Output, command: LinkCommand) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    match command {
        LinkCommand::Create(wanted) => create(&session, output, wanted).await,
        LinkCommand::List => list(&session, output).await,
        LinkCommand::Revoke { link } => revoke(&session, output, &link).await,
    }
}

async fn create(session: &Session, output: Output, wanted: LinkCreate) -> Result<Exit, Failure> {
    let role = match wanted.role {
        LinkRole::Node => auth::Role::Node,
        LinkRole::Operator => auth::Role::Operator,
        LinkRole::Cmdb => auth::Role::Cmdb,
    };
    let request = auth::CreateLinkRequest {
        role: role.into(),
        time_to_live: Some(words::to_duration(wanted.ttl)),
        labels: wanted.labels.into_iter().map(|label| (label.key, label.value)).collect(),
        display_name: wanted.name.unwrap_or_default(),
        request_id: uuid::Uuid::now_v7().to_string(),
        ..auth::CreateLinkRequest::default()
    };
    let answer = session.links().create_link(request).await.map_err(session.failed("cannot make a link"))?;
    let auth::CreateLinkResponse { link, url } = answer.into_inner();
    let link = link.unwrap_or_default();
    match output {
        Output::Json => json::print("Link", [("link", json::link(&link)), ("url", url.into())]),
        Output::Table => {
            println!("{url}");
            let use_it = match wanted.role {
                LinkRole::Node => "muster-agent enroll LINK",
                LinkRole::Operator | LinkRole::Cmdb => "muster login LINK",
            };
            let expiry = words::until(link.expire_time);
            eprintln!("It works once, {expiry}, and is shown only now. There: {use_it}");
        }
    }
    Ok(Exit::Ok)
}

async fn list(session: &Session, output: Output) -> Result<Exit, Failure> {
    let mut links = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = auth::ListLinksRequest { page_size: PAGE, page_token };
        let page = session.links().list_links(request).await.map_err(session.failed("cannot list links"))?;
        let page = page.into_inner();
        links.extend(page.links);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match output {
        Output::Json => json::print("Links", [("links", links.iter().map(json::link).collect())]),
        Output::Table => table(&links).print(),
    }
    Ok(Exit::Ok)
}

async fn revoke(session: &Session, output: Output, link: &str) -> Result<Exit, Failure> {
    let name = if link.contains('/') { link.to_owned() } else { format!("links/{link}") };
    let request = auth::RevokeLinkRequest { name };
    let link =
        session.links().revoke_link(request).await.map_err(session.failed("cannot revoke the link"))?;
    match output {
        Output::Json => json::print("Link", [("link", json::link(&link.into_inner()))]),
        Output::Table => eprintln!("{} does not work any more", link.get_ref().name),
    }
    Ok(Exit::Ok)
}

fn table(links: &[Link]) -> Table {
    let mut table = Table::new(&["LINK", "FOR", "STATE", "EXPIRES", "ENROLLED", "LABELS", "BY"]);
    for link in links {
        table.row([
            link.name.trim_start_matches("links/").to_owned(),
            words::of_enum(link.role().as_str_name(), "ROLE_"),
            words::of_enum(link.state().as_str_name(), "LINK_STATE_"),
            words::time(link.expire_time),
            words::name_or_dash(&link.enrolled_name),
            words::labels(&link.labels),
            words::name_or_dash(&link.creator),
        ]);
    }
    table
}
