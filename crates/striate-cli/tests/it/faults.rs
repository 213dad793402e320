//! Commands on a disk that fails: whichever operation it is, a command works, or ends with one line and leaves all as it was.
use crate::sandbox::{Sandbox, error_line};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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

/// Runs the command once in full, and then with one operation failing after another, alone or with all that follow; `step` leaves
/// some out where the program takes long.
/// `made` are the files that it makes or replaces.
fn check(sandbox: &Sandbox, args: &[&str], made: &[&str], step: usize) {
    let before = tree(&sandbox.path(""));
    let reset = || {
        for name in tree(&sandbox.path("")).keys().rev().filter(|name| !before.contains_key(*name)) {
            let path = sandbox.path(name);
            if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        for (name, content) in &before {
            if let Some(content) = content {
                fs::write(sandbox.path(name), content).unwrap();
            }
        }
    };
    sandbox.ok(args);
    let after = tree(&sandbox.path(""));
    assert!(made.iter().all(|name| after[*name] != before.get(*name).cloned().flatten()), "{:?}", after.keys());
    for (lasting, step) in [("", step), ("+", 4 * step)] {
        for number in (1..).step_by(step) {
            reset();
            let mut command = sandbox.striate(args);
            command.env("STRIATE_FAULT", format!("{number}{lasting}"));
            let output = command.output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            let (injected, told): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| line.starts_with("injected fault"));
            let now = tree(&sandbox.path(""));
            if output.status.success() {
                assert_eq!(now.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{injected:?}");
                if injected.is_empty() {
                    assert!(number > 3, "{args:?} writes nothing that can fail");
                    break;
                }
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{injected:?}: {told:?}");
            assert_eq!(told.iter().filter(|line| line.starts_with("error: ")).count(), 1, "{injected:?}: {told:?}");
            for (name, content) in &now {
                let whole = before.get(name) == Some(content) || after.get(name) == Some(content);
                assert!(whole, "{injected:?} left {name} behind, {args:?}");
            }
            assert!(before.keys().all(|name| now.contains_key(name)), "{injected:?}");
        }
    }
    reset();
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
    let disk = sandbox.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |program: &str, args: &[&str]| {
        let ran = std::process::Command::new(program).args(args).arg(&disk).stderr(std::process::Stdio::null()).status();
        ran.is_ok_and(|status| status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=16k", "full"]) {
        eprintln!("skipped: a file system of one's own takes root");
        return;
    }
    let line = error_line(sandbox.striate(&["data", "digits", "--pictures", "disk/p", "--count", "50"]), 2);
    let left = tree(&disk);
    assert!(mount("umount", &[]));
    assert!(line.starts_with("error: cannot write ") && line.contains("No space left"), "{line}");
    assert_eq!(left, BTreeMap::from([("p".to_owned(), None)]));
}
