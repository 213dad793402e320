//! A training run in one file, from which it goes on exactly where it was.
use crate::hook::weights_of;
use crate::metrics::Running;
use crate::schedule::Plateau;
use crate::stopping::Waiting;
use crate::trainer::Recovery;
use crate::{Evaluation, Recipe, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use striate_models::BundleInfo;
use striate_torch::TensorFile;
use tch::Tensor;

/// What comes before the names of the optimizer's tensors; no parameter's name holds a `/`.
const OPTIMIZER: &str = "optimizer/";
/// What comes before those of hooks.
const HOOKS: &str = "hooks/";
/// The key of the run's state in the metadata.
const TRAINER_KEY: &str = "trainer";

/// How far a run has come: with the parameters and the optimizer's state, all that going on takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What the run trains on: the dataset's name, and what tells its examples from others.
    pub data: String,
    /// What it is judged by, likewise.
    #[serde(default)]
    pub test_data: Option<String>,
    /// The run's seed.
    pub seed: u64,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
    /// Epochs that are finished, their evaluation included.
    pub epoch: u64,
    /// Steps done since the start of the run.
    pub step: u64,
    /// The running epoch's loss and accuracy so far.
    pub running: Running,
    /// Loss and accuracy on the test set after the last finished epoch.
    pub test: Option<TestMetrics>,
    /// The same of the network's own weights, where the run is judged by an average of them.
    #[serde(default)]
    pub raw: Option<TestMetrics>,
    /// The best accuracy on the test set so far.
    pub best_accuracy: Option<f64>,
    /// What a schedule that waits for a plateau has seen.
    #[serde(default)]
    pub plateau: Plateau,
    /// What was done about losses that are no numbers.
    #[serde(default)]
    pub recovery: Recovery,
    /// How long it has been waiting to get better.
    #[serde(default)]
    pub waiting: Waiting,
    /// What tells the run's teacher from others, if it has one.
    #[serde(default)]
    pub teacher: Option<String>,
}

/// Figures of an evaluation on the test set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TestMetrics {
    /// The mean loss.
    pub loss: f64,
    /// The share that was classified correctly.
    pub accuracy: f64,
}

impl From<&Evaluation> for TestMetrics {
    fn from(evaluation: &Evaluation) -> Self {
        Self { loss: evaluation.loss, accuracy: evaluation.accuracy }
    }
}

/// A checkpoint: one `.safetensors` with the network's parameters under their names, the optimizer's state under
/// `optimizer/<name>`, that of hooks under `hooks/<hook>/<name>`, and in its metadata the bundle's description and the run's state. So every checkpoint is a bundle too.
#[derive(Debug)]
pub struct Checkpoint {
    /// The network's parameters.
    pub model: BTreeMap<String, Tensor>,
    /// The optimizer's state; empty in a checkpoint that is there to be used and not to be resumed.
    pub optimizer: BTreeMap<String, Tensor>,
    /// The state of [hooks](crate::Hook), as `<hook>/<name>`; empty likewise.
    pub hooks: BTreeMap<String, Tensor>,
    /// How far the run had come.
    pub progress: Progress,
    /// The recipe of the run, if it had one.
    pub recipe: Option<Recipe>,
}

#[derive(Serialize, Deserialize)]
struct TrainerEntry {
    progress: Progress,
    recipe: Option<Recipe>,
}

impl Checkpoint {
    /// Writes it atomically, as a bundle that `info` describes.
    ///
    /// # Errors
    ///
    /// A file that cannot be written, and a layer of your own that does not tell its options.
    pub fn write(self, info: &BundleInfo, path: &Path) -> Result<(), TrainError> {
        let mut tensors = self.model;
        tensors.extend(self.optimizer.into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        tensors.extend(self.hooks.into_iter().map(|(name, tensor)| (format!("{HOOKS}{name}"), tensor)));
        let trainer = TrainerEntry { progress: self.progress, recipe: self.recipe };
        let metadata = BTreeMap::from([
            info.to_metadata()?,
            (TRAINER_KEY.to_owned(), serde_json::to_string(&trainer).map_err(|error| unfit(path, error.to_string()))?),
        ]);
        Ok(TensorFile { tensors, metadata }.write(path)?)
    }

    /// The weights that the run is judged by: those of a hook that averages them, or else the network's.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        weights_of(&self.hooks).unwrap_or_else(|| self.model.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect())
    }

