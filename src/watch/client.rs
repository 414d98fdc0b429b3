//! The requests of a watch, and what their refusals mean.
//!
//! What answers may be anything: only an answer that could be lastpong's is taken for one. Redirects are not followed,
//! so that the token goes where the operator said and nowhere else.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::options::WatchOptions;
use crate::secret::Secret;

const CONNECT: Duration = Duration::from_secs(10);
/// The count of sessions is shown, and worth no longer wait.
const COUNT: Duration = Duration::from_secs(2);
/// A stream says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
const STREAM: &str = "text/event-stream";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Why there was no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{url:?} is no address: allowed is http://HOST:PORT or https://HOST ({why})")]
    BadUrl { url: String, why: String },
    #[error("{url} cannot be reached: {why}; --url says where lastpong is")]
    Unreachable { url: String, why: String },
    #[error("{url} refuses the token ({status}): {detail}")]
    Unauthorized { url: String, status: u16, detail: String },
    #[error("{detail}")]
    BadRequest { detail: String },
    #[error("lastpong cannot be watched now ({status}): {detail}")]
    NotNow { status: u16, detail: String, retry_after: Option<Duration> },
    #[error("what answers is not lastpong: {why}")]
    NotLastpong { why: String },
}

impl Refused {
    /// Whether it will not pass by itself, whatever went before.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::BadRequest { .. } | Self::BadUrl { .. })
    }

    /// Whether it will pass by itself, although nothing went before.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::NotNow { .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotNow { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
    filters: Vec<(&'static str, String)>,
}

impl Client {
    pub(super) fn new(url: &str, token: &Secret, options: &WatchOptions) -> Result<Self, Refused> {
        let bad = |why: String| Refused::BadUrl { url: url.to_owned(), why };
        let base = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !["http", "https"].contains(&base.scheme()) || !base.has_host() {
            return Err(bad("it is of another scheme".into()));
        }
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|e| bad(root_cause(&e)))?;
        let filters = options.filters().into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Ok(Self { http, base, token: token.clone(), filters })
    }

    /// The stream of events after this one; from now on where there is none.
    pub(super) async fn events(&self, after: Option<i64>) -> Result<Response, Refused> {
        let query: Vec<_> = self.filters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut request = self.get("/v1/events", &query).header(ACCEPT, STREAM);
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        self.answer(request, STREAM).await
    }

    /// A page of events, whatever the filters.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        query: &[(&str, &str)],
    ) -> Result<(Response, T), Refused> {
        let mut answer = self.answer(self.get("/v1/events", query).header(ACCEPT, JSON), JSON).await?;
        let not_lastpong = |why: String| Refused::NotLastpong { why };
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| not_lastpong(root_cause(&e)))? {
            body.extend_from_slice(&chunk);
        }
        let page =
            serde_json::from_slice(&body).map_err(|e| not_lastpong(format!("its page of events: {e}")))?;
        Ok((answer, page))
    }

    /// Sessions that the whole installation holds now, if that can be told.
    pub(super) async fn live(&self) -> Option<u64> {
        let request = self.get("/debug/connections", &[("limit", "1")]).header(ACCEPT, JSON).timeout(COUNT);
        let body = self.answer(request, JSON).await.ok()?.bytes().await.ok()?;
        serde_json::from_slice::<Value>(&body).ok()?.get("total")?.as_u64()
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        // A proxy may have put lastpong below a path of its own.
        let below = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{below}{path}"));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.get(url).bearer_auth(self.token.expose())
    }

    async fn answer(&self, request: RequestBuilder, kind: &str) -> Result<Response, Refused> {
        let url = || self.base.as_str().trim_end_matches('/').to_owned();
        let answer =
            request.send().await.map_err(|e| Refused::Unreachable { url: url(), why: root_cause(&e) })?;
        let status = answer.status();
        let is_of = |kind: &str| {
            let given = answer.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
            given.is_some_and(|given| given.split(';').next().is_some_and(|g| g.trim() == kind))
        };
        if status == StatusCode::OK && is_of(kind) {
            return Ok(answer);
        }
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let (problem, status) = (is_of(PROBLEM), status.as_u16());
        let detail = if problem { detail(answer).await } else { None };
        Err(match (status, detail) {
            // Proxies answer for one that is away.
            (502..=504 | 429, detail) => Refused::NotNow {
                status,
                detail: detail.unwrap_or_else(|| "a proxy says so".into()),
                retry_after,
            },
            (401 | 403, Some(detail)) => Refused::Unauthorized { url: url(), status, detail },
            (400, Some(detail)) => Refused::BadRequest { detail },
            (_, detail) => {
                let detail = detail.map(|d| format!(" ({d})")).unwrap_or_default();
                Refused::NotLastpong {
                    why: format!("{} has the status {status}{detail}, or is no {kind}", url()),
                }
            }
        })
    }
}

async fn detail(answer: Response) -> Option<String> {
    let body = answer.bytes().await.ok()?;
    let problem: Value = serde_json::from_slice(&body).ok()?;
    Some(problem.get("detail")?.as_str()?.chars().filter(|c| !c.is_control()).collect())
}

/// The innermost cause: what is around it names the address, which is said already.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() { format!("{cause} (nothing came in time)") } else { cause.to_string() }
}
