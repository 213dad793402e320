//! burn on Flex, its CPU backend, as its users run it: networks of burn-nn's modules, and its SGD with momentum.

use burn::module::{Module, Param, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, PaddingConfig2d, Relu};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use serde_json::json;
use striate_peer::{Array, LR, Layer, MOMENTUM, Outcome, Ready, Request, Shared, network, resident_before, serve};

fn main() -> Outcome<()> {
    serve(json!({"burn": "0.22.1"}), prepare)
}

fn prepare(request: &Request) -> Outcome<Ready> {
    let layers =
        network(&request.model).ok_or_else(|| format!("nobody has written {} with burn's layers here", request.model))?;
    let shared = Shared::read(&request.shared)?;
    let device = if request.trains { Device::flex().autodiff() } else { Device::flex() };
    let net = Net::new(&layers, &shared, &device)?;
    let images = tensor::<4>(&shared.images, &device);
    let labels = Tensor::<1, Int>::from_data(TensorData::from(&shared.labels[..]), &device);
    let shared = Shared { weights: Default::default(), ..shared };
    let base = resident_before();
    let logits = net.valid().forward(images.clone().inner(), &mut Vec::new());
    let distance = shared.distance(&logits.into_data().try_to_vec().map_err(|error| format!("{error:?}"))?);
    if !request.trains {
        let run = move || {
            net.forward(images.clone(), &mut Vec::new());
            Ok(device.sync()?)
        };
        return Ok(Ready { run: Box::new(run), distance, base });
    }
    let momentum = MomentumConfig::new().with_momentum(MOMENTUM).with_dampening(0.0);
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let (mut net, aux_weight) = (Some(net), request.aux_weight);
    let run = move || {
        let current = net.take().ok_or("the last step failed")?;
        let mut aux = Vec::new();
        let mut loss = cross_entropy.forward(current.forward(images.clone(), &mut aux), labels.clone());
        for logits in aux {
            loss = loss + cross_entropy.forward(logits, labels.clone()) * aux_weight;
        }
        let grads = GradientsParams::from_grads(loss.backward(), &current);
        net = Some(optimizer.step(LR, current, grads));
        Ok(device.sync()?)
    };
    Ok(Ready { run: Box::new(run), distance, base })
}

fn tensor<const N: usize>(array: &Array, device: &Device) -> Tensor<N> {
    Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
}

/// Layers of maps, then layers of vectors, if there are any.
#[derive(Module, Debug)]
struct Net {
    maps: Vec<OfMaps>,
    vectors: Vec<OfVectors>,
}

#[derive(Module, Debug)]
enum OfMaps {
    Conv(Conv2d),
    BatchNorm(BatchNorm),
    Relu(Relu),
    MaxPool(MaxPool2d),
    AvgPool(AdaptiveAvgPool2d),
    Residual(Residual),
    Branches(Branches),
    Aux(Net),
}

#[derive(Module, Debug)]
enum OfVectors {
    Linear(Linear),
    Relu(Relu),
    Dropout(Dropout),
}

#[derive(Module, Debug)]
struct Residual {
    body: Vec<OfMaps>,
    shortcut: Vec<OfMaps>,
    /// Whether the shortcut takes every second pixel, with as many channels of zeros after its own.
    pads: bool,
    relu: Relu,
}

#[derive(Module, Debug)]
struct Branches {
    branches: Vec<Net>,
}

impl Net {
    fn new(layers: &[Layer], shared: &Shared, device: &Device) -> Outcome<Self> {
        let flatten = layers.iter().position(|layer| matches!(layer, Layer::Flatten)).unwrap_or(layers.len());
        let maps = layers[..flatten].iter().map(|layer| OfMaps::new(layer, shared, device)).collect::<Outcome<_>>()?;
        let vectors = layers.iter().skip(flatten + 1).map(|layer| OfVectors::new(layer, shared, device));
        Ok(Self { maps, vectors: vectors.collect::<Outcome<_>>()? })
    }

    fn forward(&self, x: Tensor<4>, aux: &mut Vec<Tensor<2>>) -> Tensor<2> {
        let x = through(&self.maps, x, aux).flatten(1, 3);
        self.vectors.iter().fold(x, |x, layer| layer.forward(x))
    }
}

fn through(layers: &[OfMaps], x: Tensor<4>, aux: &mut Vec<Tensor<2>>) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| layer.forward(x, aux))
}

/// The weight of this name, trained where the device does.
fn weight<const N: usize>(shared: &Shared, name: &str, what: &str, device: &Device) -> Outcome<Param<Tensor<N>>> {
    Ok(Param::from_tensor(tensor(shared.weight(&format!("{name}.{what}"))?, device)))
}

