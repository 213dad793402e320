use crate::distill::Teacher;
use crate::distributed::{Reduction, World};
use crate::error::check;
use crate::optim::Clip;
use crate::optim::{check_state, load};
use crate::scaler::Guard;
use crate::{Optimizer, TrainError};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use striate_datasets::Portion;
use striate_graph::{Network, Outputs};
use striate_layers::{Mode, loss::Loss};
use striate_torch::cuda::{Graph, Stream, has_graphs};
use striate_torch::optim::LearningRate;
use tch::{Device, Kind, Tensor};

/// Steps that are run before one is recorded, in which libraries set up what they need and choose their algorithms.
const WARM_UP: u32 = 3;

/// What a training step minimises.
#[derive(Debug)]
pub struct Objective {
    /// The loss.
    pub loss: Loss,
    /// The weight of the loss of each output after the first.
    pub aux_weight: f64,
    /// The classes' weights, `[classes]` float32 on the network's device, if they don't all count the same.
    pub class_weights: Option<Tensor>,
    /// A trained network that the outputs are to be like, beside the targets.
    pub teacher: Option<Teacher>,
}

impl Objective {
    /// A loss, where classes count the same and nobody teaches.
    pub fn new(loss: Loss, aux_weight: f64) -> Self {
        Self { loss, aux_weight, class_weights: None, teacher: None }
    }

    /// The loss of all outputs together: a scalar. `images` are the batch that they are of, which a teacher looks at; `targets` are as a
    /// [`Loss`] takes them.
    ///
    /// # Errors
    ///
    /// Targets that do not fit, and images that do not fit the teacher.
    pub fn compute(&self, outputs: &Outputs, images: &Tensor, targets: &Tensor) -> Result<Tensor, TrainError> {
        let taught = self.teacher.as_ref().map(|teacher| teacher.teach(images)).transpose()?;
        let of = |logits: &Tensor| -> Result<Tensor, TrainError> {
            let loss = self.loss.weighted(logits, targets, self.class_weights.as_ref())?;
            taught.as_ref().map_or(Ok(loss.shallow_clone()), |lesson| lesson.mixed_with(&loss, logits))
        };
        let mut loss = of(outputs.logits())?;
        for (_, logits) in &outputs.outputs()[1..] {
            loss = loss.f_add(&of(logits)?.f_mul_scalar(self.aux_weight)?)?;
        }
        Ok(loss)
    }

    /// What the loss of these targets counts beside others, if that is not their number.
    fn weight(&self, targets: &Tensor) -> Result<Option<f64>, TrainError> {
        let weight = self.loss.batch_weight(targets, self.class_weights.as_ref())?;
        weight.map(|weight| Ok(f64::try_from(weight)?)).transpose()
    }

    /// What the loss of a part of a batch counts in that of the whole.
    fn share(&self, part: &Tensor, whole: &Tensor) -> Result<Share, TrainError> {
        let weight = |targets: &Tensor| self.loss.batch_weight(targets, self.class_weights.as_ref());
        Ok(match (weight(part)?, weight(whole)?) {
            (Some(part), Some(whole)) => Share::Tensor(part.f_div(&whole)?),
            _ => Share::Number(part.size()[0] as f64 / whole.size()[0] as f64),
        })
    }
}

/// What a part of a batch counts in it.
enum Share {
    Number(f64),
    /// On the network's device.
    Tensor(Tensor),
}

impl Share {
    fn times(self, factor: f64) -> Result<Self, TrainError> {
        Ok(match self {
            share if factor == 1.0 => share,
            Self::Number(share) => Self::Number(share * factor),
            Self::Tensor(share) => Self::Tensor(share.f_mul_scalar(factor)?),
        })
    }
}

/// What a step computed, on the network's device; a [recorded](Step::recorded) step writes over it.
#[derive(Debug)]
pub struct StepOutput {
    /// The batch's mean loss before the step: a scalar.
    pub loss: Tensor,
    /// The logits before the step: `[N, classes]`.
    pub logits: Tensor,
}

