use crate::{ModelError, alexnet, googlenet, inception_v3, lenet, nin, resnet, vgg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt;
use striate_graph::{Graph, GraphError, NetworkBuilder};
use striate_layers::{CustomLayers, Forward, loss::Loss};
use striate_torch::{Budget, nearest};

/// A family of networks: plain data, with the number of classes in a field `classes` and the input's `[C, H, W]` in a field
/// `input`, that defines a network.
pub trait Architecture: Serialize + DeserializeOwned {
    /// Adds the layers and outputs.
    fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError>;

    /// The loss that it is trained with.
    fn loss(&self) -> Loss {
        Loss::default()
    }

    /// What the same loss of each training output (an auxiliary head) counts in the sum that is trained.
    fn aux_weight(&self) -> f64 {
        0.0
    }
}

/// The paper that a network comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Paper {
    /// Its authors' surnames.
    pub authors: &'static str,
    /// When it came out.
    pub year: u16,
    /// Its title.
    pub title: &'static str,
    /// Its number at arXiv, such as `1512.03385`.
    pub arxiv: Option<&'static str>,
}

impl fmt::Display for Paper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.authors, self.year, self.title)?;
        self.arxiv.map_or(Ok(()), |number| write!(f, ", arXiv:{number}"))
    }
}

/// The network of torchvision that a variant is: parameters have the same names and shapes, and weights load.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Torchvision {
    /// Its name there, such as `wide_resnet50_2`.
    pub name: &'static str,
    /// In what the variant differs from it nevertheless.
    pub deviations: &'static [&'static str],
}

/// A published network: a name, where it comes from, and a configuration.
#[derive(Debug)]
pub struct Variant {
    /// The name in the registry.
    pub name: &'static str,
    /// The family, such as `LeNet`.
    pub family: &'static str,
    /// The paper.
    pub paper: &'static Paper,
    /// Where the paper has it, such as `table 1, column D`; nothing if it has not.
    pub place: Option<&'static str>,
    /// What this variant is, in one line.
    pub about: &'static str,
    /// In what it differs from the paper.
    pub deviations: &'static [&'static str],
    /// The network of torchvision that it is, if it is one.
    pub torchvision: Option<Torchvision>,
    defaults: Defaults,
    build: Build,
    loss: LossOf,
}

type Defaults = fn() -> Result<Value, serde_json::Error>;
type Build = fn(&Value) -> Result<Graph, BuildError>;
/// The loss of the logits, and the weight of that of auxiliary heads.
type LossOf = fn(&Value) -> Result<(Loss, f64), serde_json::Error>;

/// Why a variant can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A configuration that can't be read.
    #[error(transparent)]
    Config(#[from] serde_json::Error),
    /// Layers that don't fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// The entry of a variant in its architecture's table: `variant!(name, family, paper, about, Config, expression)`, where
/// `Config` is an [`Architecture`](crate::Architecture), and the expression one of it.
///
/// For one of your own see [`Registry`](crate::Registry).
#[macro_export]
macro_rules! variant {
    ($name:literal, $family:literal, $paper:expr, $about:literal, $type:ty, $config:expr $(,)?) => {
        $crate::Variant::new(
            [$name, $family, $about],
            $paper,
            || $crate::defaults::<$type>($config),
            $crate::build::<$type>,
            $crate::loss_of::<$type>,
        )
    };
}

/// What [`variant!`] has of a configuration's type.
#[doc(hidden)]
pub fn defaults<A: Architecture>(config: A) -> Result<Value, serde_json::Error> {
    serde_json::to_value(config)
}

#[doc(hidden)]
pub fn build<A: Architecture>(config: &Value) -> Result<Graph, BuildError> {
    let config: A = serde_json::from_value(config.clone())?;
    Ok(Graph::build(|net| config.define(net))?)
}

#[doc(hidden)]
pub fn loss_of<A: Architecture>(config: &Value) -> Result<(Loss, f64), serde_json::Error> {
    let config: A = serde_json::from_value(config.clone())?;
    Ok((config.loss(), config.aux_weight()))
}

/// The deviation of networks that no paper has.
pub(crate) const FOR_TESTS: &str = "not a published network: narrow, for tests";

/// The tables of the architectures.
static FAMILIES: &[&[Variant]] = &[
    lenet::VARIANTS,
    alexnet::VARIANTS,
    vgg::VARIANTS,
    nin::VARIANTS,
    resnet::VARIANTS,
    googlenet::VARIANTS,
    inception_v3::VARIANTS,
];

/// All variants, family by family.
pub fn variants() -> impl Iterator<Item = &'static Variant> {
    FAMILIES.iter().copied().flatten()
}

