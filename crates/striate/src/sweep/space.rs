//! What a sweep tries: the section `[sweep]` of its file, and the recipes that it stands for.
use crate::Error;
use crate::group::{recipe_of, refuse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use striate_torch::{derive_seed, nearest};
use striate_train::Recipe;
use toml::{Table, Value};

/// The section of a sweep's file.
pub(super) const SECTION: &str = "sweep";
/// The fields in it.
const FIELDS: &str = "fields";
/// The most trials.
const MOST: usize = 10_000;
/// After so many draws of recipes that there are already, a random search takes it that there are no others.
const IN_VAIN: usize = 1000;
/// Digits of a drawn number that count: enough to find it again, and few enough to read.
const DIGITS: usize = 4;

/// How a sweep searches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Search {
    /// Every combination of the listed values.
    Grid {},
    /// So many recipes, drawn at random.
    Random {
        /// How many.
        trials: usize,
        /// What they are drawn from.
        #[serde(default)]
        seed: u64,
    },
    /// Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), on the rungs of ASHA (Li 2018, arXiv:1810.05934): all
    /// trials train for `min_epochs`; of each rung, the best of every `eta` train on for `eta` times as long, until the last have
    /// the recipe's epochs. Trials run one after another, so no trial is promoted before its rung is complete.
    Halving {
        /// How many trials there are on the first rung.
        trials: usize,
        /// What they are drawn from.
        #[serde(default)]
        seed: u64,
        /// Of so many trials, one is promoted.
        #[serde(default = "Search::default_eta")]
        eta: u64,
        /// Epochs of the first rung.
        #[serde(default = "Search::default_min_epochs")]
        min_epochs: u64,
    },
}

impl Search {
    fn default_eta() -> u64 {
        3
    }

    fn default_min_epochs() -> u64 {
        1
    }

    /// Epochs after which trials are compared, the recipe's own last.
    pub(super) fn rungs(&self, epochs: u64) -> Vec<u64> {
        let mut rungs = Vec::new();
        if let Self::Halving { eta, min_epochs, .. } = self {
            let mut rung = *min_epochs;
            while rung < epochs {
                rungs.push(rung);
                rung = rung.saturating_mul(*eta);
            }
        }
        rungs.push(epochs);
        rungs
    }
}

/// Which values a field of the recipe has.
#[derive(Debug, Clone, PartialEq)]
enum Domain {
    /// One of these.
    List(Vec<Value>),
    /// A number from `min` to `max`: whole if both are.
    Range { min: Value, max: Value, log: bool },
}

/// A range as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct Written {
    min: Value,
    max: Value,
    #[serde(default)]
    log: bool,
}

impl Domain {
    fn of(name: &str, value: Value) -> Result<Self, String> {
        let domain = match value {
            Value::Array(values) => Self::List(values),
            other => {
                let Written { min, max, log } = other.try_into().map_err(|error: toml::de::Error| {
                    format!("`{name}` must be a list, or a range {{ min = .., max = .. }}: {}", error.message())
                })?;
                Self::Range { min, max, log }
            }
        };
        match &domain {
            Self::List(values) if values.is_empty() => Err(format!("the list of `{name}` is empty")),
            Self::Range { min, max, log } => match (number(min), number(max)) {
                (Some(low), Some(high)) if low >= high => Err(format!("`{name}`: min must be below max")),
                (Some(low), Some(_)) if *log && low <= 0.0 => Err(format!("`{name}`: min must be above 0 for log = true")),
                (Some(_), Some(_)) => Ok(domain),
                _ => Err(format!("`{name}`: min and max must be numbers")),
            },
            Self::List(_) => Ok(domain),
        }
    }

