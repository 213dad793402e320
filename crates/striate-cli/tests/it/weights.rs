//! The `weights` command, and `run` with weights of PyTorch.
use assert_cmd::Command;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, Weights, WeightsFormat, find};
use striate_torch::TensorFile;
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../striate-models/tests/weights").join(name)
}

/// Runs the program in `folder`: its exit code, standard output and standard error.
fn striate(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(crate::sandbox::program());
    let output = command.current_dir(folder).env("STRIATE_HOME", folder).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The line of a call that must fail as a wrong one.
fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, out, error) = striate(folder, args);
    assert_eq!((code, out.as_str(), error.lines().count()), (2, "", 1), "{error}");
    error
}

/// Writes the weights of a `resnet-tiny` for ten classes, and an input.
fn example(folder: &Path) -> BTreeMap<String, Tensor> {
    let graph = find("resnet-tiny").unwrap().model(&[]).unwrap().graph().unwrap();
    let state = Network::new(graph, &InitOptions { seed: 3, ..InitOptions::default() }).unwrap().state();
    let tensors = state.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    TensorFile { tensors, ..TensorFile::default() }.write(&folder.join("w.safetensors")).unwrap();
    let input = Tensor::ones([1, 3, 32, 32], (Kind::Float, Device::Cpu));
    let tensors = [("input".to_owned(), input)].into();
    TensorFile { tensors, ..TensorFile::default() }.write(&folder.join("x.safetensors")).unwrap();
    state
}

#[test]
fn inspect_lists_every_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let file = fixture("state_dict.th");
    let (code, out, _) = striate(folder.path(), &["weights", "inspect", file.to_str().unwrap(), "--json"]);
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["format"], &report["bundle"]), (&"pytorch-legacy".into(), &Value::Null));
    let entries = report["tensors"].as_array().unwrap();
    let half = entries.iter().find(|entry| entry["name"] == "half").unwrap();
    assert_eq!((entries.len(), &half["dtype"], &half["shape"]), (15, &"float16".into(), &vec![6].into()));
    let (code, out, _) = striate(folder.path(), &["weights", "inspect", file.to_str().unwrap()]);
    assert_eq!((code, out.lines().count()), (0, 16));
}

