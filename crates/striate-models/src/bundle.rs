use crate::weights::shortened;
use crate::{Answering, Model, ModelError, Registry, Weights, weights};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use striate_datasets::Preprocess;
use striate_graph::{Cost, Graph, GraphDescription, GraphError, InitOptions, Network};
use striate_infer::Calibration;
use striate_layers::{Mode, loss::Loss};
use striate_torch::{FileError, TensorFile};
use tch::Tensor;

/// The key of a bundle's description in the file's metadata.
const KEY: &str = "striate";
/// The version of the description that is written.
const VERSION: u32 = 2;
/// The most letters of a reason, which may quote the file.
const LONGEST_REASON: usize = 300;
/// What may be computed for one image for each byte that a file may take, so that it takes a second or two for a small file:
/// multiply-adds of convolutions and linear layers, and values that other layers read.
const MACS_PER_BYTE: u64 = 512;
const READS_PER_BYTE: u64 = 16;

/// What a bundle says beside its weights: the network itself, how an image becomes its input, and what its outputs mean.
///
/// The file holds it as JSON under the key `striate` of its metadata:
///
/// | key | is |
/// |---|---|
/// | `version` | 2 |
/// | `graph` | the network, as a [`GraphDescription`] |
/// | `loss`, `aux_weight` | what it is trained and judged with |
/// | `classes` | names in the order of the logits |
/// | `preprocess` | a [`Preprocess`]; null if nobody knows |
/// | `origin` | the [`Origin`]; null for a network of your own |
/// | `metrics` | figures of its training |
/// | `calibration` | the [`Calibration`] for int8, if there is one |
/// | `threshold` | if classes do not exclude each other: the probability from which on one is an answer |
/// | `answering` | the [`Answering`], if it is not the default |
/// | `licence` | the licence of the weights, if somebody gave them one |
/// | `trained_on` | a list of [`TrainedOn`], if anything is known |
///
/// Version 1 had the origin in place of the graph, and is read too.
#[derive(Debug, Clone)]
pub struct BundleInfo {
    /// The network.
    pub graph: Graph,
    /// The loss that it is trained and judged with.
    pub loss: Loss,
    /// What the same loss of each training output counts in the sum that is trained.
    pub aux_weight: f64,
    /// The names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// How an image becomes an input, if that is known.
    pub preprocess: Option<Preprocess>,
    /// What the network was before it was changed, if it came from a registry.
    pub origin: Option<Origin>,
    /// Figures of the training that made it, such as `test_accuracy`.
    pub metrics: BTreeMap<String, f64>,
    /// What the bytes of int8 stand for, if that was measured.
    pub calibration: Option<Calibration>,
    /// If classes do not exclude each other: the probability (sigmoid) from which on one is an answer. The loss tells whether they do.
    pub threshold: Option<f64>,
    /// How logits become probabilities and answers.
    pub answering: Answering,
    /// The licence of the weights, as whoever made them says.
    pub licence: Option<String>,
    /// The data that the weights were trained on, the first first.
    pub trained_on: Vec<TrainedOn>,
}

/// Data that a network was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedOn {
    /// The name of the dataset or of its folder.
    pub name: String,
    /// The licence of a dataset of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

impl From<&striate_datasets::Entry> for TrainedOn {
    fn from(entry: &striate_datasets::Entry) -> Self {
        Self { name: entry.title.to_owned(), licence: Some(entry.licence.to_owned()) }
    }
}

/// Where a bundle's network comes from. It says who made it, and builds nothing: the graph does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The variant in the registry.
    pub architecture: String,
    /// All its options.
    pub options: Map<String, Value>,
}

/// The form in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version2 {
    version: u32,
    graph: GraphDescription,
    loss: Loss,
    aux_weight: f64,
    classes: Vec<String>,
    preprocess: Option<Preprocess>,
    origin: Option<Origin>,
    metrics: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<Calibration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answering: Option<Answering>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    licence: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    trained_on: Vec<TrainedOn>,
}

