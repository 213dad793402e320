//! A run that is interrupted with Ctrl-C and resumed ends with the same bits as one that ran through.
use crate::sandbox::{Sandbox, bits, error_line, interrupt, program};
use assert_cmd::Command;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

/// Batch norm and dropout, augmentation, a schedule over the whole run, and a checkpoint after every step.
const RECIPE: &str = "
    [model]
    name = 'vgg-tiny'
    [train]
    epochs = 2
    batch_size = 60
    threads = 1
    seed = 3
    checkpoint_steps = 1
    keep_steps = 7
    keep_epochs = 1
    keep_newest = 2
    [optimizer]
    kind = 'adamw'
    [schedule]
    kind = 'onecycle'
    [augment]
    rotate_degrees = 10.0
    translate = 0.1
";
const STEPS_PER_EPOCH: u64 = 15;

/// The steps of the checkpoints that a run has reported so far.
fn saved(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == "checkpoint_saved").filter_map(|event| event["step"].as_u64()).collect()
}

fn wait_for_step(child: &mut Child, folder: &Path, step: u64) {
    let start = Instant::now();
    while saved(folder).last().is_none_or(|last| *last < step) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
        assert!(start.elapsed() < Duration::from_secs(60), "the run did not come to step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts or resumes the run, interrupts it after `step`, and returns what it said and the step after which it stopped.
fn stopped_after(sandbox: &Sandbox, args: &[&str], step: u64) -> (String, u64) {
    let mut child = std::process::Command::new(program())
        .current_dir(sandbox.path(""))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_step(&mut child, &sandbox.path("run"), step);
    interrupt(&child);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(130), "{stderr}");
    (stderr, *saved(&sandbox.path("run")).last().unwrap())
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let sandbox = Sandbox::new();
    sandbox.write("recipe.toml", RECIPE);
    sandbox.ok(&["train", "recipe.toml", "--out", "whole"]);

    let (told, first) = stopped_after(&sandbox, &["train", "recipe.toml", "--out", "run"], 4);
    assert!(told.contains(&format!("error: stopped after step {first}; go on with: train --resume run\n")), "{told}");
    assert!((4..STEPS_PER_EPOCH).contains(&first), "{first}");
    let (told, second) = stopped_after(&sandbox, &["train", "--resume", "run"], STEPS_PER_EPOCH + 4);
    assert!(told.contains(&format!("INFO going on after step {first}\n")), "{told}");
    assert!((STEPS_PER_EPOCH + 4..2 * STEPS_PER_EPOCH).contains(&second), "{second}");
    assert!(!sandbox.path("run/model.safetensors").exists());

    check_that_a_failed_write_changes_nothing(&sandbox);
    sandbox.ok(&["train", "--resume", "run"]);
    let kept = ["epoch-1.safetensors", "epoch-2.safetensors", "step-21.safetensors", "step-28.safetensors"];
    assert_eq!(sandbox.names("run").iter().filter(|name| name.contains('-')).collect::<Vec<_>>(), kept);
    for file in kept.into_iter().chain(["model.safetensors", "last.safetensors", "best.safetensors"]) {
        assert_eq!(bits(&sandbox.path(&format!("run/{file}"))), bits(&sandbox.path(&format!("whole/{file}"))), "{file}");
    }
    let epochs = |run: &str| {
        let csv = std::fs::read_to_string(sandbox.path(run).join("metrics.csv")).unwrap();
        // What follows is how long it took.
        csv.lines().skip(1).map(|row| row.split(',').take(8).collect::<Vec<_>>().join(",")).collect::<Vec<_>>()
    };
    assert_eq!((epochs("run"), epochs("run").len()), (epochs("whole"), 2));
    check_that_a_finished_run_stays_as_it_is(&sandbox);
    // A kept checkpoint is one to go on from.
    std::fs::create_dir(sandbox.path("middle")).unwrap();
    std::fs::copy(sandbox.path("run/step-21.safetensors"), sandbox.path("middle/last.safetensors")).unwrap();
    sandbox.ok(&["train", "--resume", "middle"]);
    assert_eq!(bits(&sandbox.path("middle/model.safetensors")), bits(&sandbox.path("whole/model.safetensors")));
}

/// Files may not grow beyond a limit that the checkpoint exceeds: its writing fails in the middle.
fn check_that_a_failed_write_changes_nothing(sandbox: &Sandbox) {
    let last = sandbox.path("run/last.safetensors");
    let (before, files) = (std::fs::read(&last).unwrap(), sandbox.names("run"));
    let mut limited = Command::new("sh");
    // With the signal ignored, the write itself fails; 64 blocks are 32 or 64 KiB.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" train --resume run"]).arg(program());
    limited.current_dir(sandbox.path(""));
    let line = error_line(limited, 2);
    assert!(
        ["last", "step-21", "step-28"]
            .iter()
            .any(|name| line.starts_with(&format!("error: cannot write run/{name}.safetensors: "))),
        "{line}"
    );
    assert_eq!(std::fs::read(&last).unwrap(), before);
    assert_eq!(sandbox.names("run"), files);
}

fn check_that_a_finished_run_stays_as_it_is(sandbox: &Sandbox) {
    let contents = || {
        sandbox.names("run").iter().map(|name| std::fs::read(sandbox.path(&format!("run/{name}"))).unwrap()).collect::<Vec<_>>()
    };
    let before = contents();
    let output = sandbox.striate(&["train", "--resume", "run"]).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(err.trim(), "INFO the run in run is finished: these are its results");
    assert!(out.starts_with("test accuracy ") && out.contains(" after 2 epochs in "), "{out}");
    assert_eq!(contents(), before);
}
