//! Small networks for tests of the passes.
use crate::plan::{Plan, PlanOptions};
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_layers::{Conv2d, Mode};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor};

/// A network on `[4, 6, 6]` that ends in what `define` gives, with every parameter drawn at random.
pub(crate) fn network(define: impl FnOnce(&mut NetworkBuilder, Value) -> Result<Value, GraphError>) -> Network {
    let graph = Graph::build(|net| {
        let x = net.input([4, 6, 6]);
        let x = define(net, x)?;
        net.output("features", x)
    });
    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    let _no_grad = striate_torch::no_grad();
    striate_torch::manual_seed(1);
    let mut generator = Generator::new(1);
    for mut param in network.parameters().filter(|param| param.tensor.dim() > 0) {
        generator.uniform(&mut param.tensor, 0.3, 1.0).unwrap();
        if param.name.ends_with("weight") {
            let signs = Tensor::randint_low(0, 2, param.tensor.size(), (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
            let _ = param.tensor.g_mul_(&signs);
        }
    }
    network
}

/// A convolution that keeps the shape.
pub(crate) fn conv() -> Conv2d {
    Conv2d::same(4, 3)
}

/// The steps of a network's plan but for its input, one a line; fails unless they compute what the network does.
pub(crate) fn steps(network: &Network) -> Vec<String> {
    let plan = Plan::new(network, &PlanOptions::default()).unwrap();
    let _no_grad = striate_torch::no_grad();
    for batch in [1, 3] {
        striate_torch::manual_seed(1);
        let images = Tensor::randn([batch, 4, 6, 6], (Kind::Float, Device::Cpu));
        let (expected, got) = (network.forward(&images, Mode::Eval).unwrap(), plan.forward(&images).unwrap());
        for ((name, expected), (_, got)) in expected.outputs().iter().zip(got.outputs()) {
            let worst = ((got - expected).abs().max() / expected.abs().max()).double_value(&[]);
            assert!(worst < 1e-5, "{name} differs by {worst:.1e}:\n{plan}");
        }
    }
    plan.to_string()
        .lines()
        .skip(1)
        .map(|line| {
            let kernels = ["oneDNN", "pointwise", "windows", "Winograd"];
            let without = |line: String, kernel| line.replace(&format!(" [{kernel}]"), "").replace(&format!("{kernel}, "), "");
            kernels.into_iter().fold(line.to_owned(), without)
        })
        .collect()
}
