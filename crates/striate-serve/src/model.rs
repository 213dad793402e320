//! The networks that are served, and their exchange.
use crate::batch::{Batching, Queue};
use crate::metrics::{Metrics, NetworkMetrics};
use crate::{Config, ServeError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use striate::cam::{class_maps, last_maps, over_the_picture};
use striate::graph::{InitOptions, Network};
use striate::tch::{Device, Kind, Tensor};
use striate::train::picture::{heated, of_input, png};
use striate::{Bundle, Classifier};
use striate_torch::thread_width;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// A run's bundle, whose folder says more than its own name.
const PLAIN: &str = "model";
const LONGEST_NAME: usize = 100;
/// A network that takes no longer for a picture is computed by the thread that decoded it.
const LIGHT: Duration = Duration::from_micros(500);
/// How often a network runs before it is judged by its quickest run: other programs may disturb some.
const TRIALS: u32 = 5;

/// A bundle to serve: its file, and the name that requests use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    name: String,
    path: PathBuf,
}

impl Served {
    /// A bundle under the name of its file, or of its folder if the file is called `model.safetensors`.
    ///
    /// # Errors
    ///
    /// A name with other characters than letters, digits, `.`, `-` and `_`.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, ServeError> {
        let path = path.into();
        let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let folder = || std::path::absolute(&path).ok()?.parent()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = match name(&path) {
            Some(plain) if plain == PLAIN => folder().unwrap_or(plain),
            other => other.unwrap_or_default(),
        };
        Self::named(name, path)
    }

    /// A bundle under a name of your choice.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn named(name: impl Into<String>, path: impl Into<PathBuf>) -> Result<Self, ServeError> {
        let (name, path) = (name.into(), path.into());
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits) {
            true => Ok(Self { name, path }),
            false => Err(ServeError::Name { name }),
        }
    }

    /// The name that requests use.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Served {
    type Err = ServeError;

    /// `PATH` or `NAME=PATH`.
    fn from_str(text: &str) -> Result<Self, ServeError> {
        match text.split_once('=') {
            Some((name, path)) if !Path::new(text).exists() => Self::named(name, path),
            _ => Self::new(text),
        }
    }
}

/// What a network is, as clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ModelInfo {
    /// The name in addresses.
    name: String,
    /// The classes, in the order of the network's outputs.
    classes: Vec<String>,
    /// Channels, height and width of the network's input. Pictures of any size become that.
    input: Vec<i64>,
    /// What the network computes in: float32, bfloat16, float16 or int8.
    precision: String,
    /// Whether a picture can have several classes.
    pub(crate) multi_label: bool,
    /// Whether answers can be `unknown`: whether the bundle has a rule for pictures that are none of the classes.
    pub(crate) can_be_unknown: bool,
    /// Whether a request may ask where in the picture an answer comes from.
    can_explain: bool,
    /// The number of parameters.
    parameters: u64,
    /// Figures of the training, such as test_accuracy.
    metrics: std::collections::BTreeMap<String, f64>,
    /// How often bundles have been exchanged since the server started, up to this one.
    pub(crate) generation: u64,
}

/// One bundle, opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) classifier: Classifier,
    pub(crate) info: ModelInfo,
    /// The network drawn.
    pub(crate) svg: String,
    /// Whether the network takes less for a picture than handing it from thread to thread may take.
    pub(crate) is_light: bool,
    explainer: Option<Explainer>,
}

/// Where in a picture an answer comes from: Grad-CAM.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// The class that it is about: the likeliest.
    class: String,
    /// The layer whose feature maps are shown.
    layer: String,
    /// A PNG file in base64: the picture as the network sees it, in grey, and red where the evidence lies.
    png: String,
}

/// A network that has gradients, which a classifier's plan has not.
#[derive(Debug)]
struct Explainer {
    network: Mutex<Network>,
    layer: String,
}

impl Loaded {
    pub(crate) fn open(served: &Served, config: &Config, generation: u64) -> Result<Self, ServeError> {
        let failed = |source: striate::Error| ServeError::Bundle { name: served.name.clone(), source: Box::new(source) };
        Self::read(served, config, generation).map_err(failed)
    }

    fn read(Served { name, path }: &Served, config: &Config, generation: u64) -> Result<Self, striate::Error> {
        let bundle = Bundle::read_with(path, &config.classifier.registry)?;
        let classifier = Classifier::of(&bundle, path, config.classifier.clone())?;
        let explainer = if config.explain { Explainer::new(&bundle, path)? } else { None };
        let info = classifier.info();
        let about = ModelInfo {
            name: name.clone(),
            classes: info.classes.clone(),
            input: classifier.preprocess().input.to_vec(),
            precision: config.classifier.precision.to_string(),
            multi_label: info.loss.is_multi_label(),
            can_be_unknown: info.answering.unknown.is_some(),
            can_explain: explainer.is_some(),
            parameters: info.graph.summary().params,
            metrics: info.metrics.clone(),
            generation,
        };
        let is_light = is_light(&classifier)?;
        Ok(Self { svg: info.graph.to_svg(), classifier, info: about, is_light, explainer })
    }