/// The former form, whose network is a variant of the registry.
#[derive(Deserialize)]
struct Version1 {
    architecture: String,
    config: Map<String, Value>,
    classes: Vec<String>,
    preprocess: Option<Preprocess>,
    metrics: BTreeMap<String, f64>,
}

impl BundleInfo {
    /// A description of a network of your own, trained by cross entropy, with no metrics yet.
    pub fn new(graph: Graph, classes: &[String], preprocess: Option<Preprocess>) -> Self {
        Self {
            graph,
            loss: Loss::default(),
            aux_weight: 0.0,
            classes: classes.to_vec(),
            preprocess,
            origin: None,
            metrics: BTreeMap::new(),
            calibration: None,
            threshold: None,
            answering: Answering::default(),
            licence: None,
            trained_on: Vec::new(),
        }
    }

    /// A description of a model of a registry with no metrics yet.
    ///
    /// # Errors
    ///
    /// Those of [`Model::graph`].
    pub fn of_model(model: &Model, classes: &[String], preprocess: Option<Preprocess>) -> Result<Self, ModelError> {
        let origin = Origin { architecture: model.variant().name.to_owned(), options: model.config() };
        Ok(Self {
            loss: model.loss(),
            aux_weight: model.aux_weight(),
            origin: Some(origin),
            ..Self::new(model.graph()?, classes, preprocess)
        })
    }

    /// What to call the network: its architecture's name, or `network` for one of your own.
    pub fn name(&self) -> &str {
        self.origin.as_ref().map_or("network", |origin| &origin.architecture)
    }

    /// The shape of the first input for one example: `[C, H, W]` of a network of images.
    pub fn input(&self) -> &[i64] {
        self.graph.inputs().next().map_or(&[], |input| input.shape.dims())
    }

    /// The entry that makes a `.safetensors` file with a network's parameters a bundle.
    ///
    /// # Errors
    ///
    /// A layer of your own that does not tell its options.
    pub fn to_metadata(&self) -> Result<(String, String), ModelError> {
        let info = self.clone();
        let form = Version2 {
            version: VERSION,
            graph: info.graph.to_description()?,
            loss: info.loss,
            aux_weight: info.aux_weight,
            classes: info.classes,
            preprocess: info.preprocess,
            origin: info.origin,
            metrics: info.metrics,
            calibration: info.calibration,
            threshold: info.threshold,
            answering: Some(info.answering).filter(|answering| *answering != Answering::default()),
            licence: info.licence,
            trained_on: info.trained_on,
        };
        // Plain data, in which nothing can fail.
        Ok((KEY.to_owned(), serde_json::to_string(&form).unwrap_or_default()))
    }

