//! Groups of parameters that train in a way of their own.
use super::Param;
use crate::TrainError;
use crate::error::check;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use striate_graph::{Graph, Network};

/// Some parameters, and what is special about their training.
///
/// It takes the parameters that fit `params`, `kind` and `through` alike. Where groups overlap, what a later one sets holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamGroup {
    /// Names, in which `*` stands for anything, such as `fc.*` or `layer4.*.weight`.
    pub params: Pattern,
    /// Only parameters of this kind.
    pub kind: ParamKind,
    /// Only those of the layer (or scope) of this name and of all that it depends on; empty for no limit.
    pub through: String,
    /// What the learning rate is multiplied by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_scale: Option<f64>,
    /// The weight decay in place of the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// The epoch, counted from 0, in which they begin to train. Statistics of batch norm move from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_epoch: Option<u64>,
    /// Trains filters by SGD where the optimizer is Muon, as suits a first layer. Other optimizers
    /// ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<bool>,
}

/// A pattern of names, in which `*` stands for anything and `?` for one letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(glob::Pattern);

/// The most letters of a pattern that an error shows.
const LONGEST_SHOWN: usize = 60;

impl Default for Pattern {
    /// Every name.
    fn default() -> Self {
        Self(glob::Pattern::new("*").unwrap_or_default())
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        glob::Pattern::new(&text).map(Self).map_err(|error| {
            let start: String = text.chars().take(LONGEST_SHOWN).collect();
            format!("`{start}` is no pattern of names: {error}")
        })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

/// A kind of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ParamKind {
    /// All.
    #[default]
    Any,
    /// Weights of convolutions and dense layers.
    Weight,
    /// Biases, but not those of norms.
    Bias,
    /// Weights and biases of norms.
    Norm,
    /// Those of the layers that give the outputs: the classifier and auxiliary ones.
    Head,
    /// All but those of the head.
    Body,
}

impl ParamGroup {
    /// Refuses values that can't be, naming them.
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let at_least_0 = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
        let value = |value: Option<f64>| value.unwrap_or_default();
        check(at_least_0(self.lr_scale), "groups.lr_scale", value(self.lr_scale), "must be 0 or larger")?;
        check(at_least_0(self.weight_decay), "groups.weight_decay", value(self.weight_decay), "must be 0 or larger")
    }
}

/// The parameters of a network that are trained now, as `groups` say. `layer_decay` multiplies the learning rate once for each
/// block between a parameter and the outputs: 1 for none.
///
/// A block is what names have in common up to their first number (`layer1.0`, `features.3`), or their first part (`conv1`,
/// `inception3a`); a norm belongs to the block before it.
///
/// # Errors
///
/// A group that no parameter fits.
pub fn grouped(network: &Network, groups: &[ParamGroup], layer_decay: f64) -> Result<Vec<Param>, TrainError> {
    let graph = network.graph();
    let heads = heads(graph);
    let mut params: Vec<Param> = network.trainable().into_iter().map(Param::from).collect();
    for param in &mut params {
        param.head = heads.contains(&layer_of(&param.name));
    }
    if layer_decay != 1.0 {
        let depths = depths(graph);
        for param in &mut params {
            let depth = depths.get(layer_of(&param.name)).copied().unwrap_or_default();
            param.lr_scale = layer_decay.powi(depth);
        }
    }
    for group in groups {
        group.check()?;
        let through = (!group.through.is_empty()).then(|| graph.through(&group.through)).transpose()?;
        let through: Option<Vec<&str>> =
            through.map(|nodes| nodes.into_iter().map(|node| graph.nodes()[node].name.as_str()).collect());
        let fits = |name: &str| {
            let layer = layer_of(name);
            group.params.0.matches(name)
                && through.as_ref().is_none_or(|through| through.contains(&layer))
                && is_kind(group.kind, graph, &heads, name)
        };
        if !network.parameters().any(|param| fits(&param.name)) {
            return Err(TrainError::Option {
                option: format!("groups.params = \"{}\"", String::from(group.params.clone())),
                reason: "fits no parameter of the network: compare names, kind and `through`",
            });
        }
        // What is frozen stays so.
        for param in params.iter_mut().filter(|param| fits(&param.name)) {
            param.lr_scale *= group.lr_scale.unwrap_or(1.0);
            param.weight_decay = group.weight_decay.or(param.weight_decay);
            param.from_epoch = group.from_epoch.unwrap_or(param.from_epoch);
            param.plain = group.plain.unwrap_or(param.plain);
        }
    }
    if params.iter().all(|param| param.from_epoch > 0) && !params.is_empty() {
        return Err(TrainError::NothingToTrain);
    }
    Ok(params)
}