impl OfMaps {
    fn new(layer: &Layer, shared: &Shared, device: &Device) -> Outcome<Self> {
        let list = |layers: &[Layer]| layers.iter().map(|layer| Self::new(layer, shared, device)).collect::<Outcome<Vec<_>>>();
        Ok(match layer {
            Layer::Conv { name, stride, padding } => {
                let shape = &shared.weight(&format!("{name}.weight"))?.shape;
                let &[out_channels, in_channels, height, width] = &shape[..] else { return Err("a kernel has four axes".into()) };
                let bias = shared.weights.contains_key(&format!("{name}.bias"));
                let conv = Conv2dConfig::new([in_channels, out_channels], [height, width]).with_stride([*stride; 2]);
                let conv = conv.with_padding(padded(*padding)).with_bias(bias).init(device);
                let bias = if bias { Some(weight(shared, name, "bias", device)?) } else { None };
                Self::Conv(Conv2d { weight: weight(shared, name, "weight", device)?, bias, ..conv })
            }
            Layer::BatchNorm { name, eps } => {
                let buffer =
                    |what: &str| Outcome::Ok(RunningState::new(tensor(shared.weight(&format!("{name}.{what}"))?, device)));
                let (gamma, beta) = (weight(shared, name, "weight", device)?, weight(shared, name, "bias", device)?);
                let norm = BatchNormConfig::new(gamma.shape().num_elements()).with_epsilon(*eps).init(device);
                let (running_mean, running_var) = (buffer("running_mean")?, buffer("running_var")?);
                Self::BatchNorm(BatchNorm { gamma, beta, running_mean, running_var, ..norm })
            }
            Layer::Relu => Self::Relu(Relu::new()),
            Layer::MaxPool { kernel, stride, padding, ceil } => {
                let pool = MaxPool2dConfig::new([*kernel; 2]).with_strides([*stride; 2]).with_padding(padded(*padding));
                Self::MaxPool(pool.with_ceil_mode(*ceil).init())
            }
            Layer::AvgPool(size) => Self::AvgPool(AdaptiveAvgPool2dConfig::new([*size; 2]).init()),
            Layer::Residual { body, shortcut } => {
                let pads = matches!(shortcut[..], [Layer::PadShortcut]);
                let shortcut = if pads { Vec::new() } else { list(shortcut)? };
                Self::Residual(Residual { body: list(body)?, shortcut, pads, relu: Relu::new() })
            }
            Layer::Branches(branches) => {
                let branches = branches.iter().map(|branch| Net::new(branch, shared, device)).collect::<Outcome<_>>()?;
                Self::Branches(Branches { branches })
            }
            Layer::Aux(head) => Self::Aux(Net::new(head, shared, device)?),
            Layer::Linear { .. } | Layer::Flatten | Layer::Dropout(_) | Layer::PadShortcut => {
                return Err("a layer of vectors stands before the flattening".into());
            }
        })
    }

    fn forward(&self, x: Tensor<4>, aux: &mut Vec<Tensor<2>>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::BatchNorm(norm) => norm.forward(x),
            Self::Relu(relu) => relu.forward(x),
            Self::MaxPool(pool) => pool.forward(x),
            Self::AvgPool(pool) => pool.forward(x),
            Self::Residual(Residual { body, shortcut, pads, relu }) => {
                let y = through(body, x.clone(), aux);
                let mut past = through(shortcut, x, aux);
                if *pads {
                    let [_, channels, _, _] = past.dims();
                    past = past.slice(s![.., .., ..;2, ..;2]).pad([(0, channels), (0, 0), (0, 0)], PadMode::Constant(0.0));
                }
                relu.forward(y + past)
            }
            Self::Branches(Branches { branches }) => {
                Tensor::cat(branches.iter().map(|branch| through(&branch.maps, x.clone(), aux)).collect(), 1)
            }
            Self::Aux(head) => {
                if x.is_autodiff() {
                    let logits = head.forward(x.clone(), &mut Vec::new());
                    aux.push(logits);
                }
                x
            }
        }
    }
}

impl OfVectors {
    fn new(layer: &Layer, shared: &Shared, device: &Device) -> Outcome<Self> {
        Ok(match layer {
            Layer::Linear { name } => {
                // burn has features in, features out.
                let theirs: Tensor<2> = tensor(shared.weight(&format!("{name}.weight"))?, device);
                let weight_of = Param::from_tensor(Tensor::from_data(theirs.transpose().into_data(), device));
                Self::Linear(Linear { weight: weight_of, bias: Some(weight(shared, name, "bias", device)?) })
            }
            Layer::Relu => Self::Relu(Relu::new()),
            Layer::Dropout(share) => Self::Dropout(DropoutConfig::new(*share).init()),
            _ => return Err("a layer of maps stands after the flattening".into()),
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Relu(relu) => relu.forward(x),
            Self::Dropout(dropout) => dropout.forward(x),
        }
    }
}

fn padded(padding: usize) -> PaddingConfig2d {
    PaddingConfig2d::Explicit(padding, padding, padding, padding)
}
