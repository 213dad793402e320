//! From a bundle to answers.
use crate::data::Opened;
use crate::{Error, Report};
use serde::Serialize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use striate_datasets::image::DynamicImage;
use striate_datasets::{Dataset, DecodeOptions, Loader, LoaderOptions, Picture, Preprocess, decode_image};
use striate_graph::{GraphError, InitOptions, Network};
use striate_infer::{Calibration, Gate, Plan, PlanOptions};
use striate_layers::Mode;
use striate_models::{Answering, Bundle, BundleInfo, Registry, Tta};
use striate_torch::Precision;
use striate_torch::cuda::{bring, trouble};
use striate_train::{Judge, TrainError, evaluate_with};
use tch::{Cuda, Device, Kind, Tensor};

/// Images that int8 is calibrated on: more of them change the scales by little.
const CALIBRATION_BATCH: usize = 32;
const CALIBRATION_BATCHES: usize = 8;

/// How a [`Classifier`] computes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClassifierOptions {
    /// The type that the network computes in. int8 needs a calibration, here or in the bundle; float16 needs a GPU.
    pub precision: Precision,
    /// What the bytes of int8 stand for, in place of the bundle's: see [`Classifier::calibrate`].
    pub calibration: Option<Calibration>,
    /// On a GPU, whether float32 is multiplied in TF32: see [`PlanOptions::tf32`].
    pub tf32: Option<bool>,
    /// Where to compute; several devices for a network in as many towers, which then runs as it was trained, one batch at a time.
    pub devices: Vec<Device>,
    /// How pictures are decoded.
    pub decode: DecodeOptions,
    /// How many pictures [`Classifier::classify_all`] puts into one batch.
    pub batch_size: usize,
    /// How many answers there are for each picture, where classes exclude each other; at most as many as there are classes.
    pub top: usize,
    /// Where classes do not exclude each other: the probability from which on one is an answer, in place of the bundle's.
    pub threshold: Option<f64>,
    /// The views of each picture whose logits are averaged, in place of the bundle's.
    pub tta: Option<Tta>,
    /// Layers and architectures of your own that the bundle may name.
    pub registry: Registry,
    /// Once it is set, work on many pictures ends with [`Error::Stopped`] before the next batch.
    pub stop: Arc<AtomicBool>,
}

impl Default for ClassifierOptions {
    /// float32 on the CPU, batches of 16, five answers.
    fn default() -> Self {
        Self {
            precision: Precision::Float32,
            calibration: None,
            tf32: None,
            devices: vec![Device::Cpu],
            decode: DecodeOptions::default(),
            batch_size: 16,
            top: 5,
            threshold: None,
            tta: None,
            registry: Registry::default(),
            stop: Arc::default(),
        }
    }
}

/// One class for a picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The class's name; its number if the bundle names none.
    pub class: String,
    /// Its place among the logits.
    pub index: usize,
    /// Its probability, from 0 to 1: the softmax of the logits, or the sigmoid of its own where classes do not exclude each other.
    /// The bundle's temperature divides the logits first.
    pub probability: f64,
}

/// What a network says of one picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The likeliest classes, the likeliest first; where classes do not exclude each other, those from the threshold on, which may be
    /// none.
    pub top: Vec<Answer>,
    /// Whether the picture is none of the classes, by the rule that the bundle has for it; `top` has answers nevertheless. Always
    /// `false` if the bundle has none.
    pub unknown: bool,
}

/// A trained network that classifies pictures: a bundle, opened.
///
/// It is `Send` and `Sync`: any number of threads can share one, in an `Arc` for instance, and so one copy of its packed weights.
/// It resizes, crops and normalises pictures as the bundle says, so it answers what was measured when the network was trained.
///
/// A call that is alone computes with all of libtorch's threads. Calls that come together share the cores, one each ([`Gate`]): the
/// answers differ by rounding at most.
///
/// ```no_run
/// use std::path::Path;
/// use striate::Classifier;
///
/// let classifier = Classifier::open("runs/flowers-1/model.safetensors")?;
/// for answer in classifier.classify(Path::new("rose.jpg"))?.top {
///     println!("{}: {:.3}", answer.class, answer.probability);
/// }
/// # Ok::<(), striate::Error>(())
/// ```
#[derive(Debug)]
pub struct Classifier {
    info: BundleInfo,
    answering: Answering,
    preprocess: Preprocess,
    engine: Engine,
    device: Device,
    options: ClassifierOptions,
}

