//! What to set before a run: a learning rate by a test, a batch size by an account of memory.
use crate::{Error, Prepared, Run};
use serde::Serialize;
use striate_datasets::{Dataset, Loader, LoaderOptions, Subset};
use striate_graph::Network;
use striate_torch::{available_memory, peak_memory, reset_peak_memory};
use striate_train::{LrRange, LrRangeOptions, Optimizer, Step, lr_range};
use tch::{Kind, Tensor};

/// The share of the training pictures that is set apart where there is nothing else to judge by.
pub const SET_APART: f64 = 0.1;
/// Test images that a learning-rate test evaluates after each epoch, which its figures do not depend on.
const FEW: usize = 64;
/// The share of the memory that a step may take: the rest is for batches made ahead, evaluation, and other programs.
const SHARE: f64 = 0.7;
/// The most that is suggested: larger batches take another recipe.
const LARGEST: usize = 4096;

/// A [learning-rate range test](lr_range) of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LrFound {
    /// The network's name.
    pub network: String,
    /// What the test saw.
    pub range: LrRange,
}

/// The largest batch that the memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BatchSize {
    /// Images: a power of two, at most 4096, and no more than the training set has.
    pub images: usize,
    /// The bytes that a step with so many takes by the network's own account: parameters, gradients, the optimizer's state and all
    /// feature maps.
    pub predicted: u64,
    /// The bytes by which one such step raised what the process had in use, where the system tells.
    pub measured: Option<u64>,
    /// The bytes that were there to be had.
    pub available: u64,
}

impl Run<'_> {
    /// Finds a learning rate by [a range test](lr_range), on as many pictures as it takes. The network that is trained for
    /// it is used up, and so is the run: make another one.
    ///
    /// # Errors
    ///
    /// Whatever cannot run, and rates that cannot grow.
    pub fn find_lr(mut self, options: LrRangeOptions) -> Result<LrFound, Error> {
        let prepared = match self.prepare() {
            // The rates are compared by the training loss: what is judged decides nothing.
            Err(Error::NothingToJudgeBy { .. }) => {
                self.recipe_mut().data.split = SET_APART;
                self.prepare()
            }
            prepared => prepared,
        };
        let Prepared { info, network, data, config, preprocess, batches, .. } = &prepared?;
        let (batch_size, seed) = (self.recipe().train.batch_size, self.recipe().train.seed);
        let train = Subset::drawn(&*data.train, options.steps.saturating_mul(batch_size), seed)?;
        let judge = data.val.as_deref().or(data.test.as_deref()).unwrap_or(&*data.train);
        let few = i64::try_from(FEW.min(judge.len())).unwrap_or(i64::MAX);
        let test = Subset::new(judge, &(0..few).collect::<Vec<_>>())?;
        let batches = LoaderOptions { drop_last: train.len() > batch_size, ..batches.clone() };
        let train_loader = Loader::new(&train, preprocess.clone(), batches)?;
        let test_loader = Loader::new(&test, preprocess.clone(), LoaderOptions::eval(FEW))?;
        let range = lr_range(network, &train_loader, &test_loader, config, options)?;
        Ok(LrFound { network: info.name().to_owned(), range })
    }

    /// Finds the largest batch size that `available` bytes hold, or those that the system has to give. It is predicted, and then
    /// confirmed by one step; memory is not filled until something fails. The run is used up: make another one.
    ///
    /// A larger batch is no better by itself: it takes fewer steps an epoch and another learning rate.
    ///
    /// # Errors
    ///
    /// Whatever cannot run; a network of which not even one image fits; and, without `available`, a network on a GPU or a system
    /// that does not tell.
    pub fn find_batch_size(mut self, available: Option<u64>) -> Result<BatchSize, Error> {
        let Prepared { network, data, config, .. } = self.prepare()?;
        let told = || if network.device().is_cuda() { None } else { available_memory() };
        let available = available
            .or_else(told)
            .ok_or_else(|| Error::option("the memory", "is not told by this system: say how many bytes a step may take"))?;
        let optimizer = Optimizer::new(config.optimizer.clone(), network.trainable())?;
        let state: u64 = optimizer.state().values().map(bytes_of).sum();
        let account = Account::of(&network, state);
        let may_take = (available as f64 * SHARE) as u64;
        let most = data.train.len().min(LARGEST);
        let sizes = (0..usize::BITS).map(|power| 1_usize << power).take_while(|size| *size <= most);
        let Some(images) = sizes.filter(|size| account.step(*size) <= may_take).last() else {
            let reason = format!(
                "does not fit: a step with one image takes {} MB, and there are {} MB to be had",
                account.step(1) / 1_000_000,
                available / 1_000_000
            );
            return Err(Error::option("the network", reason));
        };
        let objective = config.objective(&*data.train, network.device())?;
        let mut step = Step::new(&network, objective, optimizer, config.step_options())?;
        let measured = measured_step(&network, &mut step, images, config.loss.is_multi_label())?;
        Ok(BatchSize { images, predicted: account.step(images), measured, available })
    }
}

