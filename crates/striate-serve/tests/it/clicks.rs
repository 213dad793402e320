//! The page in a browser, by real clicks: over WebDriver, if there is chromedriver and what it drives.
use crate::sandbox::{Sandbox, picture};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use ureq::Agent;

/// Where a test leaves pictures of the page, if this variable names a folder.
const SCREENSHOTS: &str = "STRIATE_SCREENSHOTS";
/// How long the page may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// The key under which WebDriver gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser that is closed once this is dropped.
struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// None if there is none on this machine.
    fn start(arguments: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("chromedriver");
        let driver = command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let agent: Agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, agent, session: base.clone() };
        let always = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
        ];
        let arguments = [&always, arguments].concat();
        let wanted = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
        let start = Instant::now();
        let answer = loop {
            match browser.agent.post(&base).send(json!({ "capabilities": { "alwaysMatch": wanted } }).to_string()) {
                Ok(mut answer) => break answer.body_mut().read_to_string().unwrap(),
                Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => panic!("chromedriver does not answer: {error}"),
            }
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        // There may be a driver and nothing to drive.
        let session = answer["value"]["sessionId"].as_str()?;
        browser.session = format!("{base}/{session}");
        Some(browser)
    }

    #[track_caller]
    fn post(&self, command: &str, arguments: Value) -> Value {
        let text = self
            .agent
            .post(format!("{}/{command}", self.session))
            .send(arguments.to_string())
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        let value = serde_json::from_str::<Value>(&text).unwrap()["value"].take();
        assert!(value.get("error").is_none(), "{command}: {value}");
        value
    }

    fn open(&self, address: &str) {
        self.post("url", json!({ "url": address }));
    }

    #[track_caller]
    fn element(&self, id: &str) -> String {
        let element = self.post("element", json!({ "using": "css selector", "value": format!("#{id}") }));
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn click(&self, id: &str) {
        self.post(&format!("element/{}/click", self.element(id)), json!({}));
    }

    #[track_caller]
    fn type_into(&self, id: &str, text: &str) {
        self.post(&format!("element/{}/value", self.element(id)), json!({ "text": text }));
    }

    #[track_caller]
    fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until a script gives true.
    #[track_caller]
    fn until(&self, script: &str) {
        let start = Instant::now();
        while self.run(&format!("return {script}")) != json!(true) {
            assert!(start.elapsed() < PATIENCE, "never: {script}; the page says {}", self.run("return document.body.innerText"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn screenshot(&self, name: &str) {
        let Some(folder) = std::env::var_os(SCREENSHOTS) else { return };
        let height = self.run("return Math.max(600, document.documentElement.scrollHeight)");
        let width = self.run("return document.documentElement.clientWidth");
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.post("goog/cdp/execute", json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics }));
        let text = self
            .agent
            .get(format!("{}/screenshot", self.session))
            .call()
            .unwrap()
            .body_mut()
            .with_config()
            .limit(1 << 28)
            .read_to_string()
            .unwrap();
        let png = BASE64_STANDARD.decode(serde_json::from_str::<Value>(&text).unwrap()["value"].as_str().unwrap()).unwrap();
        std::fs::write(std::path::Path::new(&folder).join(name), png).unwrap();
        self.post("goog/cdp/execute", json!({ "cmd": "Emulation.clearDeviceMetricsOverride", "params": {} }));
    }

    /// What the browser complains about, such as what its policy forbids; refused requests apart.
    fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", json!({ "type": "browser" }));
        let messages = log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned());
        messages.filter(|message| !message.contains("the server responded with a status of 4")).collect()
    }
}