/// What computes.
#[derive(Debug)]
enum Engine {
    Plan(Plan, Gate),
    /// A network over several devices, which one thread uses at a time.
    Towers(Mutex<Network>),
}

impl Engine {
    fn forward(&self, batch: &Tensor) -> Result<Tensor, GraphError> {
        let outputs = match self {
            Self::Plan(plan, gate) => gate.pass(|| plan.forward(batch)),
            Self::Towers(network) => {
                let network = network.lock().unwrap_or_else(PoisonError::into_inner);
                let _no_grad = striate_torch::no_grad();
                network.forward(batch, Mode::Eval)
            }
        };
        outputs.map(|outputs| outputs.logits().shallow_clone())
    }
}

impl Classifier {
    /// Opens a bundle, to compute in float32 on the CPU.
    ///
    /// # Errors
    ///
    /// A file that is missing, damaged, or no bundle; one that does not say how pictures become inputs.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, ClassifierOptions::default())
    }

    /// [`open`](Self::open) with options.
    ///
    /// # Errors
    ///
    /// Also a precision that the processor or the bundle lacks what it takes for, and several devices for a network without towers.
    pub fn open_with(path: impl AsRef<Path>, options: ClassifierOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::of(&Bundle::read_with(path, &options.registry)?, path, options)
    }

    /// A classifier of a bundle that is in memory; `path` is what errors name.
    ///
    /// # Errors
    ///
    /// Those of [`open_with`](Self::open_with).
    pub fn of(bundle: &Bundle, path: &Path, options: ClassifierOptions) -> Result<Self, Error> {
        let preprocess = preprocess_of(&bundle.info, path)?;
        if options.batch_size == 0 {
            return Err(Error::option("batch_size = 0", "must be 1 or larger"));
        }
        if let Some(threshold) = options.threshold {
            let given = format!("threshold = {threshold}");
            match bundle.info.loss.is_multi_label() {
                true if (0.0..=1.0).contains(&threshold) => {}
                true => return Err(Error::option(given, "must be from 0 to 1")),
                false => return Err(Error::option(given, "takes a network whose classes do not exclude each other")),
            }
        }
        let answering = Answering { tta: options.tta.unwrap_or(bundle.info.answering.tta), ..bundle.info.answering };
        check_tta("tta", answering.tta, bundle.info.input())?;
        let network = network_of(bundle, path, &options.devices)?;
        let (device, info) = (network.device(), bundle.info.clone());
        let engine = match (network.graph().places(), options.precision) {
            (1, precision) => {
                let calibration = options.calibration.clone().or_else(|| info.calibration.clone());
                let plan = Plan::new(&network, &PlanOptions { precision, calibration, tf32: options.tf32 })?;
                Engine::Plan(plan, Gate::new(striate_torch::num_threads()))
            }
            (_, Precision::Float32) => Engine::Towers(Mutex::new(network)),
            (_, precision) => return Err(Error::option(format!("precision = {precision}"), "takes one device")),
        };
        Ok(Self { info, answering, preprocess, engine, device, options })
    }

    /// Measures what int8 needs, on training pictures of `data`. Keep it in [`BundleInfo::calibration`], or give it to
    /// [`ClassifierOptions::calibration`]; `path` is what errors name.
    ///
    /// # Errors
    ///
    /// Pictures that cannot be read, and classes are not looked at.
    pub fn calibrate(bundle: &Bundle, path: &Path, data: &dyn Dataset) -> Result<Calibration, Error> {
        let network = network_of(bundle, path, &[Device::Cpu])?;
        let loader = Loader::new(data, preprocess_of(&bundle.info, path)?, LoaderOptions::train(CALIBRATION_BATCH, 0))?;
        let batches = loader.epoch(0)?.take(CALIBRATION_BATCHES);
        let images = batches.map(|batch| Ok(batch?.images)).collect::<Result<Vec<_>, Error>>()?;
        Ok(Calibration::measure(&network, &images)?)
    }

    /// What the bundle says of its network.
    pub fn info(&self) -> &BundleInfo {
        &self.info
    }

    /// How pictures become inputs.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The likeliest classes of one picture: a path, the content of a file, a decoded image, or a tensor (see [`Picture`]).
    ///
    /// # Errors
    ///
    /// A picture that is missing, cut off, damaged, of an unknown format or too large.
    pub fn classify<'a>(&self, picture: impl Into<Picture<'a>>) -> Result<Prediction, Error> {
        let input = self.input(picture)?;
        let mut answers = self.answers(&input, self.options.top)?;
        answers.pop().ok_or(Error::Graph(GraphError::NoOutput))
    }

    /// The likeliest classes of many pictures, in their order, computed in batches. A picture that cannot be read has its error in its
    /// place, and the others their answers. While a GPU computes a batch, the next one is decoded.
    pub fn classify_all<'a, P: Into<Picture<'a>>>(
        &self,
        pictures: impl IntoIterator<Item = P>,
    ) -> Vec<Result<Prediction, Error>> {
        let (mut results, mut launched) = (Vec::new(), None);
        let mut pictures = pictures.into_iter().map(Into::into).peekable();
        while pictures.peek().is_some() {
            let batch: Vec<Picture<'a>> = pictures.by_ref().take(self.options.batch_size).collect();
            if self.is_stopped() {
                results.extend(launched.take().into_iter().flat_map(|batch| self.finish(batch)));
                results.extend(batch.iter().map(|_| Err(Error::Stopped)));
                continue;
            }
            let inputs = self.decode_all(batch);
            results.extend(launched.take().into_iter().flat_map(|batch| self.finish(batch)));
            launched = Some(self.launch_all(inputs));
        }
        results.extend(launched.into_iter().flat_map(|batch| self.finish(batch)));
        results
    }

    fn launch_all(&self, inputs: Vec<Result<Tensor, Error>>) -> Launched {
        let sound: Vec<&Tensor> = inputs.iter().filter_map(|input| input.as_ref().ok()).collect();
        let logits = match sound.as_slice() {
            [] => None,
            sound => Some(Tensor::f_cat(sound, 0).map_err(Error::from).and_then(|batch| self.launch(&batch))),
        };
        Launched { inputs, logits }
    }

    fn finish(&self, Launched { inputs, logits }: Launched) -> Vec<Result<Prediction, Error>> {
        let together =
            logits.map_or_else(|| Ok(Vec::new()), |logits| logits.and_then(|logits| self.predictions(&logits, self.options.top)));
        match together {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                let mut answer = |_| answers.next().ok_or(Error::Graph(GraphError::NoOutput));
                inputs.into_iter().map(|input| input.and_then(&mut answer)).collect()
            }
            // Errors cannot be copied: each picture gets its own.
            Err(_) => inputs
                .into_iter()
                .map(|input| {
                    let mut answers = self.answers(&input?, self.options.top)?;
                    answers.pop().ok_or(Error::Graph(GraphError::NoOutput))
                })
                .collect(),
        }
    }

    /// What the network gives for a batch of inputs (`[N, C, H, W]`, normalised float32): logits, `[N, classes]`, float32, on the CPU.
    /// With test-time augmentation, they are means over views. No temperature divides them.
    ///
    /// # Errors
    ///
    /// A batch that does not fit the network.
    pub fn logits(&self, batch: &Tensor) -> Result<Tensor, Error> {
        Ok(self.launch(batch)?.f_to_device(Device::Cpu)?)
    }

    /// [`logits`](Self::logits) on the device, which may still compute them.
    fn launch(&self, batch: &Tensor) -> Result<Tensor, Error> {
        let batch = bring(batch, self.device)?;
        self.answering.tta.logits(&batch, |view| self.engine.forward(view).map_err(Error::from))
    }

    /// How the network does on pictures whose classes are known, in batches of `batch_size`. Classes are compared by name: they may
    /// be in another order, and only some of the network's.
    ///
    /// # Errors
    ///
    /// Classes that the network does not have, and pictures that cannot be read.
    pub fn evaluate(&self, data: Opened, batch_size: usize) -> Result<Report, Error> {
        let data = if self.info.loss.is_multi_label() { data.multi_label() } else { data };
        let data = data.with_classes(&self.info.classes)?.fit(&self.preprocess)?;
        let loader = Loader::new(&*data, self.preprocess.clone(), LoaderOptions::eval(batch_size))?;
        let forward = |images: &Tensor| match self.is_stopped() {
            true => Err(TrainError::Stopped),
            false => self.answering.tta.logits(images, |view| Ok(self.engine.forward(view)?)),
        };
        let judge =
            Judge { threshold: self.threshold(), temperature: self.answering.temperature, ..self.info.loss.unsmoothed().into() };
        let evaluation = evaluate_with(&self.info.graph, self.device, &loader, judge, forward)?;
        Report::new(&evaluation, &self.info.classes, &self.answering)
    }

    /// The probability from which on a class is an answer, if classes do not exclude each other.
    fn threshold(&self) -> f64 {
        self.options.threshold.or(self.info.threshold).unwrap_or(Judge::THRESHOLD)
    }

    fn is_stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    /// A picture as the network's input: `[1, C, H, W]`, normalised float32. With [`answers`](Self::answers), it is what
    /// [`classify`](Self::classify) does, in two parts that can run on different threads.
    ///
    /// # Errors
    ///
    /// Those of [`classify`](Self::classify).
    pub fn input<'a>(&self, picture: impl Into<Picture<'a>>) -> Result<Tensor, Error> {
        Ok(decode_image(picture, &self.preprocess, &self.options.decode)?)
    }

    /// Decodes side by side, by as many threads as libtorch's operators use.
    fn decode_all(&self, pictures: Vec<Picture<'_>>) -> Vec<Result<Tensor, Error>> {
        // A tensor may not be shared between threads; there is nothing to decode of it either.
        let work = pictures.into_iter().map(|picture| match picture {
            Picture::File(path) => Work::File(path),
            Picture::Bytes(bytes) => Work::Bytes(bytes),
            Picture::Image(image) => Work::Image(image),
            other => Work::Done(self.input(other)),
        });
        let work: Vec<Work<'_>> = work.collect();
        let threads = striate_torch::num_threads().min(work.len());
        let queue = Mutex::new(work.into_iter().enumerate());
        let decode = || {
            let mut decoded = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, work)) = next else { return decoded };
                let input = match work {
                    Work::File(path) => self.input(path),
                    Work::Bytes(bytes) => self.input(bytes),
                    Work::Image(image) => self.input(image),
                    Work::Done(input) => input,
                };
                decoded.push((index, input));
            }
        };
        let mut decoded = std::thread::scope(|scope| {
            // As many as the system gives.
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, decode).ok();
            let workers: Vec<_> = (1..threads).map_while(spawn).collect();
            let mut decoded = decode();
            for worker in workers {
                decoded.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            decoded
        });
        decoded.sort_by_key(|(index, _)| *index);
        decoded.into_iter().map(|(_, input)| input).collect()
    }

    /// What the network says of each input of a batch: the likeliest `top` classes; where classes do not exclude each other, all
    /// from the threshold on.
    ///
    /// # Errors
    ///
    /// A batch that does not fit the network.
    pub fn answers(&self, batch: &Tensor, top: usize) -> Result<Vec<Prediction>, Error> {
        self.predictions(&self.launch(batch)?, top)
    }

    /// How many calls compute side by side; others wait. On a CPU, as many as libtorch's operators had threads when this was opened;
    /// one on other devices, and for a network over several.
    pub fn side_by_side(&self) -> usize {
        match &self.engine {
            Engine::Plan(_, gate) if self.device == Device::Cpu => gate.places(),
            Engine::Plan(..) | Engine::Towers(_) => 1,
        }
    }

    /// What logits on the device stand for.
    fn predictions(&self, logits: &Tensor, top: usize) -> Result<Vec<Prediction>, Error> {
        let logits = logits.f_to_device(Device::Cpu)?;
        let (_, classes) = logits.size2()?;
        let Answering { temperature, unknown: rule, .. } = self.answering;
        let classes = usize::try_from(classes).unwrap_or(1).max(1);
        // Without operators of libtorch where that can be: for a small network, calling a dozen of them takes as long as all its
        // layers.
        let flat = logits.f_contiguous()?.f_view(-1)?;
        let values: Vec<f64> = match flat.kind() {
            Kind::Float => Vec::<f32>::try_from(flat)?.into_iter().map(f64::from).collect(),
            _ => Vec::try_from(flat.f_to_kind(Kind::Double)?)?,
        };
        let (top, least) = match self.info.loss.is_multi_label() {
            true => (classes, self.threshold()),
            false => (top.clamp(1, classes), f64::NEG_INFINITY),
        };
        let answer = |(index, probability): (usize, f64)| {
            let class = self.info.classes.get(index).cloned().unwrap_or_else(|| index.to_string());
            Answer { class, index, probability }
        };
        // What is no number is told, too.
        let is_answer = |probability: f64| probability >= least || probability.is_nan();
        let predictions = values.chunks(classes).map(|logits| {
            let unknown = rule.is_some_and(|rule| rule.is_unknown(logits));
            let probabilities = match self.info.loss.is_multi_label() {
                true => logits.iter().map(|logit| 1.0 / (1.0 + (-logit / temperature).exp())).collect(),
                false => softmax(logits, temperature),
            };
            let top = likeliest(&probabilities, top).filter(|(_, probability)| is_answer(*probability));
            Prediction { top: top.map(answer).collect(), unknown }
        });
        Ok(predictions.collect())
    }
}

