//! `muster link`: make, list and revoke enrollment links.

use data_encoding::HEXLOWER_PERMISSIVE;
use muster_proto::auth::v1::{self as auth, Link};

use crate::cli::{LinkCommand, LinkCreate, LinkRole, Output, Place};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::paint::{Colour, Paint};
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
        LinkRole::Admin => auth::Role::Admin,
        LinkRole::Operator => auth::Role::Operator,
        LinkRole::Auditor => auth::Role::Auditor,
        LinkRole::Cmdb => auth::Role::Cmdb,
    };
    let request = request(&wanted, role)?;
    let answer = session.links().create_link(request).await.map_err(session.failed("cannot make a link"))?;
    let auth::CreateLinkResponse { link, url } = answer.into_inner();
    let link = link.unwrap_or_default();
    match output {
        Output::Json => json::print("Link", [("link", json::link(&link)), ("url", url.into())]),
        Output::Table => {
            println!("{url}");
            let use_it = match wanted.role {
                _ if wanted.challenge.is_some() => "the password of SCEP or EST",
                LinkRole::Node => "muster-agent enroll LINK",
                LinkRole::Admin | LinkRole::Operator | LinkRole::Auditor | LinkRole::Cmdb => {
                    "muster login LINK"
                }
            };
            let expiry = words::until(link.expire_time);
            let often = match wanted.uses {
                1 => "once".to_owned(),
                uses => format!("{uses} times"),
            };
            eprintln!("It works {often}, {expiry}, and is shown only now. There: {use_it}");
        }
    }
    Ok(Exit::Ok)
}

fn request(wanted: &LinkCreate, role: auth::Role) -> Result<auth::CreateLinkRequest, Failure> {
    let key_hash = match &wanted.key {
        Some(text) => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|error| {
            Failure::usage("--key is no SHA-256 in hexadecimal", error)
                .next("openssl pkey -pubin -in key.pem -outform DER | sha256sum")
        })?,
        None => Vec::new(),
    };
    let protocol = match wanted.challenge {
        Some(_) => auth::LinkProtocol::Challenge,
        None => auth::LinkProtocol::Unspecified,
    };
    Ok(auth::CreateLinkRequest {
        role: role.into(),
        time_to_live: Some(words::to_duration(wanted.ttl)),
        labels: wanted.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        display_name: wanted.challenge.clone().or_else(|| wanted.name.clone()).unwrap_or_default(),
        request_id: uuid::Uuid::now_v7().to_string(),
        validate_only: false,
        use_limit: wanted.uses,
        binding: Some(auth::LinkBinding {
            host_name: wanted.host.clone().unwrap_or_default(),
            hardware_serial: wanted.serial.clone().unwrap_or_default(),
            key_hash: key_hash.into(),
        }),
        needs_approval: wanted.approve,
        protocol: protocol.into(),
    })
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
    let mut table = Table::new(&["LINK", "FOR", "STATE", "USES", "EXPIRES", "ENROLLED", "LABELS", "BY"]);
    for link in links {
        table.row([
            link.name.trim_start_matches("links/").to_owned(),
            words::of_enum(link.role().as_str_name(), "ROLE_"),
            state(link),
            format!("{}/{}", link.use_count, link.use_limit.max(1)),
            words::time(link.expire_time),
            words::name_or_dash(&link.enrolled_name),
            words::labels(&link.labels),
            words::name_or_dash(&link.creator),
        ]);
    }
    table
}

/// A link that was presented again after its use stands out: somebody else has it too.
fn state(link: &Link) -> String {
    let state = words::of_enum(link.state().as_str_name(), "LINK_STATE_");
    if link.contest_count == 0 {
        return state;
    }
    Paint::stdout().paint(Colour::Yellow, &format!("{state}, CONTESTED by {}", link.contest_source))
}
