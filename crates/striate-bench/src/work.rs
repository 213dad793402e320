//! Doing what a case says, so that it can be timed.
use crate::case::{Case, Layout, Mode};
use crate::pair::{PATIENCE, Partner};
use crate::{
    BenchError,
    load::{Pictures, load},
    memory::Base,
    product::product,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use striate_graph::{InitOptions, Kernels, Network};
use striate_infer::{Plan, PlanOptions};
use striate_layers::Mode as Pass;
use striate_models::{BundleInfo, Model, find};
use striate_torch::cuda::has_graphs;
use striate_torch::{Generator, Precision, TensorFile, derive_seed, no_grad, to_memory_format};
use striate_train::distributed::{World, WorldOptions};
use striate_train::{Checkpoint, Objective, Optimizer, OptimizerConfig, Progress, Step, StepOptions};
use tch::{Cuda, Device, Kind, Tensor};

/// The learning rate of training steps: so small that weights stay what they are.
const LR: f64 = 1e-6;
/// A backward pass costs about two forward passes.
const TRAINING_PASSES: u64 = 3;
/// Names, beside those of parameters, in the file that others read.
const IMAGES: &str = "bench.images";
const LABELS: &str = "bench.labels";
const LOGITS: &str = "bench.logits";
/// Sets the seeds of weights, and of images, apart from that of the network's first values.
const WEIGHT_SEEDS: u64 = 0x5745_4947;
const INPUT_SEEDS: u64 = 0x494e_5055;

pub(crate) type Run = Box<dyn FnMut() -> Result<(), BenchError>>;

/// A case made ready.
pub struct Work {
    run: Run,
    device: Device,
    base: Base,
    /// Images, or examples, that one run takes; nothing where it is no matter of images.
    pub images: Option<u64>,
    /// Floating-point operations of one run: two for each multiply-add of convolutions and linear layers by their definition.
    pub flops: Option<u64>,
    /// How far what it computes is from the network's logits in float32, relative to the largest of them.
    pub distance: Option<f64>,
}

impl Work {
    /// Makes a case ready on this thread, with weights and inputs by `seed`; sets the number of threads. With a file, writes
    /// weights, inputs and logits into it, so that others can do the same work.
    pub fn prepare(case: &Case, seed: u64, share: Option<&Path>) -> Result<Self, BenchError> {
        striate_torch::set_num_threads(case.threads);
        let device = case.torch_device()?;
        let work = |run| Self { run, device, base: Base::now(), images: None, flops: None, distance: None };
        match case.mode {
            Mode::Product => {
                let flops = Some(2 * case.size.unsigned_abs().pow(3));
                Ok(Self { flops, ..work(product(case.size, kind(case.precision), device)?) })
            }
            Mode::Load => {
                let (run, images) = load(case, seed, share)?;
                Ok(Self { images: Some(images), ..work(run) })
            }
            Mode::Start => Ok(Self { base: Base::none(), ..work(Box::new(start)) }),
            Mode::Pair | Mode::Apart => Networked::new(case, device, seed)?.beside(case, seed, share),
            Mode::Fed | Mode::FedMemory => Networked::new(case, device, seed)?.fed(case, seed),
            _ => Networked::new(case, device, seed)?.work(case, share),
        }
    }

    /// The peak of resident memory in MiB since all was ready for the first run, whose logits are compared: above what there was
    /// then, and of the whole process. Linux only.
    pub fn peak(&self) -> Option<[f64; 2]> {
        self.base.peak()
    }

    /// Does it once, and waits until it is done.
    pub fn run(&mut self) -> Result<(), BenchError> {
        self.run_times(1)
    }

    /// Does it so often, one after the other, and waits until all is done.
    pub fn run_times(&mut self, times: usize) -> Result<(), BenchError> {
        (0..times).try_for_each(|_| (self.run)())?;
        if let Device::Cuda(card) = self.device {
            Cuda::synchronize(i64::try_from(card).unwrap_or(0));
        }
        Ok(())
    }
}

fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::Bfloat16 => Kind::BFloat16,
        Precision::Float16 => Kind::Half,
        Precision::Int8 => Kind::Int8,
        _ => Kind::Float,
    }
}

