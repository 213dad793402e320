//! `models`, `summary` and `run`.
use crate::sandbox::{Sandbox, bits};
use serde_json::json;
use striate_graph::Graph;
use striate_layers::{AdaptiveAvgPool2d, Flatten};
use striate_models::{Bundle, BundleInfo};
use striate_torch::TensorFile;
use tch::{Device, Kind, Tensor};

#[test]
fn summaries_have_the_counts_of_the_paper() {
    let sandbox = Sandbox::new();
    let modern = sandbox.json(&["summary", "lenet5", "--json"]);
    assert_eq!((&modern["params"], &modern["macs"]), (&61_706.into(), &416_520.into()));
    let keys = ["name", "op", "inputs", "output", "params", "macs", "receptive_field"];
    for layer in modern["layers"].as_array().unwrap() {
        assert!(keys.iter().all(|key| layer.get(key).is_some()), "{layer}");
    }
    let paper = sandbox.json(&["summary", "lenet5-paper", "--json"]);
    assert_eq!((&paper["params"], &paper["connections"]), (&60_000.into(), &340_908.into()));
}

#[test]
fn summaries_follow_the_input_the_classes_the_options_and_a_bundle() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 3);
    let changed = ["summary", "lenet5", "--input", "3,48,40", "--classes", "7", "-o", "pooling=average", "--json"];
    let changed = sandbox.json(&changed)["layers"].as_array().unwrap().clone();
    let (first, last) = (&changed[0], changed.last().unwrap());
    assert_eq!((&first["output"], &last["output"]), (&json!([3, 48, 40]), &json!([7])));
    assert!(changed.iter().any(|layer| layer["op"] == "AvgPool2d"));
    let bundle = sandbox.json(&["summary", "model.safetensors", "--json"]);
    assert_eq!(bundle["layers"].as_array().unwrap().last().unwrap()["output"], json!([3]));
}

/// A network of huge maps in a file of no weights.
#[test]
fn a_file_may_take_what_its_reader_allows() {
    let sandbox = Sandbox::new();
    let graph = Graph::build(|net| {
        let x = net.input([3, 10_000, 10_000]);
        let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
        let x = net.add("flatten", Flatten, x)?;
        net.output("logits", x)
    });
    let bundle = Bundle { info: BundleInfo::new(graph.unwrap(), &[], None), state: [].into() };
    bundle.write(&sandbox.path("x.safetensors")).unwrap();
    sandbox.refused_with(&["summary", "x.safetensors"], &["raise the read budget to 1200000012 bytes"]);
    sandbox.ok(&["summary", "x.safetensors", "--read-budget", "1200000012"]);
    sandbox.ok(&["--read-budget", "1200000012", "weights", "inspect", "x.safetensors"]);
}

#[test]
fn the_table_of_layers() {
    insta::assert_snapshot!(Sandbox::new().ok(&["summary", "lenet5"]));
}

#[test]
fn the_registry_is_listed_for_people_and_machines() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["models", "--json"]);
    let rows = rows.as_array().unwrap();
    let lenet = rows.iter().find(|row| row["name"] == "lenet5").unwrap();
    assert_eq!((&lenet["params"], &lenet["family"], &lenet["options"]["classes"]), (&61_706.into(), &"LeNet".into(), &10.into()));
    let text = sandbox.ok(&["models"]);
    assert_eq!(text.lines().count(), rows.len() + 1);
    for row in rows {
        assert!(text.contains(row["name"].as_str().unwrap()), "{row}");
    }
}

#[test]
fn datasets_are_listed() {
    insta::assert_snapshot!(Sandbox::new().ok(&["data"]));
}

#[test]
fn the_page_of_models_is_what_the_program_prints() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let printed = Sandbox::new().ok(&["models", "--markdown"]);
    let told = "docs/models.md is not what the registry says: run `cargo xtask models --markdown > docs/models.md`";
    assert!(std::fs::read_to_string(page).unwrap_or_default() == printed, "{told}");
}

