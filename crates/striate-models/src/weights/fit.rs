//! Weights into a network: the network's names and shapes decide what is what.
use super::names::{bare, ends, is_litter};
use super::{Weights, candidates};
use crate::ModelError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use striate_graph::{Graph, GraphError, Network, Node, NodeKind};
use striate_layers::{Mode, Op};
use striate_torch::few;
use tch::Tensor;

/// The scopes of torchvision's auxiliary heads.
const AUX_HEADS: [&str; 3] = ["aux1", "aux2", "AuxLogits"];

/// How weights were taken for those of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Loaded {
    /// What came before the names in the file, such as `backbone.`.
    pub prefix: String,
    /// Layers that have another name in the file, told from their shapes: the network's name and the file's.
    pub renamed: Vec<(String, String)>,
    /// What comes before the names of averages of the same network, which were left out.
    pub averages: Vec<String>,
    /// Tensors of the file that are none of the network's, such as a profiler's counters or another part's weights.
    pub ignored: Vec<String>,
}

impl Loaded {
    /// What may be unexpected in that, a line each.
    pub fn notes(&self) -> Vec<String> {
        let renamed = self.renamed.iter().map(|(layer, name)| format!("{name} is taken for {layer}, whose shape it has"));
        let ignored = self
            .ignored
            .first()
            .map(|first| format!("{} tensors are none of the network's and left out, such as {first}", self.ignored.len()));
        let averages = self.averages.iter().map(|prefix| {
            let (taken, other) = (self.prefix.trim_end_matches('.'), prefix.trim_end_matches('.'));
            format!("the weights under {taken} are taken, not their average under {other}: FILE#{other} names it")
        });
        averages.chain(renamed).chain(ignored).collect()
    }
}

impl Weights {
    /// Copies the weights into the network: all of them, under its names, or none.
    ///
    /// Whatever stands before all names is taken off (`model.`, `backbone.`), if the rest are the network's. Names of the
    /// CIFAR residual networks of other repositories are understood (`layer2.0.shortcut.0.weight`), and a linear layer has
    /// any name where its shape tells it from all others. Only `num_batches_tracked` may be missing, as it is in files from
    /// before PyTorch 0.4.1: the network's own stays.
    ///
    /// # Errors
    ///
    /// [`ModelError::OtherClasses`], [`ModelError::OtherHead`], [`ModelError::NoAuxHeads`] or
    /// [`ModelError::UnusedAuxHeads`] if nothing else differs, [`ModelError::SeveralNetworks`] if two parts of the file fit,
    /// and otherwise [`ModelError::Misfit`] with all names that don't fit. Nothing is changed then.
    pub fn load(&self, network: &Network) -> Result<Loaded, ModelError> {
        let matched = Matching::new(self, network)?.finish(&Heads::default());
        network.load_state(&matched.state).map_err(|error| self.misfit(network, &matched.state, error))?;
        Ok(matched.loaded)
    }

    /// Copies all weights but the head's (the last layer before each output) into the network, whose head stays as it is: a
    /// new classifier on a trained body. The file's own head may have any form, or be missing.
    ///
    /// # Errors
    ///
    /// Those of [`Weights::load`] if anything but the head differs (nothing is changed then), and [`ModelError::Graph`] if
    /// the network's head can't be replaced.
    pub fn load_body(&self, network: &Network) -> Result<Loaded, ModelError> {
        let heads = Heads::of(network)?;
        let mut matched = Matching::new(self, network)?.finish(&heads);
        let own = network.state();
        for name in &heads.parameters {
            matched.state.insert(name.clone(), own[name].shallow_clone());
        }
        network.load_state(&matched.state).map_err(|error| self.misfit(network, &matched.state, error))?;
        Ok(matched.loaded)
    }

