//! The recipes that are taken where none is given: each by what there is to do.
use crate::{Error, data};
use serde_json::Value;
use std::fmt;
use std::path::Path;
use striate_datasets::{Entry, Transform, find};
use striate_graph::Graph;
use striate_models::{BundleInfo, Registry};
use striate_torch::nearest;
use striate_train::optim::blocks;
use striate_train::{DataSection, Head, ModelSection, ParamGroup, ParamKind, Recipe};

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../recipes/", $name, ".toml")) }),*]
    };
}

/// The recipes that come with this crate.
const BUILT_IN: &[BuiltIn] = built_in![
    "lenet5-digits",
    "digits-modern",
    "digits-fast",
    "lenet5-fashion-mnist",
    "lenet5-paper-fashion-mnist",
    "fashion-mnist-fast",
    "small-pictures",
    "photographs",
    "fine-tuning",
    "cifar-paper",
    "cifar-modern",
    "cifar-fast",
    "nin-paper",
    "imagenet-alexnet-paper",
    "imagenet-vgg-paper",
    "imagenet-googlenet-paper",
    "imagenet-resnet-paper",
    "imagenet-modern",
];
/// Those for a model on a dataset of the catalogue.
const OF_DATASETS: [(&str, &str, &str); 3] = [
    ("lenet5", "digits", "lenet5-digits"),
    ("lenet5", "fashion-mnist", "lenet5-fashion-mnist"),
    ("lenet5-paper", "fashion-mnist", "lenet5-paper-fashion-mnist"),
];
/// Pictures of at most this height are small: CIFAR's and Tiny ImageNet's are.
const SMALL: i64 = 64;
/// By what the rate is divided for a network without batch norm, which a larger one blows up.
const WITHOUT_NORM: f64 = 10.0;
/// The share of the learning rate that the first block of a network has in fine-tuning; those between have equal ratios.
const FIRST_BLOCK: f64 = 0.1;

/// A recipe that comes with this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name, such as `cifar-paper`.
    pub name: &'static str,
    /// Its file. It begins with comments: what it is for, its source, the result to expect, and whether it was run here.
    pub text: &'static str,
}

impl BuiltIn {
    /// What it is for: the first line.
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    fn recipe(&self) -> Result<Recipe, Error> {
        Ok(Recipe::parse(self.text, Path::new("the built-in recipe"))?)
    }
}

/// All recipes that come with this crate.
pub fn built_in() -> &'static [BuiltIn] {
    BUILT_IN
}

/// The recipe of that name, such as `cifar-paper`.
///
/// ```
/// let recipe = striate::recipes::named("cifar-paper")?;
/// assert_eq!((recipe.train.lr, recipe.train.batch_size), (0.1, 128));
/// # Ok::<(), striate::Error>(())
/// ```
///
/// # Errors
///
/// There is none: the error names the nearest, or all.
pub fn named(name: &str) -> Result<Recipe, Error> {
    let names = || BUILT_IN.iter().map(|recipe| recipe.name);
    let found = BUILT_IN.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
        let known = || format!("there are {}", names().collect::<Vec<_>>().join(", "));
        let meant = nearest(name, names()).map_or_else(known, |nearest| format!("did you mean {nearest}?"));
        Error::option("recipe", format!("{name} is none that comes with Striate: {meant}"))
    });
    found?.recipe()
}

/// A kind of work that has a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A dataset of the catalogue, which has recipes of its own.
    Dataset,
    /// From scratch on small pictures.
    SmallPictures,
    /// From scratch on photographs.
    Photographs,
    /// From trained weights.
    FineTuning,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dataset => "of the dataset",
            Self::SmallPictures => "for training from scratch on small pictures",
            Self::Photographs => "for training from scratch on photographs",
            Self::FineTuning => "for fine-tuning",
        })
    }
}

/// A recipe, and why it was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The recipe, in full.
    pub recipe: Recipe,
    /// For which kind of work it is.
    pub kind: Kind,
    /// One line that says which recipe was taken and why.
    pub why: String,
}

