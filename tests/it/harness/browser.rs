//! A real Chromium, headless, driven through chromedriver.
//!
//! Walk: `Browser::start` runs chromedriver, which runs Chromium; `open` opens a tab each; a [`Tab`] is used as a
//! person would: by the labels of fields and the names of buttons, and by waiting for what is to be seen.
//!
//! Invariants: every wait has a deadline, and its failure shows the page's own words; one browser at a time, since each
//! takes all cores while it starts; the process group dies with the `Browser`, whichever way the test ends.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

const CHROMIUM: &str = "/usr/bin/chromium";

/// Nothing that a loaded machine with two cores does takes longer.
const DEADLINE: Duration = Duration::from_mins(1);

static TURN: Semaphore = Semaphore::const_new(1);

pub(crate) struct Browser {
    client: Client,
    driver: Driver,
    /// Fields drop in this order: the profile goes when no process writes to it any more, the turn last.
    _profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// One window of the browser; each has its own `sessionStorage`.
pub(crate) struct Tab {
    client: Client,
    window: WindowHandle,
}

/// chromedriver and all that it started, as one process group.
struct Driver {
    group: u32,
    child: Child,
    /// Held open: chromedriver must not find its output closed.
    output: BufReader<ChildStdout>,
}

impl Browser {
    /// # Panics
    /// Where Chromium or chromedriver is missing: the message names the package.
    pub(crate) async fn start() -> Self {
        assert!(Path::new(CHROMIUM).exists(), "{CHROMIUM} is missing: apt-get install chromium");
        let turn = TURN.acquire().await.unwrap();
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = Driver::start().await;
        let client = timeout(
            DEADLINE,
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities(profile.path()))
                .connect(&format!("http://127.0.0.1:{port}")),
        )
        .await
        .expect("Chromium did not start in time")
        .expect("chromedriver could not start Chromium");
        Self { client, driver, _profile: profile, _turn: turn }
    }

    /// Opens an address in a tab of its own.
    pub(crate) async fn open(&self, url: &str) -> Tab {
        let window = self.client.new_window(true).await.unwrap().handle;
        let tab = Tab { client: self.client.clone(), window };
        tab.here().await.goto(url).await.unwrap();
        tab
    }

    /// The addresses that pages asked for since the last call, in order; the browser's own pages do not count.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Vendor::log("performance")).await.unwrap();
        let mut asked = Vec::new();
        for line in log.as_array().unwrap() {
            let event = line.get("message").and_then(Value::as_str).unwrap();
            let event: Value = serde_json::from_str(event).unwrap();
            if event.pointer("/message/method") == Some(&json!("Network.requestWillBeSent")) {
                let url = event.pointer("/message/params/request/url").and_then(Value::as_str);
                asked.extend(url.filter(|url| !url.starts_with("chrome:")).map(str::to_owned));
            }
        }
        asked
    }

    /// Ends the browser in good order; dropping it does the same with force.
    pub(crate) async fn close(mut self) {
        self.client.clone().close().await.unwrap();
        self.driver.kill();
        timeout(DEADLINE, self.driver.child.wait()).await.expect("chromedriver hangs").unwrap();
    }
}

impl Tab {
    /// The client, turned to this tab: a session has one current window.
    async fn here(&self) -> &Client {
        self.client.switch_to_window(self.window.clone()).await.unwrap();
        &self.client
    }

    pub(crate) async fn reload(&self) {
        self.here().await.refresh().await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.here().await.close_window().await.unwrap();
    }

    /// Replaces what is in the field with this visible label.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        let path = format!("//*[@id = //label[normalize-space() = '{label}']/@for]");
        let field = self.here().await.find(Locator::XPath(&path)).await;
        let field = field.unwrap_or_else(|error| panic!("no field is labelled {label}: {error}"));
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks the button with this name; a person cannot click a disabled one, so that is an error here.
    pub(crate) async fn click(&self, button: &str) {
        let path = format!("//button[normalize-space() = '{button}']");
        let found = self.here().await.find(Locator::XPath(&path)).await;
        let found = found.unwrap_or_else(|error| panic!("no button is called {button}: {error}"));
        assert!(found.is_enabled().await.unwrap(), "the button {button} is disabled");
        found.click().await.unwrap();
    }

