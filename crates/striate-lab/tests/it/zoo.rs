//! The small network of each family, looked into; and receptive fields against gradients.
use striate_datasets::Normalise;
use striate_graph::{Graph, InitOptions, Network, NodeKind};
use striate_lab::inspect::{InspectOptions, Subject, Unit, feature_layers, inspect, receptive_field};
use striate_layers::{Mode, Op, ParamKind};
use striate_models::{find, variants};
use tch::{Device, Kind, Tensor};

/// Every small network, and a few whose shape no small one has.
fn networks() -> Vec<&'static str> {
    let small = variants().map(|variant| variant.name).filter(|name| name.ends_with("-tiny"));
    let networks: Vec<&str> = small.chain(["lenet5", "lenet5-paper"]).collect();
    let families = |names: &[&str]| {
        let mut families: Vec<&str> = names.iter().map(|name| find(name).unwrap().family).collect();
        families.sort_unstable();
        families.dedup();
        families.len()
    };
    let all: Vec<&str> = variants().map(|variant| variant.name).collect();
    assert_eq!(families(&networks), families(&all), "a family has no network here");
    networks
}

fn noise(shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 12.9898).sin().view(shape)
}

#[test]
fn every_family_can_be_looked_into() {
    striate_torch::set_num_threads(1);
    for name in networks() {
        let model = find(name).unwrap().model(&[]).unwrap();
        let network = Network::new(model.graph().unwrap(), &InitOptions::default()).unwrap();
        let [channels, height, width] = model.input();
        let classes: Vec<String> = (0..model.classes()).map(|class| format!("class {class}")).collect();
        let subject = Subject { name, network: &network, normalise: &Normalise::identity(), classes: &classes, temperature: 1.0 };
        let images: Vec<(String, Tensor)> =
            (1..3).map(|n| (format!("image {n}"), noise(&[1, channels, height, width]) * f64::from(n))).collect();
        let last = feature_layers(network.graph()).last().map(|node| node.name.clone()).unwrap();
        let units = vec![Unit { layer: last.clone(), row: 1, column: 0 }];
        let options = InspectOptions { units, show: 1, ..InspectOptions::default() };
        let inspection = inspect(&subject, &images, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = &inspection.report;
        assert_eq!(report.notes, Vec::<String>::new(), "{name}");
        assert_eq!((report.images.len(), report.image_count, report.cam_layer.as_deref()), (1, 2, Some(last.as_str())), "{name}");
        let [image] = &report.images[..] else { panic!("{name}") };
        assert_eq!(image.top.len(), classes.len().min(5), "{name}");
        assert!(image.top.is_sorted_by(|a, b| a.probability >= b.probability), "{name}");
        let evaluated = network.graph().summary().layers.iter().filter(|layer| !layer.training_only).count();
        assert_eq!(report.layers.len(), evaluated, "{name}");
        for layer in &report.layers {
            let finite = layer.mean.is_finite() && layer.std.is_finite() && layer.gradient_norm.is_some_and(f64::is_finite);
            assert!(finite && (0.0..=1.0).contains(&layer.zeros), "{name}: {layer:?}");
        }
        let page = String::from_utf8(inspection.files["index.html"].clone()).unwrap();
        let pictures = inspection.files.keys().filter(|file| file.ends_with(".png")).count();
        assert_eq!(page.matches("<img ").count(), pictures, "{name}");
        assert!(!page.contains("http:") && !page.contains("src=\"\"") && page.contains("First-layer filters"), "{name}");
        for file in inspection.files.keys().filter(|file| file.ends_with(".png")) {
            let png = image::load_from_memory(&inspection.files[file]).unwrap();
            assert!(png.width() > 10 && png.height() > 10, "{name}: {file}");
        }
    }
}

/// Weights of one sign make every path count, so that nothing cancels and no ReLU or maximum cuts a path off but by its place.
fn positive(graph: &Graph) -> Network {
    let network = Network::new(graph.clone(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap();
    tch::no_grad(|| {
        for parameter in network.parameters().filter(|parameter| parameter.kind == ParamKind::Trainable) {
            let value = parameter.tensor.abs() + 1e-3;
            parameter.tensor.shallow_clone().copy_(&value);
        }
    });
    network
}

/// The pixels that have a gradient, as first and last of rows and of columns.
fn support(gradient: &Tensor) -> [std::ops::Range<i64>; 2] {
    let touched = gradient.ne(0.0).any_dim(1, false).select(0, 0); // [H, W]
    [1, 0].map(|other| {
        let places = Vec::<i64>::try_from(touched.any_dim(other, false).nonzero().view(-1)).unwrap();
        places[0]..places[places.len() - 1] + 1
    })
}

/// What a unit sees is what its gradient reaches: exactly where no maximum picks one path, and within it elsewhere.
#[test]
fn receptive_fields_are_the_support_of_the_input_gradient() {
    striate_torch::set_num_threads(1);
    let mut all = 0;
    for name in networks() {
        let model = find(name).unwrap().model(&[]).unwrap();
        let graph = model.graph().unwrap();
        let picks = |op: &Op| matches!(op, Op::MaxPool2d(_) | Op::AdaptiveMaxPool2d(_));
        let mut chosen = vec![false; graph.nodes().len()];
        let network = positive(&graph);
        let [channels, height, width] = model.input();
        let image = (noise(&[1, channels, height, width]).to_kind(Kind::Double).abs() + 0.1).set_requires_grad(true);
        let summary = graph.summary();
        let names: Vec<&str> = summary.layers.iter().filter(|row| !row.training_only).map(|row| row.name.as_str()).collect();
        let outputs = network.forward_with_taps(&[&image], Mode::Eval, &names).unwrap();
        let mut exact = 0;
        for (index, (node, row)) in graph.nodes().iter().zip(&summary.layers).enumerate() {
            let NodeKind::Layer(op) = &node.kind else { continue };
            chosen[index] = picks(op) || node.inputs.iter().any(|input| chosen[*input]);
            let Ok([_, rows, columns]) = node.shape.as_image() else { continue };
            // What works value by value sees what it reads sees.
            if row.training_only || matches!(op, Op::Activation(_) | Op::BatchNorm2d(_) | Op::Dropout(_)) {
                continue;
            }
            let values = outputs.tap(&node.name).unwrap().sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
            for (at_row, at_column) in [(rows / 2, 0), (rows - 1, columns / 2)] {
                let unit = Unit { layer: node.name.clone(), row: at_row, column: at_column };
                let sees = receptive_field(&graph, &unit).unwrap();
                let gradient =
                    Tensor::run_backward(&[&values.get(0).get(at_row).get(at_column)], &[&image], true, false).remove(0);
                let [seen_rows, seen_columns] = support(&gradient);
                if chosen[index] {
                    let within = |inner: &std::ops::Range<i64>, outer: &std::ops::Range<i64>| {
                        inner.start >= outer.start && inner.end <= outer.end
                    };
                    assert!(within(&seen_rows, &sees.rows) && within(&seen_columns, &sees.columns), "{name} {unit}");
                } else {
                    assert_eq!([&seen_rows, &seen_columns], [&sees.rows, &sees.columns], "{name} {unit}");
                    exact += 1;
                }
            }
        }
        assert!(exact > 0, "{name}");
        all += exact;
    }
    assert!(all > 50, "{all}");
}
