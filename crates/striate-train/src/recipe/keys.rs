//! What stands in a recipe's file: keys that there are, and lists of transforms written out.
use super::{Recipe, one_line};
use striate_datasets::Transform;
use striate_torch::nearest;
use toml::{Table, Value};

/// The list of transforms in a recipe's file.
const TRANSFORMS: &str = "transforms";
/// The list of groups of parameters.
const GROUPS: &str = "groups";
/// Sections whose keys depend on their `kind`.
const KINDS: [&str; 3] = ["average", "optimizer", "schedule"];
/// What was there before lists of transforms.
const AUGMENT: &str = "augment";

/// The recipe's table with presets in the list of transforms written out. Refuses what is no transform.
pub(super) fn with_transforms(mut table: Table) -> Result<Table, String> {
    if table.contains_key(AUGMENT) && table.contains_key(TRANSFORMS) {
        return Err(format!("[{AUGMENT}] and [[{TRANSFORMS}]] exclude each other: keep [[{TRANSFORMS}]]"));
    }
    let Some(list) = table.get(TRANSFORMS) else { return Ok(table) };
    let tables = list.as_array().and_then(|list| list.iter().map(Value::as_table).collect::<Option<Vec<_>>>());
    let tables = tables.ok_or_else(|| format!("`{TRANSFORMS}` must be a list of tables: write [[{TRANSFORMS}]]"))?;
    let all = tables.into_iter().map(written_out).collect::<Result<Vec<_>, _>>()?.concat();
    table.insert(TRANSFORMS.to_owned(), Value::try_from(all).map_err(|error| error.to_string())?);
    Ok(table)
}

/// The recipe's table with a `kind` in each section that goes by one: where it is left out, that of the default recipe.
pub(super) fn with_kinds(mut table: Table) -> Table {
    let defaults = Table::try_from(Recipe::default()).unwrap_or_default();
    for section in KINDS {
        let kind = defaults.get(section).and_then(|section| section.get("kind"));
        if let (Some(Value::Table(keys)), Some(kind)) = (table.get_mut(section), kind) {
            keys.entry("kind").or_insert_with(|| kind.clone());
        }
    }
    table
}

/// The transforms that an entry of the list stands for: one, or those of a preset.
fn written_out(entry: &Table) -> Result<Vec<Transform>, String> {
    let kind = entry.get("kind").and_then(Value::as_str).ok_or_else(|| format!("each of [[{TRANSFORMS}]] needs a `kind`"))?;
    let alone = Table::from_iter([("kind".to_owned(), Value::from(kind))]);
    let preset = Transform::preset(kind);
    let known = match (&preset, Value::Table(alone.clone()).try_into::<Transform>()) {
        (Some(_), _) => alone,
        (None, Ok(default)) => Table::try_from(default).map_err(|error| error.to_string())?,
        (None, Err(_)) => {
            let kinds = || Transform::KINDS.iter().chain(&Transform::PRESETS).copied();
            let meant = nearest(kind, kinds()).map(|meant| format!("did you mean `{meant}`?"));
            let meant = meant.unwrap_or_else(|| format!("there are {}", kinds().collect::<Vec<_>>().join(", ")));
            return Err(format!("there is no transform `{kind}`: {meant}"));
        }
    };
    if let Some(key) = entry.keys().find(|key| !known.contains_key(*key)) {
        return Err(format!("unknown key `{key}` in [[{TRANSFORMS}]] `{kind}`: {}", did_you_mean(key, &known, "`", "`")));
    }
    preset
        .map_or_else(|| Value::Table(entry.clone()).try_into().map(|transform| vec![transform]), Ok)
        .map_err(|error: toml::de::Error| format!("[[{TRANSFORMS}]] `{kind}`: {}", one_line(&error)))
}

/// Refuses a section or a key that no recipe has.
///
/// The known ones are those of the default recipe, with the sections of the kinds that `table` names.
pub(super) fn check_keys(table: &Table) -> Result<(), String> {
    let known = known_keys(table)?;
    for (section, value) in table.iter().filter(|(section, _)| !matches!(section.as_str(), TRANSFORMS | AUGMENT | GROUPS)) {
        let Some(Value::Table(known_here)) = known.get(section) else {
            return Err(match value {
                Value::Table(_) => format!("unknown section [{section}]: {}", did_you_mean(section, &known, "[", "]")),
                _ => format!("unknown key `{section}`: keys belong in a section such as [{}]", section_of(section, &known)),
            });
        };
        let Value::Table(keys) = value else { return Err(format!("`{section}` must be a section: write [{section}]")) };
        if let Some(key) = keys.keys().find(|key| !known_here.contains_key(*key)) {
            let elsewhere = known.iter().find(|(_, keys)| keys.get(key).is_some());
            return Err(match elsewhere {
                Some((other, _)) => format!("unknown key `{key}` in [{section}]: it belongs in [{other}]"),
                None => format!("unknown key `{key}` in [{section}]: {}", did_you_mean(key, known_here, "`", "`")),
            });
        }
    }
    Ok(())
}

/// The first value in a section with a `kind` that is of another type than its default; errors of these sections name no key.
pub(super) fn wrong_type(table: &Table) -> Option<String> {
    let known = known_keys(table).ok()?;
    let number = |value: &Value| value.is_integer() || value.is_float();
    for section in KINDS {
        for (key, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
            let default = known.get(section)?.get(key)?;
            let fits = default.same_type(value) || (number(default) && number(value));
            if !fits {
                let expected = if number(default) { "number" } else { default.type_str() };
                return Some(format!("invalid type: {} {value}, expected {expected} in `{section}.{key}`", value.type_str()));
            }
        }
    }
    None
}

fn known_keys(table: &Table) -> Result<Table, String> {
    let mut kinds = Table::new();
    for section in KINDS {
        if let Some(kind) = table.get(section).and_then(|section| section.get("kind")) {
            kinds.insert(section.to_owned(), Value::Table(Table::from_iter([("kind".to_owned(), kind.clone())])));
        }
    }
    let skeleton: Recipe = kinds.try_into().map_err(|error| one_line(&error))?;
    Table::try_from(skeleton).map_err(|error| error.to_string())
}

/// The section that has the key that `key` means.
fn section_of<'a>(key: &str, known: &'a Table) -> &'a str {
    let keys = |section: &'a Value| section.as_table().into_iter().flat_map(Table::keys).map(String::as_str);
    let meant = nearest(key, known.iter().flat_map(|(_, section)| keys(section)));
    let has = |section| meant.is_some_and(|meant| keys(section).any(|key| key == meant));
    known.iter().find(|(_, section)| has(section)).map_or("train", |(name, _)| name)
}

/// The name that was meant, or else all that there are, each between `open` and `close`.
fn did_you_mean(name: &str, known: &Table, open: &str, close: &str) -> String {
    match nearest(name, known.keys().map(String::as_str)) {
        Some(nearest) => format!("did you mean {open}{nearest}{close}?"),
        None => {
            let known: Vec<String> = known.keys().map(|known| format!("{open}{known}{close}")).collect();
            format!("there are {}", known.join(", "))
        }
    }
}
