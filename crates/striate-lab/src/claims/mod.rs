//! One file a claim.
mod aux_heads;
mod bottleneck;
mod degradation;
mod gap;
mod gradient_norms;
mod identity;
mod inception;
mod layer_responses;
mod loss_surface;
mod lrn_overlap;
mod one_by_one;
mod parameters;
mod pooling_order;
mod pre_activation;
mod relu;
mod shapes;
mod shortcuts;
mod towers;
mod two_3x3;

use crate::{Claim, Lab, LabError};
use striate_graph::{Graph, InitOptions, Network};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor};

/// All claims, chapter by chapter: the classic networks, residual networks, 1x1 convolutions and Inception.
pub(crate) const CLAIMS: &[Claim] = &[
    shapes::CLAIM,
    parameters::CLAIM,
    pooling_order::CLAIM,
    relu::CLAIM,
    towers::CLAIM,
    lrn_overlap::CLAIM,
    two_3x3::CLAIM,
    degradation::CLAIM,
    gradient_norms::CLAIM,
    identity::CLAIM,
    shortcuts::CLAIM,
    layer_responses::CLAIM,
    loss_surface::CLAIM,
    pre_activation::CLAIM,
    one_by_one::CLAIM,
    gap::CLAIM,
    inception::CLAIM,
    bottleneck::CLAIM,
    aux_heads::CLAIM,
];

/// What `measure` gives for each seed.
fn per_seed<T>(lab: &mut Lab, measure: impl FnMut(&mut Lab, u64) -> Result<T, LabError>) -> Result<Vec<T>, LabError> {
    let seeds = lab.seeds();
    lab.each(&seeds, measure)
}

/// A network with float64 parameters.
fn exact_network(graph: Graph, devices: Vec<Device>, seed: u64) -> Result<Network, LabError> {
    Ok(Network::new(graph, &InitOptions { devices, kind: Kind::Double, seed })?)
}

/// Normally distributed float64 numbers of that shape.
fn random(shape: &[i64], seed: u64) -> Result<Tensor, LabError> {
    let mut values = Tensor::f_zeros(shape, (Kind::Double, Device::Cpu))?;
    Generator::new(seed).normal(&mut values, 0.0, 1.0)?;
    Ok(values)
}

/// The largest difference between two tensors.
fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f64, LabError> {
    Ok(a.f_sub(b)?.f_abs()?.f_max()?.f_double_value(&[])?)
}
