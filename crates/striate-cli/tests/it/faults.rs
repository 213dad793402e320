//! Commands on a disk that fails: whichever operation it is, a command works, or ends with one line and leaves all as it was.
use crate::sandbox::{Sandbox, error_line};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

/// All files and folders below a folder; folders have no content.
fn tree(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(inner, content)| (format!("{name}/{inner}"), content)));
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(&path).unwrap()));
        }
    }
    found
}

/// A command, with the files before it and after it.
struct Command<'a> {
    sandbox: &'a Sandbox,
    args: &'a [&'a str],
    before: BTreeMap<String, Option<Vec<u8>>>,
    after: BTreeMap<String, Option<Vec<u8>>>,
}

impl<'a> Command<'a> {
    /// Runs it in full. `made` are the files that it makes or replaces.
    fn new(sandbox: &'a Sandbox, args: &'a [&str], made: &[&str]) -> Self {
        let before = tree(&sandbox.path(""));
        sandbox.ok(args);
        let after = tree(&sandbox.path(""));
        assert!(made.iter().all(|name| after[*name] != before.get(*name).cloned().flatten()), "{:?}", after.keys());
        Self { sandbox, args, before, after }
    }

    /// Makes all as it was before.
    fn reset(&self) {
        for name in tree(&self.sandbox.path("")).keys().rev().filter(|name| !self.before.contains_key(*name)) {
            let path = self.sandbox.path(name);
            if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        for (name, content) in &self.before {
            if let Some(content) = content {
                fs::write(self.sandbox.path(name), content).unwrap();
            }
        }
    }

    /// Whether it worked in spite of `fault`; else it told so in one line that begins with one of `starts`, with one of `codes`, and
    /// each file is there as before or as it was to be.
    fn worked(&self, output: &Output, fault: &str, codes: &[i32], starts: &[&str]) -> bool {
        let now = tree(&self.sandbox.path(""));
        if output.status.success() {
            assert_eq!(now.keys().collect::<Vec<_>>(), self.after.keys().collect::<Vec<_>>(), "{fault}");
            return true;
        }
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "{fault}: {:?} {told}", output.status);
        assert_eq!(told.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).count(), 1, "{fault}: {told}");
        assert!(!told.contains("defect of striate"), "{fault}: {told}");
        // The folder of a run stays, to go on from.
        for (name, content) in now.iter().filter(|(name, _)| name.split('/').next() != Some("run")) {
            let whole = self.before.get(name) == Some(content) || self.after.get(name) == Some(content);
            assert!(whole, "{fault} left {name} behind, {:?}", self.args);
        }
        assert!(self.before.keys().all(|name| now.contains_key(name)), "{fault}");
        false
    }
}

/// Runs the command with one operation failing after another, alone or with all that follow; `step` leaves some out where the
/// program takes long.
fn check(sandbox: &Sandbox, args: &[&str], made: &[&str], step: usize) {
    let whole = Command::new(sandbox, args, made);
    for (lasting, step) in [("", step), ("+", 4 * step)] {
        for number in (1..).step_by(step) {
            whole.reset();
            let output = sandbox.striate(args).env("STRIATE_FAULT", format!("{number}{lasting}")).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let injected: Vec<&str> = told.lines().filter(|line| line.starts_with("injected fault")).collect();
            if whole.worked(&output, &format!("{injected:?}"), &[2], &["error: "]) && injected.is_empty() {
                assert!(number > 3, "{args:?} writes nothing that can fail");
                break;
            }
        }
    }
    whole.reset();
}

/// The calls of a kind that the program's main thread makes, those that failed on demand among them.
fn calls(sandbox: &Sandbox, args: &[&str], call: &str, inject: Option<String>) -> (Output, usize, bool) {
    // Outside of the sandbox, whose files are compared.
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = std::process::Command::new("strace");
    strace.args(["--seccomp-bpf", "-f", "-qq", "-o"]).arg(log.path()).args(["-e", &format!("trace={call}")]);
    if let Some(inject) = inject {
        strace.args(["-e", &format!("inject={call}:{inject}")]);
    }
    let output = strace.arg(crate::sandbox::program()).args(args).current_dir(sandbox.path("")).output().unwrap();
    let log = fs::read_to_string(log.path()).unwrap();
    let main = log.split_whitespace().next().unwrap_or_default();
    let count = log.lines().filter(|line| line.split_whitespace().next() == Some(main)).count();
    (output, count, log.contains("(INJECTED)"))
}

