//! candle on the CPU, as its users run it: networks of candle-nn's layers, and its SGD.
//!
//! candle's SGD has no momentum, so that its training step has a little less to do than that of the others.

use candle_core::{D, Device, ModuleT, Result, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Dropout, Linear, Optimizer, SGD, loss::cross_entropy};
use serde_json::json;
use striate_peer::{Array, LR, Layer, Outcome, Ready, Request, Shared, network, resident_before, serve};

fn main() -> Outcome<()> {
    serve(json!({"candle": "0.11.1"}), prepare)
}

fn prepare(request: &Request) -> Outcome<Ready> {
    let layers =
        network(&request.model).ok_or_else(|| format!("nobody has written {} with candle's layers here", request.model))?;
    let shared = Shared::read(&request.shared)?;
    let images = tensor(&shared.images)?;
    // Without variables nothing is kept for a backward pass.
    let mut variables = request.trains.then(Vec::new);
    let net = Net::new(&layers, &shared, &mut variables)?;
    let labels: Vec<u32> = shared.labels.iter().map(|label| u32::try_from(*label)).collect::<std::result::Result<_, _>>()?;
    let labels = Tensor::new(labels, &Device::Cpu)?;
    let shared = Shared { weights: Default::default(), ..shared };
    let base = resident_before();
    let logits = net.forward(&images, false, &mut Vec::new())?;
    let distance = shared.distance(&logits.flatten_all()?.to_vec1()?);
    let Some(variables) = variables else {
        let run = move || Ok(net.forward(&images, false, &mut Vec::new()).map(drop)?);
        return Ok(Ready { run: Box::new(run), distance, base });
    };
    let aux_weight = request.aux_weight;
    let mut optimizer = SGD::new(variables, LR)?;
    let run = move || {
        let mut aux = Vec::new();
        let mut loss = cross_entropy(&net.forward(&images, true, &mut aux)?, &labels)?;
        for logits in aux {
            loss = (loss + (cross_entropy(&logits, &labels)? * aux_weight)?)?;
        }
        Ok(optimizer.backward_step(&loss)?)
    };
    Ok(Ready { run: Box::new(run), distance, base })
}

fn tensor(array: &Array) -> Result<Tensor> {
    Tensor::from_slice(&array.values, array.shape.as_slice(), &Device::Cpu)
}

/// Layers one after another.
struct Net(Vec<Built>);

enum Built {
    Conv(Conv2d),
    BatchNorm(BatchNorm),
    Linear(Linear),
    Relu,
    MaxPool { kernel: usize, stride: usize, padding: usize, ceil: bool },
    AvgPool(usize),
    Flatten,
    Dropout(Dropout),
    Residual { body: Net, shortcut: Net },
    PadShortcut,
    Branches(Vec<Net>),
    Aux(Net),
}

impl Net {
    /// With the file's weights; if there is a list of variables, each is one and goes into it.
    fn new(layers: &[Layer], shared: &Shared, variables: &mut Option<Vec<Var>>) -> Outcome<Self> {
        layers.iter().map(|layer| Built::new(layer, shared, variables)).collect::<Outcome<_>>().map(Self)
    }

    /// The output; those of auxiliary heads, in training only, go into `aux`.
    fn forward(&self, x: &Tensor, train: bool, aux: &mut Vec<Tensor>) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x, train, aux))
    }
}

