//! What is in the programs of an archive that others wrote: a bill of materials (CycloneDX), and the texts of its licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{check::metadata, workspace::Workspace};

/// The packages of the programs.
const ROOTS: [&str; 2] = ["striate-cli", "striate-bench"];
/// The features that they are built with, and the platform.
const OPTIONS: [&str; 4] = ["--filter-platform", "x86_64-unknown-linux-gnu", "--features", "striate-cli/lab,striate-cli/check"];
/// How files with a licence's text begin.
const TEXTS: [&str; 4] = ["license", "licence", "copying", "notice"];

/// A package of another's.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

/// The files that tell of them: their names, and what is in them.
pub(crate) fn files(workspace: &Workspace, libtorch: Option<&str>) -> Result<Vec<(&'static str, String)>> {
    let packages = packages(&metadata(workspace, &OPTIONS)?)?;
    let bill = serde_json::to_string_pretty(&bill(&packages, libtorch))?;
    Ok(vec![("licenses/sbom.cdx.json", bill + "\n"), ("licenses/THIRD-PARTY.txt", texts(&packages))])
}

/// All that the programs are built from, apart from what only builds or tests them.
fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_id: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let is_root = |package: &Value| ROOTS.iter().any(|root| package["name"] == *root);
    let mut waiting: Vec<String> = by_id.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| id.clone()).collect();
    let mut seen: BTreeSet<String> = waiting.iter().cloned().collect();
    while let Some(id) = waiting.pop() {
        let node = nodes.get(&id).with_context(|| format!("cargo metadata resolves no {id}"))?;
        for dependency in list(&node["deps"]) {
            let is_linked = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let id = text(&dependency["pkg"]);
            if is_linked && seen.insert(id.clone()) {
                waiting.push(id);
            }
        }
    }
    let others = seen.iter().filter_map(|id| by_id.get(id)).filter(|package| !package["source"].is_null());
    let mut packages: Vec<Package> = others
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            folder: PathBuf::from(text(&package["manifest_path"])).parent().unwrap_or(Path::new("")).to_owned(),
        })
        .collect();
    packages.sort();
    Ok(packages)
}

/// A bill of materials in CycloneDX's JSON.
fn bill(packages: &[Package], libtorch: Option<&str>) -> Value {
    let crates = packages.iter().map(|Package { name, version, licence, .. }| {
        let mut component = json!({
            "type": "library", "name": name, "version": version, "purl": format!("pkg:cargo/{name}@{version}"),
        });
        if !licence.is_empty() {
            // The older way to write a choice.
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        component
    });
    let torch = libtorch.map(|version| {
        json!({
            "type": "library", "name": "libtorch", "version": version, "purl": format!("pkg:pypi/torch@{version}"),
            "licenses": [{ "expression": "BSD-3-Clause" }],
        })
    });
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "striate", "version": env!("CARGO_PKG_VERSION") } },
        "components": crates.chain(torch).collect::<Vec<_>>(),
    })
}

/// The packages, and each text of a licence once, with the packages that carry it.
fn texts(packages: &[Package]) -> String {
    let mut page = String::from("The programs contain these packages:\n\n");
    let mut carried: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Package { name, version, licence, folder } in packages {
        let _ = writeln!(page, "{name} {version}: {licence}");
        for text in licence_files(folder) {
            carried.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    for (text, of) in carried {
        let _ = write!(page, "\n{}\n{}\n\n{}\n", "-".repeat(80), of.join(", "), text.trim());
    }
    page
}

/// The texts in a package's folder.
fn licence_files(folder: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_text = |path: &&PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        TEXTS.iter().any(|start| name.starts_with(start))
    };
    paths.iter().filter(is_text).filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_counts_and_what_builds_or_is_ours_does_not() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.2.3", "license": "MIT/Apache-2.0", "source": source, "manifest_path": "/p/Cargo.toml"});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{ "kind": kind }]});
        let metadata = json!({
            "packages": [package("striate-cli", Value::Null), package("linked", json!("r")), package("deep", json!("r")),
                package("builds", json!("r")), package("tests", json!("r")), package("else", json!("r"))],
            "resolve": { "nodes": [
                { "id": "striate-cli", "deps": [needs("linked", Value::Null), needs("builds", json!("build")), needs("tests", json!("dev"))] },
                { "id": "linked", "deps": [needs("deep", Value::Null)] },
                { "id": "deep", "deps": [] }, { "id": "builds", "deps": [] }, { "id": "tests", "deps": [] }, { "id": "else", "deps": [] },
            ]},
        });
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["deep", "linked"]);
        let bill = bill(&packages, Some("2.13.0"));
        assert_eq!(bill["components"][0]["purl"], "pkg:cargo/deep@1.2.3");
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][2]["name"], "libtorch");
    }

    #[test]
    fn each_text_stands_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("LICENSE-MIT"), "Permission is granted").unwrap();
        fs::write(folder.path().join("README"), "no licence").unwrap();
        let package = |name: &str| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: "MIT".to_owned(),
            folder: folder.path().to_owned(),
        };
        let page = texts(&[package("a"), package("b")]);
        assert_eq!(page.matches("Permission is granted").count(), 1);
        assert!(
            page.contains("a 1.0.0: MIT\nb 1.0.0: MIT\n")
                && page.contains("\na 1.0.0, b 1.0.0\n")
                && !page.contains("no licence"),
            "{page}"
        );
    }
}
