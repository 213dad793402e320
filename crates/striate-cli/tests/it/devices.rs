//! `--devices`: a network in two towers computes, trains and is saved as on one device.
use crate::sandbox::{QUICK, Sandbox};
use striate_torch::TensorFile;
use tch::{Device, Kind, Tensor};

const MODEL: &str = "alexnet-paper-tiny";
const TWO: [&str; 2] = ["--devices", "cpu,cpu"];

/// The largest difference between two files of the same tensors, in the larger one's units.
#[track_caller]
fn distance(sandbox: &Sandbox, a: &str, b: &str) -> f64 {
    let [a, b] = [a, b].map(|file| TensorFile::read(&sandbox.path(file)).unwrap().tensors);
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    let difference = |(name, a): (&String, &Tensor)| {
        let scale = a.abs().max().double_value(&[]).max(1.0);
        (a - &b[name]).abs().max().double_value(&[]) / scale
    };
    a.iter().map(difference).fold(0.0, f64::max)
}

#[test]
fn two_towers_give_what_one_device_does() {
    let sandbox = Sandbox::new();
    striate_torch::manual_seed(1);
    let noise = Tensor::randn([2, 3, 67, 67], (Kind::Double, Device::Cpu));
    sandbox.tensor("x.safetensors", "input", noise);
    for mode in ["eval", "train"] {
        let run = |output: &str, devices: &[&str]| {
            let args = ["run", MODEL, "--input", "x.safetensors", "--output", output, "--mode", mode, "--seed", "3"];
            sandbox.ok(&[&args[..], &["--tap", "norm2", "--tap", "drop6"], devices].concat());
        };
        run("one.safetensors", &[]);
        run("two.safetensors", &TWO);
        assert!(distance(&sandbox, "one.safetensors", "two.safetensors") < 1e-12, "{mode}");
        let logits = TensorFile::read(&sandbox.path("one.safetensors")).unwrap().tensors.remove("logits").unwrap();
        assert!(logits.std(true).double_value(&[]) > 1e-4);
    }
}

#[test]
fn what_two_towers_learned_one_device_goes_on_with_and_back() {
    let sandbox = Sandbox::new();
    let train = |out: &str, devices: &[&str]| {
        sandbox.ok(&[&["train", MODEL, "--lr", "1e-3", "--out", out], &QUICK[..], devices].concat());
    };
    train("one", &[]);
    train("two", &TWO);
    let [one, two] = ["one/model.safetensors", "two/model.safetensors"];
    assert!(distance(&sandbox, one, two) < 1e-4);
    assert!(std::fs::read_to_string(sandbox.path("two/recipe.toml")).unwrap().contains("devices = [\"cpu\", \"cpu\"]"));
    let eval = |bundle: &str, devices: &[&str]| {
        let evaluation = sandbox.json(&[&["eval", bundle, "--data", "digits", "--threads", "1", "--json"], devices].concat());
        evaluation["loss"].as_f64().unwrap()
    };
    for bundle in [one, two] {
        assert!((eval(bundle, &[]) - eval(bundle, &TWO)).abs() < 1e-5, "{bundle}");
    }
}

#[test]
fn a_list_of_devices_that_cannot_be_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    sandbox.tensor("x.safetensors", "input", Tensor::ones([1, 3, 67, 67], (Kind::Float, Device::Cpu)));
    let run = |model: &'static str, devices: &'static str| {
        vec!["run", model, "--input", "x.safetensors", "--output", "y.safetensors", "--devices", devices]
    };
    let no_towers = "the network has no 2 towers for 2 devices: give one device";
    let mut cases = vec![
        (run(MODEL, "gpu"), "device gpu: there is no such device: name cpu, cuda:0, ..."),
        (run(MODEL, "cpu,"), "device : there is no such device"),
        (run(MODEL, "cuda:x"), "device cuda:x: there is no such device"),
        (run(MODEL, "cpu,cpu,cpu"), "the network has no 3 towers for 3 devices"),
        (run("alexnet-tiny", "cpu,cpu"), no_towers),
        (vec!["eval", "model.safetensors", "--data", "digits", "--devices", "cpu,cpu"], no_towers),
        (vec!["predict", "model.safetensors", "x.png", "--devices", "cpu,cpu"], no_towers),
        (vec!["train", "--out", "run", "--devices", "cpu,cpu"], no_towers),
    ];
    if tch::Cuda::device_count() == 0 {
        cases.push((run(MODEL, "cuda:0"), "device cuda:0: no graphics card can be used with this libtorch: name cpu"));
    }
    for (args, told) in cases {
        sandbox.refused_with(&args, &[told]);
    }
    assert_eq!(sandbox.names(""), ["model.safetensors", "x.safetensors"]);
}
