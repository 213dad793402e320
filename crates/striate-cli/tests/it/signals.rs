//! Signals end the program in order, whatever it is doing: one line, and exit code 130.
use crate::sandbox::{Sandbox, program};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn send(signal: &str, child: &Child) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(status.success());
}

/// Waits until `ready`, which must not take forever.
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start(sandbox: &Sandbox, args: &[&str], mirror: &str) -> Child {
    let mut command = Command::new(program());
    command.current_dir(sandbox.path("")).args(args).env("STRIATE_HOME", sandbox.path("home")).env("STRIATE_MIRROR", mirror);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn ends_as_asked(child: Child) {
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(errors[..], [line] if line.contains("stopped")), "{told}");
}

/// Whether a process catches SIGTERM by now.
#[cfg(target_os = "linux")]
fn catches(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> 14 & 1 == 1)
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_is_caught_from_the_first_moment() {
    let sandbox = Sandbox::new();
    // While `striate` starts, while it becomes `striate-engine`, and while that loads and trains.
    let moments = [0, 0, 1, 1, 2, 3, 5, 20, 60, 150, 400];
    for (milliseconds, signal) in moments.into_iter().zip(["TERM", "INT", "USR1", "HUP"].into_iter().cycle()) {
        let child = start(&sandbox, &["train", "--epochs", "1000", "--threads", "1"], "");
        wait_for("it catches no signals", || catches(&child));
        std::thread::sleep(Duration::from_millis(milliseconds));
        send(signal, &child);
        ends_as_asked(child);
    }
}

/// A server that takes the connection and says nothing.
#[test]
fn a_download_that_waits_is_stopped() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}", listener.local_addr().unwrap());
    let commands: [&[&str]; 4] = [
        &["data", "kmnist"],
        &["data", "kmnist", "--pictures", "pictures"],
        &["train", "lenet5", "--data", "kmnist"],
        &["weights", "fetch", "resnet18-imagenet1k-v1"],
    ];
    for command in commands {
        let child = start(&sandbox, command, &mirror);
        let _connection = listener.accept().unwrap();
        send("TERM", &child);
        ends_as_asked(child);
    }
    assert!(!sandbox.path("pictures").exists() && !sandbox.path("runs").exists());
}
