//! `models --diff`.
use crate::sandbox::Sandbox;
use serde_json::Value;

#[test]
fn variants_are_compared_layer_by_layer() {
    let sandbox = Sandbox::new();
    let pairs = [
        ("alexnet", "alexnet-paper"),
        ("resnet50", "resnet50-v1"),
        ("vgg16", "vgg16-bn"),
        ("resnet18", "plain18"),
        ("lenet5", "lenet5-paper"),
        ("googlenet", "googlenet-paper"),
    ];
    for (a, b) in pairs {
        insta::assert_snapshot!(format!("{a}_{b}"), sandbox.ok(&["models", "--diff", a, b]));
    }
}

#[test]
fn a_model_is_the_same_as_itself_and_as_its_bundle() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    let told = sandbox.ok(&["models", "--diff", "lenet5", "lenet5"]);
    assert_eq!(told, "lenet5 and lenet5 are the same network: 13 layers, 61,706 parameters, 416,520 MACs\n");
    let told = sandbox.ok(&["models", "--diff", "model.safetensors", "lenet5"]);
    assert!(told.starts_with("model.safetensors and lenet5 are the same network"), "{told}");
}

/// The figures of the totals are those that each summary has, and every layer of both is in the list.
#[test]
fn json_has_both_networks_whole() {
    let sandbox = Sandbox::new();
    let [a, b] = ["resnet50", "resnet50-v1"];
    let diff = sandbox.json(&["models", "--diff", a, b, "--json"]);
    assert_eq!(diff["identical"], false);
    for (side, name) in [("a", a), ("b", b)] {
        let summary = sandbox.json(&["summary", name, "--json"]);
        let totals = &diff[side];
        assert_eq!((&totals["name"], &totals["params"], &totals["macs"]), (&name.into(), &summary["params"], &summary["macs"]));
        let layers = diff["entries"].as_array().unwrap().iter().map(|entry| &entry[side]);
        let layers: Value = layers.filter(|layer| !layer.is_null()).cloned().collect();
        assert_eq!(layers, summary["layers"]);
    }
    let changed = diff["entries"].as_array().unwrap().iter().filter(|entry| entry["change"] == "changed");
    let strides = changed.flat_map(|entry| entry["differences"].as_array().unwrap()).filter(|d| d["what"] == "stride");
    assert_eq!(strides.count(), 6);
}

#[test]
fn an_unknown_name_is_told_and_two_are_needed() {
    let sandbox = Sandbox::new();
    sandbox.refused_with(&["models", "--diff", "lenet5", "alexnt"], &["there is no model alexnt: did you mean alexnet?"]);
    sandbox.refused_with(&["models", "--diff", "lenet5"], &["2 values required for '--diff <A> <B>'"]);
}
