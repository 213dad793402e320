//! `docs/recipe-reference.md` is made from the types of a recipe: names and meanings from their documentation in the sources,
//! defaults from a recipe that is written out, and what values may be from what is refused.
//!
//! After a change, write the page anew with `STRIATE_WRITE_REFERENCE=1 cargo test -p striate-train --test reference`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use striate_datasets::Transform;
use striate_train::Recipe;
use toml::{Table, Value};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/recipe-reference.md");
/// Of two items of one name, that of the first crate is meant.
const CRATES: [&str; 5] = ["striate-train", "striate-datasets", "striate-models", "striate-graph", "striate-torch"];
/// Values that most keys refuse.
const NUMBERS: [&str; 5] = ["-1.0", "nan", "2.0", "1e300", "0.0"];
const INTEGERS: [&str; 5] = ["-1", "0", "9", "1000000", "9000000000000000000"];
/// In a table of a `[[list]]`: a size that transforms may have to fit.
const INPUT: [i64; 3] = [3, 32, 32];

const HEAD: &str = "# Every key of a recipe

<!-- Made by crates/striate-train/tests/reference.rs, which says how to write it anew. -->

A recipe is a TOML file ([recipes.md](recipes.md)). This page lists all that may stand in it: the
keys of each section, with their types, their defaults, and what they mean. Sections whose keys
depend on their `kind` have a table for each kind. It is made from Striate's types, and a test holds
it.

Striate's own recipes set many of these keys. The `recipe.toml` in a run's folder has them all.

";

#[test]
fn the_reference_of_recipes_is_that_of_their_types() {
    let page = Reference::default().page();
    if std::env::var_os("STRIATE_WRITE_REFERENCE").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(page == written, "docs/recipe-reference.md is of other types (see the top of this test): {differs:?}");
}

/// A struct, an enum, a field or a variant, as it stands in the sources.
#[derive(Debug, Clone, Default)]
struct Item {
    name: String,
    /// The first paragraph of its documentation.
    docs: String,
    /// Its attributes.
    attrs: String,
    /// The type of a field, or what a variant holds.
    holds: String,
    /// Fields or variants.
    members: Vec<Self>,
}

