//! Users: known by a cookie or a token on every node, let do what their role allows, and forgotten when they should be.

mod guard;
mod users;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::login::{Browser, PASSWORD, add, bearer, location, user};
use crate::support::raw::Seen;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Cluster, Device, Server, eventually, within};

#[tokio::test]
async fn a_browser_logs_in_looks_and_logs_out() {
    let server = Server::start(&[]).await;
    // The record is the running program's, and users come and go all the same.
    add(&server, "ada", "admin").await;
    let mut browser = Browser::of(&server);
    let path = "/debug/connections?sort=-rtt&limit=5";
    let sent_off = browser.get(path).await;
    assert_eq!(sent_off.status(), 303);
    let login = location(&sent_off).to_owned();
    assert_eq!(login, "/login?next=%2Fdebug%2Fconnections%3Fsort%3D-rtt%26limit%3D5");

    let page = browser.get(&login).await;
    assert_eq!(page.status(), 200);
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-type").starts_with("text/html"));
    assert!(header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(
        (header("cache-control"), header("x-content-type-options")),
        ("no-store".into(), "nosniff".into())
    );
    let text = page.text().await.unwrap();
    assert!(text.contains(r#"value="/debug/connections?sort=-rtt&#38;limit=5""#), "{text}");
    assert!(!text.contains("<script") && text.contains(r#"autocomplete="current-password""#), "{text}");

    // From another site's link a browser sends no cookie: one click more does.
    let linked = browser.ask(Method::GET, &login).header("Sec-Fetch-Site", "cross-site");
    let text = browser.send(linked).await.text().await.unwrap();
    assert!(text.contains(r#"<a href="/debug/connections?sort=-rtt&#38;limit=5">Go on.</a>"#), "{text}");

    let wrong = browser.log_in("ada", "not her password", path).await;
    assert_eq!(wrong.status(), 401);
    let text = wrong.text().await.unwrap();
    assert!(text.contains("role=\"alert\"") && text.contains("<form"), "{text}");
    assert!(!text.contains("not her password") && browser.cookies.is_empty());

    let answer = browser.log_in("ada", PASSWORD, path).await;
    assert_eq!((answer.status().as_u16(), location(&answer)), (303, path));
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain") && !cookie.contains("Secure"), "{cookie}");
    assert_eq!(browser.get(path).await.status(), 200);
    let again = browser.get(&login).await;
    assert_eq!((again.status().as_u16(), location(&again)), (303, path), "who is logged in is sent on");

    // A login is on the record.
    server.signal(rustix::process::Signal::TERM);
    let server = server.restart().await;
    browser.moves_to(&server);
    assert!(browser.is_known().await, "a restart ended a login");

    let held = browser.cookies.clone();
    let request = browser.ask(Method::POST, "/logout");
    let answer = browser.send(request).await;
    assert_eq!((answer.status().as_u16(), location(&answer)), (303, "/login"));
    assert!(browser.cookies.is_empty() && !browser.is_known().await);
    browser.cookies = held;
    assert!(!browser.is_known().await, "the cookie outlived its logout");
    let said = server.said();
    assert!(!said.contains(PASSWORD) && !said.contains("not her password"), "a password is in the log");
    assert!(browser.cookies.values().all(|token| !said.contains(token)), "a token is in the log");
}

#[tokio::test]
async fn a_browser_is_refused_by_pages_and_a_program_by_problems() {
    let server = Server::start(&[]).await;
    add(&server, "zoe", "reader").await;
    let mut browser = Browser::logged_in(&server, "zoe").await;
    for (method, path, status, says) in [
        (Method::GET, "/nowhere", 404, "nothing is at"),
        (Method::GET, "/debug/connections?sort=<b>beauty</b>", 400, "&#60;b&#62;beauty&#60;/b&#62;"),
        (Method::PUT, "/login", 405, "GET, HEAD, POST"),
        (Method::POST, "/v1/devices/query", 403, "zoe has the role reader"),
    ] {
        let request = browser.ask(method.clone(), path);
        let answer = browser.send(request).await;
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"), "{path}");
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        let text = answer.text().await.unwrap();
        assert!(text.contains(says), "{path}: {text}");
        let own = format!("http://{}", server.addr);
        let program =
            server.bare(method, path).header("Cookie", browser.cookie_header()).header("Origin", own);
        let answer = program.send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    // What would change something is not done over after a login: it is told, not sent there.
    browser.cookies.clear();
    let request = browser.ask(Method::POST, "/v1/devices/query");
    assert_eq!(browser.send(request).await.status(), 401);
}

#[tokio::test]
async fn a_login_leads_to_no_other_host() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    for next in
        ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "/login", ""]
    {
        let mut browser = Browser::of(&server);
        let answer = browser.log_in("ada", PASSWORD, next).await;
        assert_eq!((answer.status().as_u16(), location(&answer)), (303, "/"), "{next:?}");
        let query = serde_urlencoded::to_string([("next", next)]).unwrap();
        let again = browser.get(&format!("/login?{query}")).await;
        assert_eq!((again.status().as_u16(), location(&again)), (303, "/"), "{next:?}");
    }
}

#[tokio::test]
async fn a_reader_looks_and_does_not_act() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    add(&server, "zoe", "reader").await;
    let mut device = Device::connect(&server, "held").await;
    let kick = format!("/v1/sessions/{}", device.session_id());
    let (admin, reader) = (bearer(&server, "ada").await, bearer(&server, "zoe").await);
    for path in ["/debug/connections", "/v1/devices/held", "/metrics", "/debug/events"] {
        for token in [&admin, &reader] {
            let answer = server.bare(Method::GET, path).bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
        }
    }
    let query = |token: &str| {
        let body = json!({"device_ids": ["held"]});
        server.bare(Method::POST, "/v1/devices/query").bearer_auth(token).json(&body).send()
    };
    assert_eq!(query(&reader).await.unwrap().status(), 403);
    assert_eq!(query(&admin).await.unwrap().status(), 200);

    let answer = server.bare(Method::DELETE, &kick).bearer_auth(&reader).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "zoe has the role reader, this needs admin", "{problem}");
    let mut browser = Browser::logged_in(&server, "zoe").await;
    assert!(browser.is_known().await);
    let request = browser.ask(Method::DELETE, &kick);
    let refused = browser.send(request).await;
    assert_eq!(refused.status(), 403);
    assert!(
        refused.headers()["content-type"].to_str().unwrap().starts_with("text/html"),
        "a browser gets a page"
    );

    // The token of a cookie is no bearer's, nor the other way round.
    let cookie = browser.cookies.values().next().unwrap().clone();
    let answer = server.bare(Method::GET, "/metrics").bearer_auth(cookie).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    browser.cookies.values_mut().for_each(|value| value.clone_from(&admin));
    assert!(!browser.is_known().await);

    let answer = server.bare(Method::DELETE, &kick).bearer_auth(&admin).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(device.closed().await, Seen::Close(Some(4011)));
}

#[tokio::test]
async fn programs_log_in_with_json_and_are_told_what_is_wrong() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let good = json!({"username": "ada", "password": PASSWORD});
    let answer = server.bare(Method::POST, "/login").json(&good).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("HttpOnly"));
    let told: Value = answer.json().await.unwrap();
    assert_eq!((&told["username"], &told["role"]), (&json!("ada"), &json!("admin")), "{told}");
    assert!(told["expires_at"].is_string());

    let json = "application/json";
    for path in ["/login", "/auth/login"] {
        for (kind, body, status) in [
            (json, r#"{"username":"ada","password":"hunter2 and more"}"#, 401),
            (json, r#"{"username":"nobody","password":"hunter2 and more"}"#, 401),
            (json, r#"{"username":"no name","password":"hunter2 and more"}"#, 401),
            (json, r#"{"username":"ada","password":["hunter2"]}"#, 400),
            (json, r#"{"username":"ada"}"#, 400),
            (json, r#"{"username":"ada","password":"hunter2","role":"admin"}"#, 400),
            (json, "", 400),
            ("application/x-www-form-urlencoded", "username=ada&passwort=hunter2", 400),
            ("text/plain", "hunter2", 415),
            (json, &format!(r#"{{"username":"ada","password":"{}"}}"#, "hunter2".repeat(2_000)), 413),
        ] {
            let request = server.bare(Method::POST, path).header("Content-Type", kind).body(body.to_owned());
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} {body:.60}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            assert!(!answer.headers().contains_key("set-cookie"));
            assert!(!answer.text().await.unwrap().contains("hunter2"), "what was given is shown");
        }
    }
    for (method, path, allow) in [
        (Method::PUT, "/login", "GET, HEAD, POST"),
        (Method::GET, "/logout", "POST"),
        (Method::GET, "/auth/login", "POST"),
    ] {
        let answer = server.bare(method, path).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["allow"].to_str().unwrap()),
            (405, allow),
            "{path}"
        );
    }
    assert_eq!(
        server.bare(Method::GET, "/metrics").send().await.unwrap().status(),
        401,
        "a program is sent nowhere"
    );
    assert!(!server.said().contains("hunter2"), "a password is in the log");
}

#[tokio::test]
async fn a_login_ends_with_its_password_and_with_its_user() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let (mut browser, token) = (Browser::logged_in(&server, "ada").await, bearer(&server, "ada").await);
    let opens = async |token: &str| {
        server.bare(Method::GET, "/metrics").bearer_auth(token).send().await.unwrap().status() == 200
    };
    assert!(browser.is_known().await && opens(&token).await);
    let changed = user(&server, &["passwd", "ada"], "quite another password\n").await;
    assert_eq!(changed.code, Some(0), "{}", changed.stderr);
    assert!(!browser.is_known().await && !opens(&token).await, "a login outlived its password");
    assert_eq!(browser.log_in("ada", PASSWORD, "/").await.status(), 401);
    assert_eq!(browser.log_in("ada", "quite another password", "/").await.status(), 303);
    assert!(browser.is_known().await);

    let events = browser.ask(Method::GET, "/v1/events").header("Accept", "text/event-stream");
    let events = events.timeout(std::time::Duration::from_secs(600));
    let mut stream = browser.send(events).await;
    assert_eq!(stream.status(), 200);
    assert_eq!(user(&server, &["remove", "ada"], "").await.code, Some(0));
    assert!(!browser.is_known().await, "a login outlived its user");
    within("the stream to end with its login", async { while let Ok(Some(_)) = stream.chunk().await {} })
        .await;
    add(&server, "ada", "admin").await;
    assert!(!browser.is_known().await, "a login is another's of the same name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_holds_on_every_node_and_ends_on_all() {
    let cluster = Cluster::start(2, &[]).await;
    let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
    add(one, "ada", "admin").await;
    let (mut browser, token) = (Browser::logged_in(one, "ada").await, bearer(two, "ada").await);
    let mut stays = Browser::logged_in(two, "ada").await;
    browser.moves_to(two);
    assert!(browser.is_known().await, "the other node does not know the login");
    let held = browser.cookies.clone();
    let request = browser.ask(Method::POST, "/logout");
    assert_eq!(browser.send(request).await.status(), 303);
    browser.moves_to(one);
    browser.cookies = held;
    assert!(!browser.is_known().await, "the logout holds on one node alone");
    let opens = async |server: &Server| {
        server.bare(Method::GET, "/metrics").bearer_auth(&token).send().await.unwrap().status() == 200
    };
    assert!(opens(one).await && opens(two).await);

    assert_eq!(user(two, &["passwd", "ada"], "quite another password\n").await.code, Some(0));
    for server in [one, two] {
        stays.moves_to(server);
        assert!(!stays.is_known().await && !opens(server).await, "a login outlived its password");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_who_was_in_may_look() {
    let mut cluster = Cluster::start(1, &[]).await;
    add(&cluster.nodes[0], "ada", "admin").await;
    let device = Device::connect(&cluster.nodes[0], "held").await;
    let mut browser = Browser::logged_in(&cluster.nodes[0], "ada").await;
    assert!(browser.is_known().await);
    cluster.stores.suffer(|stores| stores.postgres.kill());
    let server = &cluster.nodes[0];
    assert!(browser.is_known().await, "nobody can look now of all times");
    let kick = browser.ask(Method::DELETE, &format!("/v1/sessions/{}", device.session_id()));
    assert_eq!(browser.send(kick).await.status(), 503, "what may have been ended meanwhile must not act");
    let mut another = Browser::of(server);
    let refused = another.log_in("ada", PASSWORD, "/").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let admin = server.bare(Method::GET, "/debug/connections").bearer_auth(ADMIN_TOKEN).send().await.unwrap();
    assert_eq!(admin.status(), 200, "the admin token needs no record");
    cluster.stores.suffer(|stores| stores.postgres.restart());
    eventually("logins to be taken again", async || {
        (another.log_in("ada", PASSWORD, "/").await.status() == 303).then_some(())
    })
    .await;
}