/// The variant of that name; the error names the nearest one, if one is near.
pub fn find(name: &str) -> Result<&'static Variant, ModelError> {
    Registry::default().find(name)
}

/// What names in recipes and bundles stand for: Striate's architectures, and architectures and layers of your own. It also has
/// what a file of weights or a bundle may take.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use striate_graph::{GraphError, NetworkBuilder};
/// use striate_layers::{Activation, Flatten, Linear};
/// use striate_models::{Architecture, Paper, Registry, Variant, variant};
///
/// /// A perceptron with one hidden layer.
/// #[derive(Serialize, Deserialize)]
/// struct Perceptron {
///     classes: i64,
///     input: [i64; 3],
///     hidden: i64,
/// }
///
/// impl Architecture for Perceptron {
///     fn define(&self, net: &mut NetworkBuilder) -> Result<(), GraphError> {
///         let x = net.input(self.input);
///         let x = net.add("flatten", Flatten, x)?;
///         let x = net.add("hidden", Linear::new(self.hidden), x)?;
///         let x = net.add("relu", Activation::Relu, x)?;
///         let x = net.add("fc", Linear::new(self.classes), x)?;
///         net.output("logits", x)
///     }
/// }
///
/// static PAPER: Paper = Paper { authors: "Rosenblatt", year: 1958, title: "The perceptron", arxiv: None };
/// static MINE: &[Variant] = &[variant!(
///     "perceptron", "Perceptron", &PAPER, "one hidden layer", Perceptron,
///     Perceptron { classes: 10, input: [1, 8, 8], hidden: 32 },
/// )];
///
/// let registry = Registry::default().with_variants(MINE);
/// let model = registry.find("perceptron")?.model(&[("hidden", 16.into())])?;
/// assert_eq!(model.graph()?.summary().params, 64 * 16 + 16 + 16 * 10 + 10);
/// # Ok::<(), striate_models::ModelError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Registry {
    tables: Vec<&'static [Variant]>,
    layers: CustomLayers,
    budget: Budget,
}

impl Registry {
    /// With this much memory for a file: to read it, and for the feature maps of one image in a bundle's network.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// How much memory a file may take.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// With variants of your own, which go before Striate's of the same name.
    pub fn with_variants(mut self, table: &'static [Variant]) -> Self {
        self.tables.push(table);
        self
    }

    /// With a layer of your own under its [`name`](striate_layers::Layer::name), so that bundles that name it can be read.
    pub fn with_layer<L: Forward + DeserializeOwned + 'static>(mut self, name: &str) -> Self {
        self.layers = self.layers.with::<L>(name);
        self
    }

    /// All variants, those of your own first.
    pub fn variants(&self) -> impl Iterator<Item = &'static Variant> {
        self.tables.clone().into_iter().flatten().chain(variants())
    }

    /// The layers of your own.
    pub fn layers(&self) -> &CustomLayers {
        &self.layers
    }

    /// The variant of that name; the error names the nearest one, if one is near.
    pub fn find(&self, name: &str) -> Result<&'static Variant, ModelError> {
        self.variants().find(|variant| variant.name == name).ok_or_else(|| ModelError::UnknownModel {
            name: name.to_owned(),
            nearest: nearest(name, self.variants().map(|variant| variant.name)),
        })
    }
}

impl Variant {
    /// An entry of a registry: name, family and what it is, its paper, then the functions that [`variant!`] writes.
    #[doc(hidden)]
    pub const fn new(
        [name, family, about]: [&'static str; 3],
        paper: &'static Paper,
        defaults: Defaults,
        build: Build,
        loss: LossOf,
    ) -> Self {
        Self { name, family, paper, place: None, about, deviations: &[], torchvision: None, defaults, build, loss }
    }

    /// With its place in the paper.
    pub const fn at(mut self, place: &'static str) -> Self {
        self.place = Some(place);
        self
    }

    /// With its deviations from the paper.
    pub const fn deviates(mut self, deviations: &'static [&'static str]) -> Self {
        self.deviations = deviations;
        self
    }

