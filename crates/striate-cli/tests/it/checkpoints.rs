//! Checkpoints that are damaged, and runs that fail: what was good stays, and loads.
use crate::sandbox::{QUICK, Sandbox, close, error_line};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_folder_is_of_one_run_at_a_time_and_standard_error_may_be_gone() {
    let sandbox = Sandbox::new();
    let run = [&["train", "--out", "run"], &QUICK[..]].concat();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(crate::sandbox::program());
    assert!(command.args(&run).current_dir(sandbox.path("")).stderr(full).output().unwrap().status.success());
    let folder = std::fs::File::open(sandbox.path("run")).unwrap();
    folder.lock().unwrap();
    std::fs::remove_file(sandbox.path("run/summary.json")).unwrap();
    sandbox.refused_with(&["train", "--resume", "run"], &["run is in use: another process trains there"]);
    folder.unlock().unwrap();
    sandbox.ok(&["train", "--resume", "run"]);
    sandbox.refused_with(&run, &["run holds a run already"]);
}

#[test]
fn a_damaged_checkpoint_is_named_and_left_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.train_quickly();
    sandbox.refused_with(&["train", "--out", "run"], &["run holds a run already: resume it, or take another folder"]);
    sandbox.refused_with(&["train", "--resume", "none"], &["none is no folder"]);
    std::fs::remove_file(sandbox.path("run/summary.json")).unwrap();
    let last = std::fs::read(sandbox.path("run/last.safetensors")).unwrap();
    let best = std::fs::read(sandbox.path("run/best.safetensors")).unwrap();
    let model = std::fs::read(sandbox.path("run/model.safetensors")).unwrap();
    let damaged = "run/last.safetensors is damaged or not a .safetensors file";
    let cases = [
        (&last[..last.len() / 2], damaged),
        (&best, "run/last.safetensors: it holds no optimizer's state: resume from last.safetensors"),
        (&model, "run/last.safetensors: it holds no `trainer` entry, so it is not a checkpoint of a run"),
    ];
    for (bytes, told) in cases {
        sandbox.write("run/last.safetensors", bytes);
        sandbox.refused_with(&["train", "--resume", "run", "--threads", "1"], &[told]);
        assert_eq!(std::fs::read(sandbox.path("run/last.safetensors")).unwrap(), bytes);
    }
    // Whole again, it gives the bundle that was there.
    sandbox.write("run/last.safetensors", &last);
    std::fs::remove_file(sandbox.path("run/model.safetensors")).unwrap();
    sandbox.ok(&["train", "--resume", "run", "--threads", "1"]);
    assert_eq!(std::fs::read(sandbox.path("run/model.safetensors")).unwrap(), model);
}

#[test]
fn a_run_that_diverges_in_its_first_epoch_leaves_no_weights() {
    let sandbox = Sandbox::new();
    for (batch, told) in [("300", "the loss became NaN or infinite in epoch 1 at step 2"), ("900", "the test loss became NaN")] {
        let args = ["train", "--lr", "1e30", "--epochs", "2", "--batch-size", batch, "--threads", "1", "--out", "run"];
        let line = error_line(sandbox.striate(&args), 2);
        assert!(line.contains(told) && line.ends_with(": lower it, warm up or clip gradients"), "{line}");
        assert_eq!(sandbox.names("run"), ["metrics.csv", "metrics.jsonl", "recipe.toml"]);
    }
}

#[test]
fn a_run_that_diverges_later_keeps_its_last_good_checkpoint() {
    let sandbox = Sandbox::new();
    let schedule = "[schedule]\nkind = 'multistep'\nmilestones = [1]\ngamma = 1e30";
    sandbox.write("r.toml", format!("[train]\nepochs = 3\nbatch_size = 300\nthreads = 1\n{schedule}"));
    let line = error_line(sandbox.striate(&["train", "r.toml", "--out", "run"]), 2);
    assert!(line.contains(" NaN or infinite in epoch 2 at step 5 with learning rate "), "{line}");
    assert!(line.ends_with("; the last good checkpoint is run/last.safetensors"), "{line}");
    assert_eq!(sandbox.names("run"), ["best.safetensors", "last.safetensors", "metrics.csv", "metrics.jsonl", "recipe.toml"]);
    let report = sandbox.json(&["eval", "run/last.safetensors", "--data", "digits", "--threads", "1", "--json"]);
    assert!(report["loss"].as_f64().is_some_and(|loss| loss < 3.0), "{report}");
}

/// A small disk that is mounted on a folder.
struct Disk(PathBuf);

impl Disk {
    /// None, with a line that says why, where this process may not mount one.
    fn mount(folder: PathBuf, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&folder).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                println!("skipped, for no disk can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_former_checkpoints() {
    let sandbox = Sandbox::new();
    // One `last` (0.75 MB) and one `best` (0.25 MB) fit, but no second `last` beside them.
    let Some(_disk) = Disk::mount(sandbox.path("disk"), 1_300_000) else { return };
    let args = ["train", "--epochs", "3", "--batch-size", "300", "--threads", "1", "--out", "disk/run"];
    let line = error_line(sandbox.striate(&args), 2);
    assert!(line.starts_with("error: cannot write disk/run/last.safetensors: ") && line.contains("No space left"), "{line}");
    assert_eq!(
        sandbox.names("disk/run"),
        ["best.safetensors", "last.safetensors", "metrics.csv", "metrics.jsonl", "recipe.toml"]
    );
    let report = sandbox.json(&["eval", "disk/run/last.safetensors", "--data", "digits", "--threads", "1", "--json"]);
    let metrics = std::fs::read_to_string(sandbox.path("disk/run/metrics.jsonl")).unwrap();
    let first_epoch = metrics.lines().find(|line| line.contains("epoch_done")).unwrap();
    let first_epoch: serde_json::Value = serde_json::from_str(first_epoch).unwrap();
    assert!(close(&report["loss"], &first_epoch["test_loss"]), "{report}, {first_epoch}");
}