/// What happens to gradients between the backward pass and the optimizer's step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOptions {
    /// In how many parts a batch goes forward and backward, one after the other, its gradients added up: so it takes less memory. Batch
    /// norm and dropout see the parts.
    pub parts: usize,
    /// How gradients are clipped.
    pub clip: Option<Clip>,
    /// Whether losses are scaled, so that gradients of float16 do not vanish: by the rule and the numbers of `torch.amp.GradScaler`.
    /// Implies [`skip`](Self::skip).
    pub scale: bool,
    /// Whether an update is left out whose loss or gradients are no numbers. Parameters, optimizer and running statistics then stay as
    /// they were; on a GPU that takes a copy of them in each step.
    pub skip: bool,
    /// Whether batch norm takes its statistics over the batch of all processes, where there are several, as one process would.
    /// Otherwise each takes those of its part.
    pub sync_batch_norm: bool,
    /// The half type that gradients are sent to other processes in, if not their own.
    pub compress: Option<Kind>,
}

impl Default for StepOptions {
    /// A batch is one part, and nothing is clipped, scaled or left out.
    fn default() -> Self {
        Self { parts: 1, clip: None, scale: false, skip: false, sync_batch_norm: false, compress: None }
    }
}

/// The training step: forward, loss, backward, and the optimizer's. It waits for nothing that a GPU computes.
///
/// [`run`](Self::run) is a whole step. [`backward`](Self::backward), which adds to the gradients, and [`update`](Self::update) are its
/// halves, for loops that do something between them.
#[derive(Debug)]
pub struct Step<N> {
    network: N,
    core: Core,
    recorder: Option<Recorder>,
}

/// What a step takes but for the network.
#[derive(Debug)]
struct Core {
    objective: Objective,
    optimizer: Optimizer,
    options: StepOptions,
    guard: Option<Guard>,
    /// In a world of several.
    reduction: Option<Reduction>,
}

impl<N: Borrow<Network>> Step<N> {
    /// Steps of a network by an optimizer of its [trainable parameters](Network::trainable), whose gradients are forgotten.
    ///
    /// # Errors
    ///
    /// A step of no parts.
    pub fn new(network: N, objective: Objective, mut optimizer: Optimizer, options: StepOptions) -> Result<Self, TrainError> {
        check(options.parts > 0, "train.accumulate", options.parts, "must be 1 or larger")?;
        optimizer.zero_grad()?;
        let guarded = options.scale || options.skip;
        let guard = guarded.then(|| Guard::new(network.borrow(), options.scale)).transpose()?;
        Ok(Self { network, core: Core { objective, optimizer, options, guard, reduction: None }, recorder: None })
    }

    /// Records the step as a CUDA graph once a few batches of one shape have gone through it, and launches it by one call for batches of
    /// that shape from then on, where launching costs more than computing. On the CPU it changes nothing.
    ///
    /// What is recorded works on the parameters as they lie: load others into them, and replace none.
    ///
    /// Fails if the network lies on several devices, or CUDA graphs were not built in. A step fails that cannot be recorded: one with a
    /// layer that copies something to the device or back, as the sparse convolution of LeNet-5's paper does.
    pub fn recorded(mut self) -> Result<Self, TrainError> {
        let network: &Network = self.network.borrow();
        let on_one = network.devices().iter().all(|device| *device == network.device());
        check(on_one, "train.cuda_graph", true, "takes a network on one device")?;
        if let device @ Device::Cuda(_) = network.device() {
            check(has_graphs(), "train.cuda_graph", true, "takes a libtorch with CUDA, and CUDA's headers when this is built")?;
            let (stream, lr) = (Stream::new(device)?, Tensor::f_zeros([0_i64; 0], (Kind::Float, device))?);
            self.recorder = Some(Recorder { stream, lr, lr_set: None, shape: Vec::new(), seen: 0, recording: None });
        }
        Ok(self)
    }

