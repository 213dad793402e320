//! Weights into a network.
use super::Weights;
use crate::ModelError;
use std::collections::BTreeMap;
use striate_graph::{Graph, GraphError, Network};
use tch::Tensor;

impl Weights {
    /// Copies the weights into the network: all of them, under its names, or none.
    ///
    /// Names of the CIFAR residual networks of other repositories are understood (`linear.weight`,
    /// `layer2.0.shortcut.0.weight`). Only `num_batches_tracked` may be missing, as it is in files from before PyTorch 0.4.1:
    /// the network's own stays.
    ///
    /// # Errors
    ///
    /// [`ModelError::OtherClasses`] if nothing but the number of classes differs, and otherwise [`ModelError::Misfit`] with
    /// all names that don't fit; nothing is changed then.
    pub fn load(&self, network: &Network) -> Result<(), ModelError> {
        let state = self.state_for(network);
        network.load_state(&state).map_err(|error| self.misfit(network, &state, error))
    }

    /// Copies all weights but the head's (the last layer before each output) into the network, whose head stays as it is: a
    /// new classifier on a trained body.
    ///
    /// # Errors
    ///
    /// [`ModelError::Misfit`] if anything but the head's shapes differs (nothing is changed then), and [`ModelError::Graph`]
    /// if the network's head can't be replaced.
    pub fn load_body(&self, network: &Network) -> Result<(), ModelError> {
        let mut state = self.state_for(network);
        let own = network.state();
        for name in head_parameters(network.graph())? {
            state.insert(name.clone(), own[&name].shallow_clone());
        }
        network.load_state(&state).map_err(|error| self.misfit(network, &state, error))
    }

    /// The tensors under the network's names.
    fn state_for(&self, network: &Network) -> BTreeMap<String, Tensor> {
        let own = network.state();
        let mut state = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let renamed = renamed(name);
            let fits = !own.contains_key(name) && own.contains_key(&renamed) && !self.tensors.contains_key(&renamed);
            state.insert(if fits { renamed } else { name.clone() }, tensor.shallow_clone());
        }
        for (name, tensor) in own.into_iter().filter(|(name, _)| name.ends_with(".num_batches_tracked")) {
            state.entry(name).or_insert(tensor);
        }
        state
    }

    fn misfit(&self, network: &Network, state: &BTreeMap<String, Tensor>, error: GraphError) -> ModelError {
        if let Some((file, network)) = other_classes(network, state, &error) {
            return ModelError::OtherClasses { path: self.path.clone(), file, network };
        }
        ModelError::Misfit { path: self.path.clone(), source: Box::new(error) }
    }
}

/// The name here of a parameter of the CIFAR residual networks of other repositories.
fn renamed(name: &str) -> String {
    let name = name.replace(".shortcut.", ".downsample.");
    match name.strip_prefix("linear.") {
        Some(rest) => format!("fc.{rest}"),
        None => name,
    }
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
    Some((*state[last].size().first()?, classes(network.graph())))
}
