//! `lastpong watch`, as an operator has it: piped, in a terminal, over lost connections, and refused.

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::proxy::{Proxy, Weather};
use crate::support::python::Script;
use crate::support::server::ADMIN_TOKEN;
use crate::support::watch::Watch;
use crate::support::{Device, Server, eventually};

const TERMINAL: &str = include_str!("python/watch_terminal.py");

/// A device that comes and says goodbye; its two events are on the record.
async fn visit(server: &Server, device_id: &str) {
    Device::connect(server, device_id).await.close(Some(1000)).await;
    eventually("its end on the record", async || {
        let list = server.json(&format!("/debug/connections?state=closed&device_id={device_id}")).await;
        (list["total"] != 0).then_some(())
    })
    .await;
}

/// Returns once someone reads the server's events.
async fn is_watched(server: &Server) {
    eventually("a reader of the events", async || {
        let facts = server.json("/debug/events?limit=1").await;
        (facts["feed"]["subscribers"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_piped_is_plain_lines_from_now_on() {
    let server = Server::start(&[]).await;
    visit(&server, "earlier").await;
    let mut watch = Watch::start(&server.url("/"), &[]);
    assert_eq!(watch.note().await, "watch: connected, events after 2 follow");
    visit(&server, "d1").await;
    let (came, went) = (watch.line().await, watch.line().await);
    let words: Vec<&str> = came.split(' ').collect();
    assert_eq!(words[1..4], ["3", "session.connected", "d1"], "{came}");
    assert!(words[0].ends_with('Z'), "{came}");
    assert!(went.contains(" 4 session.disconnected d1 reason=client_closed "), "{went}");
    assert!(went.contains(" initiator=device detected_by=close_frame close_code=1000 "), "{went}");
    watch.signal(Signal::INT);
    let ended = watch.ended().await;
    assert_eq!((ended.code, ended.lines.len(), ended.stderr.as_str()), (Some(0), 0, ""));
    assert!(!(came + &went).contains('\u{1b}'), "no colours in a pipe");
}

#[tokio::test]
async fn a_lost_connection_loses_and_repeats_nothing() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::to_port(server.addr.port()).await;
    let mut watch = Watch::start(&format!("http://{}", proxy.addr), &["--json"]);
    watch.connected().await;
    // Lost before the first event: where it began is what it goes on from.
    proxy.turns(Weather::Cut);
    visit(&server, "d1").await;
    proxy.turns(Weather::Fair);
    let mut seqs: Vec<Value> = Vec::new();
    for _ in 0..2 {
        seqs.push(watch.json().await["data"]["seq"].clone());
    }
    proxy.turns(Weather::Cut);
    assert!(watch.note().await.contains("again in"));
    visit(&server, "d2").await;
    visit(&server, "d3").await;
    proxy.turns(Weather::Fair);
    for _ in 0..4 {
        seqs.push(watch.json().await["data"]["seq"].clone());
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    watch.signal(Signal::TERM);
    let ended = watch.ended().await;
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 0));
}

#[tokio::test]
async fn a_restart_of_the_server_is_waited_out() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let mut server = Server::start(&[("BIND", &port.to_string())]).await;
    let mut watch = Watch::start(&server.url(""), &["--json"]);
    watch.connected().await;
    visit(&server, "d1").await;
    assert_eq!(watch.json().await["data"]["seq"], 1);
    assert_eq!(watch.json().await["data"]["seq"], 2);
    server.kill().await;
    let server = server.restart().await;
    visit(&server, "d2").await;
    assert_eq!(watch.json().await["subject"], "d2");
}

#[tokio::test]
async fn json_is_the_events_as_they_are_filtered_and_since_when() {
    let server = Server::start(&[]).await;
    visit(&server, "truck-1").await;
    visit(&server, "car-1").await;
    let stored = server.json("/v1/events?after=0").await["events"].as_array().expect("events").clone();
    for (arguments, wanted) in [
        (&["--since", "0"][..], &[0, 1, 2, 3][..]),
        (&["--since", "1h"], &[0, 1, 2, 3]),
        (&["--since", "2"], &[2, 3]),
        (&["--since", "0", "--device-id", "truck-*"], &[0, 1]),
        (&["--since", "0", "--types", "*.disconnected.v1,lastpong.session.d*"], &[]),
        (&["--since", "0", "--types", "lastpong.session.disc*"], &[1, 3]),
        (&["--since", "0", "--reason", "client_closed", "--device-type", "device"], &[1, 3]),
    ] {
        let mut watch = Watch::start(&server.url(""), &[arguments, &["--json"]].concat());
        if wanted.is_empty() {
            let ended = watch.ended().await;
            assert_eq!((ended.code, ended.lines.len()), (Some(2), 0), "{}", ended.stderr);
            assert!(ended.stderr.contains("types"), "{}", ended.stderr);
            continue;
        }
        for n in wanted {
            assert_eq!(watch.json().await, stored[*n], "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn it_ends_when_it_was_to() {
    let server = Server::start(&[]).await;
    visit(&server, "d1").await;
    let ended = Watch::start(&server.url(""), &["--since", "0", "--for", "2s"]).ended().await;
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 2), "{}", ended.stderr);
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let server = Server::start(&[]).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let page = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let other = format!("http://{}", page.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = page.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
                .await;
        }
    });
    let (here, nowhere) = (server.url("/"), format!("http://{free}"));
    let wrong = "a-token-that-opens-nothing-0123456789";
    for (url, token, arguments, code, told) in [
        (&nowhere, ADMIN_TOKEN, &[][..], 1, "cannot be reached"),
        (&here, wrong, &[], 1, "refuses the token (401)"),
        (&here, wrong, &["--since", "1h"], 1, "refuses the token (401)"),
        (&other, ADMIN_TOKEN, &[], 1, "is not lastpong"),
        (&other, ADMIN_TOKEN, &["--since", "1h"], 1, "is not lastpong"),
        (&here, ADMIN_TOKEN, &["--reason", "bored"], 2, "reason is \"bored\""),
        (&here, ADMIN_TOKEN, &["--since", "9000"], 2, "9000"),
        (&here, ADMIN_TOKEN, &["--since", "yesterday"], 2, "--since"),
        (&"ftp://x".to_owned(), ADMIN_TOKEN, &[], 2, "http://HOST:PORT"),
    ] {
        let ended = Watch::with_token(url, token, arguments).ended().await;
        assert_eq!((ended.code, ended.lines.len()), (Some(code), 0), "{url} {arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{url} {arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains(token), "the token is not shown: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_token_that_is_nowhere_is_asked_for_and_not_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = crate::support::server::lastpong();
    command.current_dir(dir.path()).arg("watch");
    let ended = crate::support::server::run_to_end(command);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("LASTPONG_ADMIN_TOKEN"), "{}", ended.stderr);
    assert!(!dir.path().join("lastpong-data").exists(), "nothing was made");
}

#[tokio::test]
async fn a_terminal_has_colours_and_a_line_of_totals_within_its_width() {
    const COLUMNS: usize = 40;
    let server = Server::start(&[]).await;
    let program = crate::support::server::lastpong();
    let program = program.get_program().to_str().expect("text").to_owned();
    let (url, columns) = (server.url(""), COLUMNS.to_string());
    let arguments = [ADMIN_TOKEN, &columns, &program, "watch", "--url", &url];
    let mut terminal = Script::start("pty", TERMINAL, &arguments).await;
    is_watched(&server).await;
    visit(&server, "d1").await;
    // It is interrupted, as by Ctrl-C, once it has shown the end and how many there were.
    let ended = terminal.next("ended").await;
    assert_eq!(ended["code"], 0, "{ended}");
    let seen = ended["seen"].as_str().expect("text");
    let yellow_or_cyan = "\u{1b}[36msession.disconnected\u{1b}[0m d1 \u{1b}[36mreason=client_closed";
    assert!(seen.contains(yellow_or_cyan), "{seen:?}");
    assert!(seen.ends_with("\r\n"), "{seen:?}");
    // The last is followed by what the terminal shows of Ctrl-C.
    let drawn = seen.trim_end_matches("\r\n").trim_end_matches("^C");
    let bottoms = drawn.split("\r\u{1b}[2K").map(|part| part.split("\r\n").last().unwrap_or_default());
    let bottoms: Vec<String> = bottoms.map(plain).filter(|b| !b.is_empty()).collect();
    assert!(bottoms.iter().any(|b| b.contains(" events  ") && b.contains("1 ends")), "{bottoms:?}");
    assert!(bottoms.iter().all(|b| b.len() < COLUMNS), "{bottoms:?}");
}

/// Without the escapes of colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
}
