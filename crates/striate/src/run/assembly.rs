//! What a run is of: its network, the weights that it starts from, and its data.
use super::{Run, told};
use crate::Error;
use crate::data::{Data, Parts, reshaped};
use crate::recipes::{bundle_file, options};
use crate::weights::weights;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use striate_datasets::{Preprocess, Task, Transform};
use striate_layers::loss::Loss;
use striate_models::{Answering, BundleInfo, Registry, Weights};
use striate_torch::few;
use striate_train::{Head, Judge, LAST, PreprocessFrom, Recipe};

impl Run<'_> {
    /// What the run is of: a mistaken model is told before a dataset is downloaded. Mean and deviation of a folder's pictures are
    /// measured on `sample` of them.
    pub(super) fn assemble(&mut self, sample: usize) -> Result<(BundleInfo, Option<Weights>, Parts), Error> {
        let stopped = match (self.resumed, &self.folder) {
            (true, Some(folder)) => Some(BundleInfo::read_with(&folder.join(LAST), &self.registry)?),
            _ => None,
        };
        let bundle = bundle_file(&self.recipe.model.name).filter(|_| stopped.is_none());
        let bundle = bundle.map(|path| Weights::read_with(path, &self.registry)).transpose()?;
        let own = self.graph.take();
        if stopped.is_none() && bundle.is_none() && own.is_none() {
            model(&self.recipe, &self.registry, &[])?;
        }
        let of_bundle = bundle.as_ref().and_then(|weights| weights.info.clone());
        let weights = match (&stopped, self.recipe.model.weights.clone()) {
            (Some(_), _) => None,
            (None, name) if name.is_empty() => bundle,
            (None, name) => Some(self.weights(&name)?),
        };
        let mut progress = told(&self.stop, &mut self.progress);
        let section = &self.recipe.data;
        let data = self.data.take().map_or_else(|| Data::open(section, &mut progress), Ok)?;
        let mut data = data.to_train(section, self.recipe.train.seed, &mut progress)?;
        if let [only] = data.classes() {
            tracing::warn!("there is one class only, {only}: any answer is right");
        }
        let info = match stopped {
            Some(info) => info,
            None => {
                let mut info = match (own, of_bundle) {
                    (Some(graph), _) => BundleInfo::new(graph, data.classes(), None),
                    (None, Some(info)) => adapted(info, &data, self.recipe.model.head)?,
                    (None, None) => {
                        let defaults = [("classes", json!(data.classes().len())), ("input", json!(data.channels()))];
                        let model = model(&self.recipe, &self.registry, &defaults)?;
                        BundleInfo::of_model(&model, data.classes(), None)?
                    }
                };
                info = for_task(info, data.task())?;
                let &[channels, height, width] = info.input() else {
                    return Err(Error::option("the network", format!("takes {:?}, and no image", info.input())));
                };
                let known = weights.as_ref().and_then(Weights::preprocess);
                let preprocess = match (self.recipe.data.preprocess, known) {
                    (PreprocessFrom::Weights, None) => {
                        let reason = "needs weights that say how images become inputs";
                        return Err(Error::option("data.preprocess = \"weights\"", reason));
                    }
                    (PreprocessFrom::Data, _) | (_, None) => {
                        let (same, preprocess) = data.preprocess_by([channels, height, width], sample, &mut progress)?;
                        data = same;
                        preprocess
                    }
                    (_, Some(known)) => {
                        let preprocess = reshaped(&known, [channels, height, width]);
                        preprocess.check()?;
                        let Preprocess { image, input: [_, height, width], normalise, .. } = &preprocess;
                        let (mean, std) = (&normalise.mean, &normalise.std);
                        tracing::info!(
                            "images become inputs as the weights want them: {image}, then {height}x{width}, mean {mean:?}, std {std:?}"
                        );
                        preprocess
                    }
                };
                info.preprocess = Some(preprocess);
                info.licence = match self.recipe.model.licence.as_str() {
                    "" => weights.as_ref().and_then(Weights::licence),
                    given => Some(given.to_owned()),
                };
                info.trained_on = weights.as_ref().map(Weights::trained_on).unwrap_or_default();
                if info.trained_on.last() != Some(data.source()) {
                    info.trained_on.push(data.source().clone());
                }
                if let (Head::Keep, Some(theirs)) = (self.recipe.model.head, weights.as_ref().and_then(Weights::classes)) {
                    warn_of_other_classes(&theirs, data.classes());
                    info.classes = in_places(&theirs, info.classes);
                }
                info
            }
        };
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let whole = Transform::size_themselves(&self.recipe.transforms);
        let data = data.with_classes(&info.classes)?.fit(preprocess_of(&info)?, whole)?;
        Ok((info, weights, data))
    }

    /// The weights of a file, or published ones by their name, which are fetched unless the cache has them.
    fn weights(&mut self, name: &str) -> Result<Weights, Error> {
        weights(name, &self.registry, &mut told(&self.stop, &mut self.progress))
    }
}

