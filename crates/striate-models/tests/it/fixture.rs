//! What `tests/parity/make_fixtures.py` wrote, and the weights and inputs that it and this side derive from names.
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::{InitOptions, Network};
use striate_models::{Model, find};
use striate_torch::TensorFile;
use tch::{Kind, Tensor};

/// The hashed values repeat after this many: a prime, so that rows of a weight don't repeat.
const PERIOD: usize = 65_521;

/// The 64-bit FNV-1a hash of a name.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// The output of splitmix64 for a state.
fn splitmix64(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Float64 values in [-1, 1) that follow from a name.
pub(crate) fn values(name: &str, shape: &[i64]) -> Tensor {
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let seed = fnv1a(name);
    let value = |index: usize| {
        let state = seed.wrapping_add((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        2.0 * ((splitmix64(state) >> 11) as f64 / 2.0_f64.powi(53)) - 1.0
    };
    let period: Vec<f64> = (1..=count.min(PERIOD)).map(value).collect();
    let repeats = count.div_ceil(PERIOD) as i64;
    Tensor::from_slice(&period).repeat([repeats]).narrow(0, 0, count as i64).reshape(shape)
}

/// The value of a parameter, as `weight` in the script.
fn weight(name: &str, tensor: &Tensor) -> Tensor {
    let shape = tensor.size();
    if name.ends_with("num_batches_tracked") {
        return tensor.zeros_like();
    }
    let x = values(name, &shape);
    if shape.len() > 1 {
        return x * (6.0 / shape[1..].iter().product::<i64>() as f64).sqrt();
    }
    if name.ends_with("running_var") || name.ends_with(".weight") { 1.0 + 0.5 * x } else { 0.1 * x }
}

/// One network of torchvision's and what it computes.
pub(crate) struct Fixture {
    pub(crate) model: Model,
    /// The sorted names of its parameters and buffers.
    pub(crate) names: Vec<String>,
    /// What it computes, by name.
    pub(crate) expected: BTreeMap<String, Tensor>,
}

impl Fixture {
    pub(crate) fn read(path: &Path) -> Self {
        let TensorFile { tensors, metadata } = TensorFile::read(path).unwrap();
        let variant = find(&metadata["variant"]).unwrap();
        let options: BTreeMap<String, serde_json::Value> = serde_json::from_str(&metadata["options"]).unwrap();
        let mut options: Vec<(&str, serde_json::Value)> = options.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let defaults = variant.model(&[]).unwrap().config();
        let dropout = defaults.keys().map(String::as_str).filter(|option| option.ends_with("dropout"));
        options.extend(dropout.map(|option| (option, 0.0.into())));
        let model = variant.model(&options).unwrap();
        Self { model, names: serde_json::from_str(&metadata["names"]).unwrap(), expected: tensors }
    }

    /// The network with the weights that follow from its parameters' names.
    pub(crate) fn network(&self, kind: Kind) -> Network {
        let options = InitOptions { kind, ..InitOptions::default() };
        let network = Network::new(self.model.graph().unwrap(), &options).unwrap();
        tch::no_grad(|| {
            for param in network.parameters() {
                param.tensor.shallow_clone().copy_(&weight(&param.name, &param.tensor));
            }
        });
        network
    }

    /// Two images.
    pub(crate) fn images(&self) -> Tensor {
        let [channels, height, width] = self.model.input();
        values("input", &[2, channels, height, width])
    }
}

/// For each tensor its norm and its product with values of its name, which tells its order: `[tensors, 2]`.
pub(crate) fn measure(tensors: &BTreeMap<String, Tensor>) -> Tensor {
    let measures = tensors.iter().flat_map(|(name, tensor)| {
        let probe = values(&format!("probe.{name}"), &tensor.size());
        [tensor.norm(), (tensor * probe).sum(Kind::Double)].map(|value| value.double_value(&[]))
    });
    Tensor::from_slice(&measures.collect::<Vec<f64>>()).view([-1, 2])
}