    fn misfit(&self, network: &Network, state: &BTreeMap<String, Tensor>, error: GraphError) -> ModelError {
        let path = self.path.clone();
        if let Some((file, network)) = other_classes(network, state, &error) {
            return ModelError::OtherClasses { path, file, network };
        }
        if let GraphError::Weights { missing, unexpected, mismatched } = &error
            && mismatched.is_empty()
        {
            let idle = training_only(network.graph());
            let aux = |name: &String| AUX_HEADS.contains(&first(name));
            if unexpected.is_empty() && missing.iter().all(|name| idle.contains(layer(name))) {
                return ModelError::NoAuxHeads { path, heads: firsts(missing) };
            }
            if missing.is_empty() && idle.is_empty() && unexpected.iter().all(aux) {
                return ModelError::UnusedAuxHeads { path, heads: firsts(unexpected) };
            }
            if let Ok(heads) = Heads::of(network)
                && !missing.is_empty()
                && missing.iter().all(|name| heads.parameters.contains(name))
                && unexpected.iter().all(|name| heads.may_be(name))
            {
                let [lacks, has] = [missing, unexpected].map(|names| layers(names));
                return ModelError::OtherHead { path, lacks, has };
            }
        }
        ModelError::Misfit { path, source: Box::new(error) }
    }
}

/// The file's tensors as the network's.
struct Matching<'w> {
    network: &'w Network,
    own: BTreeMap<String, Tensor>,
    state: BTreeMap<String, Tensor>,
    /// Tensors that are not matched yet.
    left: BTreeMap<&'w str, &'w Tensor>,
    loaded: Loaded,
}

struct Matched {
    state: BTreeMap<String, Tensor>,
    loaded: Loaded,
}

impl<'w> Matching<'w> {
    /// Matches names: those behind the best prefix, then, for what is still missing, those behind any other.
    fn new(weights: &'w Weights, network: &'w Network) -> Result<Self, ModelError> {
        let own = network.state();
        let names: HashMap<String, &String> = own.keys().map(|name| (bare(name), name)).collect();
        let (prefix, averages) = best_prefix(weights, &own, &names)?;
        let (mut state, mut left) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in &weights.tensors {
            match name.strip_prefix(&prefix).and_then(|name| known_as(&names, name)) {
                Some(known) if !state.contains_key(known) => _ = state.insert(known.clone(), tensor.shallow_clone()),
                _ => _ = left.insert(name.as_str(), tensor),
            }
        }
        let mut elsewhere: HashMap<&String, Vec<&str>> = HashMap::new();
        for (name, tensor) in &left {
            for (_, end) in ends(name) {
                if let Some(known) = known_as(&names, end).filter(|known| own[*known].size() == tensor.size()) {
                    elsewhere.entry(known).or_default().push(name);
                }
            }
        }
        for (known, found) in elsewhere {
            if let ([name], false) = (&found[..], state.contains_key(known)) {
                state.extend(left.remove(name).map(|tensor| (known.clone(), tensor.shallow_clone())));
            }
        }
        Ok(Self { network, own, state, left, loaded: Loaded { prefix, averages, ..Loaded::default() } })
    }

    /// Finds linear layers under other names, and tells what is no part of the network from what should be.
    fn finish(mut self, replaced: &Heads) -> Matched {
        self.rename(replaced);
        for (name, tensor) in self.left {
            let within = name.strip_prefix(&self.loaded.prefix);
            let foreign = within.is_none_or(|name| replaced.may_be(name));
            if foreign || is_litter(name) {
                self.loaded.ignored.push(name.to_owned());
            } else {
                let name = within.filter(|name| !self.state.contains_key(*name)).unwrap_or(name);
                self.state.insert(name.to_owned(), tensor.shallow_clone());
            }
        }
        for (name, tensor) in self.own.into_iter().filter(|(name, _)| is_litter(name)) {
            self.state.entry(name).or_insert(tensor);
        }
        Matched { state: self.state, loaded: self.loaded }
    }

