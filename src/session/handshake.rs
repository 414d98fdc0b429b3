//! Who comes in: `GET /ws` from its head to an admitted session, or to the refusal that says what was wrong.
//!
//! Checks go from the cheap to the costly and from form to right: a malformed request is told so before its
//! token is looked at, and a limit is counted only for who would otherwise come in. A refused handshake leaves
//! nothing but a count, and a log line now and then.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::RequestHead;
use actix_http::header::{self, HeaderMap};
use actix_http::ws::{HandshakeError, verify_handshake};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use bytes::BytesMut;

use crate::bans::Banned;
use crate::config::{Settings, TlsClients};
use crate::event::{Connected, Meta};
use crate::ids::{EventId, SessionId};
use crate::metrics::{Handshake, Limit, Metrics};
use crate::peer::Proxies;
use crate::problem::Problem;
use crate::rate::Rate;
use crate::store::{Start, Told};
use crate::supervisor::admission::{Admission, Pass, Refusal};
use crate::time::{Mono, Now, Timestamp};
use crate::tls::{Client, NoDevice, Stream};
use crate::token::{Claims, DeviceTokens, NotClaimed, Proof};
use crate::trace::{self, TRACEPARENT};

use super::actor::SessionActor;
use super::asked::Asked;
use super::house::House;
use super::life::Parts;
use super::once::Once;
use super::socket::Socket;

/// The subprotocol that a browser names beside its token.
pub const SUBPROTOCOL: &str = "lastpong.v1";
const TOKEN_PREFIX: &str = "token.";

const RETRY_SECONDS: u64 = 5;

/// What decides on handshakes; one for all workers.
pub struct Gate {
    pub settings: Arc<Settings>,
    pub tokens: DeviceTokens,
    /// Where each token opens one session only.
    pub once: Option<Arc<Once>>,
    pub admission: Arc<Admission>,
    pub proxies: Proxies,
    pub metrics: Arc<Metrics>,
}

/// Someone who may come in.
pub struct Admitted {
    claims: Claims,
    /// How long the session may last, in seconds since the Unix epoch.
    until: i64,
    /// Not by its certificate alone.
    by_token: bool,
    proof: Proof,
    asked: Asked,
    trace_id: Option<String>,
    remote_addr: SocketAddr,
    pass: Pass,
    /// The subprotocol was offered, and is to be selected.
    pub subprotocol: bool,
}

/// A refusal, and what it counts as.
type Refused = (Handshake, Problem);

impl Gate {
    /// Who asks, by the socket or by a proxy that is believed.
    pub fn peer(&self, head: &RequestHead) -> Option<SocketAddr> {
        self.proxies.peer(head).map(|peer| peer.addr)
    }

    /// Whether this request opens a session; `shown` is what a client certificate says of who sends it.
    ///
    /// # Errors
    /// The answer to give instead.
    pub async fn admit(
        &self,
        head: &RequestHead,
        shown: Result<Option<Client>, NoDevice>,
    ) -> Result<Admitted, Refused> {
        let no_address = || (Handshake::Malformed, Problem::bad_request("no peer address"));
        let remote_addr = self.peer(head).ok_or_else(no_address)?;
        self.admission.look(remote_addr.ip(), Mono::now()).map_err(|refusal| self.limited(refusal))?;
        let admitted = match self.consider(head, remote_addr, shown) {
            Ok(admitted) => self.claim(admitted).await,
            refused => refused,
        };
        if let Err((Handshake::Malformed | Handshake::Unauthorized | Handshake::TokenUsed, _)) = &admitted {
            self.admission.strike(remote_addr.ip(), Mono::now());
        }
        admitted
    }

