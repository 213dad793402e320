//! `cargo xtask setup` in made-up worlds: a Python that is a shell script, wheels of a few bytes, and a server on this machine.
#![allow(clippy::unwrap_used)]

#[path = "../../crates/striate-fetch/tests/server/mod.rs"]
mod server;

use std::{
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use server::{Behaviour, GOOD, Server};
use striate_fetch::sha256_file;
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

/// Finds the torch folder that FAKE_TORCH names, and "downloads" wheels from beside itself while no file `hang` lies there.
const PYTHON: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
-c*) test -n "$FAKE_TORCH" && echo "$FAKE_TORCH" ;;
"-m pip --version") echo "pip 99.9 from here" ;;
"-m pip download"*)
    for arg; do
        case "$arg" in *==*) requirement=$arg ;; esac
        dest=$arg
    done
    echo "$requirement" >> "$here/calls"
    while test -e "$here/hang"; do sleep 0.02; done
    name=$(echo "${requirement%%==*}" | tr - _)
    cp "$here/$name"-*.whl "$dest" 2>/dev/null || { echo "ERROR: No matching distribution found for $requirement" >&2; exit 1; }
    touch "$here/finished"
    ;;
*) exit 9 ;;
esac
"#;

/// A checkout, a home, and a PATH of their own.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        for folder in ["checkout/xtask", "bin"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        let lock = "version = 4\n[[package]]\nname = \"torch-sys\"\nversion = \"0.26.0\"\n";
        fs::write(world.path("checkout/Cargo.lock"), lock).unwrap();
        fs::write(world.path("bin/python3"), PYTHON).unwrap();
        fs::set_permissions(world.path("bin/python3"), Permissions::from_mode(0o755)).unwrap();
        world
    }

    /// A world in which pip finds all wheels.
    fn with_wheels() -> Self {
        let world = Self::new();
        let torch = [
            ("torch/lib/libtorch_cpu.so", "cpu"),
            ("torch/lib/libtorch_cuda.so", "cuda"),
            ("torch/lib/libtorch.so", "torch"),
            ("torch/lib/libc10.so", "c10"),
            ("torch/lib/libgomp.so.1", "gomp"),
            ("torch/include/ATen/ATen.h", "// ATen"),
            ("torch/nn/__init__.py", ""),
            (
                "torch-2.13.0.dist-info/METADATA",
                "Name: torch\nRequires-Dist: sympy>=1.13.3\n\
                 Requires-Dist: cuda-toolkit[cublas,cudart,cupti]==13.0.3; platform_system == \"Linux\"\n\
                 Requires-Dist: nvidia-cudnn-cu13==9.20.0.48; platform_system == \"Linux\"\n",
            ),
        ];
        let toolkit = [(
            "cuda_toolkit-13.0.3.dist-info/METADATA",
            "Requires-Dist: nvidia-cublas==13.1.0.3.*; (sys_platform == 'linux') and extra == 'cublas'\n\
             Requires-Dist: nvidia-cuda-runtime==13.0.96.*; (sys_platform == 'linux') and extra == 'cudart'\n\
             Requires-Dist: nvidia-cuda-cupti==13.0.85.*; (sys_platform == 'linux') and extra == 'cupti'\n\
             Requires-Dist: nvidia-cuda-crt==13.0.88.*; (sys_platform == 'linux') and extra == 'crt'\n\
             Requires-Dist: nvidia-cufft==12.0.0.61.*; (sys_platform == 'linux') and extra == 'cufft'\n",
        )];
        let cupti = [("nvidia/cu13/lib/libcupti.so.13", "cupti"), ("nvidia/cu13/lib/libnvperf.so", "perf")];
        let runtime = [("nvidia/cu13/lib/libcudart.so.13", "cudart"), ("nvidia/cu13/include/cuda_runtime.h", "//")];
        world.wheel("torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64", &torch);
        world.wheel("cuda_toolkit-13.0.3-py3-none-any", &toolkit);
        world.wheel("nvidia_cuda_cupti-13.0.85-py3-none-any", &cupti);
        world.wheel("nvidia_cuda_runtime-13.0.96-py3-none-any", &runtime);
        world.wheel("nvidia_cuda_crt-13.0.88-py3-none-any", &[("nvidia/cu13/include/crt/host_config.h", "//")]);
        world.wheel("nvidia_cublas-13.1.0.3-py3-none-any", &[("nvidia/cu13/lib/libcublas.so.13", "cublas")]);
        world.wheel("nvidia_cudnn_cu13-9.20.0.48-py3-none-any", &[("nvidia/cudnn/lib/libcudnn.so.9", "cudnn")]);
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn wheel(&self, name: &str, files: &[(&str, &str)]) {
        write_zip(&self.path(&format!("bin/{name}.whl")), files.iter().map(|(name, text)| (*name, text.as_bytes())));
    }

    /// A torch folder as Python packages have it, which tells its version in a header.
    fn python_torch(&self, minor: u32) -> PathBuf {
        let folder = self.path(&format!("site-packages-{minor}/torch"));
        let header = folder.join("include/torch/headeronly/version.h");
        for folder in [header.parent().unwrap(), &folder.join("lib")] {
            fs::create_dir_all(folder).unwrap();
        }
        for library in ["libtorch_cpu.so", "libtorch.so", "libc10.so"] {
            fs::write(folder.join("lib").join(library), "").unwrap();
        }
        let lines =
            format!("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 0\n");
        fs::write(header, lines).unwrap();
        folder
    }

    fn xtask(&self, args: &[&str]) -> Command {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.args(args).env("CARGO_MANIFEST_DIR", self.path("checkout/xtask")).env("STRIATE_HOME", self.path("home"));
        xtask.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        // A port on which nothing listens: PyTorch's own server is out of reach.
        xtask.env("STRIATE_LIBTORCH_URL", "http://127.0.0.1:1").stdout(Stdio::piped()).stderr(Stdio::piped());
        // The suite must not need as much disk as a real libtorch.
        xtask.env("STRIATE_LIBTORCH_DISK_SPACE", "10000000");
        for variable in ["CXX", "LIBTORCH", "VIRTUAL_ENV", "STRIATE_LIBTORCH_SHA256"] {
            xtask.env_remove(variable);
        }
        xtask
    }

    fn setup(&self) -> Output {
        self.xtask(&["setup"]).output().unwrap()
    }

    /// What cargo is told of `LIBTORCH`.
    fn noted(&self) -> Option<String> {
        let note = fs::read_to_string(self.path("checkout/.cargo/libtorch.toml")).ok()?;
        Some(note.lines().last()?.strip_prefix("LIBTORCH = \"")?.strip_suffix('"')?.to_owned())
    }

    /// What pip was asked for.
    fn pip_calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("bin/calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn installed(&self) -> PathBuf {
        self.path("home/libtorch/2.13.0-cpu")
    }
}

