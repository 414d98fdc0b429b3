//! `GET /`: says what this is and where to look. It shows nothing of the installation, so it is open.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_SECURITY_POLICY;

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>lastpong</title>
</head>
<body>
<h1>lastpong</h1>
<p>It knows the moment a device is gone, why, and tells everyone who needs to know.</p>
<p>Devices connect by WebSocket to <code>/ws</code> with a device token.</p>
<p>Open to everyone:</p>
<ul>
<li><a href="/healthz">/healthz</a>: the process is alive</li>
<li><a href="/readyz">/readyz</a>: it would admit a device</li>
</ul>
<p>After a <a href="/login">login</a>, or with <code>Authorization: Bearer</code> and a token:</p>
<ul>
<li><a href="/debug/connections">/debug/connections</a>: sessions, live or <code>?state=closed</code></li>
<li><a href="/debug/events">/debug/events</a>: recent events</li>
<li><a href="/debug/performance">/debug/performance</a>: stalls, queues, store latencies</li>
<li><a href="/v1/events">/v1/events</a>: the event log, as a stream or as pages</li>
<li><a href="/metrics">/metrics</a>: Prometheus</li>
</ul>
</body>
</html>
"#;

/// The front page
#[utoipa::path(
    get, path = "/", tag = "pages", security(()),
    responses((status = 200, body = String, content_type = "text/html")),
)]
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .insert_header(("Referrer-Policy", "no-referrer"))
        .content_type("text/html; charset=utf-8")
        .body(PAGE)
}