/// The probabilities of classes that exclude each other.
fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut values: Vec<f64> = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

/// The places of the `count` largest values and the values, the largest first, and of equal ones the first. What is no number comes
/// before all others.
fn likeliest(values: &[f64], count: usize) -> impl Iterator<Item = (usize, f64)> {
    let key = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
    let order = |a: &(usize, f64), b: &(usize, f64)| key(b.1).total_cmp(&key(a.1)).then(a.0.cmp(&b.0));
    let mut places: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_unstable_by(order);
    places.into_iter()
}

/// A batch that the device computes: its inputs, and the logits of those that are sound, if any is.
struct Launched {
    inputs: Vec<Result<Tensor, Error>>,
    logits: Option<Result<Tensor, Error>>,
}

/// A picture as another thread can have it.
enum Work<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
    Image(&'a DynamicImage),
    Done(Result<Tensor, Error>),
}

/// How the bundle's network wants its pictures.
fn preprocess_of(info: &BundleInfo, path: &Path) -> Result<Preprocess, Error> {
    info.preprocess.clone().ok_or_else(|| Error::NoPreprocess { path: PathBuf::from(path) })
}

fn network_of(bundle: &Bundle, path: &Path, devices: &[Device]) -> Result<Network, Error> {
    let options = InitOptions { devices: devices.to_vec(), ..InitOptions::default() };
    Ok(bundle.network(path, &options)?)
}