    /// Types into whatever has the focus; see [`fantoccini::key::Key`] for the keys without a character.
    pub(crate) async fn press(&self, keys: &str) {
        let focused = self.here().await.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    /// The rendered text of each matching element, in document order.
    pub(crate) async fn texts(&self, css: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText.trim())";
        let texts = self.here().await.execute(script, vec![json!(css)]).await.unwrap();
        serde_json::from_value(texts).unwrap()
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.here().await.execute(&format!("return ({expression})"), vec![]).await.unwrap()
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Panics
    /// At the deadline, with what the page shows then.
    pub(crate) async fn wait_for(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.value(&format!("Boolean({expression})")).await != Value::Bool(true) {
            if Instant::now() > deadline {
                let shown = self.texts("body").await.join("\n");
                panic!("waited in vain for {what}; the page shows:\n{shown}");
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until the first match of `css` contains `text`.
    pub(crate) async fn wait_for_text(&self, css: &str, text: &str) {
        let (quoted, wanted) = (json!(css), json!(text));
        let expression =
            format!("document.querySelector({quoted})?.textContent.includes({wanted})");
        self.wait_for(&format!("“{text}” in {css}"), &expression).await;
    }

    /// Shows the page as a phone of this width does, 844 pixels high, with a finger for a pointer.
    pub(crate) async fn be_phone(&self, width: u32) {
        let screen = json!({"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": true});
        self.devtools("Emulation.setDeviceMetricsOverride", &screen).await;
    }

    /// `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features})).await;
    }

    async fn devtools(&self, method: &str, params: &Value) {
        self.here().await.issue_cmd(Vendor::devtools(method, params)).await.unwrap();
    }

    /// A picture of the tab, as PNG.
    pub(crate) async fn screenshot(&self, path: &Path) {
        let image = self.here().await.screenshot().await.unwrap();
        tokio::fs::write(path, image).await.unwrap();
    }
}

impl Driver {
    async fn start() -> (Self, u16) {
        let mut said = String::new();
        for _ in 0..10 {
            let mut driver = Self::spawn();
            let port = timeout(DEADLINE, driver.port(&mut said)).await;
            if let Some(port) = port.expect("chromedriver names no port") {
                return (driver, port);
            }
            // It takes a port that is free for IPv6, and ends where somebody else has its number for IPv4.
        }
        panic!("chromedriver ends before it names its port:\n{said}");
    }

    fn spawn() -> Self {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("chromedriver is missing: apt-get install chromium-driver")
            }
            Err(error) => panic!("chromedriver does not start: {error}"),
        };
        let output = BufReader::new(child.stdout.take().unwrap());
        // Before the first await: from here on, the group goes with this value.
        Self { group: child.id().unwrap(), child, output }
    }

    /// Reads on until the line that ends in `on port 40535.`; nothing where it ended before, and `said` has what it said.
    async fn port(&mut self, said: &mut String) -> Option<u16> {
        let mut line = String::new();
        while self.output.read_line(&mut line).await.unwrap() > 0 {
            let last = line.trim_end().trim_end_matches('.').rsplit_once("on port ");
            if let Some(port) =
                last.and_then(|(_, port)| port.parse().ok()).filter(|port| *port != 0)
            {
                return Some(port);
            }
            *said += &line;
            line.clear();
        }
        None
    }

    /// Chromium is a grandchild here, which killing the child alone would leave behind.
    fn kill(&mut self) {
        let group = format!("-{}", self.group);
        let killed = std::process::Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        assert!(killed.is_ok(), "kill is missing: apt-get install procps");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Once waited for, the number may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn capabilities(profile: &Path) -> Capabilities {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-breakpad",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,900",
        &profile,
    ];
    let wanted = json!({
        "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        "goog:loggingPrefs": {"performance": "ALL"},
    });
    serde_json::from_value(wanted).unwrap()
}

/// What chromedriver offers beyond the standard.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl Vendor {
    fn devtools(method: &str, params: &Value) -> Self {
        Self { path: "goog/cdp/execute", body: json!({"cmd": method, "params": params}) }
    }

    fn log(kind: &str) -> Self {
        Self { path: "se/log", body: json!({"type": kind}) }
    }
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