/// A network with its inputs.
struct Networked {
    model: Model,
    network: Network,
    images: Tensor,
    labels: Tensor,
}

impl Networked {
    fn new(case: &Case, device: Device, seed: u64) -> Result<Self, BenchError> {
        let variant = find(&case.model)?;
        let channels = variant.model(&[])?.input()[0];
        let model = variant.model(&[("input", serde_json::json!([channels, case.size, case.size]))])?;
        let options = InitOptions { devices: vec![device], seed, ..InitOptions::default() };
        let mut network = Network::new(model.graph()?, &options)?;
        network.set_memory_format(case.memory_format.into())?;
        redraw(&network, seed)?;
        let mut images = Tensor::f_zeros([case.batch, channels, case.size, case.size], (Kind::Float, Device::Cpu))?;
        let mut generator = Generator::new(derive_seed(seed, &[INPUT_SEEDS]));
        generator.normal(&mut images, 0.0, 1.0)?;
        let classes = model.classes().max(1);
        let labels = Tensor::f_arange(case.batch, (Kind::Int64, device))?.f_remainder(classes)?;
        Ok(Self { model, network, images: images.f_to_device(device)?, labels })
    }

    fn work(self, case: &Case, share: Option<&Path>) -> Result<Work, BenchError> {
        let device = self.network.device();
        let images = to_memory_format(&self.images, case.memory_format.into())?;
        let expected = match case.mode {
            Mode::Infer | Mode::Plan | Mode::Train => Some(logits(&self.network, &self.images)?),
            _ => None,
        };
        if let (Some(path), Some(expected)) = (share, &expected) {
            self.share(path, expected)?;
        }
        let macs = self.network.graph().summary().macs.saturating_mul(case.batch.unsigned_abs());
        let flops = macs.saturating_mul(2);
        let passes = if case.mode == Mode::Train { TRAINING_PASSES } else { 1 };
        let mut work = Work { run: Box::new(|| Ok(())), device, base: Base::now(), images: None, flops: None, distance: None };
        if expected.is_some() {
            (work.images, work.flops) = (Some(case.batch.unsigned_abs()), Some(passes * flops));
        }
        let distance = |got: &Tensor| -> Result<Option<f64>, BenchError> {
            let Some(expected) = &expected else { return Ok(None) };
            let furthest = |tensor: Tensor| -> Result<f64, BenchError> { Ok(tensor.f_abs()?.f_max()?.f_double_value(&[])?) };
            Ok(Some(furthest(got.f_to_kind(Kind::Float)?.f_sub(expected)?)? / furthest(expected.shallow_clone())?))
        };
        match case.mode {
            Mode::Infer => {
                let Self { mut network, .. } = self;
                let images = images.f_to_kind(kind(case.precision))?;
                if case.precision == Precision::Bfloat16 {
                    network = in_bf16(network, case.memory_format)?;
                }
                work.base = Base::fresh();
                work.distance = distance(&logits(&network, &images)?)?;
                work.run = Box::new(move || logits(&network, &images).map(drop));
            }
            Mode::Plan => {
                let plan = match case.precision {
                    Precision::Int8 => Plan::calibrated(&self.network, std::slice::from_ref(&images))?,
                    _ => Plan::new(&self.network, &plan_options(case))?,
                };
                drop(self.network);
                // On a GPU, the third call measures and records.
                for _ in 0..if device.is_cuda() { 3 } else { 0 } {
                    plan.forward(&images)?;
                }
                work.base = Base::fresh();
                work.distance = distance(plan.forward(&images)?.logits())?;
                work.run = Box::new(move || {
                    let _no_grad = no_grad();
                    plan.forward(&images)?;
                    Ok(())
                });
            }
            Mode::Planning => {
                let (options, network) = (plan_options(case), self.network);
                work.run = Box::new(move || {
                    Plan::new(&network, &options)?;
                    Ok(())
                });
            }
            Mode::Train => {
                let labels = self.labels.shallow_clone();
                let mut step = self.step(case)?;
                if has_graphs() {
                    step = step.recorded()?;
                }
                // On a GPU, the first compiles kernels and chooses algorithms, and the fourth is recorded.
                for _ in 0..if device.is_cuda() { 5 } else { 0 } {
                    step.run(&images, &labels, LR)?;
                }
                work.base = Base::fresh();
                work.run = Box::new(move || {
                    step.run(&images, &labels, LR)?;
                    Ok(())
                });
            }
            Mode::Optimizer => {
                let mut optimizer = self.optimizer_with_gradients()?;
                work.run = Box::new(move || Ok(optimizer.step(LR)?));
            }
            Mode::Checkpoint => {
                let optimizer = self.optimizer_with_gradients()?;
                let folder = tempfile::tempdir().map_err(BenchError::io("make a temporary folder"))?;
                let info = BundleInfo::new(self.network.graph().clone(), &[], None);
                work.run = Box::new(move || {
                    let (model, optimizer) = (self.network.state(), optimizer.state());
                    let checkpoint =
                        Checkpoint { model, optimizer, hooks: Default::default(), progress: progress(), recipe: None };
                    Ok(checkpoint.write(&info, &folder.path().join("checkpoint.safetensors"))?)
                });
            }
            Mode::Product | Mode::Load | Mode::Start | Mode::Pair | Mode::Apart | Mode::Fed | Mode::FedMemory => {}
        }
        Ok(work)
    }