/// A recipe's model, with `defaults` for the options that the recipe leaves open.
fn model(recipe: &Recipe, registry: &Registry, defaults: &[(&str, Value)]) -> Result<striate_models::Model, Error> {
    let mut options = options(&recipe.model);
    let variant = registry.find(&recipe.model.name)?;
    for (name, value) in defaults {
        if options.iter().any(|(option, _)| option == name) {
            continue;
        }
        let value = match *name {
            // So many channels, and the model's own size.
            "input" => {
                let given: Vec<(&str, Value)> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
                let [_, height, width] = variant.model(&given)?.input();
                json!([value, height, width])
            }
            _ => value.clone(),
        };
        options.push(((*name).to_owned(), value));
    }
    let options: Vec<(&str, Value)> = options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(variant.model(&options)?)
}

/// A bundle's network for the classes of other data.
fn adapted(info: BundleInfo, data: &Data, head: Head) -> Result<BundleInfo, Error> {
    let (ours, theirs) = (info.graph.outputs().next().map_or(0, |(_, node)| node.shape.numel()), data.classes().len());
    let graph = match (ours == theirs as i64, head) {
        (true, _) => info.graph.clone(),
        (false, Head::Replace) => info.graph.with_classes(theirs as i64)?,
        (false, _) => return Err(Error::OtherClasses { weights: usize::try_from(ours).unwrap_or_default(), data: theirs }),
    };
    let (classes, metrics, answering) = (data.classes().to_vec(), BTreeMap::new(), Answering::default());
    Ok(BundleInfo { graph, classes, metrics, calibration: None, answering, ..info })
}

/// The data's classes in the order of a classifier that is kept: each output goes on answering with its class. Classes that it does
/// not have take the places of those that the data does not have.
fn in_places(theirs: &[String], ours: Vec<String>) -> Vec<String> {
    let mut others = ours.iter().filter(|class| !theirs.contains(class));
    let place = |class: &String| if ours.contains(class) { Some(class.clone()) } else { others.next().cloned() };
    let placed: Option<Vec<String>> = theirs.iter().map(place).collect();
    let sorted = |classes: &[String]| {
        let mut classes = classes.to_vec();
        classes.sort_unstable();
        classes
    };
    // Other numbers of classes do not load, and of two outputs with one name nobody knows which is meant.
    placed.filter(|placed| sorted(placed) == sorted(&ours)).unwrap_or(ours)
}

fn warn_of_other_classes(theirs: &[String], ours: &[String]) {
    let other: Vec<&str> = ours.iter().filter(|class| !theirs.contains(class)).map(String::as_str).collect();
    // Other numbers of classes do not load, or get a new classifier.
    if theirs.len() == ours.len() && !other.is_empty() {
        tracing::warn!(
            "the weights' classifier is kept, and was trained on other classes: {} of {} ({}) are not among them; a new one is often better (head = \"replace\")",
            other.len(),
            ours.len(),
            few(other.iter())
        );
    }
}

/// The description of a network that is trained on data of this kind.
fn for_task(info: BundleInfo, task: Task) -> Result<BundleInfo, Error> {
    let (loss, threshold) = match (task, info.loss) {
        (Task::SingleLabel, Loss::BinaryCrossEntropy { .. }) => (Loss::default(), None),
        (Task::SingleLabel, loss) => (loss, None),
        (Task::MultiLabel, Loss::CrossEntropy { .. } | Loss::BinaryCrossEntropy { .. }) => {
            (Loss::BinaryCrossEntropy { label_smoothing: 0.0 }, Some(info.threshold.unwrap_or(Judge::THRESHOLD)))
        }
        (Task::MultiLabel, _) => {
            let reason = "has a loss of its own for one class a picture, and the data have several: take another model";
            return Err(Error::option(info.name(), reason));
        }
    };
    Ok(BundleInfo { loss, threshold, ..info })
}

pub(super) fn preprocess_of(info: &BundleInfo) -> Result<&Preprocess, Error> {
    info.preprocess.as_ref().ok_or_else(|| Error::NoPreprocess { path: PathBuf::from(LAST) })
}

#[cfg(test)]
mod tests {
    use super::in_places;

    #[test]
    fn outputs_keep_their_classes() {
        let classes = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let placed = |theirs: &str, ours: &str| in_places(&classes(theirs), classes(ours)).join(" ");
        assert_eq!(placed("10 100 9", "9 10 100"), "10 100 9");
        assert_eq!(placed("airplane frog truck", "frog truck zeppelin"), "zeppelin frog truck");
        assert_eq!(placed("0 1 2", "bag coat shirt"), "bag coat shirt");
        assert_eq!(placed("a b", "b c a"), "b c a");
        // ImageNet has two cranes.
        assert_eq!(placed("crane crane", "bird crane"), "bird crane");
    }
}
