//! Every network of the registry, its body as wide and deep as it is published: its shapes, its gradients, its files, its head.
use serde_json::json;
use std::path::Path;
use striate_graph::{Graph, GraphError, InitOptions, Network};
use striate_layers::Mode;
use striate_models::{Bundle, BundleInfo, Model, Variant, variants};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor};

/// Few, so that time goes into the bodies.
const CLASSES: i64 = 10;
/// Channels of hidden linear layers, where a variant has such.
const HIDDEN: i64 = 64;
/// The least that batch norm takes where maps have one pixel.
const BATCH: i64 = 2;
/// From what size of input on one is sought that fits.
const SMALLEST: i64 = 32;

/// The variant with the smallest input that fits.
fn small(variant: &'static Variant) -> (Model, Graph) {
    let published = variant.model(&[]).unwrap();
    let model = |size: i64| {
        let mut options = vec![("classes", CLASSES.into()), ("input", json!([published.input()[0], size, size]))];
        options.extend(published.config().contains_key("hidden").then(|| ("hidden", HIDDEN.into())));
        let model = variant.model(&options).unwrap();
        model.graph().map(|graph| (model, graph)).ok()
    };
    (SMALLEST..).find_map(model).unwrap()
}

fn images(model: &Model) -> Tensor {
    let [channels, height, width] = model.input();
    let mut images = Tensor::zeros([BATCH, channels, height, width], (Kind::Float, Device::Cpu));
    Generator::new(0).normal(&mut images, 0.0, 1.0).unwrap();
    images
}

fn logits(network: &Network, images: &Tensor) -> Tensor {
    let _no_grad = striate_torch::no_grad();
    network.forward(images, Mode::Eval).unwrap().logits().shallow_clone()
}

/// One step back from the sum of all heads' losses reaches every parameter.
fn check_gradients(model: &Model, network: &Network, images: &Tensor) {
    let name = model.variant().name;
    let outputs = network.forward(images, Mode::Train).unwrap();
    let targets = Tensor::from_slice(&[0_i64, 1]);
    let loss = |(head, logits): &(String, Tensor)| {
        assert_eq!(logits.size(), [BATCH, CLASSES], "{name}: {head}");
        model.loss().compute(logits, &targets).unwrap()
    };
    outputs.outputs().iter().map(loss).sum::<Tensor>().backward();
    for (parameter, mut tensor) in network.trainable() {
        let gradient = tensor.grad();
        assert!(gradient.defined(), "{name}: {parameter} has no gradient");
        assert_eq!(gradient.size(), tensor.size(), "{name}: {parameter}");
        assert!(striate_graph::is_finite(&gradient).unwrap(), "{name}: the gradient of {parameter} is not finite");
        tensor.zero_grad();
    }
}

/// What is written and read back is the same network, whatever that started from.
fn check_file(model: &Model, network: &Network, images: &Tensor, path: &Path) {
    let name = model.variant().name;
    let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    Bundle { info: BundleInfo::of_model(model, &classes, None).unwrap(), state: network.state() }.write(path).unwrap();
    let options = InitOptions { seed: 1, ..InitOptions::default() };
    let read = Bundle::read(path).unwrap().network(path, &options).unwrap();
    assert_eq!(read.state(), network.state(), "{name}");
    assert_eq!(logits(&read, images), logits(network, images), "{name}");
}

/// The head can be replaced, unless its classes are fixed codes, and cut off; all other parameters stay.
fn check_head(name: &str, mut network: Network, images: &Tensor) {
    let before = network.state();
    match network.replace_head(3) {
        Ok(()) => assert_eq!(logits(&network, images).size(), [BATCH, 3], "{name}"),
        Err(GraphError::FixedHead { .. }) if name == "lenet5-paper" => {}
        Err(error) => panic!("{name}: {error}"),
    }
    let after = network.state();
    assert!(before.keys().eq(after.keys()), "{name}");
    let changed = before.iter().zip(&after).filter(|((_, old), (_, new))| old.size() != new.size()).count();
    // A weight and a bias of each head.
    assert!(changed <= 2 * network.graph().outputs().count(), "{name}: {changed} parameters changed");

    let layers = network.graph().nodes().len();
    let logits_node = network.graph().outputs().next().unwrap().1;
    let last = &network.graph().nodes()[logits_node.inputs[0]];
    let (last, shape) = (last.name.clone(), last.shape.clone());
    network.truncate(&last, "features").unwrap();
    assert!(network.graph().nodes().len() < layers, "{name}");
    assert_eq!(logits(&network, images).size()[1..], *shape.dims(), "{name}");
    let kept = network.state();
    assert!(!kept.is_empty() && kept.iter().all(|(key, tensor)| tensor.data_ptr() == after[key].data_ptr()), "{name}");
}

/// One in so many of the variants, from the given one on: the parts run side by side.
fn check_part(part: usize) {
    // Enough for two small images; more would wait for each other where tests share the cores.
    striate_torch::set_num_threads(1);
    // In memory, where the system has such a folder: the files have 10 GB in all.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for variant in variants().skip(part).step_by(PARTS) {
        let (model, graph) = small(variant);
        let params = graph.summary().params;
        let network = Network::new(graph, &InitOptions::default()).unwrap();
        assert_eq!(network.trainable().iter().map(|(_, tensor)| tensor.numel() as u64).sum::<u64>(), params, "{}", variant.name);
        let images = images(&model);
        check_gradients(&model, &network, &images);
        check_file(&model, &network, &images, &folder.path().join("model.safetensors"));
        check_head(variant.name, network, &images);
    }
}

macro_rules! parts {
    ($($name:ident: $part:literal),*) => {
        const PARTS: usize = [$($part),*].len();
        $(
            #[test]
            fn $name() {
                check_part($part);
            }
        )*
    };
}

parts!(first: 0, second: 1, third: 2, last: 3);