    /// Has gradients be those of the batch of all processes, of which each gives its part to [`backward`](Self::backward) and
    /// [`run`](Self::run): the mean over all examples of all parts. All processes make the same steps. In a world of one it changes
    /// nothing.
    ///
    /// The loss that a step gives is then that of the part, times its share of the batch and the number of processes: its mean over
    /// processes is the batch's.
    ///
    /// # Errors
    ///
    /// A network on several devices, and steps that are [recorded](Self::recorded).
    pub fn distributed(mut self, world: &World) -> Result<Self, TrainError> {
        let one = self.recorder.is_none() || world.is_one();
        let StepOptions { sync_batch_norm, compress, .. } = self.core.options;
        check(one, "train.cuda_graph", true, "does not go with several processes: train with `cuda_graph = false`")?;
        self.core.reduction = world.reduction(self.network.borrow(), compress, sync_batch_norm)?;
        Ok(self)
    }

    /// Says how many examples the next batch has in all processes, and which part of it this one has. Otherwise a step asks the other
    /// processes for that.
    pub fn of_batch(&mut self, len: usize, portion: Portion) {
        if let Some(reduction) = &mut self.core.reduction {
            reduction.of_batch(len, portion);
        }
    }

    /// Whether steps are [recorded](Self::recorded).
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// The network.
    pub fn network(&self) -> &Network {
        self.network.borrow()
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.core.optimizer
    }

    /// What is minimised, to change before the first step.
    pub(crate) fn objective_mut(&mut self) -> &mut Objective {
        &mut self.core.objective
    }

    /// Whether the last update was left out, as [`StepOptions::skip`] says. It waits for the device.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn skipped(&self) -> Result<bool, TrainError> {
        self.core.guard.as_ref().map_or(Ok(false), Guard::skipped)
    }

    /// What going on takes beside the parameters: the optimizer's [state](Optimizer::state), and what losses are scaled by.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = self.core.optimizer.state();
        state.extend(self.core.guard.iter().flat_map(Guard::state));
        state
    }

    /// Takes over a state that [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// It has other names, shapes or types. Nothing is changed then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        self.check_state(state)?;
        load(self.state(), state)
    }

    /// Whether [`load_state`](Self::load_state) would take it.
    pub(crate) fn check_state(&self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        check_state(&self.state(), state)
    }

    /// The optimizer, to change.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.core.optimizer
    }

    /// Brings gradients to the scale of the loss before something reads them, if losses are scaled.
    pub(crate) fn unscale(&mut self) -> Result<(), TrainError> {
        self.core.unscale()
    }

    /// Trains with one batch on the network's device: images `[N, C, H, W]` and targets as its [`Loss`] takes them.
    ///
    /// Fails if the batch does not fit the network, or a [recorded](Self::recorded) step can't be recorded. A loss that is no number is no
    /// error here: it shows in the output, and in the weights.
    pub fn run(&mut self, images: &Tensor, targets: &Tensor, lr: f64) -> Result<StepOutput, TrainError> {
        let Self { network, core, recorder } = self;
        let mut launch = |images: &Tensor, targets: &Tensor, lr: LearningRate| {
            let output = core.backward((*network).borrow(), images, targets)?;
            core.update(lr)?;
            Ok(output)
        };
        match recorder {
            Some(recorder) => recorder.run(images, targets, lr, launch),
            None => launch(images, targets, LearningRate::Value(lr)),
        }
    }

    /// The first half of a step: adds the gradients of the batch's mean loss to those that there are.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn backward(&mut self, images: &Tensor, targets: &Tensor) -> Result<StepOutput, TrainError> {
        self.core.backward(self.network.borrow(), images, targets)
    }

    /// The second half: clips the gradients, changes the parameters, and forgets the gradients.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn update(&mut self, lr: f64) -> Result<(), TrainError> {
        self.core.update(LearningRate::Value(lr))
    }
}