    /// The value at a place from 0 to below 1.
    fn at(&self, place: f64) -> Value {
        match self {
            Self::List(values) => values[((place * values.len() as f64) as usize).min(values.len() - 1)].clone(),
            Self::Range { min: Value::Integer(min), max: Value::Integer(max), log } => {
                // Each whole number has the part up to the next one.
                let drawn = between(*min as f64, *max as f64 + 1.0, *log, place).floor() as i64;
                Value::Integer(drawn.clamp(*min, *max))
            }
            Self::Range { min, max, log } => {
                let (min, max) = (number(min).unwrap_or_default(), number(max).unwrap_or_default());
                let drawn = between(min, max, *log, place);
                Value::Float(format!("{drawn:.*e}", DIGITS - 1).parse().unwrap_or(drawn).clamp(min, max))
            }
        }
    }
}

fn between(min: f64, max: f64, log: bool, place: f64) -> f64 {
    if log { min * (max / min).powf(place) } else { min + (max - min) * place }
}

/// A number in TOML, if it is finite.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    number.filter(|number| number.is_finite())
}

/// A recipe that is tried, and what it has for each field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) values: Vec<(String, Value)>,
    pub(super) recipe: Recipe,
}

/// How a sweep searches, and the recipes that it tries, no two of which are the same. `path` is the file that errors name.
pub(super) fn resolve(base: &Table, section: Option<Value>, path: &Path) -> Result<(Search, Vec<Candidate>), Error> {
    let refused = |reason: String| refuse(path, reason);
    let Some(Value::Table(mut section)) = section else {
        return Err(refused(format!("there is no section [{SECTION}]: it says what to search, and how")));
    };
    let fields = section.remove(FIELDS);
    let search = search_of(section).map_err(refused)?;
    let mut named = Vec::new();
    match fields {
        Some(Value::Table(fields)) => flatten("", fields, &mut named),
        _ => {
            return Err(refused(format!(
                "[{SECTION}] has no `{FIELDS}`: write [{SECTION}.{FIELDS}], and in it lists such as train.lr = [0.1, 0.01]"
            )));
        }
    }
    let fields = named.into_iter().map(|(name, value)| Ok((Domain::of(&name, value)?, name)));
    let fields = fields.collect::<Result<Vec<(Domain, String)>, String>>().map_err(refused)?;
    check(&search, &fields, base).map_err(refused)?;

    let combinations: Box<dyn Iterator<Item = Vec<Value>>> = match &search {
        Search::Grid {} => Box::new(grid(&fields).map_err(refused)?),
        Search::Random { seed, .. } | Search::Halving { seed, .. } => {
            let draw = |index: usize| fields.iter().map(|(domain, name)| domain.at(place(*seed, index, name))).collect();
            Box::new((0..).map(draw))
        }
    };
    let wanted = match &search {
        Search::Grid {} => MOST,
        Search::Random { trials, .. } | Search::Halving { trials, .. } => *trials,
    };
    let (mut candidates, mut seen, mut in_vain) = (Vec::new(), BTreeSet::new(), 0);
    for values in combinations {
        if candidates.len() == wanted || in_vain > IN_VAIN {
            break;
        }
        let mut table = base.clone();
        let values: Vec<(String, Value)> = fields.iter().map(|(_, name)| name.clone()).zip(values).collect();
        for (name, value) in &values {
            set(&mut table, name, value.clone()).map_err(refused)?;
        }
        let recipe = recipe_of(&table, path)?;
        if seen.insert(recipe.to_toml()) {
            candidates.push(Candidate { values, recipe });
            in_vain = 0;
        } else {
            in_vain += 1;
        }
    }
    if let (Search::Halving { min_epochs, .. }, Some(first)) = (&search, candidates.first())
        && *min_epochs > first.recipe.train.epochs
    {
        let epochs = first.recipe.train.epochs;
        return Err(refused(format!("min_epochs = {min_epochs} in [{SECTION}] must be at most the recipe's epochs, {epochs}")));
    }
    Ok((search, candidates))
}