impl Item {
    /// What serde calls one of its variants.
    fn serialised(&self, variant: &Self) -> String {
        if let Some((_, name)) = variant.attrs.split_once("rename = \"") {
            return name.split('"').next().unwrap().to_owned();
        }
        let mut name = String::new();
        for letter in variant.name.chars() {
            if letter.is_uppercase() && !name.is_empty() && self.attrs.contains("kebab-case") {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }
}

/// The structs and enums of a file, and of the macros that make some. rustfmt gives each of their parts a line.
fn items(text: &str) -> Vec<Item> {
    let (mut done, mut open, mut next) = (Vec::new(), Vec::<Item>::new(), Item::default());
    let mut in_struct_macro = false;
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            next.docs.push_str(doc);
            next.docs.push('\n');
            continue;
        }
        if line.starts_with("#[") {
            next.attrs.push_str(line);
            continue;
        }
        if line == "at_random! {" {
            in_struct_macro = true;
            continue;
        }
        let mut item = std::mem::take(&mut next);
        item.docs = plain(item.docs.split("\n\n").next().unwrap());
        let line = line.trim_start_matches("pub ");
        let kind = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum "));
        let of_macro = line.strip_suffix("! {").filter(|name| ["optimizers", "transforms"].contains(name));
        let head = kind.or(of_macro).unwrap_or(line);
        let end = head.find(|letter: char| !letter.is_alphanumeric() && !"_$".contains(letter)).unwrap_or(head.len());
        let (name, rest) = head.split_at(end);
        name.clone_into(&mut item.name);
        if of_macro.is_some() {
            item.attrs.push_str("rename_all = \"lowercase\"");
        }
        let begins = kind.is_some() || of_macro.is_some() || std::mem::take(&mut in_struct_macro) || !open.is_empty();
        if begins && rest.starts_with(" {}") {
            done.push(item);
        } else if of_macro.is_some() || begins && rest == " {" {
            open.push(item);
        } else if let Some(whole) = open.pop() {
            if line.starts_with('}') {
                match open.last_mut() {
                    Some(parent) => parent.members.push(whole),
                    None => done.push(whole),
                }
                continue;
            }
            open.push(whole);
            if let Some(ty) = rest.strip_prefix(": ") {
                item.holds = ty.split(" = ").next().unwrap().trim_end_matches(',').to_owned();
            } else if let Some((held, kind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                held.clone_into(&mut item.holds);
                if let Some(kind) = kind.strip_prefix(" = ") {
                    write!(item.attrs, "rename = {kind}").unwrap();
                }
            } else if rest != "," {
                continue;
            }
            open.last_mut().unwrap().members.push(item);
        }
    }
    done
}

/// Documentation without links to items, on one line.
fn plain(docs: &str) -> String {
    let mut text = docs.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut from = 0;
    while let Some(start) = text[from..].find('[').map(|at| at + from) {
        from = start + 1;
        let Some(end) = text[start..].find(']').map(|at| at + start) else { break };
        let inner = text[start + 1..end].to_owned();
        let target = text[end + 1..].strip_prefix('(').and_then(|rest| rest.split(')').next()).map(str::len);
        if target.is_some() || (inner.starts_with('`') && inner.ends_with('`')) {
            text.replace_range(start..end + 1 + target.map_or(0, |length| length + 2), &inner);
        }
    }
    text
}

/// What makes the page.
struct Reference {
    items: BTreeMap<String, Item>,
    /// Enums whose words the page explains at its end.
    words: BTreeMap<String, String>,
}

impl Default for Reference {
    fn default() -> Self {
        let mut items = BTreeMap::new();
        for name in CRATES {
            let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
            let mut folders = vec![src];
            while let Some(folder) = folders.pop() {
                let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
                paths.sort();
                for path in paths {
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        for item in self::items(&fs::read_to_string(path).unwrap()) {
                            items.entry(item.name.clone()).or_insert(item);
                        }
                    }
                }
            }
        }
        Self { items, words: BTreeMap::new() }
    }
}

impl Reference {
    fn page(mut self) -> String {
        let mut page = HEAD.to_owned();
        for section in self.item("Recipe").members {
            let listed = section.holds.strip_prefix("Vec<").map(|ty| ty.trim_end_matches('>'));
            let place = Place { section: section.name.clone(), listed: listed.is_some(), kind: None };
            let about = section.docs.split_once(": ").unwrap().1;
            writeln!(page, "## `{}`\n\n{}{}\n", place.head(), about[..1].to_uppercase(), &about[1..]).unwrap();
            self.section(&mut page, &place, listed.unwrap_or(&section.holds));
        }
        page.push_str("## Words\n\n");
        for (name, words) in &self.words {
            write!(page, "### {name}\n\n{words}\n").unwrap();
        }
        page.truncate(page.trim_end().len());
        page.push('\n');
        page
    }

    fn item(&self, name: &str) -> Item {
        let name = match name {
            "OptimizerConfig" => "optimizers",
            "Transform" => "transforms",
            name => name,
        };
        self.items.get(name).unwrap_or_else(|| panic!("no item {name} in the sources")).clone()
    }

