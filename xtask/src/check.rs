//! `cargo xtask check`: the rules between the crates.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dependencies;
use crate::workspace::{Workspace, parse_toml, text};

/// Which of our crates each may depend on, and with them on all that these may depend on; development dependencies apart. A crate
/// that is not listed may not be there.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("striate-cpu", &[]),
    ("striate-files", &[]),
    ("striate-torch", &["striate-cpu", "striate-files"]),
    ("striate-fetch", &["striate-files"]),
    ("striate-layers", &["striate-torch"]),
    ("striate-graph", &["striate-layers"]),
    ("striate-infer", &["striate-graph"]),
    ("striate-datasets", &["striate-torch", "striate-fetch"]),
    ("striate-models", &["striate-infer", "striate-datasets"]),
    ("striate-export", &["striate-models"]),
    ("striate-train", &["striate-models"]),
    ("striate", &["striate-train"]),
    ("striate-lab", &["striate"]),
    ("striate-serve", &["striate"]),
    ("striate-bench", &["striate"]),
    ("striate-cli", &["striate-lab", "striate-export", "striate-serve"]),
    ("xtask", &["striate-cpu", "striate-fetch"]),
];

/// The one crate that may contain unsafe code.
const UNSAFE_CRATE: &str = "striate-torch";
/// The package that links libtorch.
const LINKS_LIBTORCH: &str = "torch-sys";
/// The texts of the licences, which every package carries.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// What one sees on opening the repository.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "crates",
    "deny.toml",
    "docs",
    "fuzz",
    "xtask",
];

/// Prints every rule that is broken.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let packages = packages(&metadata(workspace, &["--no-deps"])?)?;
    let lock = parse_toml(&workspace.root.join("Cargo.lock"))?;
    let mut broken = dependencies_that_are_not_allowed(&packages);
    broken.extend(incomplete_packages(&packages)?);
    broken.extend(lint_exceptions(&packages)?);
    broken.extend(unlocked_libtorch(&lock));
    broken.extend(dependencies::check(workspace)?);
    broken.extend(clutter(workspace));
    for rule in &broken {
        eprintln!("error: {rule}");
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `cargo metadata` tells: with `--no-deps`, of the workspace's own packages.
pub(crate) fn metadata(workspace: &Workspace, options: &[&str]) -> Result<Value> {
    let output = workspace
        .cargo()
        .args(["metadata", "--format-version", "1"])
        .args(options)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One of our packages.
struct Package {
    name: String,
    folder: PathBuf,
    /// Names of dependencies, of this workspace and others, without those for tests only.
    dependencies: Vec<String>,
    description: bool,
    license: bool,
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    packages.iter().map(|package| package_of(package).context("cargo metadata cannot be understood")).collect()
}

fn package_of(package: &Value) -> Option<Package> {
    let dependencies = package["dependencies"].as_array()?.iter().filter(|dependency| dependency["kind"] != "dev");
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
        dependencies: dependencies.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect(),
        description: package["description"].is_string(),
        license: package["license"].is_string(),
    })
}

fn dependencies_that_are_not_allowed(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<_> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in packages {
        if !ALLOWED.iter().any(|(name, _)| *name == package.name) {
            broken.push(format!("{} has no place in the order of crates: give it one in xtask/src/check.rs", package.name));
            continue;
        }
        for dependency in package.dependencies.iter().map(String::as_str) {
            if ours.contains(dependency) && !may_use(&package.name, dependency) {
                broken.push(format!("{} may not depend on {dependency}", package.name));
            }
        }
    }
    broken
}

fn may_use(name: &str, dependency: &str) -> bool {
    let allowed = ALLOWED.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, allowed)| allowed);
    allowed.iter().any(|next| *next == dependency || may_use(next, dependency))
}

fn incomplete_packages(packages: &[Package]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in packages {
        let manifest = parse_toml(&package.folder.join("Cargo.toml"))?;
        let workspace_lints = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        let wanted = [
            (package.description, "a `description` in"),
            (package.license, "`license.workspace = true` in"),
            (package.name == "xtask" || has_licences(&package.folder), "links to the LICENSE files beside"),
            // The workspace's lints forbid what the one crate is for.
            (package.name == UNSAFE_CRATE || workspace_lints == Some(true), "`[lints] workspace = true` in"),
        ];
        let missing = wanted.iter().filter(|(there, _)| !there);
        broken.extend(missing.map(|(_, what)| format!("{} lacks {what} its Cargo.toml", package.name)));
    }
    Ok(broken)
}

/// Whether the licences' texts go into the package.
fn has_licences(folder: &Path) -> bool {
    LICENCES.iter().all(|licence| folder.join(licence).exists())
}

