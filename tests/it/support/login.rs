//! Users, made by the command line, and the browsers and programs by which they come.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::server::{Run, Server, lastpong};
use super::{PATIENCE, within};

pub const PASSWORD: &str = "correct horse battery staple";

/// Runs `lastpong user` with these arguments on the record of `server`, whether it runs or not, with `input` as its
/// standard input.
pub async fn user(server: &Server, arguments: &[&str], input: &str) -> Run {
    let database = server.setting("DATABASE_URL").map(str::to_owned);
    let (dir, input) = (server.data_dir(), input.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let running = tokio::task::spawn_blocking(move || user_in(&dir, database.as_deref(), &arguments, &input));
    within("lastpong user to end", running).await.expect("no panic")
}

/// The same in a data directory.
pub fn user_in(dir: &Path, database: Option<&str>, arguments: &[impl AsRef<str>], input: &str) -> Run {
    let mut command: Command = lastpong();
    command.arg("user").args(arguments.iter().map(AsRef::as_ref)).env("LASTPONG_DATA_DIR", dir);
    if let Some(url) = database {
        command.env("DATABASE_URL", url);
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program can be started");
    // It may have refused its arguments and be gone.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("output");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Adds a user with [`PASSWORD`].
pub async fn add(server: &Server, name: &str, role: &str) {
    let run = user(server, &["add", name, "--role", role], &format!("{PASSWORD}\n")).await;
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
}

/// The token that `/auth/login` gives.
pub async fn bearer(server: &Server, name: &str) -> String {
    let body = json!({"username": name, "password": PASSWORD});
    let answer = server.bare(Method::POST, "/auth/login").json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.expect("JSON");
    assert_eq!(told["token_type"], "bearer", "{told}");
    assert!(told["expires_in"].as_u64().is_some_and(|s| s > 0), "{told}");
    told["access_token"].as_str().expect("a token").to_owned()
}

/// A browser with one window: it asks for pages, keeps cookies, says where it comes from, and shows each answer rather
/// than follow where it leads.
pub struct Browser {
    http: reqwest::Client,
    origin: String,
    base: String,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn of(server: &Server) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
        let http = http.build().expect("an HTTP client");
        let base = format!("http://{}", server.addr);
        Self { http, origin: base.clone(), base, cookies: BTreeMap::new() }
    }

    /// The same window on another node of the installation, as a balancer may lead it there.
    pub fn moves_to(&mut self, server: &Server) {
        self.base = format!("http://{}", server.addr);
        self.origin.clone_from(&self.base);
    }

    /// As a page of another site makes it ask.
    pub fn elsewhere(&mut self) {
        self.origin = "http://evil.example".into();
    }

    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base)).timeout(PATIENCE);
        request = request.header("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        if method != Method::GET {
            request = request.header("Origin", &self.origin);
        }
        if !self.cookies.is_empty() {
            let all: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("Cookie", all.join("; "));
        }
        request
    }

    pub async fn send(&mut self, request: RequestBuilder) -> Response {
        let answer = request.send().await.expect("an answer");
        for set in answer.headers().get_all("set-cookie") {
            let set = set.to_str().expect("text");
            let (pair, attributes) = set.split_once(';').expect("attributes");
            let (name, value) = pair.split_once('=').expect("a name and a value");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Response {
        let request = self.ask(Method::GET, path);
        self.send(request).await
    }

    /// Sends the form of the login page.
    pub async fn log_in(&mut self, name: &str, password: &str, next: &str) -> Response {
        let form = serde_urlencoded::to_string([("username", name), ("password", password), ("next", next)]);
        let request = self
            .ask(Method::POST, "/login")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.expect("a form"));
        self.send(request).await
    }

    /// A user's browser, after his login.
    pub async fn logged_in(server: &Server, name: &str) -> Self {
        let mut browser = Self::of(server);
        let answer = browser.log_in(name, PASSWORD, "/").await;
        assert_eq!((answer.status().as_u16(), location(&answer)), (303, "/"));
        browser
    }

    /// Whether it is shown what only users are.
    pub async fn is_known(&mut self) -> bool {
        match self.get("/debug/performance").await.status().as_u16() {
            200 => true,
            303 => false,
            other => panic!("status {other}"),
        }
    }

    /// The cookies as a header, for a client of another kind.
    pub fn cookie_header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

pub fn location(answer: &Response) -> &str {
    answer.headers().get("location").map_or("", |value| value.to_str().expect("text"))
}