impl Core {
    fn backward(&mut self, network: &Network, images: &Tensor, targets: &Tensor) -> Result<StepOutput, TrainError> {
        let examples = images.size().first().copied().unwrap_or_default();
        let parts = i64::try_from(self.options.parts).unwrap_or(i64::MAX).clamp(1, examples.max(1));
        self.guard.as_mut().map_or(Ok(()), Guard::begin)?;
        let (of_batch, _drawn) = match &mut self.reduction {
            None => (1.0, None),
            Some(reduction) => {
                let (share, drawn) = reduction.begin(examples, self.objective.weight(targets)?)?;
                (share, Some(drawn))
            }
        };
        if parts == 1 {
            let share = (of_batch != 1.0).then_some(Share::Number(of_batch));
            return self.backward_part(network, images, targets, share, true);
        }
        let (mut losses, mut logits) = (Vec::new(), Vec::new());
        let (images, parts) = (images.f_chunk(parts, 0)?, targets.f_chunk(parts, 0)?);
        for (number, (images, part)) in images.iter().zip(&parts).enumerate() {
            let _drawn = self.reduction.as_ref().map(|reduction| reduction.begin_part(part.size()[0]));
            let share = self.objective.share(part, targets)?.times(of_batch)?;
            let output = self.backward_part(network, images, part, Some(share), number + 1 == parts.len())?;
            losses.push(output.loss);
            logits.push(output.logits);
        }
        let loss = Tensor::f_stack(&losses, 0)?;
        Ok(StepOutput { loss: loss.f_sum(loss.kind())?, logits: Tensor::f_cat(&logits, 0)? })
    }

    /// Of a part of a batch: its loss counts as much as it has examples.
    fn backward_part(
        &mut self,
        network: &Network,
        images: &Tensor,
        targets: &Tensor,
        share: Option<Share>,
        is_last: bool,
    ) -> Result<StepOutput, TrainError> {
        let outputs = network.forward(images, Mode::Train)?;
        let loss = self.objective.compute(&outputs, images, targets)?;
        let loss = match share {
            None => loss,
            Some(Share::Number(share)) => loss.f_mul_scalar(share)?,
            Some(Share::Tensor(share)) => loss.f_mul(&share)?,
        };
        if let Some(reduction) = self.reduction.as_mut().filter(|_| is_last) {
            reduction.prepare(&outputs)?;
        }
        match &mut self.guard {
            None => loss.f_backward()?,
            Some(guard) => guard.scaled(&loss)?.f_backward()?,
        }
        Ok(StepOutput { loss: loss.f_detach()?, logits: outputs.logits().f_detach()? })
    }

    fn unscale(&mut self) -> Result<(), TrainError> {
        let (one, reduction) = (World::one(), self.reduction.as_ref());
        let world = reduction.map_or(&one, Reduction::world);
        self.guard.as_mut().map_or(Ok(()), |guard| guard.unscale(&self.optimizer, world))
    }

    fn update(&mut self, lr: LearningRate) -> Result<(), TrainError> {
        self.unscale()?;
        if let Some(clip) = self.options.clip {
            clip.apply(&self.optimizer)?;
        }
        match &mut self.guard {
            None => self.optimizer.step(lr)?,
            Some(guard) => guard.step(&mut self.optimizer, |optimizer| optimizer.step(lr))?,
        }
        self.optimizer.zero_grad()
    }
}

/// Runs a step a few times, then records it, and replays that.
#[derive(Debug)]
struct Recorder {
    /// The device's default stream can't be recorded.
    stream: Stream,
    /// Read by all steps, so that recorded ones take the same number as others.
    lr: Tensor,
    /// What it was set to.
    lr_set: Option<f64>,
    /// The last images' shape, and how many batches of it came in a row.
    shape: Vec<i64>,
    seen: u32,
    recording: Option<Recording>,
}

/// A recorded step and the tensors that it works on.
#[derive(Debug)]
struct Recording {
    graph: Graph,
    images: Tensor,
    targets: Tensor,
    output: StepOutput,
}

impl Recorder {
    fn run(
        &mut self,
        images: &Tensor,
        targets: &Tensor,
        lr: f64,
        mut launch: impl FnMut(&Tensor, &Tensor, LearningRate) -> Result<StepOutput, TrainError>,
    ) -> Result<StepOutput, TrainError> {
        let Self { stream, lr: lr_tensor, lr_set, shape, seen, recording } = self;
        if *shape != images.size() {
            (*shape, *seen) = (images.size(), 0);
        }
        *seen = seen.saturating_add(1);
        if recording.is_none() && *seen > WARM_UP {
            let (images, targets) = (images.f_empty_like()?, targets.f_empty_like()?);
            let recorded = Graph::record(stream, || launch(&images, &targets, LearningRate::Tensor(lr_tensor)));
            let (graph, output) = recorded.map_err(|error| TrainError::NotRecorded { reason: error.to_string() })?;
            *recording = Some(Recording { graph, images, targets, output });
        }
        if lr_set.replace(lr) != Some(lr) {
            let _ = lr_tensor.f_fill_(lr)?;
        }
        match recording {
            // What was recorded runs on any stream, and needs not wait for another.
            Some(recording) if recording.images.size() == images.size() && recording.targets.size() == targets.size() => {
                recording.replay(images, targets)
            }
            _ => stream.run(|| launch(images, targets, LearningRate::Tensor(lr_tensor))),
        }
    }
}

