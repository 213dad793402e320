//! Learning from another network's answers (Hinton 2015, arXiv:1503.02531).
use crate::error::check;
use crate::{TrainError, TrainSection};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use striate_graph::{InitOptions, Network};
use striate_layers::Mode;
use striate_models::{Bundle, BundleInfo, Registry};
use striate_torch::{Precision, derive_seed};
use tch::{Device, Kind, Reduction, Tensor};

/// `[distill]`: a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistillSection {
    /// The teacher's bundle; empty for none.
    #[serde(with = "striate_files::path")]
    pub teacher: PathBuf,
    /// What the logits of both are divided by before they are compared: the higher, the more the
    /// classes count that are not answered.
    pub temperature: f64,
    /// What the teacher's answers count, from 0 to 1; the targets have the rest.
    pub weight: f64,
}

impl Default for DistillSection {
    fn default() -> Self {
        Self { teacher: PathBuf::new(), temperature: 4.0, weight: 0.5 }
    }
}

impl DistillSection {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let sound = self.temperature.is_finite() && self.temperature > 0.0;
        check(sound, "distill.temperature", self.temperature, "must be above 0")?;
        check((0.0..=1.0).contains(&self.weight), "distill.weight", self.weight, "must be from 0 to 1")
    }

    /// The teacher, ready to teach a network that `student` describes on these devices; none if the
    /// section names none.
    ///
    /// # Errors
    ///
    /// A bundle that cannot be read, and a teacher of other classes or that sees pictures in
    /// another way.
    pub fn teacher(
        &self,
        student: &BundleInfo,
        train: &TrainSection,
        devices: &[Device],
        registry: &Registry,
    ) -> Result<Option<Teacher>, TrainError> {
        let path = &self.teacher;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        self.check()?;
        let Bundle { info, state } = Bundle::read_with(path, registry)?;
        fits(&info, student).map_err(|reason| TrainError::Teacher { path: path.clone(), reason })?;
        let options = InitOptions { devices: devices[..1.min(devices.len())].to_vec(), ..InitOptions::default() };
        let mut network = Network::new(info.graph, &options)?;
        network.load_state(&state)?;
        // Without a scaled loss, float16 could leave its range.
        let precision = if train.precision == Precision::Float16 { Precision::Float32 } else { train.precision };
        TrainSection { precision, ..train.clone() }.set_up(&mut network)?;
        let digest = digest(path)?;
        Ok(Some(Teacher { network, temperature: self.temperature, weight: self.weight, digest }))
    }
}

/// Why a network cannot teach another, if it cannot.
fn fits(teacher: &BundleInfo, student: &BundleInfo) -> Result<(), String> {
    if teacher.loss.is_multi_label() || student.loss.is_multi_label() {
        return Err("cannot teach classes that do not exclude each other: train without a teacher".to_owned());
    }
    if teacher.classes != student.classes {
        let other = teacher.classes.iter().zip(&student.classes).find(|(theirs, ours)| theirs != ours);
        let other = other.map_or_else(String::new, |(theirs, ours)| format!(", such as {theirs} in place of {ours}"));
        return Err(format!(
            "tells {} classes apart{other}, and the data have {}: take a teacher of the same classes in the same order",
            teacher.classes.len(),
            student.classes.len()
        ));
    }
    let seen = |info: &BundleInfo| info.preprocess.as_ref().map(|seen| (seen.input, seen.normalise.clone()));
    match (seen(teacher), seen(student)) {
        (Some(theirs), Some(ours)) if theirs == ours => Ok(()),
        (Some(([_, height, width], normalise)), _) => Err(format!(
            "sees pictures as {height}x{width} with mean {:?} and deviation {:?}, and the network that is trained does not: train it with the teacher's, or take another teacher",
            normalise.mean, normalise.std
        )),
        (None, _) => Err("does not say how images become inputs: take another teacher".to_owned()),
    }
}

/// A trained network whose answers another one learns.
#[derive(Debug)]
pub struct Teacher {
    network: Network,
    temperature: f64,
    weight: f64,
    digest: String,
}

impl Teacher {
    /// A network in evaluation. Its answers are compared at this temperature, above 0, and count by
    /// a weight from 0 to 1. `digest` tells it from others, in checkpoints.
    ///
    /// # Errors
    ///
    /// A temperature or a weight that can't be.
    pub fn new(network: Network, temperature: f64, weight: f64, digest: impl Into<String>) -> Result<Self, TrainError> {
        DistillSection { temperature, weight, ..DistillSection::default() }.check()?;
        Ok(Self { network, temperature, weight, digest: digest.into() })
    }

    /// What tells it from other teachers.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it says of a batch of images.
    pub(crate) fn teach(&self, images: &Tensor) -> Result<Lesson<'_>, TrainError> {
        let _no_grad = striate_torch::no_grad();
        let outputs = self.network.forward(&images.f_to_device(self.network.device())?, Mode::Eval)?;
        let log = outputs.logits().f_to_device(images.device())?.f_div_scalar(self.temperature)?.f_log_softmax(1, Kind::Float)?;
        Ok(Lesson { teacher: self, log })
    }
}

/// A teacher's answers for a batch, softened: logarithms of probabilities.
pub(crate) struct Lesson<'t> {
    teacher: &'t Teacher,
    log: Tensor,
}

