//! The code of others: where it comes from, under which licences, and why it is there.

use std::{collections::BTreeSet, iter::Peekable};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::{Workspace, parse_toml};

/// The rules, as cargo-deny reads them too.
const RULES: &str = "deny.toml";
/// The page that gives the reason for each dependency, in a table whose first column has the names.
const REASONS: &str = "docs/security.md";

/// Every rule that is broken.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let rules = parse_toml(&workspace.root.join(RULES))?;
    let allowed: Vec<&str> =
        rules["licenses"]["allow"].as_array().into_iter().flatten().filter_map(toml::Value::as_str).collect();
    let reasons = std::fs::read_to_string(workspace.root.join(REASONS)).with_context(|| format!("cannot read {REASONS}"))?;
    // What other systems need is not here to be looked at.
    let metadata = crate::check::metadata(workspace, &["--filter-platform", "host-tuple"])?;
    Ok([foreign(&metadata, &allowed), without_reason(&metadata, &reasons)].concat())
}

/// Packages from elsewhere than the registry, and under licences that are not allowed.
fn foreign(metadata: &Value, allowed: &[&str]) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let foreign = packages.iter().filter_map(|package| Some((package, package["source"].as_str()?)));
    let faults = foreign.filter_map(|(package, source)| {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        match () {
            () if !source.starts_with("registry+") => Some(format!("{name} comes from {source}: take it from the registry")),
            () if !permits(licence, allowed) => Some(format!("{name} has the licence {licence:?}, which {RULES} does not allow")),
            () => None,
        }
    });
    faults.collect()
}

/// Direct dependencies that the page has no reason for.
fn without_reason(metadata: &Value, reasons: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = packages.iter().filter(|package| package["source"].is_null());
    let names = ours.flat_map(|package| package["dependencies"].as_array().into_iter().flatten());
    // Dependencies of our own have a path.
    let names: BTreeSet<&str> = names.filter(|name| name["path"].is_null()).filter_map(|name| name["name"].as_str()).collect();
    let missing = names.into_iter().filter(|name| !reasons.lines().any(|line| line.starts_with(&format!("| `{name}` |"))));
    missing.map(|name| format!("{name} is a dependency without a reason: add it to the table in {REASONS}")).collect()
}

/// Whether an SPDX expression can be satisfied with these licences.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    any(&mut text.split_whitespace().peekable(), allowed)
}

fn any<'t>(words: &mut Peekable<impl Iterator<Item = &'t str>>, allowed: &[&str]) -> bool {
    let mut permits = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        permits |= all(words, allowed);
    }
    permits
}

fn all<'t>(words: &mut Peekable<impl Iterator<Item = &'t str>>, allowed: &[&str]) -> bool {
    let mut permits = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        permits &= one(words, allowed);
    }
    permits
}

fn one<'t>(words: &mut Peekable<impl Iterator<Item = &'t str>>, allowed: &[&str]) -> bool {
    match words.next() {
        Some("(") => {
            let permits = any(words, allowed);
            words.next();
            permits
        }
        // An exception only allows more.
        Some(licence) => {
            let _ = words.next_if_eq(&"WITH").and_then(|_| words.next());
            allowed.contains(&licence)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_of_licences_are_understood() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"];
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(permits(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR BSD-2-Clause) AND MIT", "GPL-2.0 WITH Classpath-exception-2.0"]
        {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn code_from_elsewhere_and_without_a_reason_is_told() {
        let package = |name: &str, source: Value, licence: &str| {
            json!({ "name": name, "source": source, "license": licence, "dependencies": [
                { "name": "known" }, { "name": "new" }, { "name": "striate", "path": "/x" }] })
        };
        let good = package("good", "registry+x".into(), "MIT");
        let git = package("git", "git+https://example.org/x".into(), "MIT");
        let closed = package("closed", "registry+x".into(), "Proprietary");
        let metadata = json!({ "packages": [package("ours", Value::Null, "Proprietary"), good, git, closed] });
        let told = foreign(&metadata, &["MIT"]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("git") && told[1].contains("Proprietary"), "{told:?}");
        let told = without_reason(&metadata, "| `known` | for tests |\n");
        assert_eq!(told, ["new is a dependency without a reason: add it to the table in docs/security.md"]);
    }
}
