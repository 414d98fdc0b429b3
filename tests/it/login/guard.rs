//! What is tried from outside: pages of other sites, guesses, and headers that anyone can write.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::login::{Browser, PASSWORD, add};
use crate::support::{Ask, Device, Server, within};

#[tokio::test]
async fn a_page_of_another_site_moves_nothing() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let device = Device::connect(&server, "held").await;
    let kick = format!("/v1/sessions/{}", device.session_id());
    let mut browser = Browser::logged_in(&server, "ada").await;
    // A browser that sent the cookie all the same.
    browser.elsewhere();
    for path in [kick.as_str(), "/logout", "/login"] {
        let method = if path == kick { Method::DELETE } else { Method::POST };
        let request = browser.ask(method, path).header("Content-Type", "application/x-www-form-urlencoded");
        assert_eq!(browser.send(request.body("")).await.status(), 403, "{path}");
    }
    let own = format!("http://{}", server.addr);
    let delete = || server.bare(Method::DELETE, &kick).header("Cookie", browser.cookie_header());
    for (headers, status) in [
        (&[][..], 403),
        (&[("Origin", "null")], 403),
        (&[("Origin", "http://127.0.0.1:1")], 403),
        (&[("Origin", own.as_str()), ("Sec-Fetch-Site", "same-site")], 403),
        (&[("Origin", own.as_str()), ("Sec-Fetch-Site", "cross-site")], 403),
        // An Authorization header that is wrong is not made good by a cookie.
        (&[("Origin", own.as_str()), ("Authorization", "Bearer wrong")], 401),
        (&[("Origin", own.as_str())], 204),
    ] {
        let request = headers.iter().fold(delete(), |request, (name, value)| request.header(*name, *value));
        assert_eq!(request.send().await.unwrap().status(), status, "{headers:?}");
    }

    // A socket is no form, but a page of another site could open one too.
    let ask = Ask::bare().target("/v1/events/ws").header("Cookie", &browser.cookie_header());
    let host = server.addr.to_string();
    for origin in ["http://evil.example", "null"] {
        let refused = ask.clone().header("Host", &host).header("Origin", origin).refused(server.addr).await;
        assert_eq!(refused.status, 403, "{origin}: {refused:?}");
    }
    assert_eq!(ask.clone().refused(server.addr).await.status, 403);
    ask.header("Host", &host).header("Origin", &own).admitted(server.addr).await;
}

#[tokio::test]
async fn guessing_is_held_up() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let mut known = Browser::logged_in(&server, "ada").await;
    let attempt = |name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        server.bare(Method::POST, "/auth/login").json(&body).send()
    };
    let mut wrong = 0;
    let refused = loop {
        let answer = attempt("ada", "a wrong password").await.unwrap();
        match answer.status().as_u16() {
            401 => wrong += 1,
            429 => break answer,
            other => panic!("status {other}"),
        }
        assert!(wrong < 100, "nobody is held up");
    };
    assert!(wrong >= 5, "{wrong} attempts are too few for a person");
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(
        attempt("ada", PASSWORD).await.unwrap().status(),
        429,
        "a right guess is held up as a wrong one"
    );
    assert_ne!(attempt("zoe", "a wrong password").await.unwrap().status(), 429, "another name pays for it");
    let mut page = Browser::of(&server);
    let answer = page.log_in("ada", PASSWORD, "/").await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(answer.text().await.unwrap().contains("too many attempts"), "a browser gets a page");

    // Who is in stays in, and the admin token opens as ever.
    assert!(known.is_known().await);
    assert_eq!(server.status("/metrics").await.0, 200);
    // Names without number are held up by the address they come from.
    let mut all = Vec::new();
    for n in 0..40 {
        all.push(attempt(&format!("user-{n}"), "a wrong password").await.unwrap().status().as_u16());
    }
    assert!(all.contains(&401) && all.last() == Some(&429), "{all:?}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_counts_and_what_others_say_does_not() {
    let trusting = Server::start(&[("TRUSTED_PROXIES", "127.0.0.0/8, ::1")]).await;
    let wary = Server::start(&[]).await;
    for server in [&trusting, &wary] {
        add(server, "ada", "admin").await;
    }
    let attempt = |server: &Server, name: &str, password: &str, client: &str| {
        server
            .bare(Method::POST, "/login")
            .json(&json!({"username": name, "password": password}))
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-For", format!("198.51.100.1, {client}"))
            .send()
    };
    for (server, secure) in [(&trusting, true), (&wary, false)] {
        let answer = attempt(server, "ada", PASSWORD, "192.0.2.1").await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert_eq!(cookie.contains("; Secure"), secure, "{cookie}");
        // One address has so many attempts; is it the proxy's, or its client's?
        let mut last = 0;
        for n in 0..40 {
            let name = format!("user-{n}");
            last = attempt(server, &name, "a wrong password", "192.0.2.1").await.unwrap().status().as_u16();
        }
        assert_eq!(last, 429);
        let other = attempt(server, "ada", PASSWORD, "192.0.2.2").await.unwrap();
        assert_eq!(other.status(), if secure { 200 } else { 429 });
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(&[]).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let head =
        "POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the server to give up", socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test]
async fn a_flood_of_logins_is_told_to_come_back() {
    let server = Server::start(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    add(&server, "ada", "admin").await;
    let device = Device::connect(&server, "held").await;
    // From as many addresses, so that the limit of each holds up none.
    let attempt = async |n: usize| {
        let request =
            server.bare(Method::POST, "/auth/login").header("X-Forwarded-For", format!("192.0.2.{n}"));
        let body = json!({"username": format!("user-{n}"), "password": "a wrong password"});
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status() == 503, answer.headers().contains_key("retry-after"));
        answer.status().as_u16()
    };
    let (statuses, ()) = futures_util::join!(join_all((0..200).map(attempt)), async {
        for _ in 0..20 {
            assert_eq!(server.bare(Method::GET, "/healthz").send().await.unwrap().status(), 200);
        }
    });
    let count = |status: u16| statuses.iter().filter(|s| **s == status).count();
    assert!(count(401) > 0 && count(503) > 0 && count(401) + count(503) == 200, "{statuses:?}");
    let counted = server.metric(r#"lastpong_queue_refused_total{queue="logins"}"#).await;
    assert_eq!(counted, Some(count(503) as f64), "what a queue refuses is counted");
    let session = server.json(&format!("/debug/connections/{}", device.session_id())).await.to_string();
    assert!(session.contains(r#""live""#), "the flood cost a device its session: {session}");
    // It leaves nothing behind.
    let mut browser = Browser::of(&server);
    assert_eq!(browser.log_in("ada", PASSWORD, "/").await.status(), 303);
}
