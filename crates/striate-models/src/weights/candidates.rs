//! Which of the tensors in a file are the network's: files of training hold much besides.
use super::allowance::{Allowance, Exceeded};
use super::names::bare;
use super::pickle::{Node, Pickle, TensorSpec, Value};
use super::shortened;
use crate::ModelError;
use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;
use striate_torch::few;

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
/// What goes by no key goes by these.
pub(super) const NAMES: &str = "the beginnings of its names";
/// Deeper dictionaries hold no networks.
const DEEPEST: usize = 8;
/// What looking at a value takes.
const VALUE_BYTES: u64 = 48;
/// What a part of a module takes, apart from the tensors and names in it.
const PART_BYTES: u64 = 256;

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

/// All dictionaries and modules with tensors by name, also those in lists, in the order of the file.
///
/// A value of the file can be in it at many places. What that makes of it is taken from `allowance`.
pub(super) fn candidates(pickle: &Pickle, allowance: &mut Allowance) -> Result<Vec<Candidate>, Exceeded> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut stack: Vec<(Vec<Rc<str>>, &Value)> = vec![(Vec::new(), &pickle.root)];
    while let Some((keys, value)) = stack.pop() {
        let Value::Node(place) = value else { continue };
        if !seen.insert(*place) {
            continue;
        }
        let module = is_module(pickle, value);
        let tensors =
            if module { of_module(pickle, value, allowance)? } else { direct(pickle, value, "", &HashSet::new(), allowance)? };
        if !tensors.is_empty() {
            allowance.take_all(keys.iter().map(|key| key.len() + 1).sum(), 1)?;
            let key = Some(keys.join(".")).filter(|key| !key.is_empty());
            found.push(Candidate { key, tensors });
        }
        if module || keys.len() == DEEPEST {
            continue;
        }
        let below = |key: Rc<str>| [keys.as_slice(), &[key]].concat();
        // A file may also hold a list of what its script saves.
        for (place, value) in pickle.items(value).iter().enumerate().rev() {
            if let Value::Node(_) = value {
                allowance.take_all(1 + keys.len(), PART_BYTES)?;
                stack.push((below(place.to_string().into()), value));
            }
        }
        for (key, value) in pickle.entries(value).iter().rev() {
            let key = match key {
                Value::Text(key) => Rc::clone(key),
                Value::Int(key) => key.to_string().into(),
                _ => continue,
            };
            if let Value::Node(_) = value {
                allowance.take_all(1 + keys.len(), PART_BYTES)?;
                stack.push((below(key), value));
            }
        }
    }
    Ok(found)
}

/// The tensors that a dictionary holds itself, with `prefix` before their names, and without those that `left_out` names.
fn direct(
    pickle: &Pickle,
    value: &Value,
    prefix: &str,
    left_out: &HashSet<&str>,
    allowance: &mut Allowance,
) -> Result<Vec<(String, TensorSpec)>, Exceeded> {
    let entries = pickle.entries(value);
    allowance.take_all(entries.len(), 1)?;
    let mut tensors = Vec::new();
    for (key, value) in entries {
        if let (Value::Text(name), Some(Node::Tensor(tensor))) = (key, pickle.node(value))
            && !left_out.contains(&**name)
        {
            allowance.take_all(2 * size_of::<TensorSpec>() + 16 * tensor.size.len() + prefix.len() + name.len(), 1)?;
            tensors.push((format!("{prefix}{name}"), (**tensor).clone()));
        }
    }
    Ok(tensors)
}

/// An attribute of an object.
fn attribute<'p>(pickle: &'p Pickle, value: &Value, name: &str) -> Option<&'p Value> {
    pickle.entries(value).iter().find(|(key, _)| matches!(key, Value::Text(text) if **text == *name)).map(|(_, value)| value)
}

fn is_module(pickle: &Pickle, value: &Value) -> bool {
    matches!(pickle.node(value), Some(Node::Object { .. })) && attribute(pickle, value, "_modules").is_some()
}

/// What `state_dict()` of a `torch.nn.Module` would give.
fn of_module(pickle: &Pickle, module: &Value, allowance: &mut Allowance) -> Result<Vec<(String, TensorSpec)>, Exceeded> {
    let mut tensors = Vec::new();
    let mut stack = vec![(String::new(), module)];
    while let Some((prefix, module)) = stack.pop() {
        let passing: &[Value] = attribute(pickle, module, "_non_persistent_buffers_set").map_or(&[], |names| pickle.items(names));
        allowance.take_all(pickle.entries(module).len() + passing.len(), VALUE_BYTES)?;
        let passing = passing.iter().filter_map(|value| if let Value::Text(text) = value { Some(&**text) } else { None });
        let passing: HashSet<&str> = passing.collect();
        for part in ["_parameters", "_buffers"] {
            let Some(values) = attribute(pickle, module, part) else { continue };
            tensors.extend(direct(pickle, values, &prefix, &passing, allowance)?);
        }
        let Some(modules) = attribute(pickle, module, "_modules") else { continue };
        for (name, part) in pickle.entries(modules) {
            if let Value::Text(name) = name {
                allowance.take(PART_BYTES)?;
                allowance.take_all(prefix.len() + name.len(), 1)?;
                stack.push((format!("{prefix}{name}."), part));
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
                    // Messages name the parts of a network without what wrappers put into their names.
                    let names = [name, &full, &bare(name), &bare(&full)];
                    names.into_iter().find_map(|name| below(name, key)).map(str::to_owned)
                };
                let under = |network: &Candidate| network.tensors.iter().any(|(name, _)| part(network, name).is_some());
                let place = networks.iter().position(under).ok_or_else(|| ModelError::UnknownKey {
                    path: path.into(),
                    key: shortened(key, 100),
                    known: Some(few(keys(&networks).iter())).filter(|keys| !keys.is_empty()).unwrap_or_else(|| NAMES.to_owned()),
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
                return Err(ModelError::SeveralNetworks { path: path.into(), keys: few(keys(&networks).iter()) });
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