impl Lesson<'_> {
    /// The loss of logits `[N, classes]`, where theirs without a teacher is `loss`: with the
    /// temperature's square, by which gradients do not depend on it.
    pub(crate) fn mixed_with(&self, loss: &Tensor, logits: &Tensor) -> Result<Tensor, TrainError> {
        let &Teacher { temperature, weight, .. } = self.teacher;
        let log = logits.f_div_scalar(temperature)?.f_log_softmax(1, Kind::Float)?;
        let distance = log.f_kl_div(&self.log, Reduction::Sum, true)?;
        let taught = distance.f_mul_scalar(weight * temperature * temperature / logits.size()[0] as f64)?;
        Ok(loss.f_mul_scalar(1.0 - weight)?.f_add(&taught)?)
    }
}

/// A number of a file's bytes.
fn digest(path: &Path) -> Result<String, TrainError> {
    let mut file = striate_files::open(path)?;
    let cannot = |error| striate_files::FilesError::new("read", path)(error);
    let (mut digest, mut block) = (0, Vec::new());
    loop {
        block.clear();
        if (&mut file).take(1 << 16).read_to_end(&mut block).map_err(cannot)? == 0 {
            return Ok(format!("{digest:016x}"));
        }
        let words: Vec<u64> =
            block.chunks(8).map(|bytes| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))).collect();
        digest = derive_seed(digest, &words);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Objective;
    use striate_datasets::{Fit, Normalise, Preprocess};
    use striate_graph::Graph;
    use striate_layers::{Flatten, Linear, loss::Loss};

    /// A network that gives its inputs as logits, and its bundle.
    fn bundle(classes: &[&str]) -> Bundle {
        let graph = Graph::build(|net| {
            let x = net.input([classes.len() as i64, 1, 1]);
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(classes.len() as i64).no_bias(), x)?;
            net.output("logits", x)
        });
        let channels = classes.len() as i64;
        let normalise = Normalise { mean: vec![0.5], std: vec![0.25] };
        let preprocess = Preprocess::new([channels, 1, 1], [channels, 1, 1], Fit::Pad, normalise).unwrap();
        let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
        let info = BundleInfo::new(graph.unwrap(), &classes, Some(preprocess));
        Bundle { info, state: [("fc.weight".to_owned(), Tensor::eye(channels, (Kind::Float, Device::Cpu)))].into() }
    }

    /// In PyTorch:
    /// `0.7 * 16 * kl_div(log_softmax(logits / 4, 1), log_softmax(taught / 4, 1), reduction="batchmean", log_target=True) + 0.3 * cross_entropy(logits, labels)`.
    #[test]
    fn teachers_and_targets_are_mixed_as_hinton_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.safetensors");
        bundle(&["a", "b", "c"]).write(&path).unwrap();
        let bundle = Bundle::read(&path).unwrap();
        let section = DistillSection { teacher: path, temperature: 4.0, weight: 0.7 };
        let teacher = section.teacher(&bundle.info, &TrainSection::default(), &[Device::Cpu], &Registry::default());
        let teacher = teacher.unwrap();
        let network = Network::new(bundle.info.graph, &InitOptions::default()).unwrap();
        network.load_state(&bundle.state).unwrap();
        let logits = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, 0.3, 0.1, -1.5, 2.0, 3.0, -0.5, -1.0, 0.25, 0.75]).view([4, 3]);
        let taught = Tensor::from_slice(&[2.0_f32, 0.0, -1.0, 0.5, 0.5, 0.5, -1.0, 1.0, 0.0, 3.0, -2.0, 1.0]).view([4, 3, 1, 1]);
        let outputs = network.forward(&logits.view([4, 3, 1, 1]), Mode::Train).unwrap();
        let objective = Objective { teacher, ..Objective::new(Loss::default(), 0.0) };
        let loss = objective.compute(&outputs, &taught, &Tensor::from_slice(&[2_i64, 0, 1, 0])).unwrap();
        assert!((loss.double_value(&[]) - 1.229_171_544).abs() < 1e-6, "{loss:?}");
    }

    #[test]
    fn a_teacher_that_does_not_fit_is_one_line() {
        let (student, mut other) = (bundle(&["a", "b"]).info, bundle(&["a", "b"]).info);
        fits(&other, &student).unwrap();
        let refused = |teacher: &BundleInfo| fits(teacher, &student).unwrap_err();
        assert!(refused(&bundle(&["a", "b", "c"]).info).starts_with("tells 3 classes apart, and the data have 2: "));
        assert!(refused(&bundle(&["a", "x"]).info).starts_with("tells 2 classes apart, such as x in place of b, and the data"));
        other.preprocess.as_mut().unwrap().normalise.mean = vec![0.25];
        assert!(refused(&other).starts_with("sees pictures as 1x1 with mean [0.25] and deviation [0.25], and the network"));
        other.loss = Loss::BinaryCrossEntropy { label_smoothing: 0.0 };
        assert!(refused(&other).starts_with("cannot teach classes"));
        let wrong = DistillSection { weight: 1.5, ..DistillSection::default() }.check().unwrap_err().to_string();
        assert_eq!(wrong, "distill.weight = 1.5 must be from 0 to 1");
    }

    #[test]
    fn files_that_differ_have_other_digests() {
        let folder = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            let path = folder.path().join("x");
            std::fs::write(&path, bytes).unwrap();
            digest(&path).unwrap()
        };
        let long = vec![7; 100_000];
        let mut changed = long.clone();
        changed[99_999] = 8;
        assert_eq!(of(&long), of(&long));
        assert_ne!(of(&long), of(&changed));
    }
}