    /// A training step.
    fn step(self, case: &Case) -> Result<Step<Network>, BenchError> {
        let optimizer = self.optimizer()?;
        let Self { model, mut network, .. } = self;
        network.set_kernels(Kernels::Fast);
        if network.device().is_cuda() {
            striate_torch::fast_cuda();
        }
        network.set_autocast((case.precision == Precision::Bfloat16).then_some(Kind::BFloat16));
        let objective = Objective::new(model.loss(), model.aux_weight());
        Ok(Step::new(network, objective, optimizer, StepOptions::default())?)
    }

    /// An epoch of training steps on pictures from the loader.
    fn fed(self, case: &Case, seed: u64) -> Result<Work, BenchError> {
        let pictures = Pictures::open(case, seed, None)?;
        let (images, macs) = (pictures.count(), self.network.graph().summary().macs);
        let mut step = self.step(case)?;
        let layout = case.memory_format.into();
        let run: Run = Box::new(move || {
            pictures.epoch(&mut |batch| {
                let images = to_memory_format(&batch.images, layout)?;
                step.run(&images, batch.targets(), LR)?;
                Ok(())
            })
        });
        let flops = Some(TRAINING_PASSES * 2 * macs.saturating_mul(images));
        Ok(Work { run, device: Device::Cpu, base: Base::fresh(), images: Some(images), flops, distance: None })
    }

    /// A training step beside that of another process.
    fn beside(self, case: &Case, seed: u64, share: Option<&Path>) -> Result<Work, BenchError> {
        let images = to_memory_format(&self.images, case.memory_format.into())?;
        let expected = logits(&self.network, &self.images)?;
        if let Some(path) = share {
            self.share(path, &expected)?;
        }
        let macs = self.network.graph().summary().macs.saturating_mul(2 * case.batch.unsigned_abs());
        let optimizer = self.optimizer()?;
        let Self { model, mut network, labels, .. } = self;
        network.set_kernels(Kernels::Fast);
        let (mut partner, place) = Partner::meet(case, seed)?;
        let world = World::join(place, WorldOptions { timeout: PATIENCE, ..WorldOptions::default() })?;
        let objective = Objective::new(model.loss(), model.aux_weight());
        let step = Step::new(network, objective, optimizer, StepOptions::default())?;
        let mut step = if case.mode == Mode::Pair { step.distributed(&world)? } else { step };
        world.meet()?;
        partner.end()?;
        let run: Run = Box::new(move || {
            // As long as the work.
            let _world = &world;
            partner.begin()?;
            step.run(&images, &labels, LR)?;
            partner.end()
        });
        let (images, flops) = (Some(2 * case.batch.unsigned_abs()), Some(TRAINING_PASSES * 2 * macs));
        Ok(Work { run, device: Device::Cpu, base: Base::fresh(), images, flops, distance: None })
    }

