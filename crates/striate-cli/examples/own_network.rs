//! A network of one's own, trained for a few epochs on the embedded digits.
use striate_datasets::{Fit, Loader, LoaderOptions, Normalise, Preprocess, digits};
use striate_graph::{Graph, InitOptions, Network};
use striate_layers::loss::Loss;
use striate_layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d};
use striate_train::{AdamWConfig, Curve, OptimizerConfig, TrainConfig, Trainer, evaluate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = Graph::build(|net| {
        let mut x = net.input([1, 8, 8]);
        for (stage, width) in [32, 64].into_iter().enumerate() {
            let mut scope = net.sequential(&format!("stage{stage}"));
            x = scope.add(Conv2d::same(width, 3).no_bias(), x)?; // [width, H, W]
            x = scope.add(BatchNorm2d::new(), x)?;
            x = scope.add(Activation::Relu, x)?;
            x = scope.add(MaxPool2d::new(2), x)?; // [width, H/2, W/2]
        }
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [64, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [64]
        let x = net.add("fc", Linear::new(10), x)?; // [10]
        net.output("logits", x)
    })?;
    println!("{}", graph.summary());

    let data = digits()?;
    let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Pad, Normalise::of(&data.train)?)?;
    let train = Loader::new(&data.train, preprocess.clone(), LoaderOptions::train(32, 0))?;
    let test = Loader::new(&data.test, preprocess, LoaderOptions::eval(256))?;
    let network = Network::new(graph, &InitOptions::default())?;
    let config = TrainConfig {
        epochs: 5,
        lr: 3e-3,
        optimizer: OptimizerConfig::AdamW(AdamWConfig::default()),
        schedule: Curve::Cosine { min_lr: 0.0 }.into(),
        ..TrainConfig::default()
    };
    Trainer::new(&network, &train, &test, config)?.run()?;
    println!("test accuracy {:.4}", evaluate(&network, &test, Loss::default())?.accuracy);
    Ok(())
}