fn search_of(section: Table) -> Result<Search, String> {
    let known: &[&str] = match section.get("kind").and_then(Value::as_str) {
        Some("grid") => &["kind"],
        Some("random") => &["kind", "trials", "seed"],
        Some("halving") => &["kind", "trials", "seed", "eta", "min_epochs"],
        _ => return Err(format!("[{SECTION}] needs a `kind`: \"grid\", \"random\" or \"halving\"")),
    };
    if let Some(key) = section.keys().find(|key| !known.contains(&key.as_str())) {
        let meant = nearest(key, known.iter().copied());
        let meant =
            meant.map_or_else(|| format!("there are {}, {FIELDS}", known.join(", ")), |meant| format!("did you mean `{meant}`?"));
        return Err(format!("unknown key `{key}` in [{SECTION}]: {meant}"));
    }
    Value::Table(section).try_into().map_err(|error: toml::de::Error| format!("[{SECTION}]: {}", error.message()))
}

fn check(search: &Search, fields: &[(Domain, String)], base: &Table) -> Result<(), String> {
    let unless = |ok: bool, reason: String| if ok { Ok(()) } else { Err(reason) };
    unless(!fields.is_empty(), format!("[{SECTION}.{FIELDS}] names no field: give lists such as train.lr = [0.1, 0.01]"))?;
    if let Search::Random { trials, .. } | Search::Halving { trials, .. } = search {
        unless((1..=MOST).contains(trials), format!("trials = {trials} in [{SECTION}] must be from 1 to {MOST}"))?;
    }
    if let Search::Halving { eta, min_epochs, .. } = search {
        unless(*eta >= 2, format!("eta = {eta} in [{SECTION}] must be 2 or larger"))?;
        unless(*min_epochs >= 1, format!("min_epochs = {min_epochs} in [{SECTION}] must be 1 or larger"))?;
        let own = fields.iter().any(|(_, name)| name == "train.epochs" || name == "train");
        unless(!own, "halving gives each trial its epochs: take train.epochs out of the fields".to_owned())?;
    }
    // A key in a section that is no table would be told as if the section were missing.
    let section = |name: &str| {
        base.get(name.split('.').next().unwrap_or_default()).is_none_or(|value| value.is_table() || value.is_array())
    };
    match fields.iter().find(|(_, name)| !section(name)) {
        Some((_, name)) => Err(format!("`{name}` is in no section: write it as SECTION.KEY")),
        None => Ok(()),
    }
}

