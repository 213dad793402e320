//! The archive in a root of its own, where there is nothing but glibc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{archive, programs};

/// What is run there, and how long it may take: nothing where that is no matter.
const CALLS: [(&[&str], Option<f64>); 3] = [
    (&["--version"], Some(0.5)),
    // It loads libtorch.
    (&["data"], Some(0.5)),
    (&["self-test", "--devices", "cpu", "--parts", "kernels,export"], None),
];
/// Where the archive is in its root.
const PLACE: &str = "striate";

/// Runs the programs in the folder `staged` with a root that has glibc and nothing else.
pub(crate) fn check(staged: &Path) -> Result<()> {
    let parent = staged.parent().context("an archive lies in no folder")?;
    let root = tempfile::tempdir_in(parent).with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    copy(staged, &root.path().join(PLACE))?;
    for library in programs::glibc_of(&staged.join("bin/striate-engine"))? {
        // The loader's name is in every program, and so is where it lies.
        archive::put(&library, &root.path().join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    // The loader reads in /proc where a program lies.
    let proc = root.path().join("proc");
    for folder in [&proc, &root.path().join("tmp"), &root.path().join("dev")] {
        striate_files::create_folder(folder)?;
    }
    // Stands for the device, from which libtorch reads the seed of a generator.
    striate_files::write_bytes(&root.path().join("dev/urandom"), [1; 4096])?;
    for (args, limit) in CALLS {
        let call = format!("striate {}", args.join(" "));
        let begun = Instant::now();
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork"]).arg(format!("--mount-proc={}", proc.display()));
        command.arg("chroot").arg(root.path()).arg(format!("/{PLACE}/bin/striate")).args(args);
        let output = command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).stdin(Stdio::null()).output();
        let output = output.context("cannot run unshare, which comes with util-linux")?;
        let seconds = begun.elapsed().as_secs_f64();
        if !output.status.success() {
            let said =
                String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
            bail!("`{call}` failed with nothing but glibc around it: {}", said.lines().next_back().unwrap_or("it says nothing"));
        }
        eprintln!("{call}: {seconds:.2} s with nothing but glibc around it");
        if let Some(limit) = limit.filter(|limit| seconds > *limit) {
            eprintln!("note: more than {limit} s");
        }
    }
    Ok(())
}

/// A folder's files, as links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name): (PathBuf, _) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() { copy(&path, &to.join(name))? } else { archive::put(&path, &to.join(name))? }
    }
    Ok(())
}