    fn consider(
        &self,
        head: &RequestHead,
        remote_addr: SocketAddr,
        shown: Result<Option<Client>, NoDevice>,
    ) -> Result<Admitted, Refused> {
        let malformed = |problem| (Handshake::Malformed, problem);
        verify_handshake(head).map_err(|error| malformed(not_a_handshake(error)))?;
        let asked = Asked::parse(head.uri.query().unwrap_or("")).map_err(malformed)?;
        self.check_meta(&asked.meta)?;
        self.check_origin(head.headers())?;
        let (bans, now) = (self.admission.bans(), Timestamp::now());
        if let Some(why) = bans.refuse_address(remote_addr.ip(), now) {
            return Err(banned(why));
        }
        let (token, subprotocol) = token(head.headers())?;
        let (claims, until) = self.who(token, shown)?;
        let (revoked, device) = (self.admission.revoked(), &claims.device_id);
        let proof = revoked.proof(&claims, now);
        if revoked.refuses(device, proof, now) {
            return Err(unauthorized("the token or certificate was revoked"));
        }
        if let Some(why) = bans.refuse(device, remote_addr.ip(), now) {
            return Err(banned(why));
        }
        if let (Some(asked), Some(granted)) = (&asked.device_type, &claims.device_type)
            && asked != granted
        {
            let allowed = format!("{granted}, as the token says");
            return Err(malformed(Problem::bad_input("device_type", asked.as_str(), &allowed)));
        }
        let pass =
            self.admission.enter(remote_addr.ip(), Mono::now()).map_err(|refusal| self.limited(refusal))?;
        let trace_id = trace::trace_id(traceparent(head.headers()));
        let by_token = token.is_some();
        Ok(Admitted { claims, until, by_token, proof, asked, trace_id, remote_addr, pass, subprotocol })
    }

    /// By token, by certificate, or by both: then they say the same, and the session lasts as long as both do.
    /// Also said is when that is, in seconds since the Unix epoch.
    fn who(
        &self,
        token: Option<&str>,
        shown: Result<Option<Client>, NoDevice>,
    ) -> Result<(Claims, i64), Refused> {
        let client = shown.map_err(|error| unauthorized(error.to_string()))?;
        if client.is_none() && self.settings.tls_clients != TlsClients::Optional {
            return Err(unauthorized("a device has to show a client certificate here"));
        }
        if client.as_ref().is_some_and(|client| client.expires_at <= Timestamp::now().0 / 1_000_000) {
            return Err(unauthorized("the client certificate has expired"));
        }
        let claims = token.map(|token| self.tokens.verify(token)).transpose();
        match (claims.map_err(|error| unauthorized(error.to_string()))?, client) {
            (Some(claims), None) => {
                let until = claims.expires_at;
                Ok((claims, until))
            }
            (Some(claims), Some(client)) if claims.device_id == client.device_id => {
                let until = claims.expires_at.min(client.expires_at);
                Ok((claims, until))
            }
            (Some(_), Some(_)) => {
                Err(unauthorized("the token is of another device than the client certificate"))
            }
            (None, Some(Client { device_id, issued_at, expires_at })) => {
                let issued_at = Some(issued_at);
                Ok((Claims { device_id, device_type: None, expires_at, issued_at, jti: None }, expires_at))
            }
            (None, None) => Err(unauthorized(
                "no token: send `Authorization: Bearer TOKEN`, or offer the subprotocols `lastpong.v1, token.TOKEN`",
            )),
        }
    }

    fn limited(&self, refusal: Refusal) -> Refused {
        if let Some(limit) = refusal.limit() {
            self.metrics.limited(limit);
        }
        let outcome = match refusal {
            Refusal::Draining => Handshake::Draining,
            Refusal::Overloaded => Handshake::Overloaded,
            _ => Handshake::Limited,
        };
        (outcome, refusal.problem())
    }

    fn check_meta(&self, meta: &Meta) -> Result<(), Refused> {
        let (said, most) =
            (meta.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>(), self.settings.max_meta_bytes);
        if said <= most {
            return Ok(());
        }
        self.metrics.limited(Limit::Meta);
        let allowed = format!("at most {most} bytes, keys and values together");
        Err((Handshake::Malformed, Problem::bad_input("meta.KEY", &format!("{said} bytes"), &allowed)))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let origin = origin.to_str().unwrap_or("");
        if self.settings.origin_allowed(Some(origin), host) {
            return Ok(());
        }
        let allowed = "the page's own host, or an origin of LASTPONG_ALLOWED_ORIGINS";
        let detail = "pages of this origin may not connect";
        Err((
            Handshake::Forbidden,
            Problem::new(StatusCode::FORBIDDEN, detail).about("Origin", origin, allowed),
        ))
    }

    /// Takes the token for this session, where each opens only one. Last of all, for it cannot be given back.
    async fn claim(&self, admitted: Admitted) -> Result<Admitted, Refused> {
        let Some(once) = self.once.as_ref().filter(|_| admitted.by_token) else { return Ok(admitted) };
        let claimed = once.claim(&admitted.claims).await;
        claimed.map(|()| admitted).map_err(|error| {
            let detail = error.to_string();
            match error {
                NotClaimed::AlreadyUsed => (Handshake::TokenUsed, Problem::new(StatusCode::CONFLICT, detail)),
                NotClaimed::NoJti => unauthorized(detail),
                NotClaimed::Full | NotClaimed::Away => {
                    let later = RETRY_SECONDS + rand::random_range(0..=RETRY_SECONDS);
                    (Handshake::Overloaded, Problem::unavailable(detail, later))
                }
            }
        })
    }
}