    fn optimizer(&self) -> Result<Optimizer, BenchError> {
        Ok(Optimizer::new(OptimizerConfig::default(), self.network.trainable())?)
    }

    fn optimizer_with_gradients(&self) -> Result<Optimizer, BenchError> {
        let sums: Result<Vec<Tensor>, _> = self.network.trainable().iter().map(|(_, param)| param.f_sum(Kind::Float)).collect();
        Tensor::f_stack(&sums?, 0)?.f_sum(Kind::Float)?.f_backward()?;
        self.optimizer()
    }

    /// Writes what others need to do the same work, contiguous.
    fn share(&self, path: &Path, logits: &Tensor) -> Result<(), BenchError> {
        let mut tensors = self.network.state();
        let own = [(IMAGES, &self.images), (LABELS, &self.labels), (LOGITS, logits)];
        tensors.extend(own.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())));
        Ok(TensorFile { tensors, metadata: BTreeMap::new() }.write(path)?)
    }
}

/// Gives weights He's size whatever a network starts from: logits have to depend on the images, or comparing them shows nothing, and
/// GoogLeNet's own first weights leave a 1e-10th of its input before the last layer.
fn redraw(network: &Network, seed: u64) -> Result<(), BenchError> {
    let mut generator = Generator::new(derive_seed(seed, &[WEIGHT_SEEDS]));
    let _no_grad = no_grad();
    for (_, mut param) in network.trainable() {
        let size = param.size();
        if let [_, rest @ ..] = &size[..]
            && !rest.is_empty()
        {
            let mut weights = Tensor::f_zeros(&size, (Kind::Float, Device::Cpu))?;
            let fan_in = rest.iter().product::<i64>().max(1) as f64;
            generator.normal(&mut weights, 0.0, (2.0 / fan_in).sqrt())?;
            param.f_copy_(&weights)?;
        }
    }
    Ok(())
}

fn logits(network: &Network, images: &Tensor) -> Result<Tensor, BenchError> {
    let _no_grad = no_grad();
    Ok(network.forward(images, Pass::Eval)?.logits().shallow_clone())
}

/// The same network with its parameters in bfloat16.
fn in_bf16(network: Network, layout: Layout) -> Result<Network, BenchError> {
    let options = InitOptions { devices: vec![network.device()], kind: Kind::BFloat16, ..InitOptions::default() };
    let mut half = Network::new(network.graph().clone(), &options)?;
    half.load_state(&network.state())?;
    half.set_memory_format(layout.into())?;
    Ok(half)
}

fn plan_options(case: &Case) -> PlanOptions {
    PlanOptions { precision: case.precision, ..PlanOptions::default() }
}

/// That of a run which has not begun.
fn progress() -> Progress {
    Progress { steps_per_epoch: 1, ..Progress::default() }
}

