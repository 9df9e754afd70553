//! `muster requests`: enrollments that wait for an operator's word.

use data_encoding::HEXLOWER;
use muster_proto::auth::v1::{self as auth, EnrollmentRequest};
use serde_json::{Value, json};

use crate::cli::{Output, Place, RequestsCommand};
use crate::context::Session;
use crate::exit::{Exit, Failure};
use crate::render::table::Table;
use crate::render::{json, words};

/// Requests shown.
const SHOWN: i32 = 500;

pub async fn run(place: &Place, output: Output, command: RequestsCommand) -> Result<Exit, Failure> {
    let session = Session::open(place).await?;
    match command {
        RequestsCommand::List => list(&session, output).await,
        RequestsCommand::Approve { request } => {
            let request = auth::ApproveEnrollmentRequestRequest { name: name(&request) };
            let decided = session.requests().approve_enrollment_request(request).await;
            decided_on(output, &decided.map_err(session.failed("cannot approve"))?.into_inner(), "approved")
        }
        RequestsCommand::Deny { request } => {
            let request = auth::DenyEnrollmentRequestRequest { name: name(&request) };
            let decided = session.requests().deny_enrollment_request(request).await;
            decided_on(output, &decided.map_err(session.failed("cannot deny"))?.into_inner(), "denied")
        }
    }
}

async fn list(session: &Session, output: Output) -> Result<Exit, Failure> {
    let request = auth::ListEnrollmentRequestsRequest { page_size: SHOWN };
    let listed = session.requests().list_enrollment_requests(request).await;
    let requests = listed.map_err(session.failed("cannot list enrollment requests"))?.into_inner().requests;
    match output {
        Output::Json => {
            let all = requests.iter().map(shown).collect::<Vec<_>>();
            json::print("EnrollmentRequests", [("requests", all.into())]);
        }
        Output::Table => {
            let mut table = Table::new(&["REQUEST", "STATE", "HOST", "SERIAL", "FROM", "KEY", "ASKED"]);
            for request in &requests {
                table.row([
                    id(request).to_owned(),
                    state(request),
                    words::or_dash(&request.host_name),
                    words::or_dash(&request.hardware_serial),
                    words::or_dash(&request.source),
                    HEXLOWER.encode(&request.key_hash)[..16.min(2 * request.key_hash.len())].to_owned(),
                    words::ago(request.create_time),
                ]);
            }
            table.print();
        }
    }
    Ok(Exit::Ok)
}

fn decided_on(output: Output, request: &EnrollmentRequest, word: &str) -> Result<Exit, Failure> {
    match output {
        Output::Json => json::print("EnrollmentRequest", [("request", shown(request))]),
        Output::Table => eprintln!("{} is {word}; the device learns it when it asks again", id(request)),
    }
    Ok(Exit::Ok)
}

fn name(request: &str) -> String {
    if request.contains('/') { request.to_owned() } else { format!("enrollmentRequests/{request}") }
}

fn id(request: &EnrollmentRequest) -> &str {
    request.name.rsplit('/').next().unwrap_or_default()
}

fn state(request: &EnrollmentRequest) -> String {
    words::of_enum(request.state().as_str_name(), "ENROLLMENT_REQUEST_STATE_")
}

fn shown(request: &EnrollmentRequest) -> Value {
    json!({
        "name": request.name,
        "state": state(request),
        "link": request.link,
        "hostName": request.host_name,
        "hardwareSerial": request.hardware_serial,
        "keyHash": HEXLOWER.encode(&request.key_hash),
        "source": request.source,
        "createTime": json::time(request.create_time),
        "decider": request.decider,
        "decideTime": json::time(request.decide_time),
    })
}
