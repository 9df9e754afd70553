//! LinkService: operators and CMDBs bring devices and people in.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use muster_kit::status::Fault;
use muster_proto::auth::v1::link_service_server::LinkService;
use muster_proto::auth::v1::{
    CreateLinkRequest, CreateLinkResponse, GetLinkRequest, Link, ListLinksRequest, ListLinksResponse,
    RevokeLinkRequest,
};
use muster_types::Timestamp;
use tonic::{Request, Response, Status};

use super::fault;
use crate::metrics;
use crate::service::Auth;
use crate::store::Cursor;
use wire::{link_to_wire, wanted};

pub(super) mod wire;

/// Links on a page if nobody says otherwise.
const PAGE: i32 = 50;

/// Links on the largest page.
const LARGEST_PAGE: i32 = 1_000;

pub(super) struct Links {
    auth: Arc<Auth>,
}

impl Links {
    pub(super) fn new(auth: Arc<Auth>) -> Self {
        Self { auth }
    }
}

#[tonic::async_trait]
impl LinkService for Links {
    async fn create_link(
        &self,
        request: Request<CreateLinkRequest>,
    ) -> Result<Response<CreateLinkResponse>, Status> {
        let creator = fault::caller(request.extensions())?.clone();
        let wanted = wanted(request.into_inner())?;
        let created = self.auth.create_link(&creator, &wanted).await.map_err(fault::of)?;
        metrics::count_link(&created);
        Ok(Response::new(CreateLinkResponse {
            link: Some(link_to_wire(&created.link, self.auth.now())),
            url: created.secret.unwrap_or_default(),
        }))
    }

    async fn list_links(
        &self,
        request: Request<ListLinksRequest>,
    ) -> Result<Response<ListLinksResponse>, Status> {
        let ListLinksRequest { page_size, page_token } = request.into_inner();
        let size = page_size_of(page_size)?;
        let after = (!page_token.is_empty()).then(|| cursor_from_token(&page_token)).transpose()?;
        // One more than fits tells whether there is a next page.
        let mut links = self.auth.links(after.as_ref(), size + 1).await.map_err(fault::of)?;
        let more = links.len() > size as usize;
        links.truncate(size as usize);
        let last = links.last().filter(|_| more);
        let next_page_token = last.map(cursor_to_token).unwrap_or_default();
        let now = self.auth.now();
        let links = links.iter().map(|link| link_to_wire(link, now)).collect();
        Ok(Response::new(ListLinksResponse { links, next_page_token }))
    }

    async fn get_link(&self, request: Request<GetLinkRequest>) -> Result<Response<Link>, Status> {
        let link = self.auth.link(id(&request.get_ref().name)?).await.map_err(fault::of)?;
        Ok(Response::new(link_to_wire(&link, self.auth.now())))
    }

    async fn revoke_link(&self, request: Request<RevokeLinkRequest>) -> Result<Response<Link>, Status> {
        let actor = fault::caller(request.extensions())?;
        let id = id(&request.get_ref().name)?;
        let link = self.auth.revoke_link(actor, id).await.map_err(fault::of)?;
        Ok(Response::new(link_to_wire(&link, self.auth.now())))
    }
}

fn id(name: &str) -> Result<&str, Fault> {
    name.strip_prefix("links/")
        .filter(|id| !id.is_empty())
        .ok_or_else(|| fault::invalid("NAME_INVALID", "a link's name is links/{id}"))
}

pub(super) fn page_size_of(asked: i32) -> Result<u32, Fault> {
    let size = if asked == 0 { PAGE } else { asked.min(LARGEST_PAGE) };
    u32::try_from(size).map_err(|_| fault::invalid("PAGE_SIZE_INVALID", "page_size is negative"))
}

/// Opaque to clients: time and id of the page's last link.
fn cursor_to_token(link: &crate::domain::Link) -> String {
    BASE64URL_NOPAD.encode(format!("{}:{}", link.create_time.as_micros(), link.id).as_bytes())
}

fn cursor_from_token(token: &str) -> Result<Cursor, Fault> {
    let read = || {
        let text = String::from_utf8(BASE64URL_NOPAD.decode(token.as_bytes()).ok()?).ok()?;
        let (time, id) = text.split_once(':')?;
        Some(Cursor { create_time: Timestamp::from_micros(time.parse().ok()?), id: id.to_owned() })
    };
    read().ok_or_else(|| fault::invalid("PAGE_TOKEN_INVALID", "page_token is none that was given out"))
}