/// Every combination of the listed values; the last field changes fastest.
fn grid(fields: &[(Domain, String)]) -> Result<impl Iterator<Item = Vec<Value>>, String> {
    let mut all: Vec<Vec<Value>> = vec![Vec::new()];
    for (domain, name) in fields {
        let Domain::List(values) = domain else {
            return Err(format!("a grid takes lists: list the values of `{name}`, or take kind = \"random\""));
        };
        if all.len() * values.len() > MOST {
            return Err(format!("the grid has more than {MOST} combinations: take kind = \"random\""));
        }
        let with = |start: &Vec<Value>| {
            values.iter().map(|value| [start.as_slice(), std::slice::from_ref(value)].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    Ok(all.into_iter())
}

/// Where a field of a trial lies in its domain, from 0 to below 1: it depends on nothing else, so that more trials or another field
/// change no trial's.
fn place(seed: u64, index: usize, name: &str) -> f64 {
    let parts: Vec<u64> = std::iter::once(index as u64).chain(name.bytes().map(u64::from)).collect();
    (derive_seed(seed, &parts) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The fields of nested tables, with dots between; a table with the keys of a range is one.
fn flatten(prefix: &str, table: Table, named: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.contains_key("min") && !inner.contains_key("max") => flatten(&name, inner, named),
            value => named.push((name, value)),
        }
    }
}

/// Sets the key that a dotted name leads to.
fn set(table: &mut Table, name: &str, value: Value) -> Result<(), String> {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let inner =
                inner.as_table_mut().ok_or_else(|| format!("`{section}` is no section, so that `{rest}` cannot be in it"))?;
            set(inner, rest, value)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::group::split;

    fn tried(text: &str) -> Result<(Search, Vec<Candidate>), String> {
        let path = Path::new("s.toml");
        let (table, section) = split(text, path, SECTION).map_err(|error| error.to_string())?;
        resolve(&table, section, path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_grid_has_every_combination() {
        let text = "[train]\nepochs = 2\n[sweep]\nkind = 'grid'\n[sweep.fields]\ntrain.lr = [0.1, 0.2]\n'optimizer.momentum' = [0, 0.5, 0.9]\n[optimizer]\nkind = 'sgd'";
        let (search, candidates) = tried(text).unwrap();
        assert_eq!((search, candidates.len()), (Search::Grid {}, 6));
        let pairs: Vec<String> = candidates.iter().map(|one| format!("{} {}", one.values[0].1, one.recipe.train.lr)).collect();
        assert_eq!(pairs, ["0 0.1", "0 0.2", "0.5 0.1", "0.5 0.2", "0.9 0.1", "0.9 0.2"]);
        assert!(candidates.iter().all(|one| one.recipe.train.epochs == 2));
        // Two ways to write one recipe are one trial.
        assert_eq!(tried("[sweep]\nkind = 'grid'\nfields = { train.lr = [1, 1.0, 2] }").unwrap().1.len(), 2);
        let whole = "[sweep]\nkind = 'grid'\nfields = { optimizer = [{ kind = 'sgd', momentum = 0.5 }, { kind = 'adamw' }], transforms = [[], [{ kind = 'cifar' }]] }";
        assert_eq!(tried(whole).unwrap().1.len(), 4);
    }

    #[test]
    fn draws_lie_in_their_ranges_and_do_not_depend_on_how_many_there_are() {
        let text = |trials: usize| {
            format!(
                "[sweep]\nkind = 'random'\ntrials = {trials}\nseed = 5\n[sweep.fields]\ntrain.lr = {{ min = 1e-4, max = 1e-1, log = true }}\n\
                 train.batch_size = {{ min = 2, max = 4 }}\ntrain.label_smoothing = {{ min = 0.0, max = 0.5 }}\noptimizer.kind = ['sgd', 'adamw']"
            )
        };
        let (_, few) = tried(&text(20)).unwrap();
        let (_, many) = tried(&text(400)).unwrap();
        assert_eq!((few.len(), many.len()), (20, 400));
        assert_eq!(few, many[..20]);
        let share = |is: &dyn Fn(&Recipe) -> bool| many.iter().filter(|one| is(&one.recipe)).count() as f64 / 400.0;
        assert_eq!(share(&|recipe| (1e-4..=1e-1).contains(&recipe.train.lr)), 1.0);
        // Each decade has a third, each of three sizes too, and either kind half: within four standard deviations.
        assert!((share(&|recipe| recipe.train.lr < 1e-3) - 1.0 / 3.0).abs() < 0.1);
        for size in 2..=4 {
            assert!((share(&|recipe| recipe.train.batch_size == size) - 1.0 / 3.0).abs() < 0.1);
        }
        assert!((share(&|recipe| recipe.train.label_smoothing < 0.25) - 0.5).abs() < 0.1);
        // Fields are drawn apart from each other.
        assert!((share(&|recipe| recipe.train.lr < 1e-3 && recipe.train.batch_size == 2) - 1.0 / 9.0).abs() < 0.07);
        // There are no more than two.
        assert_eq!(
            tried("[sweep]\nkind = 'random'\ntrials = 9\nfields = { optimizer.kind = ['sgd', 'adamw'] }").unwrap().1.len(),
            2
        );
    }

    #[test]
    fn rungs_are_powers_of_eta() {
        let search = |eta, min_epochs| Search::Halving { trials: 9, seed: 0, eta, min_epochs };
        assert_eq!(search(3, 1).rungs(27), [1, 3, 9, 27]);
        assert_eq!(search(2, 3).rungs(20), [3, 6, 12, 20]);
        assert_eq!(search(3, 1).rungs(1), [1]);
        assert_eq!(Search::Grid {}.rungs(5), [5]);
    }

    #[test]
    fn every_fault_is_told_before_anything_starts() {
        let halving = "[sweep]\nkind = 'halving'\ntrials = 3\n";
        for (text, told) in [
            ("", "s.toml: there is no section [sweep]: it says what to search, and how"),
            ("[sweep]\nkind = 'gird'", "[sweep] needs a `kind`: \"grid\", \"random\" or \"halving\""),
            ("[sweep]\nkind = 'grid'", "[sweep] has no `fields`: write [sweep.fields], and in it lists such as"),
            ("[sweep]\nkind = 'grid'\nfields = {}", "[sweep.fields] names no field"),
            ("[sweep]\nkind = 'grid'\ntrials = 3\nfields = {}", "unknown key `trials` in [sweep]: there are kind, fields"),
            ("[sweep]\nkind = 'random'\ntrails = 3\nfields = {}", "unknown key `trails` in [sweep]: did you mean `trials`?"),
            ("[sweep]\nkind = 'random'\nfields = {}", "[sweep]: missing field `trials`"),
            (
                "[sweep]\nkind = 'random'\ntrials = 0\nfields = { train.lr = [1] }",
                "trials = 0 in [sweep] must be from 1 to 10000",
            ),
            ("[sweep]\nkind = 'grid'\nfields = { train.lrr = [0.1] }", "unknown key `lrr` in [train]: did you mean `lr`?"),
            ("[sweep]\nkind = 'grid'\nfields = { trian.lr = [0.1] }", "unknown section [trian]: did you mean [train]?"),
            ("[sweep]\nkind = 'grid'\nfields = { lr = [0.1] }", "unknown key `lr`: keys belong in a section such as [train]"),
            ("[sweep]\nkind = 'grid'\nfields = { train.lr = [0.1, -1] }", "train.lr = -1.0 must be above 0"),
            ("[sweep]\nkind = 'grid'\nfields = { train.lr = ['fast'] }", "expected f64 in `train.lr`"),
            ("[sweep]\nkind = 'grid'\nfields = { train.lr = [] }", "the list of `train.lr` is empty"),
            (
                "[sweep]\nkind = 'grid'\nfields = { train.lr = 0.1 }",
                "`train.lr` must be a list, or a range { min = .., max = .. }",
            ),
            (
                "[sweep]\nkind = 'grid'\nfields = { train.lr = { min = 0.1, max = 1 } }",
                "a grid takes lists: list the values of `train.lr`",
            ),
            (
                "[sweep]\nkind = 'random'\ntrials = 1\nfields = { train.lr = { min = 1, max = 0.1 } }",
                "`train.lr`: min must be below max",
            ),
            (
                "[sweep]\nkind = 'random'\ntrials = 1\nfields = { train.lr = { min = 0, max = 1, log = true } }",
                "min must be above 0 for log",
            ),
            ("[sweep]\nkind = 'random'\ntrials = 1\nfields = { train.lr = { min = 0, mox = 1 } }", "unknown field `mox`"),
            (
                "[sweep]\nkind = 'random'\ntrials = 1\nfields = { train.lr = { min = 'a', max = 1 } }",
                "min and max must be numbers",
            ),
            (&format!("{halving}eta = 1\nfields = {{ train.lr = [1] }}"), "eta = 1 in [sweep] must be 2 or larger"),
            (&format!("{halving}min_epochs = 999\nfields = {{ train.lr = [1] }}"), "min_epochs = 999 in [sweep] must be at most"),
            (&format!("{halving}fields = {{ train.epochs = [1] }}"), "take train.epochs out of the fields"),
            ("[sweep]\nkind = ", "s.toml: line 2: "),
        ] {
            let error = tried(text).unwrap_err();
            assert!(error.starts_with("s.toml: ") && error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
