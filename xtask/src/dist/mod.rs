//! `cargo xtask dist`: one archive with all that a machine without Rust and Python needs.

mod archive;
mod packages;
mod programs;
mod rooted;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use striate_files::FilesError;

use crate::{
    bench::{BENCH, CUDA_SCRIPT},
    program::{Built, STRIATE, build, target},
    setup::{self, Libtorch},
    workspace::{Workspace, parse_toml},
};
use programs::Program;

/// The programs of an archive. The first is the one that people call.
const PROGRAMS: [&str; 3] = ["striate", "striate-engine", "striate-bench"];
/// What takes long to build, and belongs into an archive.
const FEATURES: &str = "striate-cli/lab,striate-cli/check";
/// Files of this checkout, and their places in an archive.
const FILES: [(&str, &str); 5] = [
    ("LICENSE-APACHE", "licenses/LICENSE-APACHE"),
    ("LICENSE-MIT", "licenses/LICENSE-MIT"),
    ("xtask/dist/striate.service", "share/striate/striate.service"),
    ("xtask/dist/Dockerfile", "share/striate/Dockerfile"),
    (CUDA_SCRIPT, "share/striate/peers/torch_cuda.py"),
];
/// The licence of PyTorch's own wheel, and those of what is in it, which `notices.py` collects.
const LIBTORCH_LICENCES: [(&str, &str); 2] =
    [("xtask/dist/LICENSE-libtorch", "licenses/LICENSE-libtorch"), ("xtask/dist/NOTICES-libtorch", "licenses/NOTICES-libtorch")];
/// How the names of libtorch's own libraries begin. Their symbols take a fifth of them.
const LIBTORCH_OWN: [&str; 2] = ["libtorch", "libc10"];
const README: &str = include_str!("../../dist/README.md");

/// What is asked of `dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Takes a libtorch that can use an NVIDIA GPU
    #[arg(long)]
    cuda: bool,
    /// Leaves libtorch out: the programs then take the one of the machine that they run on
    #[arg(long)]
    without_libtorch: bool,
    /// The archive to write (.tar.xz) [default: dist/NAME.tar.xz in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Packs programs that are built already, and lie in this folder
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Also runs the programs in a root of their own that has nothing but glibc
    #[arg(long, conflicts_with = "without_libtorch")]
    check: bool,
}

/// Builds the programs and packs them.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let folder = target(workspace)?.join("dist");
    let name = name(workspace, options)?;
    let out = match &options.out {
        // It would be found out after some minutes of building.
        Some(out) if out.exists() => {
            let reason = io::Error::new(io::ErrorKind::AlreadyExists, "it exists: remove it, or name another file");
            return Err(FilesError::new("write", out)(reason).into());
        }
        Some(out) => out.clone(),
        None => folder.join(format!("{name}.tar.xz")),
    };
    let libtorch = setup::setup(workspace, &setup::Options { cuda: options.cuda, force: false })?;
    let built = match &options.programs {
        Some(folder) => folder.clone(),
        None => match build(workspace, &[STRIATE, BENCH], Some(FEATURES))? {
            Built::Programs(folder) => folder,
            Built::Failed(code) => return Ok(code),
        },
    };
    let staged = folder.join(&name);
    striate_files::swap_folder(&staged, |folder| stage(workspace, options, &libtorch, &built, folder))?;
    if options.check {
        rooted::check(&staged)?;
    }
    let packed = archive::pack(&staged, &out)?;
    eprintln!("{}: {} MB, unpacked {} MB", out.display(), megabytes(packed), megabytes(archive::size(&staged)?));
    Ok(ExitCode::SUCCESS)
}

fn name(workspace: &Workspace, options: &Options) -> Result<String> {
    let manifest = parse_toml(&workspace.root.join("Cargo.toml"))?;
    let version = manifest["workspace"]["package"]["version"].as_str().context("Cargo.toml lacks a version")?;
    let cuda = if options.cuda { "-cuda" } else { "" };
    let libtorch = if options.without_libtorch { "-without-libtorch" } else { "" };
    Ok(format!("striate-{version}-x86_64-linux{cuda}{libtorch}"))
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Lays the archive out in a folder.
fn stage(workspace: &Workspace, options: &Options, libtorch: &Libtorch, built: &Path, folder: &Path) -> Result<()> {
    let lib = libtorch.path().join("lib");
    let mut glibc = programs::Glibc::default();
    let mut libraries = Vec::new();
    for name in PROGRAMS {
        let program = Program::read(&built.join(name), &lib)?;
        glibc = glibc.max(program.glibc());
        let needed = program.libraries()?;
        // It looks for libtorch where an archive has none, so it must start without.
        let looks = options.without_libtorch && name == PROGRAMS[0];
        if let Some(library) = needed.iter().find(|path| looks && path.starts_with(&lib)) {
            bail!("{name} is linked to {}, and has to start without libtorch", library.display());
        }
        libraries.extend(needed);
        program.write(&folder.join("bin").join(name))?;
    }
    if options.cuda {
        // These open further ones when they are used.
        libraries.extend(programs::libraries_in(&lib)?);
    }
    libraries.sort();
    libraries.dedup();
    let own = |path: &&PathBuf| !options.without_libtorch || !path.starts_with(&lib);
    for path in libraries.iter().filter(own) {
        let name = path.file_name().with_context(|| format!("{} is no library", path.display()))?;
        glibc = glibc.max(programs::Glibc::of(&striate_files::read(path)?));
        let to = folder.join("lib").join(name);
        match LIBTORCH_OWN.iter().any(|own| name.to_string_lossy().starts_with(own)) {
            true => programs::strip_library(path, &to)?,
            false => archive::put(path, &to)?,
        }
    }
    let of_libtorch = LIBTORCH_LICENCES.into_iter().filter(|_| !options.without_libtorch);
    for (from, to) in FILES.into_iter().chain(of_libtorch) {
        archive::put(&workspace.root.join(from), &folder.join(to))?;
    }
    let version = workspace.libtorch_version()?;
    let brought = (!options.without_libtorch).then_some(version);
    for (name, text) in packages::files(workspace, brought)? {
        striate_files::write_new(&folder.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    let mut readme = README.replace("GLIBC", &glibc.to_string());
    if options.without_libtorch {
        let note = format!("version = \"{version}\"\ncuda = {}\n", libtorch.has_cuda());
        striate_files::write_new(&folder.join("lib/libtorch.toml"), |file| file.write_all(note.as_bytes()))?;
        let with = if libtorch.has_cuda() { " with CUDA" } else { "" };
        readme += &format!(
            "\n## libtorch\n\nThis archive has none. Its programs take libtorch {version}{with} from the folder in `LIBTORCH`, or else from the torch \
             of\nthe active Python environment or of `python3`.\n"
        );
    }
    striate_files::write_new(&folder.join("README.md"), |file| file.write_all(readme.as_bytes()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_of_the_checkout_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (from, _) in super::FILES.into_iter().chain(super::LIBTORCH_LICENCES) {
            assert!(root.join(from).is_file(), "{from}");
        }
    }
}
