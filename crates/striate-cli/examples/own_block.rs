//! A residual network with a layer of one's own, built, looked at, trained and reused: the program of the tutorial
//! "Build your own network".
use std::error::Error;
use striate_datasets::{Fit, Loader, LoaderOptions, Normalise, Preprocess, digits};
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_layers::loss::Loss;
use striate_layers::{
    Activation, AdaptiveAvgPool2d, Add, BatchNorm2d, Conv2d, Flatten, Forward, Layer, LayerError, Linear, Mode, Op, Shape,
};
use striate_torch::TensorFile;
use striate_train::{AdamWConfig, Curve, OptimizerConfig, TrainConfig, Trainer, evaluate};
use tch::Tensor;

/// Feature maps, each times a factor of its own: `[C, H, W]` and `[C]` in, `[C, H, W]` out.
#[derive(Debug)]
struct Scale;

impl Layer for Scale {
    fn name(&self) -> &'static str {
        "Scale"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let [maps, factors] = inputs else {
            return Err(LayerError::InputCount { expected: "maps and factors", got: inputs.len() });
        };
        let [channels, ..] = maps.as_image()?;
        match factors.as_vector()? {
            count if count == channels => Ok(maps.clone()),
            _ => Err(LayerError::InputShape { expected: format!("[{channels}]"), got: factors.clone() }),
        }
    }
}

impl Forward for Scale {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        Ok(inputs[0].f_mul(&inputs[1].f_unsqueeze(-1)?.f_unsqueeze(-1)?)?)
    }
}

/// Two convolutions whose maps are weighed by what is on all of them, added to what went in (Hu 2018, arXiv:1709.01507).
fn block(net: &mut NetworkBuilder, width: i64, x: Value) -> Result<Value, GraphError> {
    let mut y = net.add("conv1", Conv2d::same(width, 3).no_bias(), x)?; // [width, H, W]
    y = net.add("bn1", BatchNorm2d::new(), y)?;
    y = net.add("relu1", Activation::Relu, y)?;
    y = net.add("conv2", Conv2d::same(width, 3).no_bias(), y)?;
    y = net.add("bn2", BatchNorm2d::new(), y)?;
    let factors = gate(&mut net.scope("gate"), width, y)?; // [width]
    y = net.add("scale", Op::custom(Scale), [y, factors])?;
    y = net.add("add", Add, [x, y])?;
    net.add("relu2", Activation::Relu, y)
}

/// A factor between 0 and 1 for each of the maps.
fn gate(net: &mut NetworkBuilder, width: i64, x: Value) -> Result<Value, GraphError> {
    let mut y = net.add("pool", AdaptiveAvgPool2d::global(), x)?; // [width, 1, 1]
    y = net.add("flatten", Flatten, y)?; // [width]
    y = net.add("fc1", Linear::new(width / 4), y)?;
    y = net.add("relu", Activation::Relu, y)?;
    y = net.add("fc2", Linear::new(width), y)?;
    net.add("sigmoid", Activation::Sigmoid, y)
}

fn network(blocks: usize) -> Result<Graph, GraphError> {
    Graph::build(|net| {
        let mut x = net.input([1, 8, 8]);
        x = net.add("stem", Conv2d::same(16, 3), x)?; // [16, 8, 8]
        let mut stage = net.sequential("blocks");
        for _ in 0..blocks {
            x = block(&mut stage.scope(), 16, x)?;
        }
        x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [16, 1, 1]
        x = net.add("flatten", Flatten, x)?; // [16]
        x = net.add("fc", Linear::new(10), x)?; // [10]
        net.output("logits", x)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let graph = network(2)?;
    println!("{}", graph.summary());

    let mistake = Graph::build(|net| {
        let x = net.input([1, 8, 8]);
        let x = net.add("stem", Conv2d::same(8, 3), x)?;
        let x = block(&mut net.scope("block"), 16, x)?; // 8 maps in, 16 out: they can't be added
        net.output("features", x)
    });
    if let Err(mistake) = mistake {
        println!("{mistake}\n");
    }

    let data = digits()?;
    let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Pad, Normalise::of(&data.train)?)?;
    let train = Loader::new(&data.train, preprocess.clone(), LoaderOptions::train(32, 0))?;
    let test = Loader::new(&data.test, preprocess, LoaderOptions::eval(256))?;
    let mut network = Network::new(graph, &InitOptions::default())?;
    let config = TrainConfig {
        epochs: 6,
        lr: 1e-2,
        optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
        schedule: Curve::Cosine { min_lr: 0.0 }.into(),
        ..TrainConfig::default()
    };
    Trainer::new(&network, &train, &test, config)?.run()?;
    println!("ten digits: test accuracy {:.3}", evaluate(&network, &test, Loss::default())?.accuracy);

    let images = test.epoch(0)?.next().ok_or("no batch")??.images;
    let outputs = network.forward_with_taps(&[&images], Mode::Eval, &["blocks.1.gate.sigmoid"])?;
    for (name, value) in outputs.outputs().iter().chain(outputs.taps()) {
        println!("{name}: {:?}", value.size());
    }

    let file = std::env::temp_dir().join("digits.safetensors");
    TensorFile { tensors: network.state(), ..TensorFile::default() }.write(&file)?;
    network.load_state(&TensorFile::read(&file)?.tensors)?;
    network.freeze_through("avgpool")?;
    network.replace_head(2)?;
    let trained: Vec<String> = network.trainable().into_iter().map(|(name, _)| name).collect();
    println!("trained from now on: {}", trained.join(", "));
    Ok(())
}
