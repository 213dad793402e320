//! The programs of an archive, and the libraries that they need.

use std::{
    ffi::OsStr,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// What `striate-torch`'s build script has every program look into first. In an archive, it is all that they look into.
const BESIDE: &str = "$ORIGIN/../lib";
/// The libraries of glibc, which a machine has, and which fit its loader alone.
const GLIBC: [&str; 9] =
    ["ld-linux", "libc.so", "libdl.so", "libm.so", "libpthread.so", "libresolv.so", "librt.so", "libutil.so", "linux-vdso"];

/// A program without its symbols.
pub(crate) struct Program {
    built: PathBuf,
    bytes: Vec<u8>,
}

impl Program {
    /// Reads a program that was built with the libtorch in the folder `lib`, and strips it.
    pub(crate) fn read(built: &Path, lib: &Path) -> Result<Self> {
        let missing = || format!("{} is missing: build it, or leave --programs out", built.display());
        if !built.is_file() {
            bail!(missing());
        }
        let mut bytes = stripped(built)?;
        forget_build_folder(&mut bytes, lib).with_context(|| format!("cannot make {} movable", built.display()))?;
        Ok(Self { built: built.to_owned(), bytes })
    }

    /// The libraries that the system's loader gives it, as they lie on this machine, apart from glibc's.
    pub(crate) fn libraries(&self) -> Result<Vec<PathBuf>> {
        needed(&ldd(&self.built)?).with_context(|| format!("{}", self.built.display()))
    }

    /// The oldest glibc that it runs with.
    pub(crate) fn glibc(&self) -> Glibc {
        Glibc::of(&self.bytes)
    }

    /// Writes it, to be run.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        striate_files::write_new(path, |file| file.write_all(&self.bytes))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn stripped(program: &Path) -> Result<Vec<u8>> {
    let folder = program.parent().unwrap_or(Path::new("."));
    let stripped = folder.join(format!(".{}.stripped", program.file_name().and_then(OsStr::to_str).unwrap_or_default()));
    strip(program, &stripped, "--strip-all")?;
    let bytes = striate_files::read(&stripped);
    // It may stay: the next one replaces it.
    let _ = fs::remove_file(&stripped);
    Ok(bytes?)
}

/// Writes a library without the symbols that nobody needs who loads it.
pub(crate) fn strip_library(library: &Path, to: &Path) -> Result<()> {
    striate_files::create_folder(to.parent().unwrap_or(Path::new(".")))?;
    strip(library, to, "--strip-unneeded")
}

fn strip(from: &Path, to: &Path, what: &str) -> Result<()> {
    let status = Command::new("strip").arg(what).arg("-o").arg(to).arg(from).stdin(Stdio::null()).status();
    let status = status.context("cannot run strip (on Debian, `apt-get install binutils` brings it)")?;
    if !status.success() {
        bail!("strip cannot read {}, or cannot write {}: it ended with {status}", from.display(), to.display());
    }
    Ok(())
}

/// Cuts the build machine's folder off the paths at which a program looks for libraries. A path that ends earlier needs no more room, so
/// nothing in the program moves.
fn forget_build_folder(bytes: &mut [u8], lib: &Path) -> Result<()> {
    let path = format!("{BESIDE}:{}\0", lib.display());
    let mut places = (0..bytes.len().saturating_sub(path.len())).filter(|at| bytes[*at..].starts_with(path.as_bytes()));
    let (Some(start), None) = (places.next(), places.next()) else {
        bail!("it does not look for libraries in {BESIDE}:{}", lib.display());
    };
    bytes[start + BESIDE.len()..start + path.len()].fill(0);
    Ok(())
}

/// The paths in what `ldd` prints, apart from glibc's.
fn needed(listing: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in listing.lines().map(str::trim) {
        match line.split_once(" => ") {
            Some((name, "not found")) => bail!("needs {name}, which this machine lacks"),
            Some((name, found)) if !is_of_glibc(name) => paths.push(found.split(" (").next().unwrap_or(found).into()),
            _ => {}
        }
    }
    Ok(paths)
}

fn is_of_glibc(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    GLIBC.iter().any(|library| name.starts_with(library))
}

/// The libraries of glibc that a program needs, and its loader, as they lie on this machine.
pub(crate) fn glibc_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = ldd(program)?;
    let paths = listing.lines().flat_map(str::split_whitespace).filter(|word| word.starts_with('/') && is_of_glibc(word));
    Ok(paths.map(PathBuf::from).collect())
}

fn ldd(program: &Path) -> Result<String> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env_remove("LD_LIBRARY_PATH").stdin(Stdio::null());
    let output = ldd.output().context("cannot run ldd, which comes with glibc")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All shared libraries in a folder.
pub(crate) fn libraries_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let is_library = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    Ok(paths.filter(|path| path.is_file() && !path.is_symlink()).filter(is_library).collect())
}

/// A version of glibc: `2.34`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Glibc(u32, u32);

impl Glibc {
    /// The newest one that a program or library names, of whose functions it calls some.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        const NAME: &[u8] = b"\0GLIBC_";
        let names = bytes.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).map(|(at, _)| at + NAME.len());
        let version = |at: usize| {
            let end = bytes[at..].iter().take(12).position(|byte| *byte == 0)?;
            let (major, minor) = std::str::from_utf8(&bytes[at..at + end]).ok()?.split_once('.')?;
            Some(Self(major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
        };
        names.filter_map(version).max().unwrap_or_default()
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_forgets_where_it_was_built() {
        let mut bytes = b"\x7fELF\0$ORIGIN/../lib:/home/ann/libtorch/lib\0next\0".to_vec();
        let length = bytes.len();
        forget_build_folder(&mut bytes, Path::new("/home/ann/libtorch/lib")).unwrap();
        assert!(bytes.starts_with(b"\x7fELF\0$ORIGIN/../lib\0") && bytes.ends_with(b"\0next\0") && bytes.len() == length);
        assert!(!bytes.windows(5).any(|window| window == b"/home"));
        assert!(forget_build_folder(&mut bytes, Path::new("/home/ann/libtorch/lib")).is_err(), "once is enough");
    }

    #[test]
    fn glibc_is_no_part_of_an_archive() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibtorch_cpu.so => /opt/lt/lib/libtorch_cpu.so (0x00007f)\n\
                       \tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\
                       \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n";
        let paths = ["/opt/lt/lib/libtorch_cpu.so", "/lib/x86_64-linux-gnu/libgcc_s.so.1"].map(PathBuf::from);
        assert_eq!(needed(listing).unwrap(), paths);
        let error = needed("\tlibc10.so => not found\n").unwrap_err().to_string();
        assert_eq!(error, "needs libc10.so, which this machine lacks");
    }

    #[test]
    fn the_newest_glibc_counts() {
        assert_eq!(Glibc::of(b"x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBCXX_3.4\0").to_string(), "2.34");
        assert_eq!(Glibc::of(b""), Glibc::default());
    }
}