    /// A missing linear layer is the one unmatched layer of the file that has its shapes, if no other missing one has them.
    fn rename(&mut self, replaced: &Heads) {
        let mut found: BTreeMap<&str, Vec<(&str, Vec<i64>)>> = BTreeMap::new();
        for (name, tensor) in self.left.iter().filter(|(name, _)| !is_litter(name)) {
            found.entry(layer(name)).or_default().push((last(name), tensor.size()));
        }
        let mut missing: BTreeMap<Vec<(&str, Vec<i64>)>, Vec<&Node>> = BTreeMap::new();
        let graph = self.network.graph();
        for node in graph.nodes().iter().filter(|node| matches!(node.kind, NodeKind::Layer(Op::Linear(_)))) {
            let full = |param: &str| format!("{}.{param}", node.name);
            let params = graph.params(node);
            if params
                .iter()
                .any(|param| self.state.contains_key(&full(param.name)) || replaced.parameters.contains(&full(param.name)))
            {
                continue;
            }
            let mut shapes: Vec<_> = params.iter().map(|param| (param.name, param.shape.clone())).collect();
            shapes.sort();
            missing.entry(shapes).or_default().push(node);
        }
        for (shapes, nodes) in missing {
            let same: Vec<&str> = found.iter().filter(|(_, other)| **other == shapes).map(|(name, _)| *name).collect();
            // An average beside the weights has the same layers.
            let within: Vec<&str> = same.iter().filter(|name| name.starts_with(&self.loaded.prefix)).copied().collect();
            let (([node], [name], _) | ([node], _, [name])) = (&nodes[..], &same[..], &within[..]) else { continue };
            for (param, _) in &shapes {
                let from = if name.is_empty() { (*param).to_owned() } else { format!("{name}.{param}") };
                let tensor = self.left.remove(from.as_str());
                self.state.extend(tensor.map(|tensor| (format!("{}.{param}", node.name), tensor.shallow_clone())));
            }
            self.loaded.renamed.push((node.name.clone(), (*name).to_owned()));
        }
    }
}

/// The network's name for a name of the file.
fn known_as<'n>(names: &HashMap<String, &'n String>, name: &str) -> Option<&'n String> {
    names.get(name).or_else(|| names.get(&name.replace(".shortcut.", ".downsample."))).copied()
}

/// What stands before the names in the file: that with which the most names, and shapes, are the network's. With it, what stands before
/// averages of the same.
fn best_prefix(
    weights: &Weights,
    own: &BTreeMap<String, Tensor>,
    names: &HashMap<String, &String>,
) -> Result<(String, Vec<String>), ModelError> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, tensor) in weights.tensors.iter().filter(|(name, _)| !is_litter(name)) {
        for (prefix, end) in ends(name) {
            if let Some(known) = known_as(names, end) {
                let (known_names, fitting) = counts.entry(prefix).or_default();
                *known_names += 1;
                *fitting += usize::from(own[known].size() == tensor.size());
            }
        }
    }
    let Some(most) = counts.values().max().copied() else { return Ok((String::new(), Vec::new())) };
    let best: Vec<&str> = counts.iter().filter(|(_, count)| **count == most).map(|(prefix, _)| *prefix).collect();
    let plain: Vec<&str> = best.iter().filter(|prefix| !candidates::is_average(prefix)).copied().collect();
    let mostly = 2 * most.1 > own.keys().filter(|name| !is_litter(name)).count();
    match (&plain[..], &best[..]) {
        ([only], all) => {
            let averages = all.iter().filter(|prefix| *prefix != only).map(|prefix| (*prefix).to_owned());
            Ok(((*only).to_owned(), averages.collect()))
        }
        ([], [only]) => Ok(((*only).to_owned(), Vec::new())),
        ([], several) | (several, _) if mostly => {
            // As the whole file has them.
            let key = |prefix: &&str| [weights.key.as_deref().unwrap_or_default(), prefix].join(".").trim_matches('.').to_owned();
            let keys: Vec<String> = several.iter().map(key).collect();
            Err(ModelError::SeveralNetworks { path: weights.path.clone(), keys: few(keys.iter()) })
        }
        _ => Ok((best[0].to_owned(), Vec::new())),
    }
}