/// Refuses views that cannot be had of such inputs; `option` is what the error names.
pub(crate) fn check_tta(option: &str, tta: Tta, input: &[i64]) -> Result<(), Error> {
    tta.check(input).map_err(|reason| Error::option(format!("{option} = {tta}"), reason))
}

/// Why there is no graphics card.
fn no_card() -> String {
    let with = trouble().map_or_else(|| " with this libtorch".to_owned(), |reason| format!(" ({reason})"));
    format!("no graphics card can be used{with}: name cpu")
}

/// The devices of these names: `cpu`, `cuda` (the first graphics card) or `cuda:N`.
///
/// # Errors
///
/// A name that is none of these, and a card that is not there.
pub fn devices(names: &[String]) -> Result<Vec<Device>, Error> {
    let refuse = |name: &str, reason: String| Error::option(format!("device {name}:"), reason);
    let parse = |name: &String| {
        let number = match name.as_str() {
            "cpu" => return Ok(Device::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        let number: usize = number.ok_or_else(|| refuse(name, "there is no such device: name cpu, cuda:0, ...".to_owned()))?;
        match usize::try_from(Cuda::device_count()).unwrap_or(0) {
            count if number < count => Ok(Device::Cuda(number)),
            0 => Err(refuse(name, no_card())),
            count => Err(refuse(name, format!("the last graphics card is cuda:{}", count - 1))),
        }
    };
    names.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.softmax(torch.tensor([1.0, 3.0, 2.0, 3.0]) / 2, 0).
    #[test]
    fn the_likeliest_come_first_and_what_is_no_number_is_told() {
        let probabilities = softmax(&[1.0, 3.0, 2.0, 3.0], 2.0);
        let expected = [0.123_681_5, 0.336_201_1, 0.203_916_3, 0.336_201_1];
        assert!(probabilities.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{probabilities:?}");
        let places = |values: &[f64], count| likeliest(values, count).map(|(place, _)| place).collect::<Vec<_>>();
        assert_eq!(places(&probabilities, 3), [1, 3, 2]);
        assert_eq!(places(&probabilities, 1), [1]);
        assert_eq!(places(&probabilities, 4), [1, 3, 2, 0]);
        assert_eq!(places(&[0.5, -f64::NAN, 1.0], 2), [1, 2]);
        assert!(softmax(&[1.0, f64::NAN], 1.0).iter().all(|value| value.is_nan()));
    }
}
