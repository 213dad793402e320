//! A training run as a value.
mod assembly;

use self::assembly::preprocess_of;
use crate::classifier::check_tta;
use crate::data::{self, Data, Parts, SAMPLE};
use crate::edited::{extend, heeded, keep_epochs};
use crate::pace::{Pace, PaceMeter};
use crate::recipes::bundle_file;
use crate::run_folder::{BUNDLE, Claim, METRICS, METRICS_CSV, RECIPE, SUMMARY};
use crate::summary::{Summary, metrics, summary_in};
use crate::weights::load;
use crate::{Error, Prepared, Report, devices, together};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate_datasets::{Loader, LoaderOptions, Preprocess, Transform};
use striate_files::FilesError;
use striate_graph::{Graph, InitOptions, Network};
use striate_layers::Mode;
use striate_models::{Bundle, BundleInfo, Registry, Tta};
use striate_train::calibration::{Calibrated, calibrate};
use striate_train::distributed::World;
use striate_train::{
    Checkpoint, CheckpointConfig, ClassWeights, Evaluation, Event, JsonLines, LAST, Listener, MetricsCsv, ModelSection,
    Outcome as Trained, Recipe, TensorBoard, TrainError, TrainSection, Trainer, evaluate_over,
};
use tch::{Device, Tensor};

/// What a recipe calls a network that is no model of the registry.
const OWN_NETWORK: &str = "network";

/// Told what takes long before the training begins: what it is, how much is done, and of how much if that is known.
type OnProgress<'a> = Box<dyn FnMut(&str, u64, Option<u64>) + 'a>;
/// Sets the values that training starts from.
type Initialise<'a> = Box<dyn FnOnce(&Prepared) -> Result<(), Error> + 'a>;

/// A training run: a recipe in; events, checkpoints and a bundle out.
///
/// It writes into a folder: the recipe in full (`recipe.toml`), every event (`metrics.jsonl`), a row for each epoch
/// (`metrics.csv`), if the recipe says so event files for [TensorBoard](striate_train::TensorBoard), checkpoints (`last.safetensors`, `best.safetensors`, and those that the recipe [keeps](striate_train::Keep)),
/// and in the end the bundle (`model.safetensors`) and its figures (`summary.json`). A run that was stopped goes on from there, to
/// the same bits.
///
/// ```
/// use striate::{Outcome, Recipe, Run};
///
/// let recipe = Recipe::parse("[train]\nepochs = 2\nthreads = 1", "two-epochs.toml".as_ref())?;
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path().join("run");
/// let Outcome::Finished { summary, .. } = Run::new(recipe).folder(&folder).run()? else { unreachable!("nobody stops it") };
/// assert!(summary.test.accuracy > 0.1 && folder.join("model.safetensors").is_file());
/// # Ok::<(), striate::Error>(())
/// ```
pub struct Run<'a> {
    recipe: Recipe,
    graph: Option<Graph>,
    data: Option<Data>,
    registry: Registry,
    folder: Option<PathBuf>,
    resumed: bool,
    /// Epochs that were done when the run was resumed.
    done: u64,
    why: Option<String>,
    stop: Arc<AtomicBool>,
    listeners: Vec<Box<dyn Listener + 'a>>,
    initialise: Option<Initialise<'a>>,
    progress: OnProgress<'a>,
    world: World,
    /// The GPU of a run on one.
    gpu: usize,
    /// After how many epochs it stops.
    pause: Option<u64>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("recipe", &self.recipe).field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished {
        /// The run's folder.
        folder: PathBuf,
        /// Its figures.
        summary: Box<Summary>,
    },
    /// It was asked to stop, and saved itself first.
    Stopped {
        /// The run's folder, from which it goes on.
        folder: PathBuf,
        /// Steps that are done.
        step: u64,
    },
}

