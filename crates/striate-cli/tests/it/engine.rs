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
        line.ends_with("striate-engine is missing, which computes for striate: install all programs into one folder"),
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

/// An unpacked archive without libtorch, whose engine tells where the loader looks, and a machine around it.
struct Archive(TempDir);

impl Archive {
    fn new() -> Self {
        let archive = Self(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        for folder in ["bin", "lib", "machine"] {
            std::fs::create_dir(archive.0.path().join(folder)).unwrap();
        }
        std::fs::hard_link(program(), archive.0.path().join("bin/striate")).unwrap();
        symlink("/bin/sh", archive.0.path().join("bin/striate-engine")).unwrap();
        archive.write("lib/libtorch.toml", "version = \"2.11.0\"\ncuda = true\n");
        archive.write("machine/data", "echo $LD_LIBRARY_PATH");
        archive
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A torch package, and CUDA's wheels beside it.
    fn torch(&self, place: &str, version: &str) -> String {
        self.write(&format!("machine/{place}/torch/version.py"), &format!("__version__ = '{version}+cu130'\n"));
        self.write(&format!("machine/{place}/torch/lib/libtorch_cuda.so"), "");
        self.write(&format!("machine/{place}/nvidia/cu13/lib/libnvrtc.so.13"), "");
        self.0.path().join("machine").join(place).to_str().unwrap().to_owned()
    }

    /// A Python in a folder, which says where its torch is.
    fn python(&self, path: &str, torch: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, &format!("#!/bin/sh\necho {torch}\n"));
        let path = self.0.path().join(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn striate(&self) -> Command {
        let mut command = Command::new(self.0.path().join("bin/striate"));
        command.current_dir(self.0.path().join("machine")).arg("data");
        command.env_clear().env("PATH", self.0.path().join("machine/path"));
        command
    }
}

#[test]
fn an_archive_without_libtorch_takes_that_of_the_machine() {
    let archive = Archive::new();
    let wants = "but these programs need libtorch 2.11.0 with CUDA: activate a Python environment that has torch==2.11.0, or set \
                 LIBTORCH to a folder of that libtorch";
    let refused = |command: Command, what: &str| assert_eq!(error_line(command, 2), format!("error: {what}, {wants}"));
    let told = |mut command: Command| String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap();
    refused(archive.striate(), "this machine's Python has no torch");

    let old = archive.torch("old", "2.10.0");
    archive.python("machine/path/python3", &format!("{old}/torch"));
    refused(archive.striate(), &format!("Python's torch, {old}/torch, has version 2.10.0"));

    let right = archive.torch("right", "2.11.0");
    archive.python("machine/path/python3", &format!("{right}/torch"));
    assert_eq!(told(archive.striate()), format!("{right}/torch/lib:{right}/nvidia/cu13/lib\n"));
    let mut after = archive.striate();
    after.env("LD_LIBRARY_PATH", "/else");
    assert_eq!(told(after), format!("{right}/torch/lib:{right}/nvidia/cu13/lib:/else\n"));

    let own = archive.torch("own", "2.11.0");
    archive.python("machine/env/bin/python", &format!("{own}/torch"));
    let mut active = archive.striate();
    active.env("VIRTUAL_ENV", archive.0.path().join("machine/env"));
    assert_eq!(told(active), format!("{own}/torch/lib:{own}/nvidia/cu13/lib\n"));

    let mut given = archive.striate();
    given.env("LIBTORCH", "/nowhere");
    refused(given, "LIBTORCH, /nowhere, is no libtorch");
    std::fs::remove_file(archive.0.path().join("machine/right/torch/lib/libtorch_cuda.so")).unwrap();
    refused(archive.striate(), &format!("Python's torch, {right}/torch, was built without CUDA"));
}

#[test]
fn the_program_that_measures_is_found_beside() {
    let archive = Archive::new();
    std::fs::remove_file(archive.0.path().join("lib/libtorch.toml")).unwrap();
    symlink("/bin/echo", archive.0.path().join("bin/striate-bench")).unwrap();
    let mut command = Command::new(archive.0.path().join("bin/striate"));
    command.args(["bench", "gpu", "--help"]).assert().success().stdout("gpu --help\n");
}