    pub(crate) fn is_multi_label(&self) -> bool {
        self.info.multi_label
    }

    pub(crate) fn can_explain(&self) -> bool {
        self.explainer.is_some()
    }

    /// Where in an input (`[1, C, H, W]`) the evidence for an answer lies.
    pub(crate) fn explain(&self, input: &Tensor, answer: &striate::Answer) -> Result<Option<Explanation>, striate::Error> {
        let Some(Explainer { network, layer }) = &self.explainer else { return Ok(None) };
        let network = network.lock().unwrap_or_else(PoisonError::into_inner);
        let class = i64::try_from(answer.index).unwrap_or_default();
        let input = input.f_to_device(network.device())?;
        let Some(map) = class_maps(&network, &input, layer, &[class])?.pop() else { return Ok(None) };
        let picture = of_input(&input, &self.classifier.preprocess().normalise)?;
        let heat = over_the_picture(&map.grad_cam, i64::from(picture.height()), i64::from(picture.width()))?;
        let png = BASE64_STANDARD.encode(png(&heated(&picture, &heat)?)?);
        Ok(Some(Explanation { class: answer.class.clone(), layer: layer.clone(), png }))
    }
}

/// Runs the network. The first run sets up what later ones find, and shows that the network runs at all.
fn is_light(classifier: &Classifier) -> Result<bool, striate::Error> {
    let [channels, height, width] = classifier.preprocess().input;
    let zeros = Tensor::f_zeros([1, channels, height, width], (Kind::Float, Device::Cpu))?;
    let _ = classifier.answers(&zeros, 1)?;
    let _width = thread_width(1);
    for _ in 0..TRIALS {
        let start = Instant::now();
        let _ = classifier.answers(&zeros, 1)?;
        if start.elapsed() <= LIGHT {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Explainer {
    /// None for a network without feature maps, and for one over several devices.
    fn new(bundle: &Bundle, path: &Path) -> Result<Option<Self>, striate::Error> {
        let Some(layer) = last_maps(&bundle.info.graph).map(|node| node.name.clone()) else { return Ok(None) };
        let network = bundle.network(path, &InitOptions::default())?;
        Ok(Some(Self { network: Mutex::new(network), layer }))
    }
}

/// A network under its name.
#[derive(Debug)]
pub(crate) struct Model {
    served: Served,
    current: RwLock<Arc<Loaded>>,
    /// The places in its queue.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: NetworkMetrics,
    max_waiting: usize,
}

impl Model {
    pub(crate) fn start(served: Served, config: &Config, metrics: &Metrics) -> Result<Self, ServeError> {
        let loaded = Arc::new(Loaded::open(&served, config, 0)?);
        let metrics = metrics.of_network(&served.name);
        let lanes = loaded.classifier.side_by_side();
        let batching = Batching { max_batch: config.max_batch, max_wait: config.max_wait, lanes };
        let queue = Queue::start(&served.name, batching, metrics.clone())?;
        let places = Arc::new(Semaphore::new(config.queue));
        Ok(Self { served, current: RwLock::new(loaded), places, queue, metrics, max_waiting: config.queue })
    }

    /// The bundle that answers now.
    pub(crate) fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again.
    pub(crate) fn open_again(&self, config: &Config, generation: u64) -> Result<Arc<Loaded>, ServeError> {
        Loaded::open(&self.served, config, generation).map(Arc::new)
    }

    /// From now on, this one answers what is decoded. What has been decoded gets its answer from the former one.
    pub(crate) fn exchange(&self, loaded: Arc<Loaded>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    /// The most pictures of a request.
    pub(crate) fn max_waiting(&self) -> usize {
        self.max_waiting
    }

    /// The pictures that were accepted and not answered.
    pub(crate) fn waiting(&self) -> usize {
        self.max_waiting.saturating_sub(self.places.available_permits())
    }

    /// How long the pictures that wait now will take.
    pub(crate) fn wait(&self) -> Duration {
        self.queue.pace().saturating_mul(u32::try_from(self.waiting()).unwrap_or(u32::MAX))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_named_by_its_file_its_folder_or_you() {
        let name = |text: &str| text.parse::<Served>().map(|served| served.name).map_err(|error| error.to_string());
        assert_eq!(name("nets/digits.safetensors"), Ok("digits".to_owned()));
        assert_eq!(name("runs/flowers-1/model.safetensors"), Ok("flowers-1".to_owned()));
        assert_eq!(name("roses=runs/flowers-1/model.safetensors"), Ok("roses".to_owned()));
        let advice = "use letters, digits, dots, hyphens and underscores, 100 at most";
        assert_eq!(name("a b.safetensors"), Err(format!("a network can't be named a b: {advice}")));
        assert_eq!(name("=x.safetensors"), Err(format!("a network can't be named : {advice}")));
    }
}