    /// The keys of a section of this type.
    fn section(&mut self, page: &mut String, place: &Place, ty: &str) {
        let item = self.item(ty);
        let (flat, own): (Vec<Item>, Vec<Item>) = item.members.iter().cloned().partition(|field| field.attrs.contains("flatten"));
        let is_struct = own.iter().any(|field| !field.holds.is_empty() && field.name.starts_with(char::is_lowercase));
        if is_struct {
            self.table(page, place, &own);
        }
        let kinds = if is_struct { flat.first().map(|field| self.item(&field.holds)) } else { Some(item) };
        let default = place.defaults().get("kind").cloned();
        for variant in kinds.iter().flat_map(|kinds| &kinds.members) {
            let kind = kinds.as_ref().unwrap().serialised(variant);
            let is_default = if default == Some(Value::from(kind.as_str())) { ", which is the default" } else { "" };
            writeln!(page, "### `kind = \"{kind}\"` in `{}`{is_default}\n\n{}\n", place.head(), variant.docs).unwrap();
            let place = Place { kind: Some(kind), ..place.clone() };
            let of_its_own = |reference: &Self| reference.items.get(&variant.holds).map(|item| item.members.clone());
            let fields = if variant.members.is_empty() { of_its_own(self).unwrap_or_default() } else { variant.members.clone() };
            self.table(page, &place, &fields);
        }
    }

    /// A table of keys, of which there may be more than fields: those that a macro adds.
    fn table(&mut self, page: &mut String, place: &Place, fields: &[Item]) {
        let defaults = place.defaults();
        let common: Vec<String> = place.kind.as_ref().map_or_else(Vec::new, |_| self.common_keys(place));
        let is_own = |key: &str| fields.iter().any(|field| field.name == key);
        let added = defaults.keys().filter(|key| place.kind.is_some() && !is_own(key) && *key != "kind" && !common.contains(key));
        let added = added.map(|key| self.item("$name").members.into_iter().find(|field| field.name == *key).unwrap());
        let fields: Vec<Item> = fields.iter().cloned().chain(added).collect();
        if fields.is_empty() {
            return;
        }
        page.push_str("| key | takes | default | is |\n|---|---|---|---|\n");
        for field in fields {
            let default = match defaults.get(&field.name) {
                Some(Value::Float(small)) if (0.0..1e-3).contains(&small.abs()) && *small != 0.0 => format!("`{small:e}`"),
                Some(value) => format!("`{value}`"),
                None if field.holds.starts_with("Option<") => "none".to_owned(),
                None => panic!("{} has no key {}", place.head(), field.name),
            };
            assert!(!field.docs.is_empty(), "{} has no documentation", field.name);
            let takes = self.takes(&field, place) + &place.limits(&field);
            writeln!(page, "| `{}` | {takes} | {default} | {} |", field.name, field.docs.replace('|', "\\|")).unwrap();
        }
        page.push('\n');
    }

    /// The keys that a section has with every kind.
    fn common_keys(&self, place: &Place) -> Vec<String> {
        let recipe = self.item("Recipe");
        let section = recipe.members.iter().find(|section| section.name == place.section).unwrap();
        self.items.get(&section.holds).iter().flat_map(|item| &item.members).map(|field| field.name.clone()).collect()
    }

    /// What a field takes, in words.
    fn takes(&mut self, field: &Item, place: &Place) -> String {
        let ty = field.holds.as_str();
        let inner = |start: &str| ty.strip_prefix(start).and_then(|rest| rest.strip_suffix('>'));
        if let Some(ty) = inner("Vec<") {
            return format!("list of {}s", self.takes(&Item { holds: ty.to_owned(), ..field.clone() }, place));
        }
        if let Some(ty) = inner("Option<") {
            return self.takes(&Item { holds: ty.to_owned(), ..field.clone() }, place);
        }
        match ty {
            "bool" => return "`true`, `false`".to_owned(),
            "f64" => return "number".to_owned(),
            "[f64; 2]" => return "two numbers".to_owned(),
            "String" | "PathBuf" | "Pattern" => return "text".to_owned(),
            "Table" => return "table".to_owned(),
            _ if ty.starts_with(['u', 'i']) => return "integer".to_owned(),
            _ => {}
        }
        let item = self.item(ty);
        if item.attrs.contains("try_from = \"String\"") {
            return "text".to_owned();
        }
        let of = |reference: &mut Self, variant: &Item| {
            reference.takes(&Item { holds: variant.holds.clone(), ..field.clone() }, place)
        };
        if item.attrs.contains("untagged") {
            return item.members.iter().map(|variant| of(self, variant)).collect::<Vec<_>>().join(", or ");
        }
        let mut words = Vec::new();
        for variant in &item.members {
            let name = item.serialised(variant);
            let word =
                if variant.holds.is_empty() { format!("\"{name}\"") } else { format!("{{ {name} = {} }}", of(self, variant)) };
            if variant.holds.is_empty() && place.parse(&field.name, &word).is_some() {
                continue;
            }
            words.push(format!("`{word}`"));
            if item.members.len() == 1 {
                continue;
            }
            let explained =
                self.words.entry(ty.to_owned()).or_insert_with(|| format!("{}\n\n| word | is |\n|---|---|\n", item.docs));
            let row = format!("| `{word}` | {} |\n", variant.docs);
            if !explained.contains(&row) {
                explained.push_str(&row);
            }
        }
        if words.len() > 1 { format!("{}: [words](#{})", words.join(", "), ty.to_lowercase()) } else { words.join(", ") }
    }
}