#[test]
fn the_registry_says_where_each_network_comes_from_and_deviates() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["models", "--json"]);
    let page = sandbox.ok(&["models", "--markdown"]);
    for row in rows.as_array().unwrap() {
        let year = row["year"].as_u64().unwrap();
        assert!(row["paper"].as_str().unwrap().contains(&format!(" {year}: ")), "{row}");
        let start = format!("| `{}` | {} | ", row["name"].as_str().unwrap(), row["about"].as_str().unwrap());
        assert_eq!(page.matches(&start).count(), 1, "{start}");
        for deviation in row["deviations"].as_array().unwrap() {
            assert!(page.contains(&format!("\n- {}\n", deviation.as_str().unwrap())), "{deviation}");
        }
    }
    let named = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    assert_eq!((&named("vgg16")["place"], &named("vgg16")["year"]), (&json!("table 1, column D"), &json!(2014)));
    assert_eq!(named("vgg16-bn")["torchvision"]["name"], "vgg16_bn");
    assert_eq!(named("resnet50-v1")["torchvision"], json!(null));
    assert_eq!(named("vgg16")["receptive_field"], json!([212, 212]));
}

/// The shapes and types of the tensors of a file.
fn tensors(sandbox: &Sandbox, file: &str) -> Vec<(String, Vec<i64>, Kind)> {
    let file = TensorFile::read(&sandbox.path(file)).unwrap();
    file.tensors.into_iter().map(|(name, tensor)| (name, tensor.size(), tensor.kind())).collect()
}

#[test]
fn outputs_and_taps_are_written_in_the_type_of_the_input() {
    let sandbox = Sandbox::new();
    for kind in [Kind::Float, Kind::Double] {
        sandbox.tensor("x.safetensors", "input", Tensor::ones([2, 1, 32, 32], (kind, Device::Cpu)));
        sandbox.ok(&["run", "lenet5", "--input", "x.safetensors", "--output", "y.safetensors", "--tap", "c1", "--tap", "f6"]);
        let expected = [("c1", vec![2, 6, 28, 28]), ("f6", vec![2, 84]), ("logits", vec![2, 10])];
        assert_eq!(tensors(&sandbox, "y.safetensors"), expected.map(|(name, shape)| (name.to_owned(), shape, kind)));
    }
}

#[test]
fn training_mode_gives_auxiliary_outputs_and_drops_by_the_seed() {
    let sandbox = Sandbox::new();
    sandbox.tensor("x.safetensors", "input", Tensor::ones([2, 3, 64, 64], (Kind::Float, Device::Cpu)));
    let run = |output: &str, extra: &[&str]| {
        let args = ["run", "googlenet-tiny", "--input", "x.safetensors", "--output", output];
        sandbox.ok(&[&args[..], extra].concat());
        bits(&sandbox.path(output))
    };
    let names = |bits: &[(String, Vec<u8>)]| bits.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let first = run("a.safetensors", &["--mode", "train", "--seed", "1"]);
    assert_eq!(names(&first), ["aux1", "aux2", "logits"]);
    assert_eq!(first, run("b.safetensors", &["--mode", "train", "--seed", "1"]));
    let evaluated = run("c.safetensors", &["--mode", "eval", "--seed", "1"]);
    assert_eq!(names(&evaluated), ["logits"]);
    assert_ne!(evaluated[0].1, first[2].1);
}

#[test]
fn a_bundle_and_a_model_with_its_weights_run_alike() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    sandbox.tensor("x.safetensors", "input", Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    let io = ["--input", "x.safetensors", "--output", "y.safetensors"];
    let run = |model: &[&str]| {
        sandbox.ok(&[&["run"], model, &io[..]].concat());
        bits(&sandbox.path("y.safetensors"))
    };
    let bundle = run(&["model.safetensors"]);
    assert_eq!(bundle, run(&["lenet5", "--weights", "model.safetensors", "--seed", "9"]));
    assert_ne!(bundle, run(&["lenet5", "--seed", "9"]));
}
