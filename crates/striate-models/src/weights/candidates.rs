//! Which of the tensors in a file are the network's: files of training hold much besides.
use super::pickle::{Node, Pickle, TensorSpec, Value};
use super::shortened;
use crate::ModelError;
use std::collections::HashSet;
use std::path::Path;

/// Where training scripts put the weights, the likelier first; nothing stands for the file itself.
const KNOWN: [&str; 13] = [
    "",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "net_state_dict",
    "network",
    "weights",
    "params",
    "parameters",
    "module",
    "classifier",
];
/// Averages over training, which stand beside the weights themselves.
const AVERAGES: [&str; 5] = ["ema", "swa", "averag", "shadow", "polyak"];
/// Deeper dictionaries hold no networks.
const DEEPEST: usize = 4;
/// A module with more parts is no network.
const MOST_PARTS: usize = 1_000_000;

/// Tensors by name that may be a network's.
pub(super) struct Candidate {
    /// The keys that lead to them, with dots between; none if the file itself is the dictionary.
    pub(super) key: Option<String>,
    pub(super) tensors: Vec<(String, TensorSpec)>,
}

/// What was chosen.
pub(super) struct Chosen {
    pub(super) taken: Candidate,
    /// The keys of the other networks.
    pub(super) others: Vec<String>,
}

/// All dictionaries and modules with tensors by name, in the order of the file.
pub(super) fn candidates(pickle: &Pickle) -> Result<Vec<Candidate>, String> {
    let text = |value: &Value| match value {
        Value::Text(text) => Some(text.to_string()),
        _ => None,
    };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut stack = vec![(Vec::new(), pickle.root.clone())];
    while let Some((keys, value)) = stack.pop() {
        let Value::Node(place) = value else { continue };
        if !seen.insert(place) {
            continue;
        }
        let module = is_module(pickle, &value);
        let tensors = if module { of_module(pickle, &value)? } else { direct(pickle, &value) };
        if !tensors.is_empty() {
            let key = Some(keys.join(".")).filter(|key| !key.is_empty());
            found.push(Candidate { key, tensors });
        }
        if module || keys.len() == DEEPEST {
            continue;
        }
        for (key, value) in pickle.entries(&value).iter().rev() {
            if let Some(key) = text(key) {
                stack.push(([keys.as_slice(), &[key]].concat(), value.clone()));
            }
        }
    }
    Ok(found)
}

fn direct(pickle: &Pickle, value: &Value) -> Vec<(String, TensorSpec)> {
    let tensor = |(key, value): &(Value, Value)| match (key, pickle.node(value)) {
        (Value::Text(name), Some(Node::Tensor(tensor))) => Some((name.to_string(), tensor.clone())),
        _ => None,
    };
    pickle.entries(value).iter().filter_map(tensor).collect()
}

/// An attribute of an object.
fn attribute<'p>(pickle: &'p Pickle, value: &Value, name: &str) -> Option<&'p Value> {
    pickle.entries(value).iter().find(|(key, _)| matches!(key, Value::Text(text) if **text == *name)).map(|(_, value)| value)
}

fn is_module(pickle: &Pickle, value: &Value) -> bool {
    matches!(pickle.node(value), Some(Node::Object { .. })) && attribute(pickle, value, "_modules").is_some()
}