/// The bytes that a training step takes.
struct Account {
    /// However large the batch is.
    fixed: u64,
    /// For each image.
    image: u64,
}

impl Account {
    /// `state` bytes are the optimizer's.
    fn of(network: &Network, state: u64) -> Self {
        let summary = network.graph().summary();
        let trained: u64 = network.trainable().iter().map(|(_, tensor)| bytes_of(tensor)).sum();
        // The backward pass holds gradients of the largest feature maps beside the maps themselves.
        Self { fixed: trained + state, image: summary.activation_bytes_training + 2 * summary.activation_bytes_inference }
    }

    fn step(&self, images: usize) -> u64 {
        self.fixed.saturating_add(self.image.saturating_mul(images as u64))
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// By how many bytes a step on made-up images raises what the process has in use.
fn measured_step(network: &Network, step: &mut Step<&Network>, images: usize, multi_label: bool) -> Result<Option<u64>, Error> {
    let graph = network.graph();
    let shape = |shape: &striate_layers::Shape| [&[images as i64], shape.dims()].concat();
    let input = graph.inputs().next().map(|input| shape(&input.shape)).unwrap_or_default();
    let output = graph.outputs().next().map(|(_, output)| shape(&output.shape)).unwrap_or_default();
    let device = network.device();
    reset_peak_memory();
    let before = peak_memory();
    let batch = Tensor::f_zeros(input, (Kind::Float, device))?;
    let targets = match multi_label {
        true => Tensor::f_zeros(output, (Kind::Float, device))?,
        false => Tensor::f_zeros([images as i64], (Kind::Int64, device))?,
    };
    let _output = step.run(&batch, &targets, 0.0)?;
    let after = peak_memory();
    Ok(before.zip(after).filter(|_| !device.is_cuda()).map(|(before, after)| after.saturating_sub(before)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Recipe;

    fn run(recipe: &str) -> Run<'static> {
        Run::new(Recipe::parse(&format!("[train]\nthreads = 1\n{recipe}"), "r.toml".as_ref()).unwrap())
    }

    #[test]
    fn the_batch_size_is_the_largest_power_of_two_that_fits() {
        let found = run("[optimizer]\nkind = 'adamw'").find_batch_size(Some(50_000_000)).unwrap();
        // LeNet-5 has 61,706 parameters: gradients and two means of each. Its maps take less than 0.2 MB an image.
        assert!(found.images.is_power_of_two() && found.predicted <= 35_000_000, "{found:?}");
        let twice = found.predicted - 3 * 4 * 61_706;
        assert!(found.images == 512 || found.predicted + twice > 35_000_000, "{found:?}");
        // What it took is what was predicted, or less where kernels keep less.
        assert!(found.measured.is_none_or(|measured| measured < 2 * found.predicted), "{found:?}");
    }

    #[test]
    fn a_network_that_does_not_fit_is_told() {
        let error = run("").find_batch_size(Some(1000)).unwrap_err().to_string();
        assert!(error.starts_with("the network does not fit: a step with one image takes "), "{error}");
    }

    #[test]
    fn a_rate_is_found() {
        let options = LrRangeOptions { steps: 30, ..LrRangeOptions::default() };
        let found = run("").find_lr(options).unwrap();
        assert_eq!(found.network, "lenet5");
        assert!(found.range.points.len() > 10 && found.range.suggestion.is_some_and(|lr| lr > 1e-5 && lr < 10.0));
    }
}