/// How many blocks a graph has, as [`grouped`] counts them.
pub fn blocks(graph: &Graph) -> usize {
    depths(graph).values().max().map_or(0, |deepest| usize::try_from(*deepest).unwrap_or_default() + 1)
}

/// The layer of a parameter.
fn layer_of(param: &str) -> &str {
    param.rsplit_once('.').map_or(param, |(layer, _)| layer)
}

/// The layers with parameters that are nearest to the outputs.
fn heads(graph: &Graph) -> Vec<&str> {
    let last = |output: &striate_graph::Node| {
        let before = graph.through(&output.name).unwrap_or_default();
        before.into_iter().map(|node| &graph.nodes()[node]).rfind(|node| !graph.params(node).is_empty())
    };
    graph.outputs().filter_map(|(_, node)| last(node)).map(|node| node.name.as_str()).collect()
}

fn is_norm(graph: &Graph, layer: &str) -> bool {
    graph.node(layer).is_ok_and(|node| node.op_name() == "BatchNorm2d")
}

fn is_kind(kind: ParamKind, graph: &Graph, heads: &[&str], param: &str) -> bool {
    let layer = layer_of(param);
    let (norm, head) = (is_norm(graph, layer), heads.contains(&layer));
    match kind {
        ParamKind::Any => true,
        ParamKind::Weight => !norm && !param.ends_with(".bias"),
        ParamKind::Bias => !norm && param.ends_with(".bias"),
        ParamKind::Norm => norm,
        ParamKind::Head => head,
        ParamKind::Body => !head,
    }
}

/// For each layer with parameters: how many blocks there are after its own.
fn depths(graph: &Graph) -> BTreeMap<&str, i32> {
    let (mut blocks, mut of_layer): (Vec<&str>, Vec<(&str, usize)>) = (Vec::new(), Vec::new());
    for node in graph.nodes().iter().filter(|node| !graph.params(node).is_empty()) {
        let block = block_of(&node.name);
        let known = blocks.iter().position(|other| *other == block);
        let place = match known {
            Some(place) => place,
            None if is_norm(graph, &node.name) && !blocks.is_empty() => blocks.len() - 1,
            None => {
                blocks.push(block);
                blocks.len() - 1
            }
        };
        of_layer.push((&node.name, place));
    }
    let last = blocks.len().saturating_sub(1);
    let depth = |place: usize| i32::try_from(last - place).unwrap_or(i32::MAX);
    of_layer.into_iter().map(|(layer, place)| (layer, depth(place))).collect()
}