    /// Reads the description of a bundle, and none of its weights. Fails as [`Bundle::read`] does.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::read_with(path, &Registry::default())
    }

    /// [`read`](Self::read), where `registry` has layers and architectures of your own that the file may name.
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Self, ModelError> {
        weights::info(path, registry)?.ok_or_else(|| ModelError::NoBundle { path: path.into() })
    }

    /// The description in a file's metadata, if it has one. An error if it can't be read, or says what can't be.
    pub(crate) fn from_metadata(
        metadata: &BTreeMap<String, String>,
        path: &Path,
        registry: &Registry,
    ) -> Result<Option<Self>, ModelError> {
        let Some(text) = metadata.get(KEY) else { return Ok(None) };
        let length = std::fs::metadata(path).map_err(|source| FileError::Io { action: "read", path: path.into(), source })?.len();
        let info = Self::parse(text, registry).and_then(|info| info.fits(registry.budget().of_file(length)).map(|()| info));
        info.map(Some).map_err(|reason| ModelError::BadBundle { path: path.into(), reason: shortened(&reason, LONGEST_REASON) })
    }

    /// Whether the network computes one image within so many bytes of feature maps.
    fn fits(&self, allowed: u64) -> Result<(), String> {
        let Cost { bytes, macs, reads, .. } = self.graph.cost();
        let needed = bytes.max(macs / MACS_PER_BYTE).max(reads / READS_PER_BYTE);
        if needed <= allowed {
            return Ok(());
        }
        Err(format!(
            "for one image, its network takes {bytes} bytes and {} operations, far more than networks of as few weights \
             do: if you trust it, raise the read budget to {needed} bytes",
            macs.saturating_add(reads)
        ))
    }

    fn parse(text: &str, registry: &Registry) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let Versioned { version } = serde_json::from_str(text).map_err(|error| told(&error))?;
        let info = match version {
            1 => {
                let Version1 { architecture, config, classes, preprocess, metrics } =
                    serde_json::from_str(text).map_err(|error| told(&error))?;
                let options: Vec<(&str, Value)> = config.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
                let model = registry.find(&architecture).and_then(|variant| variant.model(&options));
                let info = model.and_then(|model| Self::of_model(&model, &classes, preprocess)).map_err(|error| told(&error))?;
                Self { metrics, ..info }
            }
            VERSION => {
                let form: Version2 = serde_json::from_str(text).map_err(|error| told(&error))?;
                Self {
                    graph: Graph::from_description(form.graph, registry.layers()).map_err(|error| told(&error))?,
                    loss: form.loss,
                    aux_weight: form.aux_weight,
                    classes: form.classes,
                    preprocess: form.preprocess,
                    origin: form.origin,
                    metrics: form.metrics,
                    calibration: form.calibration,
                    threshold: form.threshold,
                    answering: form.answering.unwrap_or_default(),
                    licence: form.licence,
                    trained_on: form.trained_on,
                }
            }
            other => return Err(format!("its version is {other}, and this version of striate reads 1 to {VERSION}")),
        };
        info.check().map(|()| info)
    }

    /// Whether classes and images fit the network.
    fn check(&self) -> Result<(), String> {
        let names = self.classes.len();
        let logits = self.graph.outputs_in(Mode::Eval).next().map_or(&[][..], |(_, node)| node.shape.dims());
        match *logits {
            // A network that was cut off gives features, and has no classes.
            _ if names == 0 => {}
            [classes] if classes == names as i64 => {}
            [classes] => return Err(format!("it names {names} classes, its network has {classes}")),
            ref other => return Err(format!("it names {names} classes, its network gives {other:?}")),
        }
        match self.threshold {
            Some(threshold) if !(0.0..=1.0).contains(&threshold) => {
                return Err(format!("its threshold is {threshold}, and no probability from 0 to 1"));
            }
            Some(_) if !self.loss.is_multi_label() => {
                return Err("it has a threshold, and its loss is for classes that exclude each other".to_owned());
            }
            _ => {}
        }
        self.answering.check(self.input(), self.loss.is_multi_label())?;
        let Some(preprocess) = &self.preprocess else { return Ok(()) };
        preprocess.check().map_err(|error| error.to_string())?;
        if self.input() != preprocess.input {
            return Err(format!("its images become {:?}, its network takes {:?}", preprocess.input, self.input()));
        }
        Ok(())
    }
}

/// A network in one file: a `.safetensors` with its parameters, whose metadata describes it.
///
/// Tensors with a `/` in their names, such as the state of an optimizer in a checkpoint, are not the network's and are left
/// alone; so every checkpoint is also a bundle.
///
/// ```
/// use striate_graph::{Graph, InitOptions, Network};
/// use striate_layers::{Flatten, Linear};
/// use striate_models::{Bundle, BundleInfo};
///
/// let graph = Graph::build(|net| {
///     let x = net.input([1, 8, 8]);
///     let x = net.add("flatten", Flatten, x)?;   // [64]
///     let x = net.add("fc", Linear::new(2), x)?; // [2]
///     net.output("logits", x)
/// })?;
/// let network = Network::new(graph.clone(), &InitOptions::default())?;
/// let info = BundleInfo::new(graph, &["cat".to_owned(), "dog".to_owned()], None);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pets.safetensors");
/// Bundle { info, state: network.state() }.write(&path)?;
///
/// let bundle = Bundle::read(&path)?; // knows nothing of the code above
/// let same = bundle.network(&path, &InitOptions::default())?;
/// assert_eq!(same.state(), network.state());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Bundle {
    /// The description.
    pub info: BundleInfo,
    /// The network's parameters by name.
    pub state: BTreeMap<String, Tensor>,
}

