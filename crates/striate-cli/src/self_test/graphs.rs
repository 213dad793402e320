//! Recorded work against the same work, launched step by step.
use super::compare::{apart, normal};
use super::networks::network;
use super::{Check, Found, Part};
use crate::error::CliError;
use striate_graph::Kernels;
use striate_infer::{Plan, PlanOptions};
use striate_models::find;
use striate_torch::cuda::{Switches, await_copy, copy_ahead, has_graphs, switched};
use striate_torch::{MemoryFormat, Precision, to_memory_format};
use striate_train::{Objective, Optimizer, OptimizerConfig, Step, StepOptions};
use tch::{Device, Kind, Tensor};

/// Beyond those that are run before one is recorded.
const STEPS: usize = 8;
const LR: f64 = 1e-3;

pub(super) fn checks(device: Device) -> Vec<Check> {
    let mut checks = Vec::new();
    for model in ["lenet5", "resnet20-cifar", "resnet-tiny"] {
        for (precision, half) in [("float32", None), ("bfloat16", Some(Kind::BFloat16))] {
            let run = move || recorded(model, half, device);
            let bound = if half.is_some() { 5e-2 } else { 1e-3 };
            checks.push(Check::new((Part::Graphs, device), format!("{model}, recorded steps in {precision}"), bound, run));
        }
    }
    for (precision, on_card) in [(Precision::Float32, 1e-5), (Precision::Bfloat16, 2e-2)] {
        let run = move || replanned(precision, device);
        let what = format!("a plan in {precision} for a batch again, after others");
        // On a card, its graph has other algorithms than its first call.
        let bound = if device.is_cuda() { on_card } else { 0.0 };
        checks.push(Check::new((Part::Graphs, device), what, bound, run));
    }
    checks.push(Check::new((Part::Graphs, device), "a copy on a stream of its own", 0.0, move || copied(device)));
    checks
}

/// How far the parameters are apart after the same steps.
fn recorded(name: &str, half: Option<Kind>, device: Device) -> Result<Found, CliError> {
    if !device.is_cuda() {
        return Ok(Found::Skipped("only a graphics card has graphs"));
    }
    if !has_graphs() {
        return Ok(Found::Skipped("built without CUDA's headers"));
    }
    let model = find(name)?.model(&[])?;
    let after = |record: bool| -> Result<Vec<Tensor>, CliError> {
        let mut network = network(&model, device, Kind::Float)?;
        network.set_kernels(Kernels::Fast);
        network.set_autocast(half);
        let optimizer = Optimizer::new(OptimizerConfig::default(), network.trainable())?;
        let objective = Objective::new(model.loss(), model.aux_weight());
        let mut step = Step::new(network, objective, optimizer, StepOptions::default())?;
        if record {
            step = step.recorded()?;
        }
        for number in 0..STEPS {
            let images = normal(&[&[8], &model.input()[..]].concat(), number as u64)?.f_to_kind(Kind::Float)?;
            let images = to_memory_format(&images.f_to_device(device)?, MemoryFormat::ChannelsLast)?;
            let targets = Tensor::f_arange(8, (Kind::Int64, device))?.f_remainder(model.classes().max(1))?;
            step.run(&images, &targets, LR)?;
        }
        Ok(step.network().trainable().into_iter().map(|(_, param)| param).collect())
    };
    // The last bits of TF32 grow from step to step.
    let exact = Switches { tf32: Some(false), ..Switches::default() };
    let (got, expected) = switched(exact, || Ok::<_, CliError>((after(true)?, after(false)?)))?;
    Ok(Found::Apart(apart(got.iter().zip(&expected))?))
}

/// A plan that keeps something for each shape of a batch gives the same for the same batch.
fn replanned(precision: Precision, device: Device) -> Result<Found, CliError> {
    let model = find("resnet-tiny")?.model(&[])?;
    let network = network(&model, device, Kind::Float)?;
    let plan = Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() }).map_err(striate::Error::from)?;
    let batch = |count: i64, seed| {
        let images = normal(&[&[count], &model.input()[..]].concat(), seed)?.f_to_kind(Kind::Float)?;
        Ok::<_, CliError>(to_memory_format(&images.f_to_device(device)?, MemoryFormat::ChannelsLast)?)
    };
    let (first, other, larger) = (batch(2, 1)?, batch(2, 2)?, batch(3, 3)?);
    // In another type, so that it is a copy.
    let logits = |images: &Tensor| Ok::<_, CliError>(plan.forward(images)?.logits().f_to_kind(Kind::Double)?);
    let once = logits(&first)?;
    for _ in 0..4 {
        plan.forward(&other)?;
        plan.forward(&larger)?;
    }
    Ok(Found::Apart(apart([(&logits(&first)?, &once)])?))
}

fn copied(device: Device) -> Result<Found, CliError> {
    if !device.is_cuda() {
        return Ok(Found::Skipped("only a graphics card has streams"));
    }
    let numbers = Tensor::f_arange(1 << 22, (Kind::Float, Device::Cpu))?;
    let copy = copy_ahead(&numbers, device)?;
    await_copy(&copy)?;
    Ok(Found::Apart(apart([(&copy.f_mul_scalar(2.0)?, &numbers.f_mul_scalar(2.0)?)])?))
}