/// What `state_dict()` of a `torch.nn.Module` would give.
fn of_module(pickle: &Pickle, module: &Value) -> Result<Vec<(String, TensorSpec)>, String> {
    let mut tensors = Vec::new();
    let mut stack = vec![(String::new(), module.clone())];
    let mut parts = 0;
    while let Some((prefix, module)) = stack.pop() {
        parts += 1;
        if parts > MOST_PARTS {
            return Err("a module with too many parts".to_owned());
        }
        let passing: &[Value] =
            attribute(pickle, &module, "_non_persistent_buffers_set").map_or(&[], |names| pickle.items(names));
        let passes = |name: &str| passing.iter().any(|value| matches!(value, Value::Text(text) if **text == *name));
        for part in ["_parameters", "_buffers"] {
            let Some(values) = attribute(pickle, &module, part) else { continue };
            let values = direct(pickle, values).into_iter().filter(|(name, _)| !passes(name));
            tensors.extend(values.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        let Some(modules) = attribute(pickle, &module, "_modules") else { continue };
        for (name, part) in pickle.entries(modules) {
            if let Value::Text(name) = name {
                stack.push((format!("{prefix}{name}."), part.clone()));
            }
        }
    }
    Ok(tensors)
}

/// The network under `key`, or the one that is likeliest meant.
pub(super) fn choose(found: Vec<Candidate>, key: Option<&str>, path: &Path) -> Result<Chosen, ModelError> {
    let mut networks = networks(found);
    let keys = |networks: &[Candidate]| -> Vec<String> { networks.iter().filter_map(|network| network.key.clone()).collect() };
    let place = match key {
        Some(key) => match networks.iter().position(|network| network.key.as_deref() == Some(key)) {
            Some(place) => place,
            None => {
                let part = |network: &Candidate, name: &str| {
                    let full = format!("{}.{name}", network.key.as_deref().unwrap_or_default());
                    below(name, key).or_else(|| below(&full, key)).map(str::to_owned)
                };
                let under = |network: &Candidate| network.tensors.iter().any(|(name, _)| part(network, name).is_some());
                let place = networks.iter().position(under).ok_or_else(|| ModelError::UnknownKey {
                    path: path.into(),
                    key: shortened(key, 100),
                    known: listed(&keys(&networks)),
                })?;
                let tensors = std::mem::take(&mut networks[place].tensors).into_iter();
                networks[place].tensors =
                    tensors.filter_map(|(name, tensor)| Some((part(&networks[place], &name)?, tensor))).collect();
                place
            }
        },
        None => {
            let ranks: Vec<_> = networks.iter().map(rank).collect();
            let best = ranks.iter().min().ok_or_else(|| ModelError::NoWeights { path: path.into() })?;
            if ranks.iter().filter(|rank| *rank == best).count() > 1 {
                return Err(ModelError::SeveralNetworks { path: path.into(), keys: listed(&keys(&networks)) });
            }
            ranks.iter().position(|rank| rank == best).unwrap_or_default()
        }
    };
    let taken = networks.remove(place);
    Ok(Chosen { others: keys(&networks), taken })
}

/// The rest of a name behind `key` and a dot.
pub(super) fn below<'n>(name: &'n str, key: &str) -> Option<&'n str> {
    name.strip_prefix(key)?.strip_prefix('.')
}

/// The architecture that a training script named beside the weights.
pub(super) fn named(pickle: &Pickle) -> Option<String> {
    match attribute(pickle, &pickle.root, "arch")? {
        Value::Text(arch) => Some(shortened(arch, 40)),
        _ => None,
    }
}

/// Those with names of layers, such as `conv1.weight`; where there are none, all. Optimizers also keep tensors by name.
fn networks(found: Vec<Candidate>) -> Vec<Candidate> {
    let optimizers = |key: &str| key.split('.').any(|key| key.starts_with("optim"));
    let found: Vec<Candidate> = found.into_iter().filter(|one| !one.key.as_deref().is_some_and(optimizers)).collect();
    let layers = |one: &Candidate| one.tensors.iter().any(|(name, _)| name.contains('.'));
    let any = found.iter().any(layers);
    found.into_iter().filter(|one| !any || layers(one)).collect()
}

/// The smaller, the likelier: weights before their averages, and keys that are in use before others.
fn rank(network: &Candidate) -> (bool, usize) {
    let key = network.key.as_deref().unwrap_or_default();
    let first = key.split('.').next().unwrap_or_default();
    let layers = network.tensors.iter().any(|(name, _)| name.contains('.'));
    // Single tensors at the top of a file, such as the state of a generator of random numbers, are no network.
    let known = KNOWN.iter().position(|known| *known == first).filter(|_| layers || !first.is_empty());
    let place = known.unwrap_or(KNOWN.len());
    (is_average(key), place)
}

/// Whether keys say that what is under them is an average of weights.
pub(super) fn is_average(key: &str) -> bool {
    AVERAGES.iter().any(|average| key.to_lowercase().contains(average))
}

/// A few of the keys.
pub(super) fn listed(keys: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = keys.iter().take(SHOWN).map(|key| shortened(key, 40)).collect();
    match keys.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
