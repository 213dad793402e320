//! Weights in a half type, all of them at once: one launch on a GPU, where autocasting takes one for each.
use crate::{GraphError, Network, NodeKind};
use std::collections::BTreeMap;
use striate_layers::Op;
use striate_torch::foreach;
use tch::{Kind, Tensor};

impl Network {
    /// For each node that is needed and computes in the half type while autocasting to it, its parameters in that type.
    pub(crate) fn cast_weights(&self, needed: &[bool], kind: Kind) -> Result<BTreeMap<usize, Vec<Tensor>>, GraphError> {
        let computes_so = |index: &usize| {
            needed[*index] && matches!(self.graph.nodes[*index].kind, NodeKind::Layer(Op::Conv2d(_) | Op::Linear(_)))
        };
        // Those that are frozen need no gradients, and are left to autocasting.
        let is_cast = |tensor: &&Tensor| tensor.requires_grad() && tensor.kind() == Kind::Float;
        let nodes = || (0..self.graph.nodes.len()).filter(computes_so);
        let weights: Vec<Tensor> =
            nodes().flat_map(|index| &self.params[index]).filter(is_cast).map(Tensor::shallow_clone).collect();
        let mut cast = foreach::cast(&weights, kind)?.into_iter();
        let mut in_place_of = |tensor: &Tensor| match is_cast(&tensor) {
            true => cast.next().unwrap_or_else(|| tensor.shallow_clone()),
            false => tensor.shallow_clone(),
        };
        Ok(nodes().map(|index| (index, self.params[index].iter().map(&mut in_place_of).collect())).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Graph, InitOptions};
    use striate_layers::{BatchNorm2d, Conv2d, Flatten, Linear};

    #[test]
    fn weights_of_products_are_cast_and_have_gradients() {
        let graph = Graph::build(|net| {
            let x = net.input([1, 4, 4]);
            let x = net.add("frozen", Conv2d::new(2, 1), x)?;
            let x = net.add("conv", Conv2d::new(2, 3), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        });
        let mut network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
        network.freeze_through("frozen").unwrap();
        let at = |name: &str| network.graph.index_of(name).unwrap();
        let mut needed = vec![true; network.graph.nodes.len()];
        let cast = network.cast_weights(&needed, Kind::BFloat16).unwrap();
        assert_eq!(cast.keys().copied().collect::<Vec<_>>(), [at("frozen"), at("conv"), at("fc")]);
        let kinds = |name: &str| cast[&at(name)].iter().map(Tensor::kind).collect::<Vec<_>>();
        assert_eq!((kinds("frozen"), kinds("conv")), (vec![Kind::Float; 2], vec![Kind::BFloat16; 2]));
        let fc = &network.params[at("fc")][0];
        assert_eq!(cast[&at("fc")][0], fc.to_kind(Kind::BFloat16));
        (&cast[&at("fc")][0] * 3.0).sum(Kind::Float).backward();
        assert_eq!(fc.grad(), fc.full_like(3.0));
        needed[at("fc")] = false;
        assert_eq!(network.cast_weights(&needed, Kind::Half).unwrap().len(), 2);
    }
}
