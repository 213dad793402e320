//! `striate` describes networks without libtorch. Linkers of other systems may leave libtorch in a program that calls nothing of it.
#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
use crate::sandbox::{Sandbox, program};
use assert_cmd::Command;
use std::path::Path;
use striate_models::{BundleInfo, find, variants};

/// Runs a program that may map no more than 100 MiB, of which what is resident is a part.
fn in_100_mib(program: &Path, args: &[&str]) -> std::process::Output {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 102400 && exec \"$@\"", "sh"]).arg(program).args(args);
    command.output().unwrap()
}

/// A bundle whose weights are a gigabyte, none of which is on the disk.
fn large_bundle(path: &Path) {
    const BYTES: u64 = 1 << 30;
    let model = find("lenet5").unwrap().model(&[]).unwrap();
    let classes: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    let (key, info) = BundleInfo::of_model(&model, &classes, None).unwrap().to_metadata().unwrap();
    let weight = serde_json::json!({ "dtype": "U8", "shape": [BYTES], "data_offsets": [0, BYTES] });
    let header = serde_json::json!({ "__metadata__": { key: info }, "weight": weight }).to_string();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let length = 8 + header.len() as u64 + BYTES;
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[test]
fn networks_are_described_without_libtorch() {
    let sandbox = Sandbox::new();
    large_bundle(&sandbox.path("large.safetensors"));
    let large = sandbox.path("large.safetensors");
    let large = large.to_str().unwrap();
    let mut calls: Vec<Vec<&str>> = variants().map(|variant| vec!["summary", variant.name]).collect();
    calls.extend([
        vec!["summary", large],
        vec!["summary", "resnet152", "--json"],
        vec!["models"],
        vec!["models", "--json"],
        vec!["models", "--markdown"],
        vec!["models", "--diff", "googlenet", "inception-v3"],
        vec!["models", "--diff", "lenet5", large],
        vec!["cost"],
        vec!["--version"],
        vec!["train", "--help"],
    ]);
    for args in calls {
        let output = in_100_mib(&program(), &args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    sandbox.bundle("digits.safetensors", 10);
    let [bundle, onnx] = ["digits.safetensors", "digits.onnx"].map(|name| sandbox.path(name).to_str().unwrap().to_owned());
    let output = in_100_mib(&program(), &["export", &bundle, "-o", &onnx]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = in_100_mib(&program(), &["summary", "lenet6"]);
    assert_eq!(String::from_utf8_lossy(&wrong.stderr), "error: there is no model lenet6: did you mean lenet5?\n");
    // The limit is one that libtorch does not keep.
    assert!(!in_100_mib(&program().with_file_name("striate-engine"), &["--version"]).status.success());
}