/// A start of the `striate` program that lies beside this one.
fn start() -> Result<(), BenchError> {
    let program = std::env::current_exe().map_err(BenchError::io("find this program"))?.with_file_name("striate");
    let ran = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
    match ran.map_err(BenchError::io(format!("run {} (`cargo build --release` makes it)", program.display())))? {
        status if status.success() => Ok(()),
        status => Err(BenchError::Failed(format!("{} ended with {status}", program.display()))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_runs_and_computes_what_the_network_does() {
        for (id, tolerance) in [
            ("resnet-tiny/infer/b2/32/fp32/contiguous/t1/cpu", Some(1e-4)),
            ("resnet-tiny/infer/b1/32/bf16/channels-last/t1/cpu", Some(0.1)),
            ("googlenet-tiny/plan/b2/64/fp32/channels-last/t1/cpu", Some(1e-4)),
            ("resnet-tiny/plan/b1/40/bf16/channels-last/t1/cpu", Some(0.1)),
            ("lenet5/train/b2/32/fp32/channels-last/t1/cpu", None),
            ("googlenet-tiny/train/b2/64/fp32/contiguous/t1/cpu", None),
            ("lenet5/optimizer/b1/32/fp32/channels-last/t1/cpu", None),
            ("lenet5/planning/b1/32/fp32/channels-last/t1/cpu", None),
            ("lenet5/checkpoint/b1/32/fp32/channels-last/t1/cpu", None),
            ("matmul/product/b1/16/bf16/contiguous/t1/cpu", None),
            ("loader-crop-flip/load/b4096/8/fp32/channels-last/t1/cpu", None),
            ("loader-jpeg/load/b1/32/fp32/channels-last/t2/cpu", None),
            ("loader-decode/load/b1/32/fp32/channels-last/t2/cpu", None),
            ("resnet-tiny/fed/b2/32/fp32/channels-last/t2/cpu", None),
            ("resnet-tiny/fed-memory/b2/32/bf16/channels-last/t1/cpu", None),
        ] {
            let mut work = Work::prepare(&id.parse().unwrap(), 3, None).unwrap();
            assert_eq!(work.distance.is_some(), tolerance.is_some(), "{id}");
            assert!(work.distance.unwrap_or(0.0) <= tolerance.unwrap_or(0.0), "{id}: {:?}", work.distance);
            work.run().unwrap();
            work.run().unwrap();
        }
    }

    #[test]
    fn a_plan_in_int8_runs_where_the_processor_has_it() {
        if !striate_torch::int8::available() {
            println!("skipped: no AVX-512 VNNI or AVX-VNNI");
            return;
        }
        let mut work = Work::prepare(&"resnet-tiny/plan/b2/40/int8/channels-last/t1/cpu".parse().unwrap(), 3, None).unwrap();
        assert!((1e-4..0.2).contains(&work.distance.unwrap()), "{:?}", work.distance);
        work.run().unwrap();
    }

    #[test]
    fn logits_tell_images_apart_in_every_family_of_the_default_set() {
        for model in ["lenet5", "resnet20-cifar", "googlenet", "resnet18"] {
            let case = Case { size: if model == "lenet5" { 32 } else { 64 }, ..Case::of(model, Mode::Infer, 2, 1) };
            let networked = Networked::new(&case, Device::Cpu, 5).unwrap();
            let logits = logits(&networked.network, &networked.images).unwrap();
            let apart = (logits.get(0) - logits.get(1)).abs().max().double_value(&[]) / logits.abs().max().double_value(&[]);
            // Five times what logits may differ by.
            assert!(apart > 5e-3, "{model}: {apart}");
        }
    }

    #[test]
    fn operations_are_two_for_each_multiply_add_and_three_times_as_many_in_training() {
        let flops = |mode: &str| {
            let id = format!("lenet5/{mode}/b2/32/fp32/channels-last/t1/cpu");
            Work::prepare(&id.parse().unwrap(), 0, None).unwrap().flops
        };
        assert_eq!(flops("plan"), Some(2 * 2 * 416_520));
        assert_eq!(flops("train"), Some(3 * 2 * 2 * 416_520));
    }

    #[test]
    fn a_size_that_a_network_cannot_take_is_refused() {
        let case: Case = "alexnet/plan/b1/16/fp32/channels-last/t1/cpu".parse().unwrap();
        let error = Work::prepare(&case, 0, None).err().unwrap().to_string();
        assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    }
}