    /// As torchvision's network of that name, but for these deviations.
    pub const fn torchvision(mut self, name: &'static str, deviations: &'static [&'static str]) -> Self {
        self.torchvision = Some(Torchvision { name, deviations });
        self
    }

    /// This variant with some options changed, such as `("classes", 100.into())`.
    ///
    /// Fails on an option that the family has not (naming the nearest) and on a value that it can't have.
    pub fn model(&'static self, options: &[(&str, Value)]) -> Result<Model, ModelError> {
        let bad = |reason: String| ModelError::BadOption { model: self.name, reason };
        let Value::Object(mut config) = (self.defaults)().map_err(|error| bad(error.to_string()))? else {
            return Err(bad("its configuration is not a table".to_owned()));
        };
        for (option, value) in options {
            let Some(slot) = config.get_mut(*option) else {
                let known = config.keys().map(String::as_str);
                return Err(ModelError::UnknownOption {
                    model: self.name,
                    option: (*option).to_owned(),
                    nearest: nearest(option, known.clone()).map(str::to_owned),
                    known: known.map(str::to_owned).collect(),
                });
            };
            *slot = parsed(slot, value);
        }
        let model = Model { variant: self, config: Value::Object(config) };
        let _ = (self.loss)(&model.config).map_err(|error| bad(error.to_string()))?;
        Ok(model)
    }
}

/// A text given for an option that is no text, as command lines do, is read as JSON.
fn parsed(default: &Value, given: &Value) -> Value {
    match given {
        Value::String(text) if !default.is_string() => serde_json::from_str(text).unwrap_or_else(|_| given.clone()),
        _ => given.clone(),
    }
}

/// A variant with all its options set: what a network is built from.
#[derive(Debug, Clone)]
pub struct Model {
    variant: &'static Variant,
    config: Value,
}

impl Model {
    /// The variant that it started from.
    pub fn variant(&self) -> &'static Variant {
        self.variant
    }

    /// All options by name.
    pub fn config(&self) -> Map<String, Value> {
        self.config.as_object().cloned().unwrap_or_default()
    }

    /// The input's channels, height and width.
    pub fn input(&self) -> [i64; 3] {
        let dim = |index: usize| self.config["input"][index].as_i64().unwrap_or_default();
        [dim(0), dim(1), dim(2)]
    }

    /// The number of classes.
    pub fn classes(&self) -> i64 {
        self.config["classes"].as_i64().unwrap_or_default()
    }

