use crate::{Model, ModelError, Weights, find, weights};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::{InitOptions, Network};
use striate_torch::TensorFile;
use tch::Tensor;

/// The key of a bundle's description in the file's metadata.
const KEY: &str = "striate";
/// The version of the description.
const VERSION: u32 = 1;

/// What a bundle says beside its weights: all that is needed to build the network, feed it and read its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleInfo {
    /// The version of this description.
    pub version: u32,
    /// The variant in the registry.
    pub architecture: String,
    /// All its options.
    pub config: Map<String, Value>,
    /// The names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// How an image becomes an input: the data set crate's `Preprocess`.
    pub preprocess: Value,
    /// Figures of the training that made it, such as `test_accuracy`.
    pub metrics: BTreeMap<String, f64>,
}

impl BundleInfo {
    /// A description of `model` with no metrics yet.
    pub fn new(model: &Model, classes: &[String], preprocess: Value) -> Self {
        Self {
            version: VERSION,
            architecture: model.variant().name.to_owned(),
            config: model.config(),
            classes: classes.to_vec(),
            preprocess,
            metrics: BTreeMap::new(),
        }
    }

    /// The entry that makes a `.safetensors` file with a network's parameters a bundle.
    pub fn to_metadata(&self) -> (String, String) {
        let text = serde_json::to_string(self).unwrap_or_default();
        (KEY.to_owned(), text)
    }

    /// Reads the description of a bundle, and none of its weights. Fails as [`Bundle::read`] does.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::checked(weights::info(path)?, path)
    }

    /// The description that a file has; an error if it has none, or one that names more or fewer classes than its network has.
    fn checked(info: Option<Self>, path: &Path) -> Result<Self, ModelError> {
        let info = info.ok_or_else(|| ModelError::NoBundle { path: path.into() })?;
        let bad = |reason: String| ModelError::BadBundle { path: path.into(), reason };
        let (model, names) = (info.model().map_err(|error| bad(error.to_string()))?, info.classes.len());
        if names as i64 != model.classes() {
            return Err(bad(format!("it names {names} classes, its network has {}", model.classes())));
        }
        Ok(info)
    }

    /// The description in a file's metadata, if it has one.
    pub(crate) fn from_metadata(metadata: &BTreeMap<String, String>, path: &Path) -> Result<Option<Self>, ModelError> {
        let bad = |reason: String| ModelError::BadBundle { path: path.into(), reason };
        let Some(text) = metadata.get(KEY) else { return Ok(None) };
        let info: Self = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if info.version != VERSION {
            return Err(bad(format!("its version is {}, this striate reads {VERSION}", info.version)));
        }
        Ok(Some(info))
    }

    /// The model that it describes.
    pub fn model(&self) -> Result<Model, ModelError> {
        let options: Vec<(&str, Value)> = self.config.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        find(&self.architecture)?.model(&options)
    }
}

/// A network in one file: a `.safetensors` with its parameters, whose metadata describes it.
///
/// Tensors with a `/` in their names, such as the state of an optimizer in a checkpoint, are not the network's and are left
/// alone; so every checkpoint is also a bundle.
#[derive(Debug)]
pub struct Bundle {
    /// The description.
    pub info: BundleInfo,
    /// The network's parameters by name.
    pub state: BTreeMap<String, Tensor>,
}

impl Bundle {
    /// Reads a bundle. Fails with one line on a missing or damaged file, on one that holds weights only, and on one that names more
    /// or fewer classes than its network has.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let Weights { tensors, info, .. } = Weights::read(path)?;
        Ok(Self { info: BundleInfo::checked(info, path)?, state: tensors })
    }

    /// Writes the bundle atomically.
    pub fn write(self, path: &Path) -> Result<(), ModelError> {
        let metadata = BTreeMap::from([self.info.to_metadata()]);
        Ok(TensorFile { tensors: self.state, metadata }.write(path)?)
    }

    /// The network with its weights.
    pub fn network(&self, path: &Path, options: &InitOptions) -> Result<Network, ModelError> {
        let network = Network::new(self.info.model()?.graph()?, options)?;
        network.load_state(&self.state).map_err(|source| ModelError::Misfit { path: path.into(), source: Box::new(source) })?;
        Ok(network)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn example() -> Bundle {
        let model = find("lenet5").unwrap().model(&[("classes", 3.into())]).unwrap();
        let network = Network::new(model.graph().unwrap(), &InitOptions { seed: 4, ..InitOptions::default() }).unwrap();
        let classes = ["cat", "dog", "owl"].map(str::to_owned);
        Bundle { info: BundleInfo::new(&model, &classes, Value::Null), state: network.state() }
    }

    /// What reading the whole file is told, and what reading its description is.
    fn both_errors(path: &Path) -> [String; 2] {
        [Bundle::read(path).unwrap_err().to_string(), BundleInfo::read(path).unwrap_err().to_string()]
    }

    #[test]
    fn a_bundle_is_all_that_a_network_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let (info, state) = (example().info, example().state);
        example().write(&path).unwrap();
        let bundle = Bundle::read(&path).unwrap();
        assert_eq!(bundle.info, info);
        assert_eq!(BundleInfo::read(&path).unwrap(), info);
        let network = bundle.network(&path, &InitOptions::default()).unwrap();
        assert_eq!(network.state(), state);
    }

    #[test]
    fn every_class_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut bundle = example();
        bundle.info.classes.pop();
        bundle.write(&path).unwrap();
        for error in both_errors(&path) {
            assert!(error.contains("x.safetensors") && error.ends_with("it names 2 classes, its network has 3"), "{error}");
        }
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        TensorFile { tensors: example().state, ..TensorFile::default() }.write(&path).unwrap();
        assert!(both_errors(&path).iter().all(|error| error.contains("holds weights only")));
        let metadata = BTreeMap::from([(KEY.to_owned(), "{\"version\": 1}".to_owned())]);
        TensorFile { tensors: BTreeMap::new(), metadata }.write(&path).unwrap();
        assert!(both_errors(&path).iter().all(|error| error.contains("architecture")));
        let mut short = example();
        short.state.remove("c1.weight");
        let error = short.network(&path, &InitOptions::default()).unwrap_err().to_string();
        assert!(error.contains("x.safetensors") && error.contains("1 missing (c1.weight)"), "{error}");
    }
}
