//! What people see: the pages in a real browser, on the real program.

use reqwest::Method;
use serde_json::json;

use crate::support::acts::act;
use crate::support::chromium::Chromium;
use crate::support::login::{Browser, add};
use crate::support::raw::Seen;
use crate::support::{Ask, Device, Fleet, Server, heavy, size};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';

/// Quick, so that a page has something to show soon; patient with devices that wait while a browser starts.
const QUICK: [(&str, &str); 2] = [("PING_INTERVAL", "500ms"), ("PONG_TIMEOUT", "30s")];

/// Nothing that a browser complains of. What it was refused on purpose is among it too: for tests without any.
async fn is_content(browser: &Chromium) {
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_appears_and_dies_with_its_reason_before_ones_eyes() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let browser = Chromium::logged_in(&server, "ada", "/").await;
    assert_eq!(browser.path().await, "/");
    browser.says("#nodes", "node-1").await;
    browser.script("window.loadedOnce = true").await;
    let mut device = Device::connect(&server, "lamp-7").await;
    browser.says("#recent", "lamp-7").await;
    browser.says("#tile-live", "1").await;
    browser.says("#recent", "connected").await;
    device.answer_pings(2).await;
    browser.until("round trips", "return document.querySelector('#tile-rtt').textContent !== '–'").await;
    for plot in ["sessions", "ends", "rtt", "detection", "events", "lag"] {
        browser.sees(&format!("#plot-{plot} canvas")).await;
    }
    device.close(Some(1000)).await;
    browser.says("#recent", "client_closed").await;
    browser.says("#tile-live", "0").await;
    browser.says("#plot-ends .u-legend", "client_closed").await;
    assert_eq!(browser.script("return window.loadedOnce").await, json!(true), "the page was loaded again");
    is_content(&browser).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_follows_and_tells_why_a_row_goes() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let browser = Chromium::logged_in(&server, "ada", "/debug/connections?sort=device_id").await;
    browser.says("#rows", "No live session is like this").await;
    browser.script("window.loadedOnce = true").await;
    let (mut stays, mut goes) =
        (Device::connect(&server, "stays").await, Device::connect(&server, "goes").await);
    // It answers until it is closed.
    let stays = tokio::spawn(async move { stays.closed().await });
    browser.says("#rows", "goes").await;
    browser.says("#rows", "stays").await;
    browser.says("#total", "2 live").await;
    goes.close(Some(1000)).await;
    browser.says("#rows tr.gone", "client_closed").await;
    browser.says("#total", "1 live").await;
    // Why a row goes is asked of the record, for all rows at once: no session is looked at closely for it.
    let asked = "return performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname)";
    let asked = browser.script(asked).await;
    let asked: Vec<&str> = asked.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(asked.contains(&"/v1/sessions"), "{asked:?}");
    assert!(!asked.iter().any(|path| path.starts_with("/debug/connections/")), "{asked:?}");

    // Kicked from the page, after a question, by keyboard alone.
    let button = r#"[data-act=kick][data-device=stays]"#;
    browser.script(&format!("document.querySelector('{button}').focus()")).await;
    browser.key(ENTER).await;
    browser.says("#ask", "Kick stays?").await;
    browser.key(ESCAPE).await;
    browser.until("the question is gone", "return !document.querySelector('#ask').open").await;
    assert_eq!(
        browser.script("return document.activeElement.dataset.device").await,
        json!("stays"),
        "focus is lost"
    );
    assert_eq!(server.live().await, 1, "a question that was taken back");
    browser.key(ENTER).await;
    browser.sees("#ask-yes").await;
    browser.script("document.querySelector('#ask-yes').focus()").await;
    browser.key(ENTER).await;
    assert_eq!(stays.await.unwrap(), Seen::Close(Some(4011)));
    // Beside the one that went before.
    browser.says("#rows", "kicked").await;
    assert_eq!(browser.script("return window.loadedOnce").await, json!(true), "the page was loaded again");
    is_content(&browser).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sessions_are_sorted_filtered_and_paged() {
    let _turn = heavy().await;
    let server = Server::start(&[("PING_INTERVAL", "60s")]).await;
    add(&server, "zoe", "reader").await;
    let browser = Chromium::logged_in(&server, "zoe", "/debug/connections?limit=50").await;
    let count = size::shown();
    let (mut fleets, mut names) = (Vec::new(), Vec::new());
    for (n, begin) in (0..count).step_by(1_000).enumerate() {
        let (prefix, some) = (format!("d{n}"), (count - begin).min(1_000));
        fleets.push(Fleet::hold(&server, &prefix, some).await);
        names.extend((0..some).map(|n| format!("{prefix}-{n}")));
    }
    names.sort();
    let spaced =
        if count < 1000 { count.to_string() } else { format!("{}\u{202f}{:03}", count / 1000, count % 1000) };
    browser.says("#total", &format!("{spaced} live")).await;
    let first = "return document.querySelector('#rows a').textContent";
    let rows = "return document.querySelectorAll('#rows tr[data-key]').length";
    browser.click("thead th:first-child a").await;
    browser
        .until("sorted", "return document.querySelector('th').getAttribute('aria-sort') === 'ascending'")
        .await;
    assert_eq!(browser.script(first).await, json!(names[0]));
    browser.click("thead th:first-child a").await;
    browser
        .until("turned", "return document.querySelector('th').getAttribute('aria-sort') === 'descending'")
        .await;
    assert_eq!(browser.script(first).await, json!(names.last()));
    assert_eq!(browser.script(rows).await, json!(50));
    browser.click("[rel=next]").await;
    browser.until("the next page", "return location.search.includes('cursor=')").await;
    assert_ne!(browser.script(first).await, json!(names.last()));
    browser.fill("[name=device_id]", "d0-12*").await;
    browser.fill("[name=remote_addr]", "127.0.0.0/8").await;
    browser.key(ENTER).await;
    browser.until("filtered", "return location.search.includes('device_id=d0-12')").await;
    browser
        .until(
            "only those",
            "return [...document.querySelectorAll('#rows a')].every((a) => a.textContent.startsWith('d0-12'))",
        )
        .await;
    // Reading is all that a reader may.
    assert_eq!(browser.script("return document.querySelectorAll('[data-act]').length").await, json!(0));
    browser.fill("[name=remote_addr]", "192.0.2.0/24").await;
    browser.key(ENTER).await;
    browser.says("#rows", "No live session is like this").await;
    is_content(&browser).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_is_shown_with_its_heartbeats_and_kicked() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let mut device =
        Device::at(&server, "/ws?device_type=meter&meta.site=north", &crate::support::token("pump-1")).await;
    let path = format!("/debug/connections/{}", device.session_id());
    let answering = tokio::spawn(async move {
        // It answers until it is closed.
        device.closed().await
    });
    let browser = Chromium::logged_in(&server, "ada", &path).await;
    browser.sees("#plot-beats canvas").await;
    browser
        .until("answers in the table", "return document.querySelectorAll('#beat-rows tr').length > 2")
        .await;
    browser.says("#facts", "site=north").await;
    browser.says("#socket", "Round trip of the kernel").await;
    browser.says("#events", "lastpong.session.connected.v1").await;
    browser.screenshot("session").await;
    browser.click("[data-act=kick]").await;
    browser.sees("#ask-yes").await;
    browser.screenshot("kick").await;
    browser.click("#ask-yes").await;
    assert_eq!(answering.await.unwrap(), Seen::Close(Some(4011)));
    browser.says("#state", "kicked").await;
    browser.says("#events", "lastpong.session.disconnected.v1").await;
    // How it went to its end is shown for some minutes, also to who comes now; and where it came from can be banned.
    browser.go(&path).await;
    browser.sees("#plot-beats canvas").await;
    browser.says("#beats", "to its end").await;
    browser.sees("[data-act=ban-address][data-address='127.0.0.1']").await;
    browser.screenshot("session-ended").await;
    is_content(&browser).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_banned_and_a_node_drained_and_taken_back() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let mut device = Device::connect(&server, "pump-1").await;
    let path = format!("/debug/connections/{}", device.session_id());
    let held = tokio::spawn(async move { device.closed().await });
    let browser = Chromium::logged_in(&server, "ada", &path).await;
    browser.click("[data-act=ban]").await;
    browser.says("#ask", "Ban pump-1?").await;
    browser.fill("#ask input[name=ttl]", "1h").await;
    browser.fill("#ask input[name=reason]", "floods us").await;
    browser.click("#ask-yes").await;
    assert_eq!(held.await.unwrap(), Seen::Close(Some(4503)));
    browser.says("#state", "banned").await;
    let bans = server.json("/v1/bans").await;
    let ban = &bans["items"][0];
    assert_eq!((&bans["total"], &ban["device_id"]), (&json!(1), &json!("pump-1")), "{bans}");
    assert_eq!((&ban["by"], &ban["reason"]), (&json!("ada"), &json!("floods us")), "{bans}");
    assert!(ban["until"].is_string(), "{bans}");

    // Whoever has the dashboard open sees the drain that another began.
    add(&server, "zoe", "reader").await;
    let onlooker = Chromium::logged_in(&server, "zoe", "/").await;
    onlooker.says("#nodes", "node-1").await;
    let mut fleet = Fleet::hold(&server, "held", 20).await;
    browser.go("/").await;
    browser.click("[data-act=drain]").await;
    browser.sees("#ask-yes").await;
    browser.fill("#ask input[name=spread]", "2h").await;
    browser.click("#ask-yes").await;
    browser.says("#ask-refused:not([hidden])", "spread").await;
    browser.fill("#ask input[name=spread]", "2s").await;
    browser.click("#ask-yes").await;
    for browser in [&browser, &onlooker] {
        browser.says("#drain:not([hidden]) #drain-text", "node-1 is draining").await;
        browser.says("#drain-text", "20 of 20 sessions ended, 0 are left").await;
    }
    browser.screenshot("draining").await;
    assert_eq!(onlooker.script("return document.querySelectorAll('[data-act]').length").await, json!(0));
    fleet.all_ended().await;
    let audit = server.json("/v1/audit").await;
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["detail"]),
        (&json!("drain"), &json!("over 2s"))
    );
    assert!(!server.readiness().await.0, "a draining node is ready");
    browser.click("[data-act=undrain]").await;
    browser.says("#ask", "back?").await;
    browser.click("#ask-yes").await;
    for browser in [&browser, &onlooker] {
        browser.until("the drain is gone", "return document.querySelector('#drain').hidden").await;
    }
    assert!(server.readiness().await.0, "a node that was taken back is not ready");
    is_content(&onlooker).await;
    onlooker.close().await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_are_listed_made_and_lifted_and_the_audit_is_read() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let browser = Chromium::logged_in(&server, "ada", "/debug/bans").await;
    browser.says("#rows", "Nobody is banned").await;
    // One who is not here.
    browser.click("[data-act=ban-a-device]").await;
    browser.sees("#ask-yes").await;
    browser.click("#ask-yes").await;
    browser.says("#ask-refused:not([hidden])", "It has to be said who").await;
    browser.fill("#ask input[name=device_id]", "absent-1").await;
    browser.fill("#ask input[name=ttl]", "1h").await;
    browser.fill("#ask input[name=reason]", "floods us").await;
    browser.screenshot("ban-a-device").await;
    browser.click("#ask-yes").await;
    browser.says("#rows", "absent-1").await;
    browser.says("#rows", "floods us").await;
    browser.click("[data-act=ban-a-network]").await;
    browser.sees("#ask-yes").await;
    browser.fill("#ask input[name=remote_addr]", "192.0.2.0/33").await;
    browser.click("#ask-yes").await;
    browser.says("#ask-refused:not([hidden])", "192.0.2.0/33").await;
    browser.fill("#ask input[name=remote_addr]", "192.0.2.0/24").await;
    browser.click("#ask-yes").await;
    browser.says("#rows", "192.0.2.0/24").await;
    browser.says("#total", "2 that hold").await;
    let refusal = Ask::with_token(&crate::support::token("absent-1")).refused(server.addr).await;
    assert_eq!(refusal.status, 403, "{refusal:?}");
    browser.click("[data-act=lift][data-target=absent-1]").await;
    browser.says("#ask", "Lift the ban of absent-1?").await;
    browser.click("#ask-yes").await;
    browser.says("#total", "1 that hold").await;
    browser
        .until("it is gone", "return !document.querySelector('#rows').textContent.includes('absent-1')")
        .await;
    Device::connect(&server, "absent-1").await;

    browser.go("/debug/audit").await;
    browser.says("#total", "entries").await;
    let rows = "return [...document.querySelectorAll('#rows tr')].slice(0, 3)\
         .map((tr) => [1, 2, 3].map((n) => tr.cells[n].textContent).join(' '))";
    let expected = ["ada lift absent-1", "ada ban 192.0.2.0/24", "ada ban absent-1"];
    assert_eq!(browser.script(rows).await, json!(expected));
    browser.close().await;
    // A reader sees both, and no buttons.
    add(&server, "zoe", "reader").await;
    let mut reader = Browser::logged_in(&server, "zoe").await;
    for (path, says) in [("/debug/bans", "192.0.2.0/24"), ("/debug/audit", "absent-1")] {
        let page = reader.get(path).await.text().await.unwrap();
        assert!(page.contains(says) && !page.contains("data-act"), "{path}: {page}");
    }
    assert_eq!(server.json("/debug/bans?limit=1").await["items"][0]["remote_addr"], "192.0.2.0/24");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_shown_in_both_themes_and_on_a_narrow_screen() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let mut fleet = Fleet::hold(&server, "device", 40).await;
    let browser = Chromium::logged_in(&server, "ada", "/").await;
    browser.says("#tile-live", "40").await;
    Device::connect(&server, "goes").await.close(Some(1000)).await;
    browser.says("#recent", "client_closed").await;
    browser
        .until("some seconds in the charts", "return document.querySelector('#tile-rtt').textContent !== '–'")
        .await;
    let pages = [
        ("dashboard", "/"),
        ("connections", "/debug/connections"),
        ("closed", "/debug/connections?state=closed"),
        ("events", "/debug/events"),
        ("bans", "/debug/bans"),
        ("audit", "/debug/audit"),
        ("performance", "/debug/performance"),
    ];
    let ban = json!({"remote_addr": "198.51.100.0/24", "ttl": "7d", "reason": "scans all our ports, as the provider knows"});
    assert_eq!(act(&server, Method::POST, "/v1/bans", Some(&ban)).await.0, 201);
    assert_eq!(act(&server, Method::PUT, "/v1/devices/pump-1/ban", None).await.0, 200);
    let colour = "return getComputedStyle(document.body).backgroundColor";
    for (name, path) in pages {
        let mut seen = Vec::new();
        for theme in ["light", "dark"] {
            browser.prefers(theme).await;
            browser.go(path).await;
            browser.sees("main h1").await;
            if path == "/" {
                browser.says("#recent", "device-").await;
            }
            seen.push(browser.script(colour).await);
            browser.screenshot(&format!("{name}-{theme}")).await;
        }
        assert_ne!(seen[0], seen[1], "{name}: one theme");
        browser.resize(390, 844).await;
        browser.go(path).await;
        browser.sees("main h1").await;
        let over = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.script(over).await, json!(0), "{name}: wider than a narrow screen");
        browser.screenshot(&format!("{name}-narrow")).await;
        browser.resize(1280, 1000).await;
        // What a screen reader needs to tell parts from each other.
        let nameless = "return [...document.querySelectorAll('button,a,input,select,[role=region],[role=img]')]\
             .filter((e) => e.getClientRects().length && !(e.innerText || e.textContent || e.ariaLabel || e.getAttribute('aria-labelledby') || e.labels?.length || e.type === 'hidden'))\
             .map((e) => e.outerHTML)";
        assert_eq!(browser.script(nameless).await, json!([]), "{name}");
    }
    // The button goes before what the system prefers, and is remembered.
    browser.prefers("dark").await;
    browser.go("/").await;
    let dark = browser.script(colour).await;
    browser.click("#theme").await;
    browser.says("#theme", "light").await;
    assert_ne!(browser.script(colour).await, dark);
    browser.go("/debug/events").await;
    assert_ne!(browser.script(colour).await, dark);
    // The first stop of the keyboard leads past the navigation.
    browser.key(TAB).await;
    assert_eq!(browser.script("return document.activeElement.className").await, json!("skip"));
    is_content(&browser).await;
    fleet.leave().await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_said_and_found_again() {
    let mut server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let on_the_dashboard = Chromium::logged_in(&server, "ada", "/").await;
    let at_the_table = Chromium::logged_in(&server, "ada", "/debug/connections").await;
    on_the_dashboard.says("#nodes", "node-1").await;
    // An action that hangs says so, and the next question can be answered.
    on_the_dashboard.click("[data-act=drain]").await;
    on_the_dashboard.sees("#ask-yes").await;
    server.signal(rustix::process::Signal::STOP);
    on_the_dashboard.click("#ask-yes").await;
    on_the_dashboard.says("#ask-refused:not([hidden])", "did not answer in time").await;
    on_the_dashboard.until("another try", "return !document.querySelector('#ask-yes').disabled").await;
    on_the_dashboard.key(ESCAPE).await;
    for browser in [&on_the_dashboard, &at_the_table] {
        browser.says("#link:not([hidden])", "The connection to the server is lost").await;
    }
    on_the_dashboard.screenshot("lost").await;
    server.signal(rustix::process::Signal::CONT);
    for browser in [&on_the_dashboard, &at_the_table] {
        browser.until("it is found again", "return document.querySelector('#link').hidden").await;
    }
    server.kill().await;
    for browser in [&on_the_dashboard, &at_the_table] {
        browser.says("#link:not([hidden])", "The connection to the server is lost").await;
        browser.sees("#link").await;
    }
    on_the_dashboard.close().await;
    at_the_table.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_over_is_said() {
    let server = Server::start(&QUICK).await;
    add(&server, "ada", "admin").await;
    let browser = Chromium::logged_in(&server, "ada", "/debug/connections").await;
    assert_eq!(browser.status_of(Method::POST, "/logout").await, json!(204));
    browser.says("#link:not([hidden])", "Your login is over").await;
    browser.close().await;
}

#[tokio::test]
async fn every_answer_is_taken_for_what_it_says_it_is() {
    let server = Server::start(&[]).await;
    for path in ["/login", "/healthz", "/metrics", "/v1/events", "/nowhere", "/v1/bans/none", "/openapi.json"]
    {
        let answer = server.get(path).query(&[("limit", "1")]).send().await.unwrap();
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn a_page_is_made_of_this_host_alone() {
    let server = Server::start(&[]).await;
    add(&server, "ada", "admin").await;
    let mut browser = Browser::logged_in(&server, "ada").await;
    for path in
        ["/", "/debug/connections", "/debug/events", "/debug/bans", "/debug/audit", "/debug/performance"]
    {
        let page = browser.get(path).await;
        assert_eq!(page.status(), 200, "{path}");
        let csp = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            csp.starts_with("default-src 'none'; script-src 'self';") && !csp.contains("unsafe"),
            "{csp}"
        );
        let text = page.text().await.unwrap();
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains(" style="),
            "{path}"
        );
        for asset in text.split("/assets/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let answer = server.bare(Method::GET, &format!("/assets/{asset}")).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{asset}");
            let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
            let again = server.bare(Method::GET, &format!("/assets/{asset}")).header("If-None-Match", tag);
            assert_eq!(again.send().await.unwrap().status(), 304, "{asset}");
        }
    }
    // What a form left empty is not asked for; what is wrong is told.
    assert_eq!(browser.get("/debug/connections?state=&device_id=&sort=&limit=50").await.status(), 200);
    assert_eq!(browser.get("/debug/connections?state=closed&reason=kicked&sort=rtt").await.status(), 200);
    assert_eq!(browser.get("/debug/connections?remote_addr=everywhere").await.status(), 400);
    assert_eq!(server.bare(Method::GET, "/assets/nothing.js").send().await.unwrap().status(), 404);
    // A device says of itself what it likes, and it stays text.
    let token = crate::support::token("nosy");
    let device = Device::at(&server, "/ws?meta.note=%3Cscript%3Ealert(1)%3C/script%3E", &token).await;
    let page =
        browser.get(&format!("/debug/connections/{}", device.session_id())).await.text().await.unwrap();
    assert!(page.contains("&#60;script&#62;alert(1)") && !page.contains("<script>alert"), "{page}");
    // Not for whoever is not logged in.
    let mut stranger = Browser::of(&server);
    assert_eq!(stranger.get("/").await.status(), 303);
    assert_eq!(server.bare(Method::GET, "/debug/live").send().await.unwrap().status(), 401);
}