impl Admitted {
    /// Begins the session on a socket whose handshake was answered. `read` is what came after the request.
    ///
    /// # Errors
    /// The socket is gone already.
    pub fn begin(
        self,
        house: &Rc<House>,
        stream: Stream,
        read: BytesMut,
        traced: Option<trace::Handshake>,
    ) -> std::io::Result<()> {
        let socket = Socket::new(stream, read, house.socket, house.poller.clone())?;
        let now = Now::read();
        let connected_at = now.wall;
        let left = (self.until.saturating_mul(1_000_000)).saturating_sub(connected_at.0);
        let authenticated_for = Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let run = house.run.borrow().clone();
        let data = Arc::new(Connected {
            device_id: self.claims.device_id,
            device_type: self.claims.device_type.or(self.asked.device_type).unwrap_or_default(),
            session_id: SessionId::new(),
            node_id: run.node_id,
            incarnation: run.incarnation,
            connected_at,
            remote_addr: self.remote_addr,
            meta: self.asked.meta,
            trace_id: traced.as_ref().map(trace::Handshake::trace_id).or(self.trace_id),
        });
        if let Some(traced) = traced {
            traced.admitted(data.session_id);
        }
        let start = Start {
            event_id: EventId::new(),
            data: data.clone(),
            after_seq: *house.newest.borrow(),
            told: Told::Now,
        };
        let pass = self.pass;
        SessionActor::spawn(house.clone(), start, self.proof, |actor| Parts {
            start: data,
            connected: now.mono,
            socket,
            authenticated_for,
            pass,
            actor,
        });
        Ok(())
    }
}

fn not_a_handshake(error: HandshakeError) -> Problem {
    match error {
        HandshakeError::GetMethodRequired => {
            Problem::bad_request("a WebSocket handshake is a GET").about("method", "", "GET")
        }
        HandshakeError::NoWebsocketUpgrade => Problem::bad_input("Upgrade", "", "websocket"),
        HandshakeError::NoConnectionUpgrade => Problem::bad_input("Connection", "", "Upgrade"),
        HandshakeError::NoVersionHeader | HandshakeError::UnsupportedVersion => {
            Problem::bad_input("Sec-WebSocket-Version", "", "13")
                .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
        }
        HandshakeError::BadWebsocketKey => {
            Problem::bad_input("Sec-WebSocket-Key", "", "16 bytes in base64 (RFC 6455 section 4.2.1)")
        }
    }
}

fn unauthorized(detail: impl Into<String>) -> Refused {
    (Handshake::Unauthorized, Problem::unauthorized(detail))
}

/// The operator's reason is not the device's to know.
fn banned(why: Banned) -> Refused {
    (Handshake::Banned, Problem::new(StatusCode::FORBIDDEN, why.to_string()))
}

/// The token, from the header or the subprotocols, where there is one; and whether our subprotocol was offered.
fn token(headers: &HeaderMap) -> Result<(Option<&str>, bool), Refused> {
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim));
    let (mut ours, mut from_browser) = (false, None);
    for name in offered {
        ours |= name == SUBPROTOCOL;
        from_browser = from_browser.or(name.strip_prefix(TOKEN_PREFIX));
    }
    let token =
        match headers.get(header::AUTHORIZATION) {
            Some(value) => {
                Some(value.to_str().ok().and_then(bearer).ok_or_else(|| {
                    unauthorized("the Authorization header is not of the form `Bearer TOKEN`")
                })?)
            }
            None => from_browser,
        };
    Ok((token, ours))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What it says of the trace that it is of.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACEPARENT)?.to_str().ok()
}

/// Tells the log of refusals, a line a second at most.
pub struct RefusalLog {
    state: RefCell<(Rate, u64)>,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self { state: RefCell::new((Rate::new(1), 0)) }
    }
}

impl RefusalLog {
    /// One refusal; the line says how many others there were since the last.
    pub fn tell(&self, refused: &Problem, peer: Option<SocketAddr>) {
        let (rate, untold) = &mut *self.state.borrow_mut();
        if rate.take(Mono::now()).is_err() {
            *untold += 1;
            return;
        }
        log::info!(status = refused.status.as_u16(), peer:? = peer, others = *untold; "handshake refused: {}", refused.detail);
        *untold = 0;
    }
}
