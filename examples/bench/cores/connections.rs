//! The row `connections`: `GET /debug/connections` over 100,000 sessions on two workers, by the real routes.
//!
//! - `spaced` requests come when the last snapshot is not fresh any more, so that each waits for a new one.
//! - `back_to_back` requests share snapshots as far as those are fresh: what is left is choosing a page and writing it.
//!
//! Beside it stands by how much deadlines were acted on late while nobody looked, and while someone always did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, web};
use lastpong::cluster::peers::Peers;
use lastpong::feed::Feed;
use lastpong::http::acts::Acts;
use lastpong::http::auth::Auth;
use lastpong::http::dashboard::{self, Pulse};
use lastpong::http::health::Readiness;
use lastpong::http::{self, Doors};
use lastpong::log_filter::LogFilter;
use lastpong::login::Logins;
use lastpong::peer::Proxies;
use lastpong::secret::Secret;
use lastpong::store::Store;
use lastpong::store::audit::Book;
use lastpong::token::DeviceTokens;
use serde_json::{Map, Value, json};

use super::children::Late;
use super::lap::quantile_ms;
use super::node::Node;
use super::{Report, Size, members};

const WORKERS: usize = 2;
const TOKEN: &str = "the-admin-token";
/// How often each query is asked in a round.
const SPACED: usize = 2;
const BACK_TO_BACK: usize = 20;
/// A little longer than a snapshot counts as fresh.
const STALE: Duration = Duration::from_millis(120);
/// How long deadlines are looked at while nobody else looks.
const QUIET: Duration = Duration::from_secs(5);

const SORTS: [&str; 10] = [
    "connected_at",
    "last_pong",
    "rtt",
    "idle",
    "missed",
    "device_id",
    "device_type",
    "state",
    "node",
    "remote_addr",
];
const FILTERS: [&str; 6] = [
    "state=live&sort=-rtt",
    "state=suspect",
    "device_id=device-00001*&sort=device_id",
    "remote_addr=10.0.7.0/24&sort=-last_pong",
    "min_rtt_ms=10&sort=-rtt",
    "idle_gt=10s&sort=-idle",
];

fn queries() -> Vec<String> {
    let sorts = SORTS.iter().flat_map(|sort| [format!("sort={sort}"), format!("sort=-{sort}")]);
    sorts.chain(FILTERS.map(str::to_owned)).map(|query| format!("{query}&limit=100")).collect()
}

pub async fn run(size: Size, report: &mut Report<'_>) -> anyhow::Result<()> {
    report.progress(&format!("connections: {} sessions on {WORKERS} workers", size.listed));
    let node = Node::start(WORKERS, size.listed / WORKERS).await?;
    let home = tempfile::tempdir()?;
    let path = home.path().join("lastpong.db");
    let store = web::block(move || Store::open_sqlite(&path)).await??;
    let doors = web::Data::new(doors(&node, store));
    let app = init_service(App::new().app_data(doors).configure(http::routes)).await;
    for round in 1..=size.rounds {
        late(&node).await?;
        tokio::time::sleep(QUIET).await;
        let quiet = late(&node).await?;
        let spaced = ask(&app, SPACED, STALE).await?;
        let back_to_back = ask(&app, BACK_TO_BACK, Duration::ZERO).await?;
        let looking = late(&node).await?;
        let mut figures = told(spaced, back_to_back);
        for (name, late) in [("quiet", &quiet), ("looking", &looking)] {
            figures.insert(format!("late_p99_ms_{name}"), json!(late.quantile_ms(0.99)));
            figures.insert(format!("late_longest_ms_{name}"), json!(late.quantile_ms(1.0)));
        }
        report.line("connections", round, size.listed, figures)?;
    }
    Ok(())
}

fn doors(node: &Node, store: Store) -> Doors {
    let feed = Feed::new(store.clone(), 0, node.metrics.clone());
    let pulse = Pulse::new(dashboard::Parts {
        node_id: node.run.borrow().node_id.clone(),
        metrics: node.metrics.clone(),
        feed: feed.clone(),
        peers: Peers::none(),
        redis: false,
        drain: node.drain.clone(),
    });
    Doors {
        node_id: node.run.borrow().node_id.clone(),
        run: node.run.clone(),
        ends: node.ends.clone(),
        feed,
        pulse,
        auth: Auth::new(
            Secret::from(TOKEN.to_owned()),
            Logins::new(store.clone(), node.metrics.clone()),
            Proxies::default(),
            node.admission.clone(),
        ),
        inspector: node.inspector.clone(),
        peers: Peers::none(),
        readiness: Readiness::new(node.admission.clone(), Vec::new()),
        metrics: node.metrics.clone(),
        metrics_public: false,
        acts: Acts {
            book: Book::new(store.clone(), None),
            bans: node.admission.bans().clone(),
            revoked: node.admission.revoked().clone(),
            tokens: DeviceTokens::new(&Secret::new("a-secret-of-the-bench-0123456789abcdef")),
            drain: node.drain.clone(),
            drain_spread: Duration::ZERO,
            log_filter: Arc::new(LogFilter::new("info").expect("a filter")),
        },
        store,
    }
}

async fn late(node: &Node) -> anyhow::Result<Late> {
    let mut all = Late::default();
    for worker in &node.workers {
        all.merge(&worker.late().await?);
    }
    Ok(all)
}

/// Each query so many times, one after the other, and how long it took.
async fn ask<S, B>(app: &S, times: usize, pause: Duration) -> anyhow::Result<BTreeMap<String, Vec<Duration>>>
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: actix_web::body::MessageBody,
{
    let mut took: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for query in std::iter::repeat_n(queries(), times).flatten() {
        tokio::time::sleep(pause).await;
        let uri = format!("/debug/connections?{query}");
        let request =
            TestRequest::get().uri(&uri).insert_header(("Authorization", format!("Bearer {TOKEN}")));
        let asked = Instant::now();
        let answer =
            app.call(request.to_request()).await.map_err(|error| anyhow::anyhow!("{uri}: {error}"))?;
        took.entry(query).or_default().push(asked.elapsed());
        anyhow::ensure!(answer.status() == StatusCode::OK, "{uri}: answered {}", answer.status());
    }
    Ok(took)
}

fn told(
    spaced: BTreeMap<String, Vec<Duration>>,
    back_to_back: BTreeMap<String, Vec<Duration>>,
) -> Map<String, Value> {
    let both = |times: &[Duration]| (quantile_ms(times, 0.5), quantile_ms(times, 0.99));
    let all =
        |of: &BTreeMap<String, Vec<Duration>>| both(&of.values().flatten().copied().collect::<Vec<_>>());
    let (spaced_all, back_to_back_all) = (all(&spaced), all(&back_to_back));
    let by_query: Map<String, Value> = back_to_back
        .into_iter()
        .map(|(query, took)| {
            let (p50, p99) = both(&took);
            (query, json!({"p50_ms": p50, "p99_ms": p99}))
        })
        .collect();
    members(json!({
        "p50_ms": spaced_all.0,
        "p99_ms": spaced_all.1,
        "back_to_back_p50_ms": back_to_back_all.0,
        "back_to_back_p99_ms": back_to_back_all.1,
        "back_to_back": by_query,
    }))
}