    /// Reads one; [`BundleInfo::read_with`] reads what network it is of. Fails with one line on a missing or damaged file, and on
    /// one that is no checkpoint.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let TensorFile { tensors, metadata } = TensorFile::read(path)?;
        let none = || unfit(path, format!("it holds no `{TRAINER_KEY}` entry, so it is not a checkpoint of a run"));
        let bad = |error: serde_json::Error| unfit(path, format!("its `{TRAINER_KEY}` entry cannot be read ({error})"));
        let trainer: TrainerEntry = serde_json::from_str(metadata.get(TRAINER_KEY).ok_or_else(none)?).map_err(bad)?;
        let (mut model, mut optimizer, mut hooks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in tensors {
            match (name.strip_prefix(OPTIMIZER), name.strip_prefix(HOOKS)) {
                (Some(name), _) => optimizer.insert(name.to_owned(), tensor),
                (_, Some(name)) => hooks.insert(name.to_owned(), tensor),
                _ => model.insert(name, tensor),
            };
        }
        Ok(Self { model, optimizer, hooks, progress: trainer.progress, recipe: trainer.recipe })
    }
}

fn unfit(path: &Path, reason: String) -> TrainError {
    TrainError::Checkpoint { path: path.into(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::Graph;
    use striate_layers::Linear;

    fn example() -> Checkpoint {
        let running = Running { loss_sum: 0.1 + 0.2, examples: 64, correct: 17 };
        Checkpoint {
            model: BTreeMap::from([("fc.weight".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]))]),
            optimizer: BTreeMap::from([("sgd.momentum.fc.weight".to_owned(), Tensor::from_slice(&[3.0_f32, 4.0]))]),
            hooks: BTreeMap::from([("ema/weights/fc.weight".to_owned(), Tensor::from_slice(&[1.5_f32, 2.5]))]),
            progress: Progress {
                data: "digits".to_owned(),
                test_data: Some("digits' test".to_owned()),
                seed: u64::MAX,
                steps_per_epoch: 7,
                epoch: 2,
                step: 15,
                running,
                test: Some(TestMetrics { loss: 0.7, accuracy: 1.0 / 3.0 }),
                raw: Some(TestMetrics { loss: 0.8, accuracy: 0.25 }),
                best_accuracy: Some(0.5),
                plateau: Plateau::default(),
                recovery: Recovery { skipped: 3, skipped_in_a_row: 1, rollbacks: 2, interrupted: true },
                waiting: Waiting { best: Some(0.4), epochs: 1 },
                teacher: Some("0123".to_owned()),
            },
            recipe: Some(Recipe::parse("[train]\nlr = 0.1", Path::new("r.toml")).unwrap()),
        }
    }

    fn info() -> BundleInfo {
        let graph = Graph::build(|net| {
            let x = net.input([1]);
            let x = net.add("fc", Linear::new(2).no_bias(), x)?;
            net.output("logits", x)
        });
        BundleInfo::new(graph.unwrap(), &["a".to_owned(), "b".to_owned()], None)
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        example().write(&info(), &path).unwrap();
        assert_eq!(BundleInfo::read(&path).unwrap().classes, ["a", "b"]);
        let (back, expected) = (Checkpoint::read(&path).unwrap(), example());
        assert_eq!(back.weights()["fc.weight"], Tensor::from_slice(&[1.5_f32, 2.5]));
        assert_eq!((back.model, back.optimizer, back.hooks), (expected.model, expected.optimizer, expected.hooks));
        assert_eq!((back.recipe, back.progress), (expected.recipe, expected.progress));
    }

    #[test]
    fn what_is_no_checkpoint_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let told = || Checkpoint::read(&path).unwrap_err().to_string();
        assert!(told().contains("cannot read") && told().contains("x.safetensors"));
        example().write(&info(), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(told().contains("x.safetensors is damaged"));
        for (metadata, message) in [
            (vec![], "holds no `trainer` entry"),
            (vec![("trainer".to_owned(), "{}".to_owned())], "`trainer` entry cannot be read (missing field `progress`"),
        ] {
            TensorFile { tensors: BTreeMap::new(), metadata: metadata.into_iter().collect() }.write(&path).unwrap();
            assert!(told().contains(message) && !told().contains('\n'), "{}", told());
        }
    }
}