/// The layers whose shapes follow from the number of classes.
#[derive(Default)]
struct Heads {
    parameters: BTreeSet<String>,
    /// What the names of all other layers begin with.
    body: BTreeSet<String>,
}

impl Heads {
    fn of(network: &Network) -> Result<Self, GraphError> {
        let parameters: BTreeSet<String> = head_parameters(network.graph())?.into_iter().collect();
        let state = network.state();
        let body = state.keys().filter(|name| !parameters.contains(*name)).map(|name| first(name).to_owned()).collect();
        Ok(Self { parameters, body })
    }

    /// Whether a tensor of a file may belong to a head of another form: within that layer, or nowhere in the body.
    fn may_be(&self, name: &str) -> bool {
        let within = |parameter: &String| candidates::below(name, layer(parameter)).is_some();
        !self.parameters.is_empty() && (self.parameters.iter().any(within) || !self.body.contains(first(name)))
    }
}

/// The part of a name before its first dot.
fn first(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The part of a name behind its last dot.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The layer that a parameter belongs to.
fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(layer, _)| layer)
}

fn firsts(names: &[String]) -> String {
    let firsts: BTreeSet<&str> = names.iter().map(|name| first(name)).collect();
    few(firsts.iter())
}

fn layers(names: &[String]) -> String {
    let layers: BTreeSet<&str> = names.iter().map(|name| layer(name)).collect();
    few(layers.iter())
}

/// The layers that no output of evaluation depends on.
fn training_only(graph: &Graph) -> BTreeSet<&str> {
    let nodes = graph.nodes();
    let ends: BTreeSet<&str> = graph.outputs_in(Mode::Eval).map(|(_, node)| node.name.as_str()).collect();
    let mut needed: Vec<bool> = nodes.iter().map(|node| ends.contains(node.name.as_str())).collect();
    for index in (0..nodes.len()).rev().filter(|index| !nodes[*index].inputs.is_empty()) {
        if needed[index] {
            nodes[index].inputs.iter().for_each(|input| needed[*input] = true);
        }
    }
    nodes.iter().zip(needed).filter(|(_, needed)| !needed).map(|(node, _)| node.name.as_str()).collect()
}

/// The parameters whose shapes follow from the number of classes.
fn head_parameters(graph: &Graph) -> Result<Vec<String>, GraphError> {
    let other = graph.with_classes(classes(graph) + 1)?;
    let mut names = Vec::new();
    for (node, changed) in graph.nodes().iter().zip(other.nodes()) {
        let pairs = graph.params(node).into_iter().zip(other.params(changed));
        let differing = pairs.filter(|(param, changed)| param.shape != changed.shape);
        names.extend(differing.map(|(param, _)| format!("{}.{}", node.name, param.name)));
    }
    Ok(names)
}

fn classes(graph: &Graph) -> i64 {
    graph.outputs().next().and_then(|(_, node)| node.shape.dims().first().copied()).unwrap_or_default()
}

/// The numbers of classes of the file and of the network, if nothing else is wrong.
fn other_classes(network: &Network, state: &BTreeMap<String, Tensor>, error: &GraphError) -> Option<(i64, i64)> {
    let GraphError::Weights { missing, unexpected, mismatched } = error else { return None };
    let head = head_parameters(network.graph()).ok()?;
    let (own, last) = (network.state(), head.first()?);
    let differing = || own.iter().filter(|(name, tensor)| state.get(*name).is_some_and(|value| value.size() != tensor.size()));
    if !missing.is_empty() || !unexpected.is_empty() || mismatched.is_empty() || differing().any(|(name, _)| !head.contains(name))
    {
        return None;
    }
    let (file, network) = (*state[last].size().first()?, classes(network.graph()));
    (file != network).then_some((file, network))
}