    /// The network's definition; fails if the input is too small or an option doesn't fit.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        (self.variant.build)(&self.config).map_err(|error| match error {
            BuildError::Graph(GraphError::Option { option, reason }) => {
                ModelError::BadOption { model: self.variant.name, reason: format!("{option} {reason}") }
            }
            BuildError::Graph(error) => error.into(),
            BuildError::Config(error) => ModelError::BadOption { model: self.variant.name, reason: error.to_string() },
        })
    }

    /// The loss that it is trained with.
    pub fn loss(&self) -> Loss {
        (self.variant.loss)(&self.config).unwrap_or_default().0
    }

    /// What the same loss of each training output (an auxiliary head) counts in the sum that is trained: 0.3 in GoogLeNet.
    pub fn aux_weight(&self) -> f64 {
        (self.variant.loss)(&self.config).unwrap_or_default().1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_a_wrong_one_gets_the_nearest() {
        for variant in variants() {
            assert!(std::ptr::eq(find(variant.name).unwrap(), variant));
        }
        assert_eq!(find("lenet-5").unwrap_err().to_string(), "there is no model lenet-5: did you mean lenet5?");
        for far in ["nope", "mobilenet", "densenet121"] {
            assert_eq!(find(far).unwrap_err().to_string(), format!("there is no model {far}: pick a name from the registry"));
        }
    }

    #[test]
    fn options_are_checked_by_name_and_value() {
        let lenet = find("lenet5").unwrap();
        let model =
            lenet.model(&[("activation", "tanh".into()), ("classes", "7".into()), ("input", json!([3, 28, 28]))]).unwrap();
        assert_eq!((model.classes(), model.input()), (7, [3, 28, 28]));
        assert_eq!(model.config()["activation"], "tanh");
        let error = lenet.model(&[("activatoin", "tanh".into())]).unwrap_err().to_string();
        assert_eq!(error, "lenet5 has no option activatoin: did you mean activation?");
        let error = lenet.model(&[("depth", "4".into())]).unwrap_err().to_string();
        assert!(error.starts_with("lenet5 has no option depth: it has classes, input, "), "{error}");
        let error = lenet.model(&[("activation", "tan".into())]).unwrap_err().to_string();
        assert!(error.contains("`tan`") && error.contains("`relu`"), "{error}");
        assert!(lenet.model(&[("classes", "many".into())]).is_err());
    }

    /// Every variant builds for any number of classes and channels, and says the shapes that its graph has.
    #[test]
    fn every_variant_has_the_shapes_that_it_says() {
        for variant in variants() {
            let [_, height, width] = variant.model(&[]).unwrap().input();
            let model = variant.model(&[("classes", 7.into()), ("input", json!([2, height, width]))]).unwrap();
            let graph = model.graph().unwrap();
            let summary = graph.summary();
            assert_eq!(graph.inputs().next().unwrap().shape.dims(), model.input(), "{}", variant.name);
            let (name, logits) = graph.outputs().next().unwrap();
            assert_eq!((name, logits.shape.dims()), ("logits", [7].as_slice()), "{}", variant.name);
            assert!(summary.params > 0 && !variant.about.is_empty(), "{}", variant.name);
            assert!(variant.place.is_some() || !variant.deviations.is_empty(), "{}: from where?", variant.name);
            assert_eq!(summary.layers.len(), graph.nodes().len(), "{}", variant.name);
            check_head(variant.name, &graph);
        }
    }

    #[test]
    fn options_that_no_network_can_have_are_told() {
        let told = |name: &str, options: &[(&str, &str)]| {
            let options: Vec<(&str, Value)> = options.iter().map(|(option, value)| (*option, (*value).into())).collect();
            find(name).unwrap().model(&options).unwrap().graph().unwrap_err().to_string()
        };
        let blocks = "bad option: blocks = [] must have at least one block: the last gives a map for each class";
        assert_eq!(told("nin-cifar", &[("blocks", "[]")]), format!("nin-cifar: {blocks}"));
        for depths in ["[]", "[2, 0]", "[-1]"] {
            let error = told("resnet18", &[("depths", depths)]);
            assert_eq!(error, format!("resnet18: bad option: depths = {depths} must give every stage at least one block"));
        }
        assert!(told("resnet18", &[("depths", "[1000000000000]")]).contains("100000"));

        let most = "must be at most 2147483647";
        let huge = "9223372036854775807";
        for (name, options, expected) in [
            ("lenet5", [("classes", huge)].as_slice(), format!("layer output (Linear): out_features = {huge} {most}")),
            ("nin-cifar", &[("classes", huge)], format!("layer mlpconv3.4 (Conv2d): out_channels = {huge} {most}")),
            ("resnet18", &[("width", "1000000000000")], format!("layer conv1 (Conv2d): out_channels = 1000000000000 {most}")),
            ("resnet18", &[("width_per_group", huge)], "layer layer1.0.conv1 (Conv2d): out_channels = ".to_owned()),
            ("resnet50", &[("groups", huge)], format!("layer layer1.0.conv1 (Conv2d): out_channels = {huge} {most}")),
            ("vgg11", &[("width", huge)], format!("layer features.0 (Conv2d): out_channels = {huge} {most}")),
            ("lenet5", &[("input", "[1, 3037000500, 3037000500]")], "input input: the shape [1, 3037000500, ".to_owned()),
            ("lenet5", &[("input", "[1, 1099511627776, 1099511627776]")], "input input: the shape [1, 1099511".to_owned()),
            ("lenet5", &[("input", "[-3, 32, 32]")], "input input: the shape [-3, 32, 32] has a dimension of -3".to_owned()),
        ] {
            let error = told(name, options);
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    /// Published weights are for networks that are torchvision's, and what says so is what names and shapes are held to.
    #[test]
    fn what_is_torchvisions_is_held_against_it() {
        let named = variants().filter(|variant| variant.torchvision.is_some()).map(|variant| variant.name);
        let named: BTreeSet<&str> = named.collect();
        let rows = include_str!("../tests/torchvision/names.tsv").lines().filter_map(|row| row.split('\t').next());
        // Their parity tests compare names with torchvision's state dicts.
        let held: BTreeSet<&str> = rows.chain(["googlenet", "inception-v3"]).collect();
        assert_eq!(named, held);
        assert!(crate::pretrained().iter().all(|weights| named.contains(weights.model)));
    }

    /// A head can be cut off, and replaced by one for other classes, unless its classes are fixed codes; nothing else changes.
    fn check_head(name: &str, graph: &Graph) {
        let logits = graph.outputs().next().unwrap().1;
        let body = graph.nodes()[*logits.inputs.first().unwrap()].name.clone();
        let cut = graph.truncate(&body, "features").unwrap();
        assert!(cut.nodes().len() < graph.nodes().len(), "{name}");
        assert_eq!(cut.outputs().next().unwrap().1.shape, graph.node(&body).unwrap().shape, "{name}");
        let parameters = |graph: &Graph| -> Vec<(String, Vec<i64>)> {
            let of =
                |node| graph.params(node).into_iter().map(move |param| (format!("{}.{}", node.name, param.name), param.shape));
            graph.nodes().iter().flat_map(of).collect()
        };
        let other = match graph.with_classes(11) {
            Err(GraphError::FixedHead { .. }) if logits.op_name() == "RbfOutput" => return,
            other => other.unwrap(),
        };
        for (_, output) in other.outputs() {
            assert_eq!(output.shape.dims(), [11], "{name}");
        }
        let changed = parameters(graph).into_iter().zip(parameters(&other)).filter(|(before, after)| before != after).count();
        let heads = graph.outputs().count();
        assert!((heads..=2 * heads).contains(&changed), "{name}: {changed} parameters changed");
    }
}
