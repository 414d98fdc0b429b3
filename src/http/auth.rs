//! Who may do what: the admin token of the settings, and the logins of users.
//!
//! - A program shows a token as `Authorization: Bearer`, a browser its cookie; where there is a header, the cookie
//!   counts for nothing.
//! - A handler that takes a [`Reader`] may be reached by anyone who is known, one that takes an [`Admin`] by admins
//!   alone. Whatever it takes, a reader gets nowhere but by GET and HEAD.
//! - A cookie opens what changes something, and sockets, to pages of this host only.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::RequestHead;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::LocalBoxFuture;

use super::browser::same_origin;
use super::{Doors, cookie};
use crate::ids::UserName;
use crate::login::Logins;
use crate::peer::Proxies;
use crate::problem::Problem;
use crate::role::Role;
use crate::secret::Secret;
use crate::store::users::LoginKind;
use crate::supervisor::admission::Admission;
use crate::time::Mono;

/// How often a stream's login is looked at: so long it may outlive it.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What is known of those who ask. One for the whole node.
pub struct Auth {
    token: Secret,
    pub logins: Logins,
    pub proxies: Proxies,
    admission: Arc<Admission>,
    /// This node speaks TLS itself.
    tls: bool,
}

/// Someone who is known.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Nobody in particular, where he holds the admin token of the settings.
    pub user: Option<UserName>,
    pub role: Role,
    proof: Option<Proof>,
}

#[derive(Debug, Clone)]
struct Proof {
    token: Secret,
    kind: LoginKind,
}

impl Auth {
    /// An empty token opens nothing.
    pub fn new(token: Secret, logins: Logins, proxies: Proxies, admission: Arc<Admission>) -> Self {
        Self { token, logins, proxies, admission, tls: false }
    }

    /// The same on a node that speaks TLS itself, or does not.
    pub fn over_tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Whether who sends this speaks TLS, to this node or to a proxy that says so.
    pub(super) fn is_over_tls(&self, head: &RequestHead) -> bool {
        self.tls || self.proxies.peer(head).is_some_and(|peer| peer.tls)
    }

    /// Who asks, if his role is enough.
    ///
    /// # Errors
    /// The 401 or 403 to answer with, or 503 where the record of logins cannot be asked.
    pub async fn allow(&self, head: &RequestHead, needed: Role) -> Result<Caller, Problem> {
        let acts = changes(head);
        let caller = self.identify(head, acts || needed == Role::Admin).await?;
        if caller.role >= if acts { Role::Admin } else { needed } {
            return Ok(caller);
        }
        let detail = format!("{caller} has the role {}, this needs {}", caller.role, Role::Admin);
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }

    async fn identify(&self, head: &RequestHead, acts: bool) -> Result<Caller, Problem> {
        if let Some(value) = head.headers().get(header::AUTHORIZATION) {
            return self.bearer(head, value.to_str().unwrap_or_default(), acts).await;
        }
        let Some(token) = cookie::read(head.headers()) else {
            return Err(Problem::unauthorized("this needs `Authorization: Bearer` with a token, or a login"));
        };
        if changes(head) || head.headers().contains_key(header::UPGRADE) {
            same_origin(head)?;
        }
        self.not_held_off(head)?;
        // Not held against anyone: logins run out while their pages are open.
        let over = || Problem::unauthorized("the login is over");
        self.user(Proof { token, kind: LoginKind::Cookie }, acts).await?.ok_or_else(over)
    }

    /// Tokens that are no good are held against their address, as those of devices are.
    async fn bearer(&self, head: &RequestHead, authorization: &str, acts: bool) -> Result<Caller, Problem> {
        let given = match authorization.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Problem::unauthorized("the Authorization header is not of the scheme Bearer")),
        };
        if !self.token.expose().is_empty() && self.token.matches(given.as_bytes()) {
            return Ok(Caller { user: None, role: Role::Admin, proof: None });
        }
        let from = self.not_held_off(head)?;
        let proof = Proof { token: Secret::new(given), kind: LoginKind::Bearer };
        let wrong = || {
            if let Some(ip) = from {
                self.admission.strike(ip, Mono::now());
            }
            Problem::unauthorized("the token is neither the admin token nor that of a login")
        };
        self.user(proof, acts).await?.ok_or_else(wrong)
    }

    /// Whose address it is, where the record may be asked for it.
    fn not_held_off(&self, head: &RequestHead) -> Result<Option<IpAddr>, Problem> {
        let from = self.proxies.peer(head).map(|peer| peer.addr.ip());
        match from.and_then(|ip| self.admission.held_off(ip, Mono::now())) {
            Some(held_off) => Err(held_off.problem()),
            None => Ok(from),
        }
    }

    async fn user(&self, proof: Proof, acts: bool) -> Result<Option<Caller>, Problem> {
        let login = self.logins.recognise(&proof.token, proof.kind, acts).await?;
        Ok(login.map(|login| Caller { user: Some(login.user), role: login.role, proof: Some(proof) }))
    }
}

/// Whether the request may change something.
pub(super) fn changes(head: &RequestHead) -> bool {
    head.method != Method::GET && head.method != Method::HEAD
}

impl Caller {
    /// Returns when his login is over; never for the admin token. A stream is asked for once and goes on for hours, and
    /// this is what ends it. It also keeps a login in use whose page does nothing but listen.
    pub async fn until_over(self, doors: web::Data<Doors>) {
        let Some(proof) = self.proof else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A record that cannot be asked ends nobody's stream.
            if let Ok(None) = doors.auth.logins.recognise(&proof.token, proof.kind, false).await {
                return;
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user}"),
            None => f.write_str("the admin token"),
        }
    }
}

/// Someone who may look.
pub struct Reader(pub Caller);

/// Someone who may act.
pub struct Admin(pub Caller);

impl FromRequest for Reader {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(allowed(&request, Role::Reader).await?)) })
    }
}

impl FromRequest for Admin {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, actix_web::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(allowed(&request, Role::Admin).await?)) })
    }
}

/// Who asks, if his role is enough.
pub(super) async fn allowed(request: &HttpRequest, needed: Role) -> Result<Caller, Problem> {
    let Some(doors) = request.app_data::<web::Data<Doors>>() else {
        return Err(Problem::unauthorized("nobody is known here"));
    };
    doors.auth.allow(request.head(), needed).await
}