fn write_zip<'a>(path: &Path, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, content) in files {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// An archive as PyTorch's server has it.
fn write_archive(path: &Path, version: &str) {
    // Incompressible, so that the archive has a size.
    let library: Vec<u8> = (0..5_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&str, &[u8]); 6] = [
        ("libtorch/lib/libtorch_cpu.so", &library),
        ("libtorch/lib/libtorch.so", b"torch"),
        ("libtorch/lib/libc10.so", b"c10"),
        ("libtorch/include/torch/torch.h", b"// torch"),
        ("libtorch/share/cmake/Torch.cmake", b"# cmake"),
        ("libtorch/build-version", version.as_bytes()),
    ];
    write_zip(path, files);
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("waited 10 seconds in vain");
}

#[test]
fn a_libtorch_of_the_users_own_is_checked_and_noted() {
    let world = World::new();
    let (right, wrong) = (world.python_torch(13), world.python_torch(12));
    let output = world.xtask(&["setup"]).env("LIBTORCH", &wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("{} is libtorch 2.12.0 where 2.13.0 is needed\n", wrong.display());
    assert!(stderr(&output).ends_with(&expected) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
    assert_eq!(world.noted(), None);

    assert_success(&world.xtask(&["setup"]).env("LIBTORCH", &right).output().unwrap());
    assert_eq!(world.noted().as_deref(), right.to_str());
    let output = world.xtask(&["setup", "--cuda"]).env("LIBTORCH", &wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_torch_of_python_is_linked_if_it_is_the_right_one() {
    let world = World::with_wheels();
    let (right, wrong) = (world.python_torch(13), world.python_torch(12));
    assert_success(&world.xtask(&["setup"]).env("FAKE_TORCH", &right).output().unwrap());
    assert_eq!(world.noted().as_deref(), right.to_str());
    assert!(!world.installed().exists());

    // Cargo hands the noted folder on as LIBTORCH. It is gone by now, and what Python has is another version.
    fs::remove_dir_all(&right).unwrap();
    assert_success(&world.xtask(&["setup"]).env("LIBTORCH", &right).env("FAKE_TORCH", &wrong).output().unwrap());
    assert_eq!(world.noted().as_deref(), world.installed().to_str());
}

#[test]
fn the_official_archive_is_gone_on_with_after_an_interruption() {
    let world = World::new();
    let archive = world.path("archive.zip");
    write_archive(&archive, "2.13.0+cpu");
    let (content, sum) = (fs::read(&archive).unwrap(), sha256_file(&archive).unwrap());

    let breaking = Server::start(content.clone(), Behaviour { cut_after: Some(400), ..GOOD });
    let output =
        world.xtask(&["setup"]).env("STRIATE_LIBTORCH_URL", &breaking.url).env("STRIATE_LIBTORCH_SHA256", &sum).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let error = error.lines().last().unwrap();
    assert!(error.contains("was cut off after 2000 bytes") && error.contains("No matching distribution"), "{error}");
    assert!(!world.installed().exists());

    let good = Server::start(content, GOOD);
    let mut xtask = world.xtask(&["setup"]);
    assert_success(&xtask.env("STRIATE_LIBTORCH_URL", &good.url).env("STRIATE_LIBTORCH_SHA256", sum).output().unwrap());
    assert_eq!(good.ranges_asked(), [Some("bytes=2000-".to_owned())]);
    assert_eq!(names(&world.installed()), ["build-version", "include", "lib"]);
    assert_eq!(names(&world.path("home/downloads")), Vec::<String>::new());
}

#[test]
fn an_archive_of_another_version_or_checksum_is_not_installed() {
    let world = World::new();
    let archive = world.path("archive.zip");
    write_archive(&archive, "2.12.0+cpu");
    let server = Server::start(fs::read(&archive).unwrap(), GOOD);
    let setup = |sum: &str| {
        let mut xtask = world.xtask(&["setup"]);
        xtask.env("STRIATE_LIBTORCH_URL", &server.url).env("STRIATE_LIBTORCH_SHA256", sum).output().unwrap()
    };
    let output = setup(&sha256_file(&archive).unwrap());
    assert!(stderr(&output).contains("is libtorch 2.12.0 where 2.13.0 is needed"), "{}", stderr(&output));
    let output = setup(&"0".repeat(64));
    assert!(stderr(&output).contains("where 0000"), "{}", stderr(&output));
    assert!(!world.installed().exists());
    assert_eq!(world.noted(), None);
}

#[test]
fn wheels_give_a_cpu_only_libtorch() {
    let world = World::with_wheels();
    assert_success(&world.setup());
    let lib = world.installed().join("lib");
    assert_eq!(
        names(&lib),
        ["libc10.so", "libcudart.so.13", "libcupti.so.13", "libgomp.so", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so"]
    );
    assert_eq!(fs::read_to_string(lib.join("libtorch.so")).unwrap(), "cpu", "links to libtorch_cpu.so");
    assert_eq!(fs::read_to_string(world.installed().join("build-version")).unwrap(), "2.13.0\n");
    assert_eq!(names(&world.installed().join("include/ATen")), ["ATen.h"]);
    assert_eq!(world.noted().as_deref(), world.installed().to_str());
    let calls = ["torch==2.13.0", "cuda-toolkit==13.0.3", "nvidia-cuda-runtime==13.0.96.*", "nvidia-cuda-cupti==13.0.85.*"];
    assert_eq!(world.pip_calls(), calls);

    assert_success(&world.setup());
    assert_eq!(world.pip_calls().len(), calls.len(), "nothing is downloaded again");
    assert_success(&world.xtask(&["setup", "--force"]).output().unwrap());
    assert_eq!(world.pip_calls().len(), 2 * calls.len());

    fs::remove_file(world.path("bin/cuda_toolkit-13.0.3-py3-none-any.whl")).unwrap();
    fs::remove_file(world.path("bin/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl")).unwrap();
    assert!(!world.xtask(&["setup", "--force"]).output().unwrap().status.success());
    assert!(lib.join("libtorch_cpu.so").exists(), "the working one stays until there is another");
}

#[test]
fn wheels_give_a_libtorch_with_cuda() {
    let world = World::with_wheels();
    assert_success(&world.setup());
    assert_success(&world.xtask(&["setup", "--cuda"]).output().unwrap());
    let folder = world.path("home/libtorch/2.13.0-cuda");
    let lib = names(&folder.join("lib"));
    for library in ["libtorch_cuda.so", "libcublas.so.13", "libcudnn.so.9", "libnvperf.so", "libcudart.so.13"] {
        assert!(lib.iter().any(|name| name == library), "{library} is not among {lib:?}");
    }
    assert_eq!(fs::read_to_string(folder.join("lib/libtorch.so")).unwrap(), "torch", "the wheel's own");
    assert!(folder.join("include/cuda_runtime.h").exists() && folder.join("include/crt/host_config.h").exists());
    assert_eq!(world.noted().as_deref(), folder.to_str());
}

#[test]
fn a_killed_setup_is_made_good_by_the_next() {
    let world = World::with_wheels();
    fs::write(world.path("bin/hang"), "").unwrap();
    let mut killed = world.xtask(&["setup"]).spawn().unwrap();
    wait_for(|| !world.pip_calls().is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    fs::remove_file(world.path("bin/hang")).unwrap();
    // The killed setup's pip lives on, and must not meddle with the next one's wheels.
    wait_for(|| world.path("bin/finished").exists());
    let is_unfinished = |name: &String| name.starts_with(".2.13.0-cpu.") && name.ends_with(".tmp");
    let unfinished = || names(&world.path("home/libtorch")).iter().any(is_unfinished);
    assert!(unfinished() && !world.installed().exists());

    assert_success(&world.setup());
    assert!(!unfinished());
    assert_eq!(world.noted().as_deref(), world.installed().to_str());
}

#[test]
fn of_two_setups_at_once_one_installs_and_the_other_waits() {
    let world = World::with_wheels();
    fs::write(world.path("bin/hang"), "").unwrap();
    let first = world.xtask(&["setup"]).spawn().unwrap();
    wait_for(|| !world.pip_calls().is_empty());
    let mut second = world.xtask(&["setup"]).spawn().unwrap();
    let mut line = String::new();
    let mut messages = BufReader::new(second.stderr.take().unwrap());
    messages.read_line(&mut line).unwrap();
    assert_eq!(line, "waiting for another `cargo xtask setup` ...\n");
    fs::remove_file(world.path("bin/hang")).unwrap();
    assert_success(&first.wait_with_output().unwrap());
    assert_success(&second.wait_with_output().unwrap());
    assert_eq!(world.pip_calls().len(), 4);
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_is_loaded() {
    let world = World::with_wheels();
    let output = world.xtask(&["setup"]).env("STRIATE_LIBTORCH_DISK_SPACE", u64::MAX.to_string()).output().unwrap();
    assert!(stderr(&output).contains("installing libtorch takes 18446744073709 MB"), "{}", stderr(&output));
    assert!(!output.status.success() && world.pip_calls().is_empty() && !world.installed().exists());
}

#[test]
fn a_damaged_wheel_is_removed() {
    let world = World::with_wheels();
    let wheel = world.path("bin/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl");
    let whole = fs::read(&wheel).unwrap();
    fs::write(&wheel, &whole[..whole.len() / 2]).unwrap();
    let output = world.setup();
    assert!(stderr(&output).contains("is damaged and was removed: run the command again"), "{}", stderr(&output));
    fs::write(&wheel, &whole).unwrap();
    assert_success(&world.setup());
}

#[test]
fn doctor_tells_what_is_missing() {
    let world = World::new();
    let manifest = "[workspace.package]\nrust-version = \"1.0\"\n";
    fs::write(world.path("checkout/Cargo.toml"), manifest).unwrap();
    for (program, line) in [("rustc", "rustc 1.2.3 (abc)"), ("cargo", "cargo 1.2.3"), ("c++", "c++ 9")] {
        fs::write(world.path(&format!("bin/{program}")), format!("#!/bin/sh\necho '{line}'\n")).unwrap();
        fs::set_permissions(world.path(&format!("bin/{program}")), Permissions::from_mode(0o755)).unwrap();
    }
    let output = world.xtask(&["doctor"]).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("missing  libtorch      libtorch 2.13.0 is not set up: run `cargo xtask setup`"), "{report}");
    assert!(report.contains("ok       rust          rustc 1.2.3 (abc); cargo 1.2.3"), "{report}");

    let torch = world.python_torch(13);
    assert_success(&world.xtask(&["setup"]).env("FAKE_TORCH", &torch).output().unwrap());
    let output = world.xtask(&["doctor"]).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report.contains(&format!("ok       libtorch      2.13.0 (CPU) in {}, linked by setup", torch.display())), "{report}");
}

#[test]
fn doctor_says_what_is_wrong_with_libtorch_and_what_to_do() {
    let world = World::new();
    fs::write(world.path("checkout/Cargo.toml"), "[workspace.package]\nrust-version = \"1.0\"\n").unwrap();
    let line = |libtorch: &Path| {
        let output = world.xtask(&["doctor"]).env("LIBTORCH", libtorch).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        report.lines().find(|line| line.contains(" libtorch ")).unwrap().to_owned()
    };
    let assert_wrong = |libtorch: &Path, what: String| {
        let mend = "set it to a folder with libtorch 2.13.0, or unset it and run `cargo xtask setup`";
        assert_eq!(line(libtorch), format!("missing  libtorch      LIBTORCH is wrong: {what}: {mend}"));
    };
    let absent = world.path("absent");
    assert_wrong(&absent, format!("{} is not there, or is no folder", absent.display()));
    let old = world.python_torch(11);
    assert_wrong(&old, format!("{} is libtorch 2.11.0 where 2.13.0 is needed", old.display()));
    let torch = world.python_torch(13);
    assert_eq!(line(&torch), format!("ok       libtorch      2.13.0 (CPU) in {}, from LIBTORCH", torch.display()));
    let library = torch.join("lib/libc10.so");
    fs::remove_file(&library).unwrap();
    assert_wrong(&torch, format!("{} is no whole libtorch: there is no {}", torch.display(), library.display()));
}

#[test]
fn the_program_gets_its_arguments_verbatim_and_its_exit_code_is_kept() {
    let world = World::new();
    let source = r#"fn main() {
        println!("{:?} in {}", std::env::args().skip(1).collect::<Vec<_>>(), std::env::current_dir().unwrap().display());
        std::process::exit(7);
    }"#;
    let package = "[package]\nname = \"striate-cli\"\nedition = \"2024\"\n[[bin]]\nname = \"striate\"\npath = \"main.rs\"\n";
    fs::create_dir(world.path("checkout/cli")).unwrap();
    fs::write(world.path("checkout/cli/main.rs"), source).unwrap();
    fs::write(world.path("checkout/cli/Cargo.toml"), package).unwrap();
    fs::write(world.path("checkout/Cargo.toml"), "[workspace]\nmembers = [\"cli\"]\nresolver = \"3\"\n").unwrap();
    let torch = world.python_torch(13);

    let mut xtask = world.xtask(&["run", "--help", "-x", "a b"]);
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    xtask.env("FAKE_TORCH", &torch).env("PATH", path).env("CARGO_TARGET_DIR", world.path("target"));
    let output = xtask.current_dir(world.path("bin")).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let expected = format!("[\"run\", \"--help\", \"-x\", \"a b\"] in {}\n", world.path("bin").canonicalize().unwrap().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(world.noted().as_deref(), torch.to_str(), "setup was done first");
}

#[cfg(debug_assertions)]
#[test]
fn whichever_operation_of_the_disk_fails_nothing_half_is_found() {
    for number in (1..).step_by(2) {
        let world = World::with_wheels();
        let output = world.xtask(&["setup"]).env("STRIATE_FAULT", number.to_string()).output().unwrap();
        let told = stderr(&output);
        let folder = world.path("home/libtorch");
        let left = if folder.exists() { names(&folder) } else { Vec::new() };
        assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{told} {left:?}");
        if output.status.success() {
            assert!(!told.contains("injected fault"), "{told}");
            break;
        }
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.lines().last().unwrap().starts_with("error: "), "{told}");
        assert_success(&world.setup());
        assert_eq!(world.noted().as_deref(), world.installed().to_str());
    }
}