#[test]
fn convert_writes_other_types_and_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let state = example(folder);
    let (code, _, error) = striate(folder, &["weights", "convert", "w.safetensors", "half.safetensors", "--dtype", "float16"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let half = TensorFile::read(&folder.join("half.safetensors")).unwrap().tensors;
    assert_eq!(half["fc.weight"], state["fc.weight"].to_kind(Kind::Half));
    assert_eq!(half["bn1.num_batches_tracked"].kind(), Kind::Int64);

    let norm = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"];
    let call = ["weights", "convert", "half.safetensors", "b.safetensors", "--model", "resnet-tiny"];
    let (code, _, error) = striate(folder, &[call.as_slice(), &norm].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    let bundle = Bundle::read(&folder.join("b.safetensors")).unwrap();
    assert_eq!(bundle.info.classes.len(), 10);
    assert_eq!(bundle.info.preprocess.unwrap().normalise.mean, [0.5, 0.5, 0.5]);
    assert_eq!(bundle.state["fc.weight"], half["fc.weight"]);
    let licence = ["weights", "convert", "b.safetensors", "b.safetensors", "--licence", "CC-BY-4.0"];
    assert_eq!(striate(folder, &licence), (0, String::new(), String::new()));
    assert_eq!(Bundle::read(&folder.join("b.safetensors")).unwrap().info.licence.as_deref(), Some("CC-BY-4.0"));
    let (_, out, _) = striate(folder, &["weights", "inspect", "b.safetensors"]);
    assert_eq!(out.lines().nth(2), Some("licence: CC-BY-4.0"));
    let (code, _, error) = striate(folder, &["run", "b.safetensors", "--input", "x.safetensors", "--output", "y.safetensors"]);
    assert_eq!((code, error.as_str()), (0, ""));
}

#[test]
fn convert_writes_what_pytorch_reads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let state = example(folder);
    let (code, _, error) = striate(folder, &["weights", "convert", "w.safetensors", "w.pth", "--dtype", "float16"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let back = Weights::read(&folder.join("w.pth")).unwrap();
    assert_eq!(back.format, WeightsFormat::PytorchZip);
    assert_eq!(back.tensors.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>());
    assert_eq!(back.tensors["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"].to_kind(Kind::Half));
}

#[test]
fn nothing_is_written_from_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    example(folder);
    let hostile = fixture("hostile.pth");
    let to = "to.safetensors";
    let wrong = refused(folder, &["weights", "convert", hostile.to_str().unwrap(), to]);
    assert!(wrong.contains("posix.system"), "{wrong}");
    let wrong = refused(folder, &["weights", "convert", "w.safetensors", to, "--model", "resnet20-cifar"]);
    assert!(wrong.contains("w.safetensors: the weights do not fit"), "{wrong}");
    let wrong = refused(folder, &["weights", "convert", "w.safetensors", to, "--model", "resnet-tiny", "--classes", "4"]);
    assert!(wrong.contains("(-o classes=10, or --head replace)"), "{wrong}");
    let wrong = refused(folder, &["weights", "convert", "w.safetensors", "to.bin"]);
    assert!(wrong.contains("to.bin: weights are written as .safetensors or, for PyTorch, as .pth"), "{wrong}");
    let call = ["weights", "convert", "w.safetensors", "to.pth", "--model", "resnet-tiny", "--class-names", "a,b"];
    assert!(refused(folder, &call).contains("to.pth: a file for PyTorch holds weights only"));
    let wrong = refused(folder, &["weights", "convert", "w.safetensors", to, "--license", "MIT"]);
    assert!(wrong.contains("--licence is for bundles: name the --model"), "{wrong}");
    let bundle = ["weights", "convert", "w.safetensors", to, "--model", "resnet-tiny", "--mean", "0.5", "--std", "0.5"];
    for (more, told) in [
        (&["--crop", "32"][..], "--crop needs --resize SIDE"),
        (&["--crop", "32", "--resize", "40x40"], "give the shorter side"),
        (&["--class-names", "a,b,c,d,e,f,g,h,i,"], "has no name for class 9"),
    ] {
        let wrong = refused(folder, &[&bundle[..], more].concat());
        assert!(wrong.contains(told), "{wrong}");
    }
    let huge = [("w".to_owned(), Tensor::from_slice(&[1e300_f64]))].into();
    TensorFile { tensors: huge, ..TensorFile::default() }.write(&folder.join("huge.safetensors")).unwrap();
    let wrong = refused(folder, &["weights", "convert", "huge.safetensors", to]);
    assert!(wrong.contains("too large for float32: no network computes with them"), "{wrong}");
    let large = [("w".to_owned(), Tensor::from_slice(&[1e6_f32]))].into();
    TensorFile { tensors: large, ..TensorFile::default() }.write(&folder.join("large.safetensors")).unwrap();
    let wrong = refused(folder, &["weights", "convert", "large.safetensors", to, "--dtype", "float16"]);
    assert!(wrong.contains("too large for float16"), "{wrong}");
    let nan = [("w".to_owned(), Tensor::from_slice(&[1.0, f32::NAN]))].into();
    TensorFile { tensors: nan, ..TensorFile::default() }.write(&folder.join("nan.safetensors")).unwrap();
    assert!(
        refused(folder, &["weights", "convert", "nan.safetensors", to]).contains("nan.safetensors: w has values that are NaN")
    );
    let (code, out, warning) = striate(folder, &["weights", "inspect", "nan.safetensors"]);
    assert!(code == 0 && out.contains("2 values") && warning.contains("w has values that are NaN or infinite"), "{warning}");
    assert!(!folder.join(to).exists());
}

#[test]
fn run_takes_weights_with_a_new_head() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    example(folder);
    let call = ["run", "resnet-tiny", "--weights", "w.safetensors", "--input", "x.safetensors", "--output", "y.safetensors"];
    assert!(refused(folder, &[call.as_slice(), &["--classes", "4"]].concat()).contains("--head replace"));
    assert!(!folder.join("y.safetensors").exists());
    let (code, _, error) = striate(folder, &[call.as_slice(), &["--classes", "4", "--head", "replace"]].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(TensorFile::read(&folder.join("y.safetensors")).unwrap().tensors["logits"].size(), [1, 4]);
    assert!(refused(folder, &["weights", "fetch", "resnet18"]).contains("did you mean resnet18-imagenet1k-v1?"));
}

#[test]
fn weights_that_cannot_be_downloaded_are_asked_for_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(crate::sandbox::program());
    // Nobody listens there.
    command.current_dir(folder.path()).env("STRIATE_HOME", folder.path()).env("HTTPS_PROXY", "http://127.0.0.1:1");
    command.args(["weights", "fetch", "resnet18-imagenet1k-v1"]);
    let error = crate::sandbox::error_line(command, 2);
    assert!(error.starts_with("error: cannot reach https://download.pytorch.org/models/resnet18-f37072fd.pth: "), "{error}");
    assert!(error.ends_with(": download the file elsewhere, then name the MODEL and the file"), "{error}");
}
