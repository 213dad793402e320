//! Grad-CAM and Grad-CAM++ equal what `tests/cam/make_fixtures.py` made by the papers' formulas.
use std::collections::BTreeMap;
use std::path::Path;
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_lab::inspect::class_maps;
use striate_layers::{Activation, AdaptiveAvgPool2d, Conv2d, Flatten, Linear, MaxPool2d};
use striate_torch::TensorFile;
use tch::{Kind, Tensor};

/// The networks of the script, whose layers are numbered there.
fn pooled(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
    let x = net.add("0", Conv2d::new(4, 3), x)?;
    let x = net.add("1", Activation::Relu, x)?;
    let x = net.add("2", Conv2d::same(5, 3), x)?;
    let x = net.add("3", Activation::Relu, x)?;
    let x = net.add("4", AdaptiveAvgPool2d::global(), x)?;
    let x = net.add("5", Flatten, x)?;
    net.add("6", Linear::new(3), x)
}

fn dense(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
    let x = net.add("0", Conv2d::new(4, 3), x)?;
    let x = net.add("1", Activation::Relu, x)?;
    let x = net.add("2", MaxPool2d::new(2), x)?;
    let x = net.add("3", Flatten, x)?;
    let x = net.add("4", Linear::new(8), x)?;
    let x = net.add("5", Activation::Relu, x)?;
    net.add("6", Linear::new(3), x)
}

type Define = fn(&mut NetworkBuilder, Value) -> Result<Value, GraphError>;

#[track_caller]
fn equal(got: &Tensor, expected: &Tensor, what: &str) {
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let distance = (got - expected).abs().max().double_value(&[]);
    assert!(distance < 1e-12 * scale, "{what}: {distance}");
}

#[test]
fn the_maps_are_those_of_the_papers_formulas() {
    let cases: [(&str, Define, &str); 2] = [("pooled", pooled, "3"), ("dense", dense, "1")];
    for (name, define, layer) in cases {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cam/{name}.safetensors"));
        let expected = TensorFile::read(&path).unwrap().tensors;
        let graph = Graph::build(|net| {
            let x = net.input([2, 8, 8]);
            let x = define(net, x)?;
            net.output("logits", x)
        });
        let network = Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap();
        let weights =
            expected.iter().filter_map(|(key, value)| Some((key.strip_prefix("weights.")?.to_owned(), value.shallow_clone())));
        network.load_state(&weights.collect::<BTreeMap<_, _>>()).unwrap();
        let mut seen = 0;
        for maps in class_maps(&network, &expected["image"], layer, &[0, 1, 2]).unwrap() {
            let class = maps.class;
            equal(&maps.grad_cam, &expected[&format!("grad_cam.{class}")], &format!("Grad-CAM, {name}, class {class}"));
            let plus_plus = &expected[&format!("grad_cam_plus_plus.{class}")];
            equal(&maps.grad_cam_plus_plus, plus_plus, &format!("Grad-CAM++, {name}, class {class}"));
            seen += usize::from(plus_plus.max().double_value(&[]) > 0.0);
        }
        assert!(seen > 1, "{name}: the maps show something");
    }
}
