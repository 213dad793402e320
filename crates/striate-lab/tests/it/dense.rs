//! A network without convolutions: what needs them is told, and the rest is there.
use striate_datasets::Normalise;
use striate_graph::{Graph, InitOptions, Network};
use striate_lab::inspect::{InspectOptions, Subject, Unit, inspect};
use striate_layers::{Activation, Flatten, Linear};
use tch::{Device, Kind, Tensor};

#[test]
fn statistics_need_no_convolution() {
    let graph = Graph::build(|net| {
        let x = net.input([1, 4, 4]);
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("hidden", Linear::new(6), x)?;
        let x = net.add("relu", Activation::Relu, x)?;
        let x = net.add("fc", Linear::new(3), x)?;
        net.output("logits", x)
    });
    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    let classes = ["a", "b", "c"].map(str::to_owned);
    let subject =
        Subject { name: "dense", network: &network, normalise: &Normalise::identity(), classes: &classes, temperature: 1.0 };
    let images = [("x".to_owned(), Tensor::ones([1, 1, 4, 4], (Kind::Float, Device::Cpu)))];
    let inspection = inspect(&subject, &images, &InspectOptions::default()).unwrap();
    let report = &inspection.report;
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    assert!(report.notes[0].starts_with("the network has no convolution") && report.notes[1].contains("no first-layer filters"));
    assert_eq!((report.layers.len(), report.images[0].top.len(), report.images[0].feature_maps.len()), (5, 3, 0));
    assert!(report.images[0].top.iter().all(|evidence| evidence.grad_cam.is_none()) && report.filters.is_none());
    let page = String::from_utf8(inspection.files["index.html"].clone()).unwrap();
    assert!(page.contains("<strong>Note:</strong> the network has no convolution") && page.contains("<td>none</td>"));
    // The values of any layer can be shown all the same.
    let options = InspectOptions { layers: vec!["hidden".to_owned()], ..InspectOptions::default() };
    assert_eq!(inspect(&subject, &images, &options).unwrap().report.images[0].feature_maps[0].shape, [6]);
    let units = vec![Unit { layer: "hidden".to_owned(), row: 0, column: 0 }];
    let told = inspect(&subject, &images, &InspectOptions { units, ..InspectOptions::default() }).unwrap_err().to_string();
    assert!(told.contains("no rows and columns"), "{told}");
    let told = inspect(&subject, &[], &InspectOptions::default()).unwrap_err().to_string();
    assert_eq!(told, "there is no image to look at");
}
