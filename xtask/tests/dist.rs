//! `cargo xtask dist` in a made-up world: programs of a few bytes, and a libtorch that does nothing.
#![allow(clippy::unwrap_used)]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const NAME: &str = "striate-1.2.3-x86_64-linux";

/// A checkout, a libtorch, and built programs.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        world.write("checkout/Cargo.toml", "[workspace]\nmembers = [\"cli\", \"bench\", \"torch\"]\nresolver = \"3\"\n[workspace.package]\nversion = \"1.2.3\"\n");
        let mut lock = "version = 4\n".to_owned();
        for (folder, name, version) in
            [("cli", "striate-cli", "1.2.3"), ("bench", "striate-bench", "1.2.3"), ("torch", "torch-sys", "0.26.0")]
        {
            let manifest = format!(
                "[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2024\"\n[features]\nlab = []\ncheck = []\n"
            );
            world.write(&format!("checkout/{folder}/Cargo.toml"), &manifest);
            world.write(&format!("checkout/{folder}/src/lib.rs"), "");
            lock += &format!("\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        }
        world.write("checkout/Cargo.lock", &lock);
        fs::create_dir(world.path("checkout/xtask")).unwrap();
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for file in ["LICENSE-APACHE", "LICENSE-MIT", "xtask/peers/torch_cuda.py"] {
            world.write(&format!("checkout/{file}"), &fs::read_to_string(real.join(file)).unwrap());
        }
        for entry in fs::read_dir(real.join("xtask/dist")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            world.write(&format!("checkout/xtask/dist/{name}"), &fs::read_to_string(entry.path()).unwrap());
        }
        world.write("libtorch/build-version", "2.13.0+cpu\n");
        fs::create_dir(world.path("libtorch/include")).unwrap();
        world.library("torch_cpu", "int answer(void) { return 42; }");
        world.library("torch", "");
        world.library("c10", "");
        for program in ["striate", "striate-engine", "striate-bench"] {
            world.program(program);
        }
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn compile(&self, source: &str, out: &str, args: &[&str]) {
        self.write("source.c", source);
        fs::create_dir_all(self.path(out).parent().unwrap()).unwrap();
        let mut cc = Command::new("cc");
        cc.arg(self.path("source.c")).arg("-o").arg(self.path(out)).args(args);
        assert!(cc.status().unwrap().success());
    }

    fn library(&self, name: &str, source: &str) {
        let soname = format!("-Wl,-soname,lib{name}.so");
        self.compile(source, &format!("libtorch/lib/lib{name}.so"), &["-shared", "-fPIC", &soname]);
    }

    /// As `striate-torch`'s build script links them.
    fn program(&self, name: &str) {
        let lib = self.path("libtorch/lib");
        let (folder, path) = (format!("-L{}", lib.display()), format!("-Wl,-rpath,{}", lib.display()));
        let source = "#include <stdio.h>\nint answer(void);\nint main(void) { return printf(\"%d\\n\", answer()) < 0; }\n";
        self.compile(source, &format!("built/{name}"), &[&folder, "-Wl,-rpath,$ORIGIN/../lib", &path, "-ltorch_cpu"]);
    }

    /// The one that people call, which needs no libtorch.
    fn light_program(&self, name: &str) {
        let path = format!("-Wl,-rpath,{}", self.path("libtorch/lib").display());
        self.compile("int main(void) { return 0; }\n", &format!("built/{name}"), &["-Wl,-rpath,$ORIGIN/../lib", &path]);
    }

    fn dist(&self, args: &[&str]) -> Output {
        let mut dist = Command::new(env!("CARGO_BIN_EXE_xtask"));
        dist.env("CARGO_MANIFEST_DIR", self.path("checkout/xtask")).env("LIBTORCH", self.path("libtorch"));
        dist.env("CARGO_TARGET_DIR", self.path("target")).env("CARGO_NET_OFFLINE", "true").current_dir(self.path(""));
        dist.args(["dist", "--programs", "built"]).args(args).output().unwrap()
    }

    /// Makes an archive and unpacks it elsewhere.
    fn unpacked(&self, args: &[&str], name: &str) -> PathBuf {
        let output = self.dist(&[args, &["--out", "a.tar.xz"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::create_dir(self.path("else")).unwrap();
        let mut tar = Command::new("tar");
        assert!(tar.arg("-xJf").arg(self.path("a.tar.xz")).arg("-C").arg(self.path("else")).status().unwrap().success());
        self.path("else").join(name)
    }
}

/// The files in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => names.extend(files(&entry.path()).into_iter().map(|file| format!("{name}/{file}"))),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

const COMMON: [&str; 11] = [
    "README.md",
    "bin/striate",
    "bin/striate-bench",
    "bin/striate-engine",
    "licenses/LICENSE-APACHE",
    "licenses/LICENSE-MIT",
    "licenses/THIRD-PARTY.txt",
    "licenses/sbom.cdx.json",
    "share/striate/Dockerfile",
    "share/striate/peers/torch_cuda.py",
    "share/striate/striate.service",
];

#[test]
fn an_archive_runs_wherever_it_is_unpacked() {
    let world = World::new();
    let archive = world.unpacked(&[], NAME);
    // What it was built with is gone.
    fs::rename(world.path("libtorch"), world.path("gone")).unwrap();
    for program in ["striate", "striate-engine", "striate-bench"] {
        let output = Command::new(archive.join("bin").join(program)).env_clear().output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "42\n", "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = fs::read(archive.join("bin").join(program)).unwrap();
        let place = world.path("libtorch").into_os_string().into_encoded_bytes();
        assert!(!bytes.windows(place.len()).any(|window| window == place), "{program} knows where it was built");
    }
    let has_symbols = |library: &Path| fs::read(library).unwrap().windows(8).any(|window| window == b".symtab\0");
    assert!(has_symbols(&world.path("gone/lib/libtorch_cpu.so")) && !has_symbols(&archive.join("lib/libtorch_cpu.so")));
    let mut expected = [&COMMON[..], &["lib/libtorch_cpu.so", "licenses/LICENSE-libtorch", "licenses/NOTICES-libtorch"]].concat();
    expected.sort_unstable();
    assert_eq!(files(&archive), expected, "the libraries that are needed, and no others");
    let readme = fs::read_to_string(archive.join("README.md")).unwrap();
    assert!(readme.contains("all they need but glibc 2."), "{readme}");
}

#[test]
fn without_libtorch_it_says_which_one_it_wants() {
    let world = World::new();
    let refused = String::from_utf8(world.dist(&["--without-libtorch", "--out", "a.tar.xz"]).stderr).unwrap();
    assert!(
        refused.contains("error: striate is linked to ") && refused.ends_with("has to start without libtorch\n"),
        "{refused}"
    );
    world.light_program("striate");
    let archive = world.unpacked(&["--without-libtorch"], &format!("{NAME}-without-libtorch"));
    let mut expected = [&COMMON[..], &["lib/libtorch.toml"]].concat();
    expected.sort_unstable();
    assert_eq!(files(&archive), expected);
    let note = fs::read_to_string(archive.join("lib/libtorch.toml")).unwrap();
    assert_eq!(note, "version = \"2.13.0\"\ncuda = false\n");
}

#[test]
fn what_cannot_be_written_is_told_in_one_line() {
    let world = World::new();
    let refused = |output: Output, code, told: &str| {
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.lines().next_back().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(line.starts_with("error: ") && line.contains(told), "{text}");
    };
    world.write("there.tar.xz", "mine");
    refused(world.dist(&["--out", "there.tar.xz"]), 2, "cannot write there.tar.xz: it exists: remove it, or name another file");
    assert_eq!(fs::read_to_string(world.path("there.tar.xz")).unwrap(), "mine");
    refused(world.dist(&["--out", "/dev/null/a.tar.xz"]), 2, "/dev/null/a.tar.xz");
    fs::remove_file(world.path("built/striate-bench")).unwrap();
    refused(world.dist(&["--out", "new.tar.xz"]), 1, "built/striate-bench is missing");
    assert!(!world.path("new.tar.xz").exists());
}