impl Outcome {
    /// The bundle of a run that finished.
    ///
    /// # Errors
    ///
    /// A run that was stopped has none yet.
    pub fn bundle(&self) -> Result<PathBuf, Error> {
        match self {
            Self::Finished { folder, .. } => Ok(folder.join(BUNDLE)),
            Self::Stopped { folder, .. } => {
                Err(Error::Folder { path: folder.clone(), reason: "holds a run that was stopped: resume it first".to_owned() })
            }
        }
    }
}

/// What is measured at the end of a run.
struct Answers {
    test: Report,
    val: Option<Report>,
    calibrated: Calibrated,
}

impl<'a> Run<'a> {
    /// A new run. It takes the first of `runs/MODEL-DATA-1`, `runs/MODEL-DATA-2`, ... that does not exist, unless given a
    /// [`folder`](Self::folder).
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            graph: None,
            data: None,
            registry: Registry::default(),
            folder: None,
            resumed: false,
            done: 0,
            why: None,
            stop: Arc::default(),
            listeners: Vec::new(),
            initialise: None,
            progress: Box::new(|_, _, _| {}),
            world: World::one(),
            gpu: 0,
            pause: None,
        }
    }

    /// A run that was stopped, from its folder. A `recipe.toml` that was edited there is heeded where that is exact: more epochs under a
    /// schedule that does not depend on their number, other devices, another place of the same data or teacher.
    ///
    /// # Errors
    ///
    /// A folder without a checkpoint, and a recipe that was edited in what cannot change within a run: the error names the keys.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let last = folder.join(LAST);
        if !last.exists() {
            let reason = if folder.is_dir() {
                format!("holds no {LAST}, from which a run goes on: start the run again")
            } else {
                "is no folder: name the folder of a run".to_owned()
            };
            return Err(Error::Folder { path: folder, reason });
        }
        let unfit = |reason: String| Error::from(TrainError::Checkpoint { path: last.clone(), reason });
        let Checkpoint { recipe, progress, .. } = Checkpoint::read(&last)?;
        let done = progress.epoch;
        let mut recipe =
            recipe.ok_or_else(|| unfit("it holds no recipe: go on with it in the program that made it".to_owned()))?;
        recipe.check().map_err(|error| unfit(error.to_string()))?;
        let file = folder.join(RECIPE);
        if file.is_file() {
            recipe = heeded(recipe, Recipe::read(&file)?, done).map_err(|reason| TrainError::Recipe { path: file, reason })?;
        }
        Ok(Self { folder: Some(folder), resumed: true, done, ..Self::new(recipe) })
    }

    /// Makes a run that was resumed one of so many epochs in all, where that is exact: where the schedule does not depend on their
    /// number. It ends with the same bits as a run that had them from the start.
    ///
    /// # Errors
    ///
    /// Another schedule, and fewer epochs than are done.
    pub fn extend_to(mut self, epochs: u64) -> Result<Self, Error> {
        let unfit = |reason| Error::Folder { path: self.folder.clone().unwrap_or_default(), reason };
        extend(&mut self.recipe, epochs, self.done).map_err(|reason| unfit(format!("holds a run whose {reason}")))?;
        Ok(self)
    }

    /// What the run does.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// To change what the run does before it starts. Of a resumed run only devices, threads and the place of its data may change.
    pub fn recipe_mut(&mut self) -> &mut Recipe {
        &mut self.recipe
    }

    /// Trains this network, instead of a model of the registry, by cross entropy. Checkpoints hold it, so that
    /// [`resume`](Self::resume) needs no call of this.
    ///
    /// ```
    /// use striate::graph::Graph;
    /// use striate::layers::{Flatten, Linear};
    /// use striate::{Recipe, Run, datasets};
    ///
    /// let graph = Graph::build(|net| {
    ///     let x = net.input([1, 8, 8]);
    ///     let x = net.add("flatten", Flatten, x)?;
    ///     let x = net.add("fc", Linear::new(10), x)?;
    ///     net.output("logits", x)
    /// })?;
    /// let recipe = Recipe::parse("[train]\nepochs = 1", "one-epoch.toml".as_ref())?;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let folder = folder.path().join("run");
    /// Run::new(recipe).network(graph).on(datasets::digits()?).folder(&folder).run()?;
    /// # Ok::<(), striate::Error>(())
    /// ```
    #[must_use]
    pub fn network(mut self, graph: Graph) -> Self {
        self.recipe.model = ModelSection { name: OWN_NETWORK.to_owned(), ..ModelSection::default() };
        self.graph = Some(graph);
        self
    }

    /// Trains on this data, such as a [`Split`](striate_datasets::Split) of tensors, instead of what the recipe names. Give it again
    /// to a run that goes on.
    #[must_use]
    pub fn on(mut self, data: impl Into<Data>) -> Self {
        let data = data.into();
        data.name().clone_into(&mut self.recipe.data.name);
        self.data = Some(data);
        self
    }

    /// Writes into this folder, which must not hold another run.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Finds architectures and layers of your own.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// A line that says why the recipe was taken; it stands at the top of the folder's `recipe.toml`.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Calls this once before the first step, to set values that depend on the data: a first layer that whitens patches, say. It
    /// changes the [network](Prepared::network) by [`load_state`](Network::load_state) or, where that lies on one device, what
    /// [`state`](Network::state) gives. A run that goes on does not call it. Several processes must set the same values.
    ///
    /// ```
    /// use striate::{Recipe, Run};
    ///
    /// let recipe = Recipe::parse("[train]\nepochs = 1", "one-epoch.toml".as_ref())?;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let folder = folder.path().join("run");
    /// // No class is likelier than another at the start.
    /// let run = Run::new(recipe).folder(&folder).initialise(|prepared| {
    ///     for (name, mut tensor) in prepared.network.state() {
    ///         if name.starts_with("output.") {
    ///             let _ = tensor.f_zero_()?;
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// run.run()?;
    /// # Ok::<(), striate::Error>(())
    /// ```
    #[must_use]
    pub fn initialise(mut self, set: impl FnOnce(&Prepared) -> Result<(), Error> + 'a) -> Self {
        self.initialise = Some(Box::new(set));
        self
    }

    /// Tells `listener` of every event.
    #[must_use]
    pub fn listener(mut self, listener: impl Listener + 'a) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Tells of downloads, of statistics and of pictures that are checked.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(&str, u64, Option<u64>) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Saves the run and stops once `flag` is set, which a signal handler may do.
    #[must_use]
    pub fn stop_on(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = flag;
        self
    }

    /// Stops once so many epochs are done, as a request to stop does: the run is resumed from there to the same bits.
    #[must_use]
    pub fn pause_after(mut self, epochs: u64) -> Self {
        self.pause = Some(epochs);
        self
    }

    /// Trains together with the other processes of a world, which make the same run. Each tells its own listeners; rank 0 writes the
    /// folder, which all must see if the run is to go on or back from a checkpoint. `devices = ["cuda"]` is the GPU of the process's
    /// [local rank](World::local_rank).
    #[must_use]
    pub fn world(mut self, world: World) -> Self {
        self.gpu = world.local_rank();
        self.world = world;
        self
    }

    /// Makes this GPU that of `devices = ["cuda"]`.
    pub(crate) fn on_gpu(mut self, gpu: usize) -> Self {
        self.gpu = gpu;
        self
    }

    /// The figures, if the run was resumed and nothing is left to do: figures, bundle and last checkpoint are whole and agree.
    ///
    /// # Errors
    ///
    /// A checkpoint that cannot be read.
    pub fn finished(&self) -> Result<Option<Summary>, Error> {
        let Some(folder) = self.folder.as_ref().filter(|_| self.resumed) else { return Ok(None) };
        let Some(summary) = summary_in(folder) else { return Ok(None) };
        if summary.epochs < self.recipe.train.epochs {
            return Ok(None);
        }
        // Files that are damaged or of another run are written again from the last checkpoint.
        let last = Checkpoint::read(&folder.join(LAST))?;
        let of_last = |bundle: &Bundle| bundle.info.metrics == metrics(&summary) && bundle.state == last.weights();
        let bundle = Bundle::read_with(&folder.join(BUNDLE), &self.registry).ok();
        let agree = summary.steps == last.progress.step && bundle.is_some_and(|bundle| of_last(&bundle));
        Ok(agree.then_some(summary))
    }

    /// Makes everything ready, and writes nothing: the network with the weights that it starts from, and its data.
    ///
    /// # Errors
    ///
    /// Whatever cannot run.
    pub fn prepare(&mut self) -> Result<Prepared, Error> {
        if self.recipe.train.threads > 0 {
            striate_torch::set_num_threads(self.recipe.train.threads);
        }
        let devices = self.devices()?;
        let (info, weights, data) = self.assemble(SAMPLE)?;
        check_tta("answering.tta", self.recipe.answering.tta, info.input())?;
        let seed = self.recipe.train.seed;
        let teacher = &mut self.recipe.distill.teacher;
        if !teacher.as_os_str().is_empty() {
            // The same file, wherever the run is gone on with.
            *teacher = std::path::absolute(&*teacher).map_err(FilesError::new("read", teacher))?;
        }
        let teacher = self.recipe.distill.teacher(&info, &self.recipe.train, &devices, &self.registry)?;
        let mut network = Network::new(info.graph.clone(), &InitOptions { devices, seed, ..InitOptions::default() })?;
        self.recipe.train.set_up(&mut network)?;
        if let Some(weights) = weights {
            load(&network, &weights, self.recipe.model.head, info.origin.as_ref().map(|origin| origin.architecture.as_str()))?;
        }
        if !self.recipe.model.freeze_through.is_empty() {
            network.freeze_through(&self.recipe.model.freeze_through)?;
        }
        let loss = &mut self.recipe.loss;
        if loss.class_weights != ClassWeights::default() {
            // The folder's recipe and checkpoints have the numbers.
            loss.class_weights = ClassWeights::Each(loss.class_weights.of(&*data.train, loss.power)?);
        }
        let config = self.recipe.train_config(info.loss, info.aux_weight)?;
        let preprocess = preprocess_of(&info)?.clone();
        let batches = self.batches();
        let whole = Transform::size_themselves(&self.recipe.transforms);
        let data = data.cached(&self.recipe.data, whole, &mut told(&self.stop, &mut self.progress))?;
        Ok(Prepared { info, network, data, config, teacher, preprocess, batches })
    }

    /// Where this process computes.
    fn devices(&self) -> Result<Vec<Device>, Error> {
        match self.recipe.train.devices.as_slice() {
            [one] if one == "cuda" => devices(&[format!("cuda:{}", self.gpu)]),
            names => devices(names),
        }
    }

    /// How batches to learn from are made.
    fn batches(&self) -> LoaderOptions {
        let TrainSection { batch_size, drop_last, seed, .. } = self.recipe.train;
        LoaderOptions {
            transforms: self.recipe.transforms.clone(),
            sampler: self.recipe.data.sampler.clone(),
            workers: self.recipe.data.workers.number(),
            drop_last,
            portion: self.world.portion(),
            ..LoaderOptions::train(batch_size, seed)
        }
    }

    /// The data as a network sees it, how pictures become inputs, and how batches are made.
    pub(crate) fn seen(&mut self) -> Result<(Parts, Preprocess, LoaderOptions), Error> {
        // Mean and deviation are undone again, but for what is erased.
        let erases = self.recipe.transforms.iter().any(|transform| matches!(transform, Transform::RandomErasing(_)));
        let (info, _, data) = self.assemble(if erases { SAMPLE } else { 0 })?;
        Ok((data, preprocess_of(&info)?.clone(), self.batches()))
    }

    /// Trains until all epochs are done or a stop is asked for.
    ///
    /// # Errors
    ///
    /// Whatever cannot run is told before the folder is made. A run that fails later keeps its last checkpoint.
    pub fn run(self) -> Result<Outcome, Error> {
        let world = self.world.clone();
        self.run_all().map_err(|error| match error {
            Error::Train(error) => world.ended_by(error).into(),
            Error::Torch(error) => world.ended_by(error.into()).into(),
            other => {
                world.end(&other);
                other
            }
        })
    }

    fn run_all(mut self) -> Result<Outcome, Error> {
        let started = Instant::now();
        if let (Some(summary), Some(folder)) = (self.finished()?, &self.folder) {
            return Ok(Outcome::Finished { folder: folder.clone(), summary: Box::new(summary) });
        }
        let mut prepared = self.prepare()?;
        if let Some(initialise) = self.initialise.take().filter(|_| !self.resumed) {
            initialise(&prepared)?;
        }
        let teacher = prepared.teacher.take();
        let train_loader = prepared.train_loader()?;
        let (name, judge_loader) = prepared.judge_loader()?;
        let (Prepared { info, network, .. }, pace) = (&prepared, Pace::default());
        let trainer = Trainer::new(network, &train_loader, &judge_loader, prepared.config.clone())?.judged_by(name);
        let trainer = if let Some(teacher) = teacher { trainer.teacher(teacher) } else { trainer };
        together::agree(&self.world, &self.recipe, info, trainer.progress())?;
        let trainer = trainer.distributed(self.world.clone())?;

        // Only what can run gets a folder.
        let claim = if self.world.is_first() { Some(self.claim()?) } else { None };
        let folder = &together::folder(&self.world, claim.as_ref().map(Claim::folder))?;
        let mut trainer = trainer.checkpoints(self.checkpoints(folder, info)).stop_on(Arc::clone(&self.stop));
        for listener in std::mem::take(&mut self.listeners) {
            trainer = trainer.listener(listener);
        }
        if self.resumed {
            trainer.resume(&folder.join(LAST))?;
        }
        if let Some(epochs) = self.pause {
            trainer = trainer.listener(PauseAfter(epochs));
        }
        let writes = self.world.is_first();
        if writes {
            trainer = trainer.listener(JsonLines::append(&folder.join(METRICS))?);
            trainer = trainer.listener(MetricsCsv::new(folder.join(METRICS_CSV)));
            if self.resumed {
                // Only a run that goes on changes its recipe.
                keep_epochs(folder, self.recipe.train.epochs)?;
            }
        }
        trainer = trainer.listener(PaceMeter(&pace));
        if self.recipe.train.tensorboard && writes {
            trainer = trainer.listener(TensorBoard::new(folder).recipe(self.recipe.clone()));
        }
        let trained = match trainer.run() {
            // A listener paused it, after a checkpoint.
            Err(TrainError::Stopped) => Trained::Stopped,
            trained => trained?,
        };
        if trained == Trained::Stopped {
            return Ok(Outcome::Stopped { folder: folder.clone(), step: trainer.progress().step });
        }
        let progress = trainer.progress().clone();
        let step = progress.step;
        let Answers { test, val, calibrated } = match self.answers(&prepared, &trainer) {
            // All epochs are saved; only this is done again.
            Err(Error::Stopped) => return Ok(Outcome::Stopped { folder: folder.clone(), step }),
            answers => answers?,
        };
        let answering = calibrated.answering;
        let summary = Summary {
            model: self.recipe.model.name.clone(),
            data: data::short_name(&self.recipe.data),
            params: network.graph().summary().params,
            epochs: self.recipe.train.epochs,
            steps: step,
            seed: self.recipe.train.seed,
            threads: striate_torch::num_threads(),
            seconds: started.elapsed().as_secs_f64(),
            stopped_after: Some(progress.epoch).filter(|done| *done < self.recipe.train.epochs),
            recovery: progress.recovery,
            raw: progress.raw,
            images_per_second: pace.images_per_second(),
            waiting: pace.waiting(),
            peak_memory: striate_torch::peak_memory(),
            machine: crate::machine(),
            judge: name.to_owned(),
            best_accuracy: progress.best_accuracy,
            libtorch: striate_torch::torch_version(),
            striate: env!("CARGO_PKG_VERSION").to_owned(),
            test,
            val,
            calibrated: Some(calibrated),
        };
        if writes {
            let info = BundleInfo { metrics: metrics(&summary), answering, ..prepared.info.clone() };
            Bundle { info, state: network.state() }.write(&folder.join(BUNDLE))?;
            striate_files::write_bytes(&folder.join(SUMMARY), format!("{:#}\n", json!(summary)))?;
        }
        self.world.meet()?;
        Ok(Outcome::Finished { folder: folder.clone(), summary: Box::new(summary) })
    }

    /// How the network of the last epoch does, and how its logits become answers.
    fn answers(&self, prepared: &Prepared, trainer: &Trainer<'_>) -> Result<Answers, Error> {
        let Prepared { info, network, .. } = prepared;
        let (section, loss) = (&self.recipe.answering, info.loss.unsmoothed());
        let forward = |images: &Tensor| match self.stop.load(Ordering::Relaxed) {
            true => Err(TrainError::Stopped),
            false => section.tta.logits(images, |view| Ok(network.forward(view, Mode::Eval)?.logits().shallow_clone())),
        };
        let evaluate = |loader: &Loader<'_>| evaluate_over(&self.world, network.graph(), network.device(), loader, loss, forward);
        let (name, judge) = prepared.judge_loader()?;
        let again;
        let judged = match trainer.evaluation().filter(|_| section.tta == Tta::Off) {
            Some(evaluation) => evaluation,
            // The former process did all but this, or pictures are seen from more sides.
            None => {
                again = evaluate(&judge)?;
                &again
            }
        };
        let test = prepared.last_judge_loader()?.map(|loader| evaluate(&loader)).transpose()?;
        let calibrated = calibrate(section, name, &judged.logits, test.as_ref().map(|test| &test.logits))?;
        let report = |evaluation: &Evaluation| Report::new(evaluation, &info.classes, &calibrated.answering);
        let (last, chosen_by) = test.as_ref().map_or((judged, None), |test| (test, Some(judged)));
        Ok(Answers { test: report(last)?, val: chosen_by.map(report).transpose()?, calibrated })
    }

    fn claim(&self) -> Result<Claim, Error> {
        let claim = match &self.folder {
            Some(folder) => Claim::of(folder)?,
            None => Claim::of_new(&name_of(&self.recipe))?,
        };
        if self.resumed {
            return Ok(claim);
        }
        let why = self.why.as_ref().map_or_else(String::new, |why| format!("# {}\n", why.replace(char::is_control, " ")));
        claim.begin(&format!("{why}{}", self.recipe.to_toml()))
    }

    fn checkpoints(&self, folder: &Path, info: &BundleInfo) -> CheckpointConfig {
        CheckpointConfig {
            folder: folder.into(),
            every_steps: Some(self.recipe.train.checkpoint_steps).filter(|steps| *steps > 0),
            keep: self.recipe.train.keep(),
            bundle: info.clone(),
            recipe: Some(self.recipe.clone()),
        }
    }
}

/// What the folder of a new run of this recipe is called, but for its number.
pub(crate) fn name_of(Recipe { model, data, .. }: &Recipe) -> String {
    let of_bundle = bundle_file(&model.name).and_then(Path::file_stem).map(|name| name.to_string_lossy());
    format!("{}-{}", of_bundle.unwrap_or_else(|| model.name.as_str().into()), data::short_name(data))
}

/// Ends a run, as a request to stop does, before an epoch.
struct PauseAfter(u64);

impl Listener for PauseAfter {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::EpochStarted { epoch } if *epoch >= self.0 => Err(TrainError::Stopped),
            _ => Ok(()),
        }
    }
}

/// Tells how far a long work is, and whether it goes on.
fn told<'p>(stop: &'p AtomicBool, progress: &'p mut OnProgress<'_>) -> impl FnMut(&str, u64, Option<u64>) -> bool {
    |what, done, of| {
        progress(what, done, of);
        !stop.load(Ordering::Relaxed)
    }
}
