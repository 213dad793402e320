//! `train --nproc`, and what other launchers start.
use crate::sandbox::{Sandbox, program};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use striate_torch::TensorFile;

/// A run of 9 epochs of 5 steps.
const RUN: [&str; 9] = ["train", "lenet5", "--batch-size", "180", "--epochs", "9", "--threads", "1", "--out"];
const ONE_EPOCH: [&str; 8] = ["train", "lenet5", "--epochs", "1", "--threads", "1", "--out", "run"];
/// Enough for a busy machine.
const TIMEOUT: [&str; 2] = ["--timeout", "30"];

fn start(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.current_dir(sandbox.path("")).args(args).env_remove("STRIATE_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn weights(sandbox: &Sandbox, run: &str) -> TensorFile {
    TensorFile::read(&sandbox.path(&format!("{run}/model.safetensors"))).unwrap()
}

fn errors(output: &Output) -> (Option<i32>, Vec<String>) {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    (output.status.code(), told.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect())
}

/// Waits until a run has its first checkpoint, and sends a signal to the process of that number among those that a launcher started.
#[cfg(target_os = "linux")]
fn signal_worker(sandbox: &Sandbox, run: &str, launcher: &Child, number: usize, signal: &str) {
    let began = Instant::now();
    while !sandbox.path(&format!("{run}/last.safetensors")).exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    let workers = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", launcher.id())).unwrap();
    let worker = workers.split_whitespace().nth(number).unwrap();
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {worker}")]).status().unwrap();
    assert!(status.success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_process_is_named_and_a_restart_ends_with_the_same_bits() {
    let sandbox = Sandbox::new();
    sandbox.ok(&[&RUN[..], &["whole", "--nproc", "3"], &TIMEOUT].concat());
    let launcher = start(&sandbox, &[&RUN[..], &["again", "--nproc", "3", "--max-restarts", "1"], &TIMEOUT].concat());
    signal_worker(&sandbox, "again", &launcher, 1, "KILL");
    let output = launcher.wait_with_output().unwrap();
    let (code, told) = errors(&output);
    assert_eq!((code, told.len()), (Some(0), 2), "{told:?}");
    assert!(told.iter().all(|line| line == "rank 1 was killed by SIGKILL"), "{told:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("run folder "), "rank 0 prints the results");
    assert_eq!(weights(&sandbox, "again").tensors, weights(&sandbox, "whole").tensors);

    let launcher = start(&sandbox, &[&RUN[..], &["once", "--nproc", "2"], &TIMEOUT].concat());
    signal_worker(&sandbox, "once", &launcher, 0, "KILL");
    assert_eq!(errors(&launcher.wait_with_output().unwrap()), (Some(1), vec!["rank 0 was killed by SIGKILL".to_owned()]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_one_process_stops_all_at_one_checkpoint() {
    let sandbox = Sandbox::new();
    let launcher = start(&sandbox, &[&RUN[..], &["run", "--nproc", "2"], &TIMEOUT].concat());
    signal_worker(&sandbox, "run", &launcher, 1, "TERM");
    let (code, told) = errors(&launcher.wait_with_output().unwrap());
    assert_eq!(code, Some(130));
    assert!(matches!(&told[..], [line] if line.starts_with("stopped after step ")), "{told:?}");
    // One process goes on with it.
    sandbox.ok(&["train", "--resume", "run"]);
}

/// By hand, as other launchers start them.
#[test]
fn processes_started_by_hand_train_together_and_tell_what_differs() {
    let sandbox = Sandbox::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let both = |args: [&[&str]; 2]| {
        let start = |rank: usize| {
            let mut command = Command::new(program());
            command.current_dir(sandbox.path("")).args(ONE_EPOCH).args(args[rank]).args(TIMEOUT);
            command
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", "2")
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", &port);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        [0, 1].map(start).map(|child| errors(&child.wait_with_output().unwrap()))
    };
    let told = "rank 1 and rank 0 have another seed: `8` and `0`".to_owned();
    assert_eq!(both([&[], &["--seed", "8"]]), [(Some(1), vec![told.clone()]), (Some(1), vec![told])]);
    assert!(!sandbox.path("run").exists());
    assert_eq!(both([&[], &[]]), [(Some(0), vec![]), (Some(0), vec![])]);
    assert!(sandbox.path("run/model.safetensors").exists());
}

#[test]
fn what_takes_one_process_is_refused_for_several() {
    let sandbox = Sandbox::new();
    let line = sandbox.refused(&["train", "--nproc", "2", "--seeds", "3"]);
    assert!(line.contains("--nproc trains one run with known batches"), "{line}");
    // 898 examples: the last batch has one.
    let launcher = start(&sandbox, &["train", "--nproc", "2", "--batch-size", "897", "--epochs", "1", "--timeout", "30"]);
    let (code, told) = errors(&launcher.wait_with_output().unwrap());
    assert_eq!(code, Some(2));
    assert!(told[0].contains("examples are in the last batch, and it needs one for each process"), "{told:?}");
    assert!(!sandbox.path("runs").exists());
}
