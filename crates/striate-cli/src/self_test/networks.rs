//! Networks and their plans against the network in float64 on the CPU.
use super::compare::{apart, normal};
use super::{Check, Found, Part};
use crate::error::CliError;
use striate_graph::{InitOptions, Kernels, Network};
use striate_infer::{Plan, PlanError, PlanOptions};
use striate_layers::Mode;
use striate_models::{Model, find};
use striate_torch::{Generator, MemoryFormat, Precision, TorchError, no_grad, to_memory_format};
use striate_train::Objective;
use tch::{Device, Kind, Tensor};

/// One of each family.
const MODELS: [&str; 6] = ["lenet5", "resnet20-cifar", "resnet-tiny", "googlenet-tiny", "vgg-tiny", "nin-tiny"];
const BATCH: i64 = 2;

/// Ways to compute a network.
#[derive(Clone, Copy)]
enum Way {
    /// The network in this type.
    Network(Kind),
    /// Its plan.
    Plan(Precision),
    /// The gradients of its parameters, by the kernels that training uses, in a half type if there is one.
    Gradients(Option<Kind>),
}

/// What each may differ by from float64.
const WAYS: [(Way, &str, f64); 8] = [
    (Way::Network(Kind::Double), "in float64", 1e-10),
    (Way::Network(Kind::Float), "in float32", 1e-4),
    (Way::Plan(Precision::Float32), "plan in float32", 1e-4),
    (Way::Plan(Precision::Bfloat16), "plan in bfloat16", 0.05),
    (Way::Plan(Precision::Float16), "plan in float16", 0.01),
    (Way::Plan(Precision::Int8), "plan in int8", 0.2),
    (Way::Gradients(None), "gradients in float32", 1e-4),
    (Way::Gradients(Some(Kind::BFloat16)), "gradients in bfloat16", 0.3),
];

pub(super) fn checks(device: Device) -> Vec<Check> {
    let mut checks = Vec::new();
    for model in MODELS {
        for (way, how, bound) in WAYS {
            if matches!(way, Way::Network(Kind::Double)) && device == Device::Cpu {
                continue; // it is what the others are compared with
            }
            checks.push(Check::new((Part::Parity, device), format!("{model} {how}"), bound, move || check(model, way, device)));
        }
    }
    checks
}

fn check(name: &str, way: Way, device: Device) -> Result<Found, CliError> {
    let model = find(name)?.model(&[])?;
    let exact = network(&model, Device::Cpu, Kind::Double)?;
    let images = normal(&[&[BATCH], &model.input()[..]].concat(), 7)?;
    let place =
        |kind| Ok::<_, CliError>(to_memory_format(&images.f_to_kind(kind)?.f_to_device(device)?, MemoryFormat::ChannelsLast)?);
    let (got, expected) = match way {
        Way::Network(kind) => {
            let network = network(&model, device, kind)?;
            (vec![logits(&network, &place(kind)?)?], vec![logits(&exact, &images)?])
        }
        Way::Plan(precision) => {
            let network = network(&model, device, Kind::Float)?;
            let images = place(Kind::Float)?;
            let plan = match precision {
                Precision::Int8 => Plan::calibrated(&network, std::slice::from_ref(&images)),
                _ => Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() }),
            };
            let plan = match plan {
                Ok(plan) => plan,
                Err(PlanError::NoInt8) => return Ok(Found::Skipped("int8 takes a CPU with VNNI")),
                Err(PlanError::NoFloat16) => return Ok(Found::Skipped("plans have no float16 here")),
                Err(error) => return Err(striate::Error::from(error).into()),
            };
            (vec![plan.forward(&images)?.logits().shallow_clone()], vec![logits(&exact, &self::place(&images)?)?])
        }
        Way::Gradients(half) => {
            let mut network = network(&model, device, Kind::Float)?;
            network.set_kernels(Kernels::Fast);
            network.set_autocast(half);
            (gradients(&network, &model, &place(Kind::Float)?)?, gradients(&exact, &model, &images)?)
        }
    };
    match way {
        Way::Gradients(_) => Ok(Found::Apart(apart_together(&got, &expected)?)),
        _ => Ok(Found::Apart(apart(got.iter().zip(&expected))?)),
    }
}

/// The length of the difference as a share of the expected length, of all tensors as one vector: some gradients are all but nothing, and
/// rounding moves single ones from one place of a pooling window to another.
fn apart_together(got: &[Tensor], expected: &[Tensor]) -> Result<f64, TorchError> {
    let [got, expected] = [got, expected].map(|tensors| {
        let flat = |tensor: &Tensor| tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_flatten(0, -1);
        Tensor::f_cat(&tensors.iter().map(flat).collect::<Result<Vec<_>, _>>()?, 0)
    });
    let (got, expected) = (got?, expected?);
    Ok(got.f_sub(&expected)?.f_norm()?.f_double_value(&[])? / expected.f_norm()?.f_double_value(&[])?)
}

/// The images as the network in float64 takes them.
fn place(images: &Tensor) -> Result<Tensor, CliError> {
    Ok(images.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)
}

/// A network whose weights have He's size, so that logits depend on the images: the same on every device and in every type.
pub(super) fn network(model: &Model, device: Device, kind: Kind) -> Result<Network, CliError> {
    let drawn = drawn(model)?;
    let mut network = Network::new(drawn.graph().clone(), &InitOptions { devices: vec![device], kind, seed: 0 })?;
    network.load_state(&drawn.state())?;
    network.set_memory_format(MemoryFormat::ChannelsLast)?;
    Ok(network)
}

fn drawn(model: &Model) -> Result<Network, CliError> {
    let network = Network::new(model.graph()?, &InitOptions::default())?;
    let _no_grad = no_grad();
    let mut generator = Generator::new(2);
    for (_, mut param) in network.trainable() {
        let size = param.size();
        if let [_, rest @ ..] = &size[..]
            && !rest.is_empty()
        {
            let mut weights = Tensor::f_zeros(&size, (Kind::Float, Device::Cpu))?;
            generator.normal(&mut weights, 0.0, (2.0 / rest.iter().product::<i64>().max(1) as f64).sqrt())?;
            param.f_copy_(&weights)?;
        }
    }
    Ok(network)
}

fn logits(network: &Network, images: &Tensor) -> Result<Tensor, CliError> {
    let _no_grad = no_grad();
    Ok(network.forward(images, Mode::Eval)?.logits().shallow_clone())
}

/// The gradients of all parameters for a batch, by the network's loss. Layers compute as in evaluation, since a batch of random images has
/// other dropout on another device.
fn gradients(network: &Network, model: &Model, images: &Tensor) -> Result<Vec<Tensor>, CliError> {
    let targets = Tensor::f_arange(BATCH, (Kind::Int64, network.device()))?.f_remainder(model.classes().max(1))?;
    let outputs = network.forward(images, Mode::Eval)?;
    Objective::new(model.loss(), model.aux_weight()).compute(&outputs, images, &targets)?.f_backward()?;
    let grads = network.trainable().into_iter().map(|(_, param)| param.f_grad());
    Ok(grads.collect::<Result<Vec<_>, _>>()?.into_iter().filter(Tensor::defined).collect())
}
