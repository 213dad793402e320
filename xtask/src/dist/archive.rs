//! An archive: a folder of files, packed by `tar` and `xz`.

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use striate_files::FilesError;

/// Puts a file into the folder that is packed: as a link where that is possible.
pub(crate) fn put(from: &Path, to: &Path) -> Result<()> {
    if striate_files::link_new(from, to).is_err() {
        let mut source = striate_files::open(from)?;
        striate_files::write_new(to, |file| io::copy(&mut source, file).map(drop))?;
    }
    Ok(())
}

/// Packs a folder into a file, which is whole or as before; the file's length.
pub(crate) fn pack(folder: &Path, out: &Path) -> Result<u64> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { bail!("{} has no name", folder.display()) };
    let space = fs4::available_space(out.parent().filter(|parent| parent.is_dir()).unwrap_or(Path::new(".")));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--directory"]).arg(parent).arg(name);
    let mut tar = start(tar.stdin(Stdio::null()), "tar")?;
    let mut xz = Command::new("xz");
    xz.args(["--threads=0", "--stdout"]).stdin(tar.stdout.take().context("tar has no output")?);
    let mut xz = start(&mut xz, "xz")?;
    let mut packed = xz.stdout.take().context("xz has no output")?;
    let written = striate_files::write(out, |file| {
        io::copy(&mut packed, file)?;
        // A cut archive is none: what `tar` and `xz` say counts before the file has its name.
        ended(&mut tar, "tar").and_then(|()| ended(&mut xz, "xz"))
    });
    if written.is_err() {
        // They have nobody to write to.
        drop(packed);
        for mut child in [tar, xz] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    written.with_context(|| match space {
        Ok(space) => format!("no archive was written ({} MB were free)", space / 1_000_000),
        Err(_) => "no archive was written".to_owned(),
    })?;
    Ok(fs::metadata(out).map_err(FilesError::new("read", out))?.len())
}

fn start(command: &mut Command, name: &str) -> Result<Child> {
    command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {name}: install it"))
}

fn ended(child: &mut Child, name: &str) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{name} ended with {status}"))) }
}

/// The length of all files in a folder together.
pub(crate) fn size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        size += if kind.is_dir() { self::size(&path)? } else { fs::metadata(&path)?.len() };
    }
    Ok(size)
}