impl Built {
    fn new(layer: &Layer, shared: &Shared, variables: &mut Option<Vec<Var>>) -> Outcome<Self> {
        let buffer = |name: &str, what: &str| Outcome::Ok(tensor(shared.weight(&format!("{name}.{what}"))?)?);
        let mut weight = |name: &str, what: &str| {
            let weight = buffer(name, what)?;
            let Some(variables) = variables.as_mut() else { return Outcome::Ok(weight) };
            variables.push(Var::from_tensor(&weight)?);
            Ok(variables[variables.len() - 1].as_tensor().clone())
        };
        Ok(match layer {
            Layer::Conv { name, stride, padding } => {
                let bias = shared.weights.contains_key(&format!("{name}.bias"));
                let bias = if bias { Some(weight(name, "bias")?) } else { None };
                let config = Conv2dConfig { stride: *stride, padding: *padding, ..Default::default() };
                Self::Conv(Conv2d::new(weight(name, "weight")?, bias, config))
            }
            Layer::BatchNorm { name, eps } => {
                let [mean, var] = [buffer(name, "running_mean")?, buffer(name, "running_var")?];
                let channels = mean.elem_count();
                Self::BatchNorm(BatchNorm::new(channels, mean, var, weight(name, "weight")?, weight(name, "bias")?, *eps)?)
            }
            Layer::Linear { name } => Self::Linear(Linear::new(weight(name, "weight")?, Some(weight(name, "bias")?))),
            Layer::Relu => Self::Relu,
            Layer::MaxPool { kernel, stride, padding, ceil } => {
                Self::MaxPool { kernel: *kernel, stride: *stride, padding: *padding, ceil: *ceil }
            }
            Layer::AvgPool(size) => Self::AvgPool(*size),
            Layer::Flatten => Self::Flatten,
            Layer::Dropout(share) => Self::Dropout(Dropout::new(*share as f32)),
            Layer::Residual { body, shortcut } => {
                Self::Residual { body: Net::new(body, shared, variables)?, shortcut: Net::new(shortcut, shared, variables)? }
            }
            Layer::PadShortcut => Self::PadShortcut,
            Layer::Branches(branches) => {
                Self::Branches(branches.iter().map(|branch| Net::new(branch, shared, variables)).collect::<Outcome<_>>()?)
            }
            Layer::Aux(head) => Self::Aux(Net::new(head, shared, variables)?),
        })
    }

    fn forward(&self, x: &Tensor, train: bool, aux: &mut Vec<Tensor>) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => x.apply(conv),
            Self::BatchNorm(norm) => norm.forward_t(x, train),
            Self::Linear(linear) => x.apply(linear),
            Self::Relu => x.relu(),
            Self::MaxPool { kernel, stride, padding, ceil } => {
                // candle pads nothing itself; zeros are no larger than what a ReLU gives.
                let mut padded = x.clone();
                for dim in [2, 3] {
                    let rest = (x.dim(dim)? + 2 * padding - kernel) % stride;
                    let end = if *ceil && rest > 0 { stride - rest } else { 0 };
                    padded = padded.pad_with_zeros(dim, *padding, padding + end)?;
                }
                padded.max_pool2d_with_stride(*kernel, *stride)
            }
            Self::AvgPool(1) => x.mean_keepdim((D::Minus2, D::Minus1)),
            Self::AvgPool(size) if x.dims()[2..] == [*size, *size] => Ok(x.clone()),
            Self::AvgPool(size) => candle_core::bail!("candle has no adaptive pooling, here to {size}x{size}"),
            Self::Flatten => x.flatten_from(1),
            Self::Dropout(dropout) => dropout.forward(x, train),
            Self::Residual { body, shortcut } => (body.forward(x, train, aux)? + shortcut.forward(x, train, aux)?)?.relu(),
            Self::PadShortcut => {
                let every_second = |x: Tensor, dim| {
                    let kept: Vec<u32> = (0..x.dim(dim)? as u32).step_by(2).collect();
                    x.index_select(&Tensor::new(kept, x.device())?, dim)
                };
                every_second(every_second(x.clone(), 2)?, 3)?.pad_with_zeros(1, 0, x.dim(1)?)
            }
            Self::Branches(branches) => {
                let outputs: Vec<_> = branches.iter().map(|branch| branch.forward(x, train, aux)).collect::<Result<_>>()?;
                Tensor::cat(&outputs, 1)
            }
            Self::Aux(head) => {
                if train {
                    let logits = head.forward(x, train, aux)?;
                    aux.push(logits);
                }
                Ok(x.clone())
            }
        }
    }
}
