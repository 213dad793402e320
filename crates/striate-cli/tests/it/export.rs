//! `export`: what it writes, and how it refuses.
use crate::sandbox::Sandbox;
use std::process::Command;
use striate_models::{Bundle, Weights};

/// The example that needs nothing of Striate; cargo has built it before the tests.
fn predict_tract() -> Command {
    Command::new(crate::sandbox::program().with_file_name("examples").join("predict_tract"))
}

/// The one that loads ONNX Runtime, where `ORT_DYLIB_PATH` names its library. Cargo builds it now: it is no part of the workspace.
fn predict_ort() -> Option<Command> {
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        eprintln!("skipped: no ORT_DYLIB_PATH names ONNX Runtime's library");
        return None;
    }
    let mut cargo = Command::new(env!("CARGO"));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../striate-export/examples/predict_ort/Cargo.toml");
    cargo.args(["run", "--quiet", "--offline", "--locked", "--manifest-path", manifest]);
    cargo.args(["--config", "profile.dev.debug=false", "--target-dir"]);
    cargo.arg(crate::sandbox::program().with_file_name("predict_ort")).arg("--");
    Some(cargo)
}

#[test]
fn a_picture_has_the_same_answer_from_the_export() {
    let sandbox = Sandbox::new();
    sandbox.train_quickly();
    sandbox.ok(&["weights", "convert", "run/model.safetensors", "run/model.safetensors", "--licence", "CC0-1.0"]);
    let line = sandbox.ok(&["export", "run/model.safetensors", "-o", "digits.onnx", "--metadata", "version=3"]);
    assert_eq!(line, "digits.onnx: images [batch, height, width, 1] to probabilities [batch, 10], 0.2 MB\n");
    let written = std::fs::read(sandbox.path("digits.onnx")).unwrap();
    let has = |text: &[u8]| written.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"licence\x12\x07CC0-1.0") && has(b"version\x12\x013"));
    assert!(has(br#"[{"name":"Optical Recognition of Handwritten Digits","licence":"CC BY 4.0"}]"#));
    let mut ours = Vec::new();
    for (name, width, height) in [("x.png", 30, 41), ("y.png", 17, 12)] {
        image::GrayImage::from_fn(width, height, |x, y| [(7 * x + 5 * y) as u8].into()).save(sandbox.path(name)).unwrap();
        let answer = sandbox.json(&["predict", "run/model.safetensors", name, "--top", "3", "--json"]);
        for answer in answer[0]["top"].as_array().unwrap() {
            ours.push((answer["class"].as_str().unwrap().to_owned(), answer["probability"].as_f64().unwrap()));
        }
    }
    for mut program in [predict_tract()].into_iter().chain(predict_ort()) {
        let output = program.args(["digits.onnx", "x.png", "y.png"]).current_dir(sandbox.path("")).output().unwrap();
        assert!(output.status.success(), "{program:?}: {output:?}");
        let theirs = String::from_utf8(output.stdout).unwrap();
        for ((class, probability), line) in ours.iter().zip(theirs.lines()) {
            let (name, percent) = line.strip_suffix('%').unwrap().split_once(' ').unwrap();
            let percent: f64 = percent.parse().unwrap();
            assert!(name == class && (percent - 100.0 * probability).abs() < 0.5, "{program:?}: {ours:?}\n{theirs}");
        }
        assert_eq!(theirs.lines().count(), ours.len());
    }
}

#[test]
fn bad_input_is_one_line_and_nothing_is_written() {
    let sandbox = Sandbox::new();
    let path = sandbox.bundle("digits.safetensors", 10);
    let refused = |args: &[&str], told: &str| sandbox.refused_with(&[&["export"], args].concat(), &[told]);
    refused(&["missing.safetensors", "-o", "x.onnx"], "missing.safetensors");
    refused(&["digits.safetensors", "-o", "digits.safetensors"], "digits.safetensors is the bundle itself: write the export to");
    refused(&["digits.safetensors", "-o", "x.pth"], "x.pth: this is written as .onnx: give the file a name that ends so");
    refused(&["digits.safetensors", "-o", "x.onnx", "--metadata", "licence"], "--metadata licence: write it as NAME=VALUE");
    refused(
        &["digits.safetensors", "-o", "x.onnx", "--precision", "int8"],
        "digits.safetensors has no int8 calibration: store one in the bundle first (`striate weights convert` and its --calibrate)",
    );
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    refused(&["folder", "-o", "x.onnx"], "folder is a folder without a model.safetensors");
    refused(&["digits.safetensors", "-o", "folder"], "folder: it is a folder");
    let mut bundle = Bundle::read(&path).unwrap();
    bundle.info.preprocess = None;
    bundle.write(&path).unwrap();
    refused(
        &["digits.safetensors", "-o", "x.onnx"],
        "does not say how pictures become inputs: export the network alone, with normalised inputs (--raw)",
    );
    sandbox.ok(&["weights", "convert", "digits.safetensors", "digits.pth"]);
    refused(&["digits.pth", "-o", "x.onnx"], "digits.pth holds weights only");
    assert_eq!(sandbox.names(""), ["digits.pth", "digits.safetensors", "folder"]);
    assert_eq!(Weights::read(&sandbox.path("digits.pth")).unwrap().tensors.len(), Bundle::read(&path).unwrap().state.len());
}

#[test]
fn a_checked_export_is_written_only_if_it_answers_alike() {
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    for raw in [&["--raw"][..], &[]] {
        let out = sandbox.ok(&[&["export", "digits.safetensors", "-o", "new/x.onnx", "--check"], raw].concat());
        assert!(out.lines().nth(1).unwrap().ends_with("4 of 4 classes agree"), "{out}");
    }
    // Pictures in colour and of other sizes than the network's: the export turns none of them into another class.
    std::fs::create_dir_all(sandbox.path("pictures/0")).unwrap();
    for (name, width) in [("a.png", 30), ("b.png", 41)] {
        let picture = image::RgbImage::from_fn(width, 28, |x, y| [(7 * x) as u8, (5 * y) as u8, 90].into());
        picture.save(sandbox.path("pictures/0").join(name)).unwrap();
    }
    let out = sandbox.ok(&["export", "digits.safetensors", "-o", "new/y.onnx", "--check", "--data", "pictures"]);
    assert!(out.lines().nth(1).unwrap().ends_with("2 of 2 classes agree"), "{out}");
    let refused = ["export", "digits.safetensors", "-o", "new/z.onnx", "--check", "--data", "missing"];
    sandbox.refused_with(&refused, &["missing"]);
    assert_eq!(sandbox.names("new"), ["x.onnx", "y.onnx"]);
}
