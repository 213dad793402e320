//! `serve`: from its start to its end by a signal.
use crate::sandbox::{Sandbox, program};
use crate::tutorials::{blocks, check, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use striate_datasets::image::{DynamicImage, ImageFormat};

/// The program, serving until it gets a signal.
struct Serving {
    child: Child,
    address: String,
    /// What it said first.
    line: String,
}

impl Serving {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.current_dir(sandbox.path("")).arg("serve").args(args).args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit_once("://").unwrap_or_else(|| panic!("{line:?}")).1.to_owned();
        Self { child, address, line }
    }

    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, route: &str) -> String {
        self.send(format!("GET {route} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.child.id())]).status().unwrap().success());
    }

    /// Ends it in order, and returns its log.
    fn end(self, signal: &str) -> String {
        self.signal(signal);
        let output = self.child.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{log}");
        log
    }
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::new_luma8(8, 8).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn it_answers_exchanges_bundles_and_ends_in_order() {
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    sandbox.bundle("run/model.safetensors", 10);
    let serving =
        Serving::start(&sandbox, &["digits.safetensors", "run/model.safetensors", "few=digits.safetensors", "--top", "2"]);
    assert!(serving.line.starts_with("serving digits, run, few on http://127.0.0.1:"), "{}", serving.line);
    let picture = png();
    let head = format!(
        "POST /v1/models/run/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        picture.len()
    );
    let answer = serving.send(&[head.as_bytes(), &picture].concat());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.matches("\"class\":").count() == 2, "{answer}");

    sandbox.bundle("run/model.safetensors", 11);
    serving.signal("HUP");
    while !serving.get("/v1/models").contains("\"10\"") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // A damaged one leaves the former serving, and the log says so.
    std::fs::write(sandbox.path("run/model.safetensors"), "x").unwrap();
    serving.signal("HUP");
    while !serving.get("/metrics").contains("striate_exchanges_total{outcome=\"refused\"} 1\n") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(serving.get("/v1/models").contains("\"10\""));

    let log = serving.end("TERM");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let access = lines.iter().find(|line| line["path"] == "/v1/models/run/predict").unwrap();
    assert_eq!((&access["method"], &access["status"], &access["level"]), (&"POST".into(), &200.into(), &"INFO".into()));
    assert!(access["peer"].as_str().unwrap().starts_with("127.0.0.1:") && access["milliseconds"].as_f64().unwrap() > 0.0);
    let refused = lines.iter().find(|line| line["level"] == "ERROR").unwrap()["message"].as_str().unwrap();
    assert!(refused.starts_with("no bundle was exchanged, the former ones go on: run: "), "{refused}");
}

#[test]
fn every_signal_to_end_ends_it_in_order() {
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    for signal in ["INT", "USR1"] {
        let serving = Serving::start(&sandbox, &["digits.safetensors", "--no-explain"]);
        assert!(serving.get("/healthz").ends_with("alive\n"));
        serving.end(signal);
    }
}

#[test]
fn what_cannot_be_served_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    sandbox.write("bad.safetensors", "x");
    sandbox.write("keys", "ann short\n");
    sandbox.write("token", "short");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../striate-serve/tests/tls");
    let [cert, key] = ["server.pem", "other.key"].map(|name| tls.join(name).to_str().unwrap().to_owned());
    let any = "127.0.0.1:0";
    sandbox.tensor("w.safetensors", "c1.weight", tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu)));
    let cases: [(&[&str], &str); 11] = [
        (&["w.safetensors", "--listen", any], "beside the file (`striate weights convert` with --model, --mean and --std)"),
        (&["digits.safetensors", "--listen", &port], "another program uses this port: choose another one"),
        (
            &["digits.safetensors", "digits.safetensors", "--listen", any],
            "two bundles are named digits: give one of them another name (NAME=BUNDLE)",
        ),
        (&["bad.safetensors", "--listen", any], "bad: "),
        (&["a/b=digits.safetensors", "--listen", any], "a network can't be named a/b: use letters"),
        (&["digits.safetensors", "--listen", "here"], "invalid socket address"),
        (&["digits.safetensors", "--listen", any, "--keys", "keys"], "keys can't be used: line 1: the line has no secret of 16"),
        (&["digits.safetensors", "--listen", any, "--admin-token", "token"], "token can't be used: it holds no secret of 16"),
        (&["digits.safetensors", "--listen", any, "--cert", &cert], "--key <FILE>"),
        (&["digits.safetensors", "--listen", any, "--cert", &cert, "--key", &key], "server.pem can't be used with the key "),
        (&["digits.safetensors", "--listen", any, "--timeout", "0"], "give seconds above 0, such as 30 or 0.5"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(&[&["serve"], args].concat(), &[told]);
    }
}

/// Commands of a page, each with what the page says it prints.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in blocks(page, "console").into_iter().flat_map(str::lines) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, told))) => *told += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    commands
}

#[test]
fn the_page_about_serving() {
    const ADDRESS: &str = "127.0.0.1:8080";
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl to ask with");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    sandbox.write("seven.png", png());
    sandbox.write("bad.png", "no picture");
    sandbox.write("keys.txt", "ann 0123456789abcdef\n");
    sandbox.write("token.txt", "0123456789abcdef\n");
    sandbox.write("token-header.txt", "Authorization: Bearer 0123456789abcdef\n");
    let mut serving: Option<Serving> = None;
    let mut count = 0;
    for (command, told) in commands(&text("../../docs/serving.md")) {
        let got = match command.strip_prefix("cargo xtask serve ") {
            Some(args) => {
                let args: Vec<&str> = args.split(' ').collect();
                let started = Serving::start(&sandbox, &args);
                let line = started.line.replace(&started.address, ADDRESS);
                serving.replace(started).map(|former| former.end("TERM"));
                line
            }
            None => {
                let command = command.replace(ADDRESS, &serving.as_ref().unwrap().address);
                let output = Command::new("sh").current_dir(sandbox.path("")).args(["-c", &command]).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            }
        };
        check(told.trim_end(), got.trim_end());
        count += 1;
    }
    serving.unwrap().end("TERM");
    assert_eq!(count, 8);
}