#[test]
fn the_page_works_by_clicks_keys_and_drops() {
    let Some(browser) = Browser::start(&["--window-size=1100,1000"]) else {
        eprintln!("skipped: there is no chromedriver to open a page with");
        return;
    };
    let server = Sandbox::plain();
    let file = |name: &str, bytes: &[u8]| {
        let path = server.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    browser.open(&server.address("/"));
    browser.until("document.getElementById('model').value === 'tints'");
    browser.until("document.getElementById('drawing').naturalWidth > 0");

    // Choose a file.
    browser.type_into("file", &file("rose.png", &picture([255, 40, 20])));
    browser.until("document.getElementById('verdict').textContent === 'red'");
    browser
        .until("document.getElementById('heat').naturalWidth === 224 && document.getElementById('picture').naturalWidth === 30");
    let bars = "[...document.querySelectorAll('#bars progress')].map((bar) => bar.value)";
    browser.until(&format!("(([a, b, c]) => a > b && b > c && a + b + c > 0.999)({bars})"));
    browser.screenshot("light.png");

    // Drop one.
    let dropped = BASE64_STANDARD.encode(picture([0, 0, 255]));
    browser.run(&format!(
        "const bytes = Uint8Array.from(atob('{dropped}'), (letter) => letter.charCodeAt(0)); const data = new DataTransfer();
         data.items.add(new File([bytes], 'sea.png', {{ type: 'image/png' }}));
         document.getElementById('drop').dispatchEvent(new DragEvent('drop', {{ dataTransfer: data, bubbles: true, cancelable: true }}));"
    ));
    browser.until("document.getElementById('verdict').textContent === 'blue'");
    // One that is unknown.
    browser.type_into("file", &file("night.png", &picture([0; 3])));
    browser.until("document.getElementById('verdict').textContent.startsWith('Unknown, likeliest ')");

    // A bad file is told, and the answer before stays.
    browser.type_into("file", &file("bad.png", b"no picture"));
    browser.until("document.getElementById('state').className === 'bad' && document.getElementById('state').textContent.startsWith('bad.png: ')");

    // Back to an earlier one, by the keyboard.
    browser.run("document.querySelector('#history li:last-child button').focus()");
    browser.post("actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": [{ "type": "keyDown", "value": "\u{e007}" }, { "type": "keyUp", "value": "\u{e007}" }] }] }));
    browser.until(
        "document.getElementById('verdict').textContent === 'red' && document.querySelectorAll('#history li').length === 3",
    );

    // The camera: Chromium's shows a green picture with a moving disc.
    browser.click("open-camera");
    browser.until("document.getElementById('camera').videoWidth > 0 && !document.getElementById('take').hidden");
    browser.click("take");
    browser.until(
        "document.getElementById('verdict').textContent === 'green' && document.querySelectorAll('#history li').length === 4",
    );
    browser.click("close-camera");
    browser.until("document.getElementById('camera').hidden");

    browser.open(&server.address("/docs"));
    browser.until("document.querySelectorAll('details.operation').length === 7");
    browser.run("document.querySelectorAll('details')[0].open = true");
    browser.screenshot("docs.png");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_fits_a_phone_in_the_dark_and_asks_for_a_key() {
    let Some(browser) = Browser::start(&["--window-size=500,900", "--force-dark-mode"]) else {
        eprintln!("skipped: there is no chromedriver to open a page with");
        return;
    };
    const KEY: &str = "0123456789abcdef";
    let server = Sandbox::new(|config, folder| {
        let path = folder.join("keys");
        std::fs::write(&path, format!("ann {KEY}")).unwrap();
        config.keys = Some(striate_serve::Keys::read(&path).unwrap());
    });
    let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true });
    browser.post("goog/cdp/execute", json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": phone }));
    browser.open(&server.address("/"));
    browser.until("document.getElementById('key-box').open && document.activeElement.id === 'key'");
    browser.type_into("key", KEY);
    browser.click("use-key");
    browser.until("document.getElementById('key-box').hidden && document.getElementById('model').value === 'tints'");
    let path = server.folder.path().join("leaf.png");
    std::fs::write(&path, picture([30, 230, 10])).unwrap();
    browser.type_into("file", path.to_str().unwrap());
    browser.until("document.getElementById('verdict').textContent === 'green'");
    // Nothing is wider than the phone, and what is touched is large enough.
    assert_eq!(browser.run("return [innerWidth, document.documentElement.scrollWidth]"), json!([360, 360]));
    let small =
        "[...document.querySelectorAll('button, select, #drop')].filter((one) => one.offsetParent && one.offsetHeight < 40)";
    assert_eq!(browser.run(&format!("return {small}.map((one) => one.textContent)")), json!([]));
    assert_eq!(
        browser
            .run("return matchMedia('(prefers-color-scheme: dark)').matches && getComputedStyle(document.body).backgroundColor"),
        "rgb(20, 23, 27)"
    );
    browser.screenshot("phone.png");
}