impl Recording {
    fn replay(&mut self, images: &Tensor, targets: &Tensor) -> Result<StepOutput, TrainError> {
        self.images.f_copy_(images)?;
        self.targets.f_copy_(targets)?;
        self.graph.replay()?;
        Ok(StepOutput { loss: self.output.loss.shallow_clone(), logits: self.output.logits.shallow_clone() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::OptimizerConfig;
    use striate_graph::{Graph as Layers, InitOptions};
    use striate_layers::{BatchNorm2d, Conv2d, Dropout, Flatten, Linear};
    use striate_torch::manual_seed;
    use tch::Cuda;

    /// The losses of eight steps, the fifth of a smaller batch, and the weights after them.
    fn train(device: Device, recorded: bool) -> (Vec<f64>, Vec<Tensor>) {
        manual_seed(3);
        let layers = Layers::build(|net| {
            let x = net.input([1, 8, 8]);
            let x = net.add("conv", Conv2d::same(4, 3), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("dropout", Dropout::new(0.5), x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        });
        let options = InitOptions { devices: vec![device], ..InitOptions::default() };
        let network = Network::new(layers.unwrap(), &options).unwrap();
        let objective = Objective::new(Loss::default(), 0.0);
        let optimizer = Optimizer::new(OptimizerConfig::default(), network.trainable()).unwrap();
        let options = StepOptions { clip: Some(Clip::Norm(0.5)), ..StepOptions::default() };
        let mut step = Step::new(&network, objective, optimizer, options).unwrap();
        if recorded {
            step = step.recorded().unwrap();
        }
        let all = Tensor::randn([6, 1, 8, 8], (Kind::Float, Device::Cpu));
        let losses = (0..8).map(|number: i32| {
            let batch = if number == 4 { 3 } else { 6 };
            let images = all.narrow(0, 0, batch).to_device(device);
            let targets = Tensor::arange(batch, (Kind::Int64, device)).remainder(3);
            manual_seed(number.unsigned_abs().into());
            let output = step.run(&images, &targets, 0.1 / (1.0 + f64::from(number))).unwrap();
            assert_eq!(output.logits.size(), [batch, 3]);
            output.loss.double_value(&[])
        });
        let losses = losses.collect();
        (losses, network.state().into_values().map(|tensor| tensor.to_device(Device::Cpu)).collect())
    }

    #[test]
    fn a_step_lowers_the_loss_of_its_batch() {
        let (losses, weights) = train(Device::Cpu, false);
        assert!(
            losses.iter().all(|loss| loss.is_finite())
                && weights.iter().all(|weight| weight.isfinite().all().int64_value(&[]) == 1)
        );
        assert!(losses[3] < losses[0], "{losses:?}");
    }

    /// Skipped where there is no CUDA device.
    #[test]
    fn a_recorded_step_is_the_step() {
        if !Cuda::is_available() || !has_graphs() {
            return eprintln!("skipped: there is no CUDA device, or no graphs were built");
        }
        let (losses, weights) = train(Device::Cuda(0), false);
        let (recorded_losses, recorded_weights) = train(Device::Cuda(0), true);
        assert!(losses.iter().zip(recorded_losses).all(|(loss, recorded)| (loss - recorded).abs() < 1e-4 * loss.abs()));
        assert!(weights.iter().zip(&recorded_weights).all(|(weight, recorded)| weight.allclose(recorded, 1e-3, 1e-4, false)));
    }
}