/// The recipe for a model of Striate's (or a bundle) on a dataset of the catalogue or a folder.
///
/// # Errors
///
/// An unknown model, and data that are not there.
pub fn for_data(model: &str, data: &str) -> Result<Recipe, Error> {
    let model = ModelSection { name: model.to_owned(), ..ModelSection::default() };
    Ok(choose(model, data::section(data)?, &Registry::default())?.recipe)
}

/// The recipe for what `model` and `data` say: a dataset's own; for fine-tuning, if there are weights; or else for training from
/// scratch on pictures of the model's size. Networks without batch norm get a tenth of the learning rate.
///
/// # Errors
///
/// An unknown model or option, and a file that is no bundle.
pub fn choose(model: ModelSection, data: DataSection, registry: &Registry) -> Result<Chosen, Error> {
    let graph = graph_of(&model, registry)?;
    let of_bundle = bundle_file(&model.name).is_some();
    let height = graph.inputs().next().and_then(|input| input.shape.dims().get(1).copied()).unwrap_or_default();
    let known = OF_DATASETS.iter().find(|(name, dataset, _)| (*name, *dataset) == (model.name.as_str(), data.name.as_str()));
    let entry = find(&data.name).ok();
    let in_grey = |entry: &Entry| entry.shape.is_some_and(|[channels, ..]| channels == 1);
    // Those of MNIST's kind.
    let alike = || OF_DATASETS.iter().find(|(_, dataset, _)| *dataset == data.name).unwrap_or(&OF_DATASETS[1]);
    let (kind, name, reason) = if of_bundle || !model.weights.is_empty() {
        (Kind::FineTuning, "fine-tuning", "it starts from trained weights".to_owned())
    } else if entry.is_some_and(in_grey) {
        let (for_model, for_data, name) = known.unwrap_or_else(alike);
        (Kind::Dataset, *name, format!("it was made for {for_model} on {for_data}"))
    } else if height <= SMALL {
        (Kind::SmallPictures, "small-pictures", format!("{} takes {height} rows", model.name))
    } else {
        (Kind::Photographs, "photographs", format!("{} takes {height} rows", model.name))
    };
    let mut recipe = named(name)?;
    let mut why = format!("the recipe {kind} was taken, because {reason}");
    let small_and_tuned = kind == Kind::FineTuning && height <= SMALL;
    if kind != Kind::Dataset && !small_and_tuned && !graph.nodes().iter().any(|node| node.op_name() == "BatchNorm2d") {
        recipe.train.lr /= WITHOUT_NORM;
        why += "; a tenth of its learning rate, since the network has no batch norm";
    }
    if kind == Kind::FineTuning {
        recipe.train.layer_decay = layer_decay(blocks(&graph));
        if model.head == Head::Replace {
            // What a new head asks for in its first steps would spoil the trained layers.
            recipe.groups.push(ParamGroup { kind: ParamKind::Body, from_epoch: Some(1), ..ParamGroup::default() });
        }
    }
    if entry.is_some_and(|entry| !entry.mirrors) {
        recipe.transforms.retain(|transform| !matches!(transform, Transform::HorizontalFlip(_)));
    }
    (recipe.model, recipe.data) = (model, data);
    Ok(Chosen { recipe, kind, why })
}

/// What takes the learning rate from the last of so many blocks to [`FIRST_BLOCK`] of it in the first, to three digits.
fn layer_decay(blocks: usize) -> f64 {
    let steps = blocks.saturating_sub(1).max(1);
    (FIRST_BLOCK.powf(1.0 / steps as f64) * 1000.0).round() / 1000.0
}

/// The network that a recipe's model is: of the registry, or a bundle's.
fn graph_of(model: &ModelSection, registry: &Registry) -> Result<Graph, Error> {
    match bundle_file(&model.name) {
        Some(path) => Ok(BundleInfo::read_with(path, registry)?.graph),
        None => {
            let options = options(model);
            let options: Vec<(&str, Value)> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            Ok(registry.find(&model.name)?.model(&options)?.graph()?)
        }
    }
}

