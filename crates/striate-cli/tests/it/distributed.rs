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
    wait_for("a checkpoint", || sandbox.path(&format!("{run}/last.safetensors")).exists());
    send(launcher, number, signal);
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(target_os = "linux")]
fn send(launcher: &Child, number: usize, signal: &str) {
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

/// Halving, with a field that cannot be for some: six trials of two epochs, of which three go on.
const SWEEP: &str = "[data]\nsplit = 0.1\n[train]\nepochs = 4\nbatch_size = 100\nthreads = 1\n[schedule]\nkind = 'cosine'\n[sweep]\nkind = 'halving'\n\
                     trials = 6\neta = 2\nmin_epochs = 2\nfields = { train.lr = { min = 1e-3, max = 0.1, log = true } }";

/// The trials of a sweep, the best first, and what each has left.
fn swept(sandbox: &Sandbox, folder: &str) -> (String, Vec<String>) {
    let table = std::fs::read_to_string(sandbox.path(&format!("{folder}/trials.csv"))).unwrap();
    (table, swept_names(sandbox, folder))
}

fn swept_names(sandbox: &Sandbox, folder: &str) -> Vec<String> {
    sandbox.names(folder).into_iter().filter(|name| !name.contains('.')).collect()
}

#[test]
fn two_processes_sweep_as_one_does() {
    let sandbox = Sandbox::new();
    sandbox.write("s.toml", SWEEP);
    let alone = sandbox.ok(&["sweep", "s.toml", "--out", "alone"]);
    let several = sandbox.ok(&[&["sweep", "s.toml", "--out", "several", "--nproc", "2"][..], &TIMEOUT].concat());
    assert_eq!(several, alone.replace("alone/", "several/"), "one process tells the results");
    assert_eq!(swept(&sandbox, "several"), swept(&sandbox, "alone"));
    assert_eq!(sandbox.names("several"), sandbox.names("alone"));
    // One process goes on with what several left.
    assert_eq!(sandbox.ok(&["sweep", "--resume", "several"]), several);
}

#[cfg(target_os = "linux")]
#[test]
fn the_trial_of_a_killed_process_is_done_by_another() {
    let sandbox = Sandbox::new();
    sandbox.write("s.toml", SWEEP);
    sandbox.ok(&["sweep", "s.toml", "--out", "whole"]);
    for (folder, signal) in [("killed", "KILL"), ("asked", "TERM")] {
        let launcher = start(&sandbox, &[&["sweep", "s.toml", "--nproc", "2", "--out", folder][..], &TIMEOUT].concat());
        let trials = || sandbox.path(folder).exists() && swept_names(&sandbox, folder).len() >= 2;
        wait_for("trials", trials);
        send(&launcher, 1, signal);
        let output = launcher.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.contains("rank 1 was killed by SIGKILL: the others did its part"), signal == "KILL", "{told}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("\nbest recipe  "), "one tells the results");
        assert_eq!(swept(&sandbox, folder), swept(&sandbox, "whole"));
    }
}

#[test]
fn processes_share_seeds_and_measurements_of_the_lab() {
    let sandbox = Sandbox::new();
    let seeds = ["train", "lenet5", "--epochs", "1", "--threads", "1", "--seeds", "3", "--out"];
    let alone = sandbox.ok(&[&seeds[..], &["alone"]].concat());
    let several = sandbox.ok(&[&seeds[..], &["several", "--nproc", "2"], &TIMEOUT].concat());
    assert_eq!(several, alone.replace("alone", "several"));
    let report = |folder: &str| std::fs::read(sandbox.path(&format!("{folder}/seeds.json"))).unwrap();
    assert_eq!(report("several"), report("alone"));

    let claim = ["lab", "run", "gradient-norms", "--data", "digits", "--seeds", "3", "--threads", "1", "--out"];
    let alone = sandbox.ok(&[&claim[..], &["lab-1"]].concat());
    let several = sandbox.ok(&[&claim[..], &["lab-2", "--nproc", "2"], &TIMEOUT].concat());
    assert_eq!(several, alone.replace("lab-1/", "lab-2/"));
    let read = |file: &str| std::fs::read_to_string(sandbox.path(file)).unwrap();
    assert_eq!(read("lab-2/gradient-norms/digits/numbers.csv"), read("lab-1/gradient-norms/digits/numbers.csv"));
    let lines =
        ["trials.jsonl", "trials-1.jsonl"].map(|file| read(&format!("lab-2/gradient-norms/digits/{file}")).lines().count());
    assert!(lines[0] > 0 && lines[1] > 0 && lines.iter().sum::<usize>() == 4 * 3, "each was measured once: {lines:?}");
}

#[test]
fn what_takes_one_process_is_refused_for_several() {
    let sandbox = Sandbox::new();
    let line = sandbox.refused(&["train", "--nproc", "2", "--find-lr"]);
    assert!(line.contains("--nproc trains with known batches"), "{line}");
    let line = sandbox.refused(&["train", "--nproc", "2", "--seeds", "3", "--max-restarts", "1"]);
    assert!(line.contains("--max-restarts is for one run"), "{line}");
    // 898 examples: the last batch has one.
    let launcher = start(&sandbox, &["train", "--nproc", "2", "--batch-size", "897", "--epochs", "1", "--timeout", "30"]);
    let (code, told) = errors(&launcher.wait_with_output().unwrap());
    assert_eq!(code, Some(2));
    assert!(told[0].contains("leaves 1 for the last batch, which needs an example for each process"), "{told:?}");
    assert!(!sandbox.path("runs").exists());
}