/// Runs the command with one call of the system refused after another. The first `skip` are those that load the program.
fn refused(sandbox: &Sandbox, args: &[&str], made: &[&str], call: &str, error: &str, skip: usize) {
    let whole = Command::new(sandbox, args, made);
    let mut failed = 0;
    for number in skip + 1.. {
        whole.reset();
        let (output, _, injected) = calls(sandbox, args, call, Some(format!("error={error}:when={number}")));
        // libgomp ends a program whose threads it does not get.
        let worked = whole.worked(&output, &format!("{call} {number}"), &[1, 2], &["error: ", "libgomp: "]);
        failed += usize::from(!worked);
        if !injected {
            assert!(failed > 0, "{args:?} makes no {call} that can fail");
            break;
        }
    }
    whole.reset();
}

#[test]
fn threads_and_memory_that_the_system_refuses_are_done_without_or_told() {
    let strace = std::process::Command::new("strace").args(["--seccomp-bpf", "-f", "-qq", "true"]).output();
    if !strace.is_ok_and(|strace| strace.status.success()) {
        eprintln!("skipped: there is no strace that may trace");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.bundle("x.safetensors", 10);
    sandbox.ok(&["data", "digits", "--pictures", "pictures/a", "--count", "2"]);
    sandbox.ok(&["data", "digits", "--pictures", "pictures/b", "--count", "2"]);
    let train = [&["train", "--out", "run"], &crate::sandbox::QUICK[..]].concat();
    let commands: [(&[&str], &[&str]); 4] = [
        (&["predict", "x.safetensors", "pictures/a/00.png", "pictures/a/01.png"], &[]),
        (&["data", "pack", "pictures", "shards"], &["shards/classes.txt"]),
        (&["lab", "confusion", "x.safetensors", "--data", "digits", "--out", "figures"], &["figures/index.html"]),
        (&train, &["run/model.safetensors"]),
    ];
    let (_, loading, _) = calls(&sandbox, &["predict", "none.safetensors", "none.png"], "mmap", None);
    for (args, made) in commands {
        refused(&sandbox, args, made, "clone3", "EAGAIN", 0);
        // Packing asks for no memory after loading, and training takes long.
        if ["predict", "lab"].contains(&args[0]) {
            refused(&sandbox, args, made, "mmap", "ENOMEM", loading);
        }
    }
}

#[test]
fn a_drawing_is_whole_or_as_before() {
    let sandbox = Sandbox::new();
    sandbox.write("old.svg", "old");
    check(&sandbox, &["summary", "lenet5", "--svg", "old.svg"], &["old.svg"], 1);
    check(&sandbox, &["summary", "lenet5", "--svg", "new/folder/x.svg"], &["new/folder/x.svg"], 1);
}

#[test]
fn weights_are_whole_or_as_before() {
    let sandbox = Sandbox::new();
    sandbox.bundle("from.safetensors", 10);
    sandbox.write("to.safetensors", "old");
    check(&sandbox, &["weights", "convert", "from.safetensors", "to.safetensors"], &["to.safetensors"], 2);
}

#[test]
fn pictures_are_all_there_or_none() {
    let sandbox = Sandbox::new();
    check(&sandbox, &["data", "digits", "--pictures", "pictures", "--count", "1"], &["pictures/00.png"], 2);
}

#[test]
fn figures_are_all_there_or_none() {
    let sandbox = Sandbox::new();
    sandbox.bundle("x.safetensors", 10);
    let files = ["figures/index.html", "figures/confusion.csv", "figures/confusion.svg"];
    check(&sandbox, &["lab", "confusion", "x.safetensors", "--data", "digits", "--out", "figures"], &files, 3);
}

/// A tmpfs is full for real, where this runs as root.
#[test]
fn a_full_disk_is_told() {
    let sandbox = Sandbox::new();
    let Some(disk) = sandbox.small_disk("disk", "16k") else { return };
    let line = error_line(sandbox.striate(&["data", "digits", "--pictures", "disk/p", "--count", "50"]), 2);
    let left = tree(disk.path());
    assert!(line.starts_with("error: cannot write ") && line.contains("No space left"), "{line}");
    assert_eq!(left, BTreeMap::from([("p".to_owned(), None)]));
}