/// The file that a model's name is the name of, if it is none of a registry.
pub(crate) fn bundle_file(name: &str) -> Option<&Path> {
    let path = Path::new(name);
    (path.extension().is_some_and(|extension| extension == "safetensors") || path.is_file()).then_some(path)
}

/// The options that a recipe gives its model.
pub(crate) fn options(model: &ModelSection) -> Vec<(String, Value)> {
    let options = serde_json::to_value(&model.options).unwrap_or_default();
    options.as_object().cloned().unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chosen(model: &str, weights: &str, data: &str) -> Chosen {
        let model = ModelSection { name: model.to_owned(), weights: weights.to_owned(), ..ModelSection::default() };
        let data = DataSection { name: data.to_owned(), ..DataSection::default() };
        choose(model, data, &Registry::default()).unwrap()
    }

    #[test]
    fn each_recipe_says_where_it_is_from_what_to_expect_and_whether_it_ran() {
        for recipe in built_in() {
            let head: Vec<&str> = recipe.text.lines().take_while(|line| line.starts_with("# ")).collect();
            for part in ["# Source: ", "# Expected: ", "# Run here: "] {
                assert_eq!(head.iter().filter(|line| line.starts_with(part)).count(), 1, "{part}in {}", recipe.name);
            }
            let parsed = named(recipe.name).unwrap();
            parsed.check().unwrap();
            // Those for a kind of work name no network.
            let of_a_kind = ["small-pictures", "photographs", "fine-tuning"].contains(&recipe.name);
            assert_eq!(recipe.text.contains("\n[model]\n"), !of_a_kind, "{}", recipe.name);
            graph_of(&parsed.model, &Registry::default()).unwrap();
            find(&parsed.data.name).unwrap();
            let row = format!("| `{}` | {} |", recipe.name, recipe.about().trim_end_matches('.'));
            assert!(include_str!("../../../docs/recipes.md").contains(&row), "docs/recipes.md lacks {row}");
        }
        let error = named("cifar-papr").unwrap_err().to_string();
        assert_eq!(error, "recipe cifar-papr is none that comes with Striate: did you mean cifar-paper?");
        assert!(named("x").unwrap_err().to_string().contains("there are lenet5-digits, "));
    }

    #[test]
    fn the_work_decides_the_recipe() {
        for (model, weights, data, kind, lr) in [
            ("lenet5", "", "digits", Kind::Dataset, 3e-3),
            ("resnet20-cifar", "", "fashion-mnist", Kind::Dataset, 4e-3),
            ("resnet20-cifar", "", "cifar-10", Kind::SmallPictures, 0.1),
            ("resnet18", "", "imagenette-160", Kind::Photographs, 0.0125),
            ("resnet20-cifar", "", data::FOLDER, Kind::SmallPictures, 0.1),
            ("lenet5", "", data::FOLDER, Kind::SmallPictures, 0.01),
            ("resnet18", "", data::FOLDER, Kind::Photographs, 0.0125),
            ("alexnet", "", data::FOLDER, Kind::Photographs, 0.00125),
            ("resnet18", "resnet18-imagenet1k-v1", data::FOLDER, Kind::FineTuning, 0.002),
            ("vgg16", "w.pth", "digits", Kind::FineTuning, 0.0002),
            ("lenet5", "w.pth", "digits", Kind::FineTuning, 0.002),
        ] {
            let chosen = chosen(model, weights, data);
            assert_eq!((chosen.kind, chosen.recipe.train.lr), (kind, lr), "{model} {data}: {}", chosen.why);
            assert!(!chosen.why.contains('\n') && chosen.why.contains(&kind.to_string()), "{}", chosen.why);
            chosen.recipe.check().unwrap();
        }
        let mirrors = |weights, data| {
            let transforms = chosen("lenet5", weights, data).recipe.transforms;
            transforms.iter().any(|transform| matches!(transform, Transform::HorizontalFlip(_)))
        };
        assert!(!mirrors("", "mnist") && !mirrors("w.pth", "mnist"), "digits have no mirror images");
        assert!(!mirrors("", "svhn"), "nor have those of houses");
        assert!(mirrors("w.pth", data::FOLDER) && mirrors("", "cifar-100"));
    }
}