impl Bundle {
    /// Reads a bundle. Fails with one line on a missing or damaged file, on one that holds weights only, on a description of what
    /// can't be, and on one that names more or fewer classes than its network has.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::read_with(path, &Registry::default())
    }

    /// [`read`](Self::read), where `registry` has layers and architectures of your own that the file may name.
    pub fn read_with(path: &Path, registry: &Registry) -> Result<Self, ModelError> {
        let Weights { tensors, info, .. } = Weights::read_with(path, registry)?;
        let info = info.ok_or_else(|| ModelError::NoBundle { path: path.into() })?;
        Ok(Self { info, state: tensors })
    }

    /// Writes the bundle atomically.
    pub fn write(self, path: &Path) -> Result<(), ModelError> {
        let metadata = BTreeMap::from([self.info.to_metadata()?]);
        Ok(TensorFile { tensors: self.state, metadata }.write(path)?)
    }

    /// The network with its weights; `path` is the file that errors name. Nothing is allocated for weights that do not fit.
    pub fn network(&self, path: &Path, options: &InitOptions) -> Result<Network, ModelError> {
        let misfit = |source: GraphError| ModelError::Misfit { path: path.into(), source: Box::new(source) };
        self.info.graph.check_state(&self.state).map_err(misfit)?;
        let network = Network::zeros(self.info.graph.clone(), options)?;
        network.load_state(&self.state).map_err(misfit)?;
        Ok(network)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Tta, Unknown, find};
    use striate_datasets::{Fit, Normalise};

    fn example() -> Bundle {
        let model = find("lenet5").unwrap().model(&[("classes", 3.into())]).unwrap();
        let network = Network::new(model.graph().unwrap(), &InitOptions { seed: 4, ..InitOptions::default() }).unwrap();
        let classes = ["cat", "dog", "owl"].map(str::to_owned);
        Bundle { info: BundleInfo::of_model(&model, &classes, None).unwrap(), state: network.state() }
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
        let text = |info: &BundleInfo| info.to_metadata().unwrap().1;
        assert_eq!(text(&bundle.info), text(&info));
        assert_eq!(text(&BundleInfo::read(&path).unwrap()), text(&info));
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
        assert!(both_errors(&path).iter().all(|error| error.contains("architecture")), "{:?}", both_errors(&path));
        let mut short = example();
        short.state.remove("c1.weight");
        let error = short.network(&path, &InitOptions::default()).unwrap_err().to_string();
        assert!(error.contains("x.safetensors") && error.contains("1 missing (c1.weight)"), "{error}");
    }

    #[test]
    fn what_a_file_says_is_quoted_in_bounded_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let name = "a".repeat(100_000);
        let text =
            format!(r#"{{"version":1,"architecture":"{name}","config":{{}},"classes":[],"preprocess":null,"metrics":{{}}}}"#);
        let metadata = BTreeMap::from([(KEY.to_owned(), text)]);
        TensorFile { tensors: BTreeMap::new(), metadata }.write(&path).unwrap();
        for error in both_errors(&path) {
            assert!(error.contains("there is no model aaa") && error.len() < 500, "{}", error.len());
        }
    }

    /// A bundle as version 1 wrote it.
    #[test]
    fn bundles_of_before_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let text = r#"{"version":1,"architecture":"lenet5","config":{"classes":3},"classes":["cat","dog","owl"],
            "preprocess":{"image":[28,28],"input":[1,32,32],"normalise":{"mean":[0.1],"std":[0.3]}},"metrics":{"test_accuracy":0.5}}"#;
        let metadata = BTreeMap::from([(KEY.to_owned(), text.to_owned())]);
        TensorFile { tensors: example().state, metadata }.write(&path).unwrap();
        let Bundle { info, state } = Bundle::read(&path).unwrap();
        assert_eq!(format!("{:?}", info.graph), format!("{:?}", example().info.graph));
        assert_eq!((info.name(), &info.metrics["test_accuracy"]), ("lenet5", &0.5));
        let normalise = Normalise { mean: vec![0.1], std: vec![0.3] };
        assert_eq!(info.preprocess, Some(Preprocess::new([1, 28, 28], [1, 32, 32], Fit::Pad, normalise).unwrap()));
        Bundle { info, state }.network(&path, &InitOptions::default()).unwrap();
    }

    /// The paper's LeNet has a loss of its own, a truncated network no classes, and one that was edited is no registry's.
    #[test]
    fn edited_and_truncated_networks_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let model = find("lenet5-paper").unwrap().model(&[]).unwrap();
        let digits: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
        let paper = BundleInfo::of_model(&model, &digits, None).unwrap();
        let text = paper.to_metadata().unwrap().1;
        let back = BundleInfo::parse(&text, &Registry::default()).unwrap();
        assert!(matches!(back.loss, Loss::Rbf { .. }) && back.loss == paper.loss);

        let mut network =
            Network::new(find("lenet5").unwrap().model(&[]).unwrap().graph().unwrap(), &InitOptions::default()).unwrap();
        network.truncate("c5", "features").unwrap();
        let info = BundleInfo::new(network.graph().clone(), &[], None);
        Bundle { info, state: network.state() }.write(&path).unwrap();
        let back = Bundle::read(&path).unwrap();
        assert_eq!(back.info.name(), "network");
        assert_eq!(back.network(&path, &InitOptions::default()).unwrap().state(), network.state());
    }

    #[test]
    fn images_that_do_not_fit_the_network_are_told() {
        let mut info = example().info;
        let normalise = Normalise { mean: vec![0.1], std: vec![0.3] };
        info.preprocess = Some(Preprocess::new([1, 8, 8], [1, 16, 16], Fit::Resize, normalise).unwrap());
        let error = BundleInfo::parse(&info.to_metadata().unwrap().1, &Registry::default()).unwrap_err();
        assert_eq!(error, "its images become [1, 16, 16], its network takes [1, 32, 32]");
    }

    #[test]
    fn classes_that_exclude_nothing_come_back_with_their_threshold() {
        let mut info = example().info;
        let back = |info: &BundleInfo| BundleInfo::parse(&info.to_metadata().unwrap().1, &Registry::default());
        info.threshold = Some(0.3);
        let told = "it has a threshold, and its loss is for classes that exclude each other";
        assert_eq!(back(&info).unwrap_err(), told);
        info.loss = Loss::BinaryCrossEntropy { label_smoothing: 0.0 };
        let same = back(&info).unwrap();
        assert_eq!((same.loss, same.threshold), (info.loss, Some(0.3)));
        info.threshold = Some(1.5);
        assert_eq!(back(&info).unwrap_err(), "its threshold is 1.5, and no probability from 0 to 1");
    }

    #[test]
    fn the_way_of_answering_comes_back() {
        let mut info = example().info;
        let text = |info: &BundleInfo| info.to_metadata().unwrap().1;
        assert!(!text(&info).contains("answering"), "a bundle that older versions read, too");
        let unknown = Some(Unknown { energy: 2.5, accepted: 0.99 });
        info.answering = Answering { tta: Tta::FlipShift(2), temperature: 1.25, unknown };
        let form = r#""answering":{"tta":"flip-shift=2","temperature":1.25,"unknown":{"energy":2.5,"accepted":0.99}}"#;
        assert!(text(&info).contains(form), "{}", text(&info));
        assert_eq!(BundleInfo::parse(&text(&info), &Registry::default()).unwrap().answering, info.answering);
        info.answering.temperature = -1.0;
        let error = BundleInfo::parse(&text(&info), &Registry::default()).unwrap_err();
        assert_eq!(error, "its temperature is -1, and not above 0");
    }

    #[test]
    fn the_licence_and_the_data_come_back() {
        let mut info = example().info;
        let text = |info: &BundleInfo| info.to_metadata().unwrap().1;
        assert!(!text(&info).contains("licence") && !text(&info).contains("trained_on"));
        info.licence = Some("CC-BY-4.0".to_owned());
        let mnist = TrainedOn::from(striate_datasets::find("mnist").unwrap());
        info.trained_on = vec![mnist, TrainedOn { name: "flowers".to_owned(), licence: None }];
        let form = r#""licence":"CC-BY-4.0","trained_on":[{"name":"MNIST","licence":"CC BY-SA 3.0"},{"name":"flowers"}]"#;
        assert!(text(&info).contains(form), "{}", text(&info));
        let back = BundleInfo::parse(&text(&info), &Registry::default()).unwrap();
        assert_eq!((back.licence, back.trained_on), (info.licence, info.trained_on));
    }

    /// A file of no weights whose network averages maps of 1 GB.
    #[test]
    fn a_network_is_held_against_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let graph = Graph::build(|net| {
            let x = net.input([3, 10_000, 10_000]);
            let x = net.add("pool", striate_layers::AdaptiveAvgPool2d::global(), x)?;
            let x = net.add("flatten", striate_layers::Flatten, x)?;
            net.output("logits", x)
        });
        let bundle = Bundle { info: BundleInfo::new(graph.unwrap(), &[], None), state: BTreeMap::new() };
        bundle.write(&path).unwrap();
        for error in both_errors(&path) {
            let told = "its network takes 1200000012 bytes and 300000003 operations, far more than networks of as few weights do";
            assert!(error.contains(told) && error.ends_with("raise the read budget to 1200000012 bytes"), "{error}");
        }
        let registry = Registry::default().with_budget(striate_torch::Budget::of_bytes(1_200_000_012));
        Bundle::read_with(&path, &registry).unwrap();
    }

    /// Few bytes, but three windows of 961 values for each of 2.25 million.
    #[test]
    fn wide_windows_are_held_against_the_budget() {
        let graph = Graph::build(|net| {
            let mut x = net.input([1, 1500, 1500]);
            for name in ["a", "b", "c"] {
                x = net.add(name, striate_layers::MaxPool2d::new(31).stride(1).padding(15), x)?;
            }
            net.output("map", x)
        });
        let info = BundleInfo::new(graph.unwrap(), &[], None);
        let error = info.fits(striate_torch::Budget::default().of_file(1000)).unwrap_err();
        assert!(error.contains("takes 18000000 bytes and 6486750000 operations"), "{error}");
    }

    /// In bfloat16, in which a file is shortest.
    #[test]
    fn every_network_of_the_registry_is_within_the_budget() {
        for variant in crate::variants() {
            let model = variant.model(&[]).unwrap();
            let info = BundleInfo::of_model(&model, &[], None).unwrap();
            let length = 2 * info.graph.summary().params;
            info.fits(striate_torch::Budget::default().of_file(length))
                .unwrap_or_else(|reason| panic!("{}: {reason}", variant.name));
        }
    }

    /// A small file that declares a large network: nothing is allocated for weights that are not there.
    #[test]
    fn weights_are_held_against_the_network_before_it_is_made() {
        let model = find("vgg19").unwrap().model(&[("input", serde_json::json!([3, 3200, 3200]))]);
        let info = BundleInfo::new(model.unwrap().graph().unwrap(), &[], None);
        let error =
            Bundle { info, state: BTreeMap::new() }.network(Path::new("x"), &InitOptions::default()).unwrap_err().to_string();
        assert!(error.contains("38 missing"), "{error}");
    }
}
