//! Recipes: what a training run does, in one TOML file.
mod keys;
mod loss;
mod sections;

pub use self::loss::{ClassWeights, LossKind, LossSection, NamedWeights};
pub use self::sections::{
    AnsweringSection, Auto, DataSection, Head, Layout, ModelSection, PreprocessFrom, Tf32, TrainSection, Workers,
};

use self::keys::{check_keys, with_kinds, with_transforms, wrong_type};
use crate::error::check;
use crate::optim::ParamGroup;
use crate::{AverageConfig, DistillSection, OptimizerConfig, Patience, Progressive, ScheduleConfig, TrainConfig, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use striate_datasets::{Transform, transforms_or_augment};
use striate_layers::loss::Loss;
use striate_torch::{Precision, contained, note_file};
use toml::{Table, Value};

/// The most bytes of a recipe.
const LONGEST: u64 = 1 << 20;

/// A training run: a network, its data, and how it is trained. Every key has a default.
///
/// ```
/// use striate_train::Recipe;
/// let text = "
///     [model]
///     name = 'lenet5'
///     [train]
///     lr = 0.05
///     [optimizer]
///     kind = 'adamw'
/// ";
/// let recipe = Recipe::parse(text, "lenet.toml".as_ref())?;
/// assert_eq!(recipe.train.lr, 0.05);
/// let error = Recipe::parse("[train]\nlrr = 0.05", "lenet.toml".as_ref()).unwrap_err();
/// assert_eq!(error.to_string(), "lenet.toml: unknown key `lrr` in [train]: did you mean `lr`?");
/// # Ok::<(), striate_train::TrainError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recipe {
    /// `[model]`: the network.
    pub model: ModelSection,
    /// `[data]`: the dataset.
    pub data: DataSection,
    /// `[train]`: the run.
    pub train: TrainSection,
    /// `[loss]`: what is minimised.
    pub loss: LossSection,
    /// `[distill]`: a teacher.
    pub distill: DistillSection,
    /// `[optimizer]`: the optimizer.
    pub optimizer: OptimizerConfig,
    /// `[schedule]`: the learning rate over the run.
    pub schedule: ScheduleConfig,
    /// `[average]`: the average of weights that the run ends with.
    pub average: AverageConfig,
    /// `[progressive]`: smaller images at first.
    pub progressive: Progressive,
    /// `[[groups]]`: parameters that train in a way of their own.
    pub groups: Vec<ParamGroup>,
    /// `[[transforms]]`: what is done to each training image, in this order. The file may name a [preset](Transform::preset) in their
    /// place, or have the section `[augment]` that there was before.
    #[serde(alias = "augment", deserialize_with = "transforms_or_augment")]
    pub transforms: Vec<Transform>,
    /// `[answering]`: how the trained network answers.
    pub answering: AnsweringSection,
}
impl Recipe {
    /// Reads a recipe's file.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let cannot = |error| refuse(path, format!("cannot be read: {error}"));
        note_file(path);
        let mut text = String::new();
        let file = striate_files::open(path).map_err(|error| cannot(error.source))?;
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
        Self::parse(&text, path)
    }

    /// Reads a recipe's text; `path` is the file that errors name.
    ///
    /// Fails with one line on a syntax error, a key that no recipe has (naming the nearest that one has), a value of the wrong
    /// type, and one that can't be.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrainError> {
        if text.len() as u64 > LONGEST {
            return Err(refuse(path, format!("has more than the {LONGEST} bytes that a recipe may have")));
        }
        contained(|| Self::parse_short(text, path), |panic| refuse(path, format!("cannot be read: {panic}")))
    }

    fn parse_short(text: &str, path: &Path) -> Result<Self, TrainError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            refuse(path, format!("line {line}: {}", error.message()))
        })?;
        let table = check_keys(&table).and_then(|()| with_transforms(table)).map_err(|reason| refuse(path, reason))?;
        let table = with_kinds(table);
        let recipe: Self = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| refuse(path, wrong_type(&table).unwrap_or_else(|| one_line(&error))))?;
        recipe.check().map_err(|error| refuse(path, error.to_string()))?;
        Ok(recipe)
    }

    /// The recipe with every key written out.
    pub fn to_toml(&self) -> String {
        // Nothing that `check` accepts fails here.
        toml::to_string(self).unwrap_or_default()
    }

    /// Sets the epochs of the run. Warm-up and cool-down of a shorter run are shorter in proportion, and each group trains in its
    /// last epoch at least.
    pub fn set_epochs(&mut self, epochs: u64) {
        if epochs < self.train.epochs {
            self.schedule.shorten(epochs as f64 / self.train.epochs as f64);
            for group in &mut self.groups {
                group.from_epoch = group.from_epoch.map(|from| from.min(epochs.saturating_sub(1)));
            }
        }
        self.train.epochs = epochs;
    }

    /// The keys, such as `train.lr`, that another recipe has other values for.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let tables = [self, other].map(|recipe| Table::try_from(recipe).unwrap_or_default());
        let keys = |section: &Value| section.as_table().cloned().unwrap_or_default();
        let mut differing = Vec::new();
        for (name, differs) in [("transforms", self.transforms != other.transforms), ("groups", self.groups != other.groups)] {
            if differs {
                differing.push(name.to_owned());
            }
        }
        for (name, section) in &tables[0] {
            let (ours, theirs) = (keys(section), tables[1].get(name).map(keys).unwrap_or_default());
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            differing
                .extend(names.into_iter().filter(|key| ours.get(*key) != theirs.get(*key)).map(|key| format!("{name}.{key}")));
        }
        differing
    }

    /// Refuses values that can't be, naming them. [`parse`](Self::parse) has done it; do it again after changing fields.
    pub fn check(&self) -> Result<(), TrainError> {
        let train = &self.train;
        // TOML knows no larger numbers, and no other texts.
        check(i64::try_from(train.seed).is_ok(), "train.seed", train.seed, "must be below 2^63")?;
        check((0.0..1.0).contains(&self.data.split), "data.split", self.data.split, "must be from 0 to below 1")?;
        let part = self.data.part;
        check(part > 0.0 && part <= 1.0, "data.part", part, "must be above 0 and at most 1")?;
        let pixels = i64::try_from(self.data.max_pixels).is_ok_and(|pixels| pixels > 0);
        check(pixels, "data.max_pixels", self.data.max_pixels, "must be from 1 to below 2^63")?;
        check(train.batch_size > 0, "train.batch_size", train.batch_size, "must be 1 or larger")?;
        check(
            train.precision != Precision::Int8,
            "train.precision",
            format_args!("{}", train.precision),
            "is for inference: use float32, bfloat16 or float16",
        )?;
        let sent = train.compress_gradients;
        check(
            sent != Precision::Int8,
            "train.compress_gradients",
            format_args!("{sent}"),
            "must be float32, bfloat16 or float16",
        )?;
        self.loss.check()?;
        self.distill.check()?;
        let smoothing = train.label_smoothing;
        check((0.0..=1.0).contains(&smoothing), "train.label_smoothing", smoothing, "must be from 0 to 1")?;
        let unknown = self.answering.unknown;
        check((0.0..=1.0).contains(&unknown), "answering.unknown", unknown, "must be from 0 to 1")?;
        self.train_config(Loss::default(), 0.0)?.check()
    }

    /// What a [`Trainer`](crate::Trainer) needs of it, with the loss that the model is trained with and what that
    /// of each auxiliary output counts.
    ///
    /// Fails if the model's labels do not fit the loss, or labels are to be smoothed or classes weighted and the loss is no cross entropy.
    pub fn train_config(&self, model_loss: Loss, aux_weight: f64) -> Result<TrainConfig, TrainError> {
        let train = &self.train;
        let label_smoothing = train.label_smoothing;
        let loss = self.loss.of(model_loss, label_smoothing)?;
        let mixes = Transform::mix_labels(&self.transforms);
        let takes = !mixes || loss.takes_probabilities();
        check(
            takes,
            "transforms",
            format_args!("mix-up or cut-mix"),
            "takes cross entropy, and this model has a loss of its own",
        )?;
        Ok(TrainConfig {
            epochs: train.epochs,
            lr: train.scaled_lr(),
            seed: train.seed,
            loss,
            aux_weight,
            clip: train.clip()?,
            class_weights: self.loss.class_weights.clone(),
            class_power: self.loss.power,
            scale_loss: train.precision == Precision::Float16,
            on_nan: train.on_nan,
            patience: Patience { epochs: train.patience, min_delta: train.min_delta },
            accumulate: train.accumulate,
            cuda_graph: train.cuda_graph,
            sync_batch_norm: train.sync_batch_norm,
            compress_gradients: train.compressed(),
            optimizer: self.optimizer.clone(),
            groups: self.groups.clone(),
            layer_decay: train.layer_decay,
            schedule: self.schedule.clone(),
            average: self.average.clone(),
            progressive: self.progressive,
        })
    }
}