/// The workspace's lint denies unsafe code; a crate could only allow itself an exception.
fn lint_exceptions(packages: &[Package]) -> Result<Vec<String>> {
    const LINT: &str = concat!("unsafe", "_code");
    let mut broken = Vec::new();
    for package in packages.iter().filter(|package| package.name != UNSAFE_CRATE) {
        for file in rust_files(&package.folder)? {
            if fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?.contains(LINT) {
                broken.push(format!("{}: unsafe code belongs in {UNSAFE_CRATE}", file.display()));
            }
        }
    }
    Ok(broken)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// xtask installs libtorch, so it cannot need it.
fn unlocked_libtorch(lock: &toml::Value) -> Option<String> {
    links_libtorch(lock, "xtask").then(|| "xtask depends on something that links libtorch".to_owned())
}

/// Whether `package` depends on libtorch, directly or not, according to the lock file.
fn links_libtorch(lock: &toml::Value, package: &str) -> bool {
    let locked = lock.get("package").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut names = vec![package];
    while let Some(name) = names.pop() {
        if !seen.insert(name) {
            continue;
        }
        for package in locked.iter().filter(|package| text(package, "name") == Some(name)) {
            let dependencies = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
            // A dependency is `NAME` or `NAME VERSION`.
            names.extend(dependencies.filter_map(|dependency| dependency.as_str()?.split(' ').next()));
        }
    }
    seen.contains(LINKS_LIBTORCH)
}

/// What git keeps at the top level beyond what belongs there. Without git nothing is known.
fn clutter(workspace: &Workspace) -> Vec<String> {
    let mut git = std::process::Command::new("git");
    let Ok(output) = git.current_dir(&workspace.root).args(["ls-files"]).output() else {
        return Vec::new();
    };
    let listing = String::from_utf8_lossy(&output.stdout);
    let top_level: BTreeSet<_> = listing.lines().filter_map(|path| path.split('/').next()).collect();
    let odd = top_level.into_iter().filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name));
    odd.map(|name| format!("{name} does not belong at the top level of the repository")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A package as `cargo metadata` tells it: its name, and its dependencies with their kinds.
    fn described(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<_> = dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        let manifest = format!("/made/up/{name}/Cargo.toml");
        json!({ "name": name, "manifest_path": manifest, "dependencies": dependencies, "description": "x", "license": "MIT" })
    }

    fn broken_dependencies(described: Vec<Value>) -> Vec<String> {
        dependencies_that_are_not_allowed(&packages(&json!({ "packages": described })).unwrap())
    }

    #[test]
    fn crates_may_only_depend_on_those_before_them() {
        let good = vec![
            described("striate-torch", &[("tch", None)]),
            described("striate-layers", &[("striate-torch", None)]),
            described("striate-datasets", &[("striate-torch", None), ("striate-layers", Some("dev"))]),
        ];
        assert_eq!(broken_dependencies(good.clone()), Vec::<String>::new());

        let mut bad = good;
        bad.push(described("striate-graph", &[("striate-datasets", Some("build")), ("striate-layers", None)]));
        bad.push(described("striate-new", &[]));
        let expected = [
            "striate-graph may not depend on striate-datasets",
            "striate-new has no place in the order of crates: give it one in xtask/src/check.rs",
        ];
        assert_eq!(broken_dependencies(bad), expected);
    }

    /// A package in a folder of its own with these files.
    fn package(folder: &TempDir, name: &str, files: &[(&str, &str)]) -> Package {
        let folder = folder.path().join(name);
        for (file, content) in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        Package { name: name.to_owned(), folder, dependencies: Vec::new(), description: true, license: true }
    }

    #[test]
    fn each_crate_has_its_lints_and_its_description() {
        let folder = tempfile::tempdir().unwrap();
        let licences = LICENCES.map(|licence| (licence, ""));
        let good = package(&folder, "good", &[[("Cargo.toml", "[lints]\nworkspace = true\n")].as_slice(), &licences].concat());
        let bad = Package { description: false, ..package(&folder, "bad", &[("Cargo.toml", "[package]\nname = \"bad\"\n")]) };
        let broken = incomplete_packages(&[good, bad]).unwrap();
        assert_eq!(
            broken,
            [
                "bad lacks a `description` in its Cargo.toml",
                "bad lacks links to the LICENSE files beside its Cargo.toml",
                "bad lacks `[lints] workspace = true` in its Cargo.toml"
            ]
        );
    }

    #[test]
    fn only_one_crate_may_allow_itself_an_exception() {
        let folder = tempfile::tempdir().unwrap();
        let exception = format!("#![allow({})]\n", concat!("unsafe", "_code"));
        let packages = [
            package(&folder, UNSAFE_CRATE, &[("src/lib.rs", &exception)]),
            package(&folder, "good", &[("src/lib.rs", "//! unsafe is a word\n")]),
            package(&folder, "bad", &[("src/deep/inside.rs", &exception), ("src/lib.rs", "")]),
        ];
        let broken = lint_exceptions(&packages).unwrap();
        assert_eq!(broken.len(), 1);
        assert!(broken[0].ends_with("bad/src/deep/inside.rs: unsafe code belongs in striate-torch"), "{}", broken[0]);
    }

    /// A lock file with these packages and their dependencies.
    fn lock(packages: &[(&str, &[&str])]) -> toml::Value {
        let entries = packages
            .iter()
            .map(|(name, dependencies)| format!("[[package]]\nname = \"{name}\"\ndependencies = {dependencies:?}\n"));
        toml::Value::Table(entries.collect::<String>().parse().unwrap())
    }

    #[test]
    fn xtask_links_no_libtorch() {
        assert_eq!(
            unlocked_libtorch(&lock(&[("xtask", &["striate-files", "striate-fetch"]), ("striate-fetch", &["ureq"])])),
            None
        );
        assert!(unlocked_libtorch(&lock(&[("xtask", &["a"]), ("a", &["b 1.0.0"]), ("b", &["torch-sys"])])).is_some());
    }
}
