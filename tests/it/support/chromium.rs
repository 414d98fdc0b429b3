//! A real browser: headless Chromium, driven by WebDriver.
//!
//! Each has a driver, a profile and a port of its own, and goes with its value. What its console says is kept by it, so that
//! a test can hold that nothing went wrong there; its screens are written to `target/screenshots`, for whoever wants to see
//! what people do.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::login::PASSWORD;
use super::{PATIENCE, Server, within};

/// Ports that are tried.
const PORTS: usize = 20;

/// A browser with one window.
pub struct Chromium {
    client: Client,
    driver: Child,
    base: String,
}

/// A command that only this kind of browser knows.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

impl Chromium {
    /// Starts one that is at no page yet.
    pub async fn start(server: &Server) -> Self {
        let (driver, port) = tokio::task::spawn_blocking(drive).await.expect("the driver starts");
        let scheme = if server.setting("TLS_CERT").is_some() { "https" } else { "http" };
        // Root has no sandbox; a container has little shared memory; the authorities of tests are nobody's.
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en",
                "--window-size=1280,1000", "--hide-scrollbars", "--ignore-certificate-errors"],
        });
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let opening = builder.capabilities(capabilities);
        let url = format!("http://127.0.0.1:{port}");
        let client = within("the browser to start", opening.connect(&url)).await.expect("a browser");
        Self { client, driver, base: format!("{scheme}://{}", server.addr) }
    }

    /// The same, logged in as `name` and led to `path`.
    pub async fn logged_in(server: &Server, name: &str, path: &str) -> Self {
        let browser = Self::start(server).await;
        browser.go(path).await;
        browser.fill("input[name=username]", name).await;
        browser.fill("input[name=password]", PASSWORD).await;
        browser.click("main button[type=submit]").await;
        browser.sees("header.top").await;
        browser
    }

    pub async fn go(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.expect("a page");
    }

    /// Its address, without the host.
    pub async fn path(&self) -> String {
        let url = self.client.current_url().await.expect("an address");
        url.as_str().strip_prefix(&self.base).expect("of this host").to_owned()
    }

    /// Waits until something is there that is shown.
    pub async fn sees(&self, css: &str) {
        let shown =
            format!("const e = document.querySelector({css:?}); return !!e && e.getClientRects().length > 0");
        self.until(css, &shown).await;
    }

    /// Waits until a part of the page says this.
    pub async fn says(&self, css: &str, text: &str) {
        let says = format!(
            "const e = document.querySelector({css:?}); return !!e && e.textContent.includes({text:?})"
        );
        self.until(&format!("{css} says {text:?}"), &says).await;
    }

    /// Waits until a script finds it so.
    ///
    /// # Panics
    /// With what the page shows, once patience is over.
    pub async fn until(&self, what: &str, script: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.script(script).await != json!(true) {
            if Instant::now() > deadline {
                let text = self.script("return document.body.innerText").await;
                panic!(
                    "waited {PATIENCE:?} in vain: {what}; the page is {text}; console: {:?}",
                    self.console().await
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    pub async fn click(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.click().await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// Puts this into a field, in the place of what is there.
    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.client.find(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.clear().await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.send_keys(text).await.unwrap_or_else(|e| panic!("{css}: {e}"));
    }

    /// Strikes a key wherever the focus is.
    pub async fn key(&self, key: char) {
        let focused = self.client.active_element().await.expect("an element has the focus");
        focused.send_keys(&key.to_string()).await.expect("a key");
    }

    /// As people with a preference for dark or light have it.
    pub async fn prefers(&self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.own(
            "goog/cdp/execute",
            json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}),
        )
        .await;
    }

    /// As on a screen of this size, also one that is narrower than a window may be.
    pub async fn resize(&self, width: u32, height: u32) {
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let order = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": screen});
        self.own("goog/cdp/execute", order).await;
    }

    /// The errors and warnings of its console since this was last asked.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.own("se/log", json!({"type": "browser"})).await;
        let bad = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        entries
            .as_array()
            .into_iter()
            .flatten()
            .filter(bad)
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Writes what it shows to `target/screenshots/NAME.png`.
    pub async fn screenshot(&self, name: &str) {
        let picture = self.client.screenshot().await.expect("a picture");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("a file");
    }

    /// Asks this host with the browser's own cookie, as a script of its page would.
    pub async fn status_of(&self, method: Method, path: &str) -> Value {
        self.script(&format!(
            "return fetch({path:?}, {{method: {:?}}}).then((a) => a.status)",
            method.as_str()
        ))
        .await
    }

    async fn own(&self, path: &'static str, body: Value) -> Value {
        let asked: Result<Value, CmdError> = self.client.issue_cmd(Own { path, body }).await;
        asked.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Ends it. Without this its driver is killed, and the browser ends by itself.
    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Starts a driver. It listens at a port of both families; one that it chooses by itself is free of one of them, and where
/// thousands of devices hold ports that is too little.
fn drive() -> (Child, u16) {
    for _ in 0..PORTS {
        let port = free_port();
        let mut driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver, which scripts/setup installs");
        let mut said = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
        if said.any(|line| line.contains("started successfully")) {
            // It has more to say, which nobody waits for.
            std::thread::spawn(move || said.for_each(drop));
            return (driver, port);
        }
        // Somebody took the port meanwhile: it has ended.
        let _ = driver.wait();
    }
    panic!("no port is free for a driver");
}

/// One that nobody has, of either family.
fn free_port() -> u16 {
    for _ in 0..PORTS {
        let one = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = one.expect("a port").port();
        // A machine that lacks a family lacks its ports too.
        let is_taken =
            |host| TcpListener::bind((host, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse);
        if !is_taken("127.0.0.1") && !is_taken("::1") {
            return port;
        }
    }
    panic!("no port is free of both families");
}