/// Where keys stand: a section, or an entry of a list, of a kind.
#[derive(Debug, Clone)]
struct Place {
    section: String,
    listed: bool,
    kind: Option<String>,
}

impl Place {
    fn head(&self) -> String {
        if self.listed { format!("[[{}]]", self.section) } else { format!("[{}]", self.section) }
    }

    /// A recipe with this section, or why there can be none.
    fn recipe(&self, key: &str, value: &str) -> Result<Recipe, String> {
        let default: Table = Recipe::default().to_toml().parse().unwrap();
        let default = default.get(&self.section).and_then(|section| section.get("kind")).and_then(Value::as_str);
        let mut text = self.head();
        if let Some(kind) = self.kind.as_deref().or(default).filter(|_| key != "kind") {
            write!(text, "\nkind = \"{kind}\"").unwrap();
        }
        if !key.is_empty() {
            write!(text, "\n{key} = {value}").unwrap();
        }
        let recipe = Recipe::parse(&text, Path::new("recipe")).map_err(|error| error.to_string())?;
        Transform::check_all(&recipe.transforms, INPUT).map_err(|error| error.to_string())?;
        Ok(recipe)
    }

    fn parse(&self, key: &str, value: &str) -> Option<String> {
        self.recipe(key, value).err()
    }

    /// The section's keys with their defaults.
    fn defaults(&self) -> Table {
        let no_kind = self.listed && self.section == "transforms" && self.kind.is_none();
        if no_kind {
            return Table::new();
        }
        let recipe: Table = self.recipe("", "").unwrap().to_toml().parse().unwrap();
        match &recipe[&self.section] {
            Value::Array(list) => list[0].as_table().unwrap().clone(),
            section => section.as_table().unwrap().clone(),
        }
    }

    /// What a field's numbers must be, as errors say.
    fn limits(&self, field: &Item) -> String {
        let ty = field.holds.trim_start_matches("Option<").trim_end_matches('>');
        let values: Vec<String> = match ty {
            "f64" => NUMBERS.map(str::to_owned).to_vec(),
            "[f64; 2]" => NUMBERS.map(|number| format!("[{number}, {number}]")).to_vec(),
            _ if ty.starts_with(['u', 'i']) => INTEGERS.map(str::to_owned).to_vec(),
            _ => return String::new(),
        };
        let takes_nan = values.iter().any(|value| value.contains("nan") && self.parse(&field.name, value).is_none());
        assert!(!takes_nan, "{} {} takes NaN", self.head(), field.name);
        let told = values.iter().filter_map(|value| self.parse(&field.name, value));
        let limits = told.filter_map(|error| {
            let (option, must) = error.split_once(" must ")?;
            let names_it = option.split([' ', '.', ':']).any(|part| part == field.name);
            // What goes for every number is not said of each.
            (names_it && must != "be a finite number")
                .then(|| format!(", {}", must.trim_start_matches("be ").replace("both be", "both")))
        });
        limits.collect::<BTreeSet<String>>().into_iter().collect()
    }
}
