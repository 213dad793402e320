//! `striate` becomes `striate-engine` for what it does not do itself.
use crate::sandbox::{Sandbox, error_line, program};
use assert_cmd::Command;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use tempfile::TempDir;

/// A folder with `striate` and nothing else.
fn alone() -> TempDir {
    // Where the program lies, so that it can be linked.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::hard_link(program(), folder.path().join("striate")).unwrap();
    folder
}

/// A folder with `striate` and a shell in the place of `striate-engine`, which runs this script as the command `train`.
fn beside_a_shell(script: &str) -> (TempDir, Command) {
    let folder = alone();
    symlink("/bin/sh", folder.path().join("striate-engine")).unwrap();
    std::fs::write(folder.path().join("train"), script).unwrap();
    let mut command = Command::new(folder.path().join("striate"));
    command.current_dir(folder.path());
    (folder, command)
}

#[test]
fn the_engine_has_the_command_line_the_streams_and_the_last_word() {
    let (_folder, mut command) = beside_a_shell("echo $$ \"$@\"; cat; echo told >&2; exit 7");
    let output = command.args(["train", "--out", "a b"]).write_stdin("given").output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.ends_with(" --out a b\ngiven"), "{out}");
    assert_eq!((output.status.code(), err.as_str()), (Some(7), "told\n"));
}

#[test]
fn the_engine_is_the_process_that_was_started() {
    let (folder, _) = beside_a_shell("echo $$; kill -KILL $$");
    let mut command = std::process::Command::new(folder.path().join("striate"));
    command.current_dir(folder.path()).arg("train").stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let (id, output) = (child.id(), child.wait_with_output().unwrap());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id}\n"));
    assert_eq!(output.status.signal(), Some(9));
}

#[test]
fn a_wrong_call_does_not_reach_the_engine() {
    let (_folder, mut command) = beside_a_shell("echo reached");
    command.args(["train", "--epochs", "many"]).assert().code(2).stdout("");
}

#[test]
fn the_engine_is_found_through_links_and_missed_in_one_line() {
    let sandbox = Sandbox::new();
    symlink(program(), sandbox.path("linked")).unwrap();
    let listed = Command::new(sandbox.path("linked")).arg("data").output().unwrap();
    assert!(listed.status.success() && String::from_utf8(listed.stdout).unwrap().contains("digits"));

    let folder = alone();
    let command = |args: &[&str]| {
        let mut command = Command::new(folder.path().join("striate"));
        command.args(args);
        command
    };
    command(&["summary", "lenet5"]).assert().success();
    let line = error_line(command(&["data"]), 1);
    assert!(
        line.ends_with("striate-engine is missing, which computes for striate: install both programs into one folder"),
        "{line}"
    );
}

#[test]
fn the_instructions_of_kernels_are_told_and_a_wrong_level_is_refused() {
    let sandbox = Sandbox::new();
    let output = |args: &[&str], level: &str| sandbox.striate(args).env("STRIATE_CPU", level).output().unwrap();
    let told = String::from_utf8(output(&["--version"], "baseline").stdout).unwrap();
    assert_eq!(told, format!("striate {}\nkernels for baseline\n", env!("CARGO_PKG_VERSION")));
    let refused = output(&["train"], "avx3");
    assert_eq!(refused.status.code(), Some(2));
    let line = "error: STRIATE_CPU is \"avx3\": set it to baseline, avx2 or avx512, or unset it\n";
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), line);
}