fn block_of(layer: &str) -> &str {
    let first = layer.find('.').unwrap_or(layer.len());
    let rest = layer.get(first + 1..).unwrap_or_default();
    let second = rest.split('.').next().unwrap_or_default();
    let numbered = !second.is_empty() && second.bytes().all(|byte| byte.is_ascii_digit());
    if numbered { &layer[..first + 1 + second.len()] } else { &layer[..first] }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use striate_graph::InitOptions;
    use striate_layers::{Activation, BatchNorm2d, Conv2d, Flatten, Linear};

    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 4, 4]);
            let x = net.add("conv1", Conv2d::same(2, 3), x)?;
            let x = net.add("bn1", BatchNorm2d::new(), x)?;
            let x = net.add("layer1.0.conv1", Conv2d::same(2, 3), x)?;
            let x = net.add("layer1.0.bn1", BatchNorm2d::new(), x)?;
            let x = net.add("layer1.1.conv1", Conv2d::same(2, 3), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    fn of(groups: &[ParamGroup], layer_decay: f64) -> BTreeMap<String, (f64, Option<f64>, u64)> {
        let params = grouped(&network(), groups, layer_decay).unwrap();
        params.into_iter().map(|param| (param.name, (param.lr_scale, param.weight_decay, param.from_epoch))).collect()
    }

    #[test]
    fn blocks_are_told_by_names() {
        assert_eq!(blocks(network().graph()), 4);
        for (name, block) in
            [("layer1.0.conv1", "layer1.0"), ("features.3", "features.3"), ("inception3a.branch1.conv", "inception3a")]
        {
            assert_eq!(block_of(name), block);
        }
    }

    #[test]
    fn rates_fall_with_the_distance_to_the_outputs() {
        let params = of(&[], 0.5);
        for (name, scale) in [
            ("fc.bias", 1.0),
            ("layer1.1.conv1.weight", 0.5),
            ("layer1.0.conv1.weight", 0.25),
            ("layer1.0.bn1.bias", 0.25),
            ("bn1.weight", 0.125),
            ("conv1.weight", 0.125),
        ] {
            assert_eq!(params[name].0, scale, "{name}");
        }
    }

    #[test]
    fn groups_are_told_by_name_kind_and_depth_and_later_ones_win() {
        let group = |params: &str| ParamGroup { params: Pattern::try_from(params.to_owned()).unwrap(), ..ParamGroup::default() };
        let params = of(
            &[
                ParamGroup { weight_decay: Some(0.1), ..group("*") },
                ParamGroup { kind: ParamKind::Norm, weight_decay: Some(0.0), ..group("*") },
                ParamGroup { kind: ParamKind::Bias, lr_scale: Some(2.0), ..group("*") },
                ParamGroup { through: "layer1.0".to_owned(), lr_scale: Some(0.5), ..group("*.weight") },
                ParamGroup { kind: ParamKind::Body, from_epoch: Some(2), ..group("*") },
            ],
            1.0,
        );
        assert_eq!(params["conv1.weight"], (0.5, Some(0.1), 2));
        assert_eq!(params["conv1.bias"], (2.0, Some(0.1), 2));
        assert_eq!(params["bn1.weight"], (0.5, Some(0.0), 2));
        assert_eq!(params["bn1.bias"], (1.0, Some(0.0), 2));
        assert_eq!(params["layer1.1.conv1.weight"], (1.0, Some(0.1), 2));
        assert_eq!(params["fc.weight"], (1.0, Some(0.1), 0));
        assert_eq!(params["fc.bias"], (2.0, Some(0.1), 0));
    }

    #[test]
    fn the_head_is_known_and_a_group_may_be_plain() {
        let first =
            ParamGroup { params: Pattern::try_from("conv1.*".to_owned()).unwrap(), plain: Some(true), ..ParamGroup::default() };
        let params = grouped(&network(), &[first], 1.0).unwrap();
        let named = |fits: fn(&Param) -> bool| -> BTreeSet<&str> {
            params.iter().filter(|param| fits(param)).map(|param| param.name.as_str()).collect()
        };
        assert_eq!(named(|param| param.head), BTreeSet::from(["fc.bias", "fc.weight"]));
        assert_eq!(named(|param| param.plain), BTreeSet::from(["conv1.bias", "conv1.weight"]));
    }

    #[test]
    fn a_group_of_what_is_frozen_changes_nothing() {
        let mut network = network();
        network.freeze_through("relu").unwrap();
        let body = ParamGroup { kind: ParamKind::Body, from_epoch: Some(1), ..ParamGroup::default() };
        let params = grouped(&network, &[body], 1.0).unwrap();
        assert!(params.iter().all(|param| param.name.starts_with("fc.") && param.from_epoch == 0) && params.len() == 2);
    }

    #[test]
    fn what_fits_nothing_is_told() {
        let network = network();
        let refused = |group: ParamGroup| grouped(&network, &[group], 1.0).unwrap_err().to_string();
        let params = Pattern::try_from("fc2.*".to_owned()).unwrap();
        assert!(
            refused(ParamGroup { params, ..ParamGroup::default() }).starts_with("groups.params = \"fc2.*\" fits no parameter")
        );
        assert!(refused(ParamGroup { through: "layer9".to_owned(), ..ParamGroup::default() }).contains("layer9"));
        let all_later = ParamGroup { from_epoch: Some(1), ..ParamGroup::default() };
        assert!(refused(all_later).contains("nothing to train"));
        let negative = ParamGroup { lr_scale: Some(-1.0), ..ParamGroup::default() };
        assert_eq!(refused(negative), "groups.lr_scale = -1.0 must be 0 or larger");
        assert!(Pattern::try_from("fc[".to_owned()).unwrap_err().contains("`fc[` is no pattern"));
    }
}