fn refuse(path: &Path, reason: String) -> TrainError {
    TrainError::Recipe { path: path.into(), reason }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{AdamWConfig, Clip, Curve, OnNan};
    use striate_datasets::Sampler;

    fn parse(text: &str) -> Result<Recipe, TrainError> {
        Recipe::parse(text, Path::new("r.toml"))
    }

    const FULL: &str = "
        [model]
        name = 'resnet20'
        options = { width = 16, shortcut = 'A' }
        [data]
        name = 'cifar10'
        dir = '/data'
        [train]
        epochs = 164
        lr = 1
        seed = 7
        label_smoothing = 0.1
        [optimizer]
        kind = 'adamw'
        weight_decay = 0.05
        [schedule]
        kind = 'multistep'
        milestones = [82, 123]
        warmup_epochs = 1
        [augment]
        hflip = true
    ";

    fn flip() -> Transform {
        Transform::HorizontalFlip(striate_datasets::RandomHorizontalFlip::default())
    }

    #[test]
    fn lists_of_transforms_hold_presets_and_are_written_out() {
        let recipe = parse("[[transforms]]\nkind = 'cifar'\n[[transforms]]\nkind = 'affine'\ndegrees = 5").unwrap();
        let affine = striate_datasets::RandomAffine { degrees: 5.0, ..Default::default() };
        let expected = [Transform::preset("cifar").unwrap(), vec![Transform::Affine(affine)]].concat();
        assert_eq!(recipe.transforms, expected);
        let text = recipe.to_toml();
        assert!(text.contains("[[transforms]]\nkind = \"random-crop\"\npadding = 4\n"), "{text}");
        assert_eq!(parse(&text).unwrap(), recipe);
        assert_eq!(recipe.differing(&Recipe::default()), ["transforms"]);
        assert_eq!(parse("[[transforms]]\nkind = 'none'").unwrap(), Recipe::default());
    }

    #[test]
    fn a_kind_that_is_left_out_is_the_default() {
        let sgd = parse("[optimizer]\nweight_decay = 0.1").unwrap();
        assert_eq!(sgd, parse("[optimizer]\nkind = 'sgd'\nweight_decay = 0.1").unwrap());
        assert_eq!(parse("[schedule]\nwarmup_epochs = 0.5").unwrap().schedule.warmup_epochs, 0.5);
        assert_eq!(parse("[average]").unwrap(), Recipe::default());
    }

    #[test]
    fn samplers_and_workers_are_read_and_come_back() {
        for (text, sampler, workers) in [
            ("", Sampler::Each, None),
            ("sampler = 'balanced'\nworkers = 0", Sampler::Balanced, Some(0)),
            ("sampler = { repeated = 3 }\nworkers = 'auto'", Sampler::Repeated(3), None),
            ("sampler = { weighted = [1.0, 0.5] }\nworkers = 4", Sampler::Weighted(vec![1.0, 0.5]), Some(4)),
        ] {
            let recipe = parse(&format!("[data]\n{text}")).unwrap();
            assert_eq!((&recipe.data.sampler, recipe.data.workers.number()), (&sampler, workers), "{text}");
            assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
        }
    }

    #[test]
    fn what_goes_wrong_and_how_exact_gpus_are_is_chosen() {
        let recipe =
            parse("[train]\ntf32 = false\non_nan = 'rollback'\nprecision = 'fp16'\npatience = 3\nmin_delta = 0.01").unwrap();
        assert_eq!((recipe.train.tf32, Recipe::default().train.tf32), (Tf32::Set(false), Tf32::Chosen(Auto::Auto)));
        assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
        let config = recipe.train_config(Loss::default(), 0.0).unwrap();
        assert_eq!((config.on_nan, config.scale_loss, config.step_options().scale), (OnNan::Rollback, true, true));
        assert_eq!(config.patience, Patience { epochs: 3, min_delta: 0.01 });
        let off = Recipe::default().train_config(Loss::default(), 0.0).unwrap();
        assert_eq!(off.step_options(), crate::StepOptions::default());
        assert!(parse("[train]\nmin_delta = 1.5").unwrap_err().to_string().contains("train.min_delta = 1.5 must be from 0 to"));
        assert!(
            parse("[train]\non_nan = 'hope'").unwrap_err().to_string().contains("expected one of `stop`, `skip`, `rollback`")
        );
    }

    #[test]
    fn recipes_of_before_there_were_lists_are_read() {
        assert_eq!(parse("[augment]\nhflip = true").unwrap().transforms, [flip()]);
        let mut json = serde_json::to_value(Recipe::default()).unwrap();
        let recipe = json.as_object_mut().unwrap();
        recipe.remove("transforms");
        recipe.insert("augment".to_owned(), serde_json::json!({ "pad_crop": 0, "hflip": true, "scale": [1.0, 1.0] }));
        assert_eq!(serde_json::from_value::<Recipe>(json).unwrap().transforms, [flip()]);
    }

    #[test]
    fn a_shorter_run_has_a_shorter_warmup() {
        let mut recipe = parse("[train]\nepochs = 20\n[schedule]\nkind = 'cosine'\nwarmup_epochs = 2.0").unwrap();
        recipe.groups = vec![ParamGroup { from_epoch: Some(3), ..ParamGroup::default() }];
        recipe.set_epochs(1);
        assert_eq!((recipe.train.epochs, recipe.schedule.warmup_epochs, recipe.groups[0].from_epoch), (1, 0.1, Some(0)));
        recipe.check().unwrap();
        recipe.set_epochs(40);
        assert_eq!(recipe.schedule.warmup_epochs, 0.1);
    }

    #[test]
    fn recipes_tell_in_which_keys_they_differ() {
        let recipe = parse(FULL).unwrap();
        let mut other = recipe.clone();
        assert_eq!(recipe.differing(&other), Vec::<String>::new());
        other.train.lr = 0.5;
        other.schedule = Curve::Constant.into();
        let differing = recipe.differing(&other);
        assert!(
            differing.contains(&"train.lr".to_owned()) && differing.contains(&"schedule.milestones".to_owned()),
            "{differing:?}"
        );
        assert!(!differing.iter().any(|key| key.starts_with("data.")), "{differing:?}");
    }

    #[test]
    fn what_is_given_is_taken_and_the_rest_is_default() {
        let recipe = parse(FULL).unwrap();
        assert_eq!(recipe.model.options["width"], Value::Integer(16));
        assert_eq!((recipe.train.lr, recipe.train.batch_size), (1.0, TrainSection::default().batch_size));
        let adamw = AdamWConfig { weight_decay: 0.05, ..AdamWConfig::default() };
        assert_eq!(recipe.optimizer, OptimizerConfig::AdamW(adamw));
        assert_eq!(recipe.schedule.curve, Curve::MultiStep { milestones: vec![82.0, 123.0], gamma: 0.1 });
        assert_eq!(recipe.schedule.warmup_epochs, 1.0);
        assert_eq!(recipe.transforms, [flip()]);
        assert_eq!(parse("").unwrap(), Recipe::default());
    }

    #[test]
    fn the_resolved_recipe_has_every_key_and_reads_back() {
        for recipe in [parse(FULL).unwrap(), Recipe::default()] {
            let text = recipe.to_toml();
            assert_eq!(parse(&text).unwrap(), recipe);
            for key in ["batch_size", "clip_norm", "threads", "dir", "precision", "warmup_factor", "transforms", "decay_1d"] {
                assert!(text.contains(key), "{key} in {text}");
            }
        }
    }

    #[test]
    fn what_toml_cannot_hold_is_refused() {
        let mut recipe = Recipe::default();
        recipe.train.seed = u64::MAX;
        assert!(recipe.check().unwrap_err().to_string().ends_with("must be below 2^63"));
        recipe.train.seed /= 2;
        recipe.check().unwrap();
        assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
    }

    #[test]
    fn a_rate_is_scaled_to_the_batch_it_is_not_meant_for() {
        let lr = |text: &str| parse(&format!("[train]\nlr = 0.1\nbatch_size = 64\n{text}")).unwrap().train.scaled_lr();
        assert_eq!([lr(""), lr("lr_batch = 256"), lr("lr_batch = 32")], [0.1, 0.025, 0.2]);
        let config = parse("[train]\nlr = 0.1\nbatch_size = 64\nlr_batch = 256").unwrap().train_config(Loss::default(), 0.0);
        assert_eq!(config.unwrap().lr, 0.025);
    }

    #[test]
    fn clipping_is_one_of_three() {
        let clip = |text: &str| parse(&format!("[train]\n{text}")).unwrap().train_config(Loss::default(), 0.0).unwrap().clip;
        assert_eq!(clip("clip_value = 0.5"), Some(Clip::Value(0.5)));
        assert_eq!(clip("clip_adaptive = 0.01"), Some(Clip::Adaptive(0.01)));
    }

    #[test]
    fn optimizers_and_schedules_of_every_kind_are_read_and_come_back() {
        for (section, kinds) in [
            ("optimizer", &["sgd", "adam", "adamw", "rmsprop", "lamb", "lars", "lion", "muon"][..]),
            (
                "schedule",
                &[
                    "constant",
                    "step",
                    "multistep",
                    "cosine",
                    "cosine-restarts",
                    "polynomial",
                    "plateau",
                    "exponential",
                    "onecycle",
                ],
            ),
        ] {
            for kind in kinds {
                let recipe = parse(&format!("[{section}]\nkind = '{kind}'")).unwrap();
                assert!(recipe.to_toml().contains(&format!("[{section}]\nkind = \"{kind}\"\n")), "{}", recipe.to_toml());
                assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
            }
        }
    }

    #[test]
    fn smoothing_takes_cross_entropy() {
        let recipe = parse("[train]\nlabel_smoothing = 0.1\nclip_norm = 2").unwrap();
        let config = recipe.train_config(Loss::default(), 0.3).unwrap();
        assert_eq!((config.loss, config.clip), (Loss::CrossEntropy { label_smoothing: 0.1 }, Some(Clip::Norm(2.0))));
        let error = recipe.train_config(Loss::Rbf { j: 1.0 }, 0.0).unwrap_err().to_string();
        assert!(error.starts_with("train.label_smoothing = 0.1 takes cross entropy"), "{error}");
        let mixing = parse("[[transforms]]\nkind = 'mix-up'").unwrap();
        mixing.train_config(Loss::default(), 0.0).unwrap();
        let error = mixing.train_config(Loss::Rbf { j: 1.0 }, 0.0).unwrap_err().to_string();
        assert!(error.contains("mix-up or cut-mix takes cross entropy"), "{error}");
        let plain = Recipe::default().train_config(Loss::Rbf { j: 1.0 }, 0.0).unwrap();
        assert_eq!((plain.loss, plain.clip), (Loss::Rbf { j: 1.0 }, None));
    }

    #[test]
    fn every_fault_is_one_line_that_names_it() {
        let long = format!("[[groups]]\nparams = '{}'", "*".repeat(5000));
        let cases = [
            ("[optimizer]\nkind = 'sgd'\nmomentun = 0.9", "unknown key `momentun` in [optimizer]: did you mean `momentum`?"),
            ("[optimizer]\nknid = 'sgd'", "unknown key `knid` in [optimizer]: did you mean `kind`?"),
            ("[optimizer]\nkind = 'adamw'\nlr = 1", "unknown key `lr` in [optimizer]: it belongs in [train]"),
            ("[schedule]\nkind = 'cosine'\nmin = 1", "unknown key `min` in [schedule]: did you mean `min_lr`?"),
            ("[augment]\nhflop = true", "unknown field `hflop`, expected one of `pad_crop`, `hflip`, "),
            ("[augment]\n[[transforms]]\nkind = 'none'", "[augment] and [[transforms]] exclude each other"),
            ("transforms = 'cifar'", "`transforms` must be a list of tables: write [[transforms]]"),
            ("[[transforms]]\np = 1", "each of [[transforms]] needs a `kind`"),
            ("[[transforms]]\nkind = 'random-corp'", "there is no transform `random-corp`: did you mean `random-crop`?"),
            ("[[transforms]]\nkind = 'twirl'", "there is no transform `twirl`: there are resize, "),
            (
                "[[transforms]]\nkind = 'random-crop'\npading = 4",
                "unknown key `pading` in [[transforms]] `random-crop`: did you mean `padding`?",
            ),
            ("[[transforms]]\nkind = 'cifar'\npadding = 4", "unknown key `padding` in [[transforms]] `cifar`: there are `kind`"),
            ("[[transforms]]\nkind = 'random-crop'\npadding = 'x'", "[[transforms]] `random-crop`: invalid type: string \"x\""),
            ("[data]\nworkers = 'many'", "expected a number of threads or `auto` in `data.workers`"),
            ("[train]\ntf32 = 'off'", "expected true, false or `auto` in `train.tf32`"),
            ("[optimiser]\nkind = 'sgd'", "unknown section [optimiser]: did you mean [optimizer]?"),
            ("[network]\nkind = 'sgd'", "unknown section [network]: there are [answering], [average], [data], "),
            ("[average]\nkind = 'ema'\ndecaay = 0.9", "unknown key `decaay` in [average]: did you mean `decay`?"),
            ("[average]\nkind = 'swa'\nlr = 'x'", "invalid type: string \"x\", expected number in `average.lr`"),
            ("[average]\nkind = 'swa'\nfrom = 1", "average.from = 1.0 must be from 0 to below 1"),
            ("[average]\nkind = 'polyak'", "unknown variant `polyak`, expected one of `none`, `ema`, `swa`"),
            ("[progressive]\nfrom = -1", "progressive.from = -1 must be 0 or larger"),
            ("[progressive]\nform = 16", "unknown key `form` in [progressive]: did you mean `from`?"),
            ("[optimizer]\nkind = 'sgd'\nepsilon = 1", "unknown key `epsilon` in [optimizer]: there are `decay_1d`, `kind`, "),
            ("[[groups]]\nparam = 'fc.*'", "unknown field `param`, expected one of `params`, `kind`, "),
            ("[[groups]]\nparams = 'fc['", "`fc[` is no pattern of names"),
            (&long, "***` is no pattern of names"),
            ("[train]\nlayer_decay = 1.5", "train.layer_decay = 1.5 must be above 0 and at most 1"),
            ("[train]\naccumulate = 0", "train.accumulate = 0 must be 1 or larger"),
            ("lr = 1", "unknown key `lr`: keys belong in a section such as [train]"),
            ("train = 1", "`train` must be a section: write [train]"),
            ("[train]\nlr = ", "line 2: "),
            ("[train]\nlr = 'fast'", "invalid type: string \"fast\", expected f64 in `train.lr`"),
            (
                "[optimizer]\nkind = 'sgd'\nmomentum = 'high'",
                "invalid type: string \"high\", expected number in `optimizer.momentum`",
            ),
            (
                "[schedule]\nkind = 'multistep'\nmilestones = 3",
                "invalid type: integer 3, expected array in `schedule.milestones`",
            ),
            ("[train]\nprecision = 'float8'", "unknown variant `float8`, expected one of `float32`"),
            ("[train]\nprecision = 'int8'", "train.precision = int8 is for inference: use float32, bfloat16 or float16"),
            ("[train]\ncompress_gradients = 'int8'", "train.compress_gradients = int8 must be float32, bfloat16 or float16"),
            ("[optimizer]\nkind = 'adamax'", "unknown variant `adamax`, expected one of `sgd`, `adam`, `adamw`, "),
            ("[train]\nlr = -1", "train.lr = -1.0 must be above 0"),
            ("[train]\nlr = inf", "train.lr = inf must be a finite number"),
            ("[train]\nepochs = 0", "train.epochs = 0 must be from 1 to a million"),
            ("[answering]\nunknown = 2", "answering.unknown = 2.0 must be from 0 to 1"),
            ("[answering]\ntta = 'flop'", "there is no test-time augmentation flop: take off, flip, "),
            (
                "[answering]\ntemperature = 1.5",
                "invalid type: floating point `1.5`, expected a boolean in `answering.temperature`",
            ),
            ("[train]\nlabel_smoothing = 2", "train.label_smoothing = 2.0 must be from 0 to 1"),
            ("[schedule]\nkind = 'constant'\nwarmup_epochs = -1", "schedule.warmup_epochs = -1.0 must be 0 or larger"),
            ("[schedule]\nkind = 'constant'\nunit = 'weeks'", "unknown variant `weeks`, expected `epochs` or `steps`"),
            ("[schedule]\nkind = 'plateau'\nwait = 3", "unknown key `wait` in [schedule]: there are `"),
            ("[train]\nclip_norm = 1\nclip_value = 1", "clip_norm, clip_value and clip_adaptive exclude each other"),
            ("[train]\nclip_adaptive = -1", "train.clip_adaptive = -1.0 must be above 0, or 0 for no limit"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("r.toml: ") && error.contains(message) && !error.contains('\n'), "{error}");
            assert!(error.len() < 500, "{error}");
        }
        let missing = Recipe::read(Path::new("none/r.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("none/r.toml: cannot be read"), "{missing}");
    }
}
