//! Bad recipes, datasets, bundles, tensors and images: one line that names the file, and nothing written.
use crate::sandbox::{QUICK, Sandbox};
use tch::{Device, Kind, Tensor};

#[test]
fn a_bad_recipe_is_named_with_its_line_or_key() {
    let sandbox = Sandbox::new();
    sandbox.refused_with(&["train", "none.toml"], &["none.toml: cannot be read: No such file"]);
    let cases = [
        ("[train\nlr = 1", "r.toml: line 1: "),
        ("[train]\nlr = 'fast'", "expected f64 in `train.lr`"),
        ("[train]\nbatchsize = 8", "unknown key `batchsize` in [train]: did you mean `batch_size`?"),
        ("[trian]\nlr = 1", "unknown section [trian]: did you mean [train]?"),
        ("[schedule]\nkind = 'multistep'\nmilestones = 3", "invalid type: integer 3, expected array in `schedule.milestones`"),
        ("[model]\noptions = { pooling = 'mean' }", "lenet5: bad option: unknown variant `mean`, expected one of `max`"),
    ];
    for (text, told) in cases {
        sandbox.write("r.toml", text);
        sandbox.refused_with(&["train", "r.toml", "--out", "run"], &[told]);
    }
    assert_eq!(sandbox.names(""), ["r.toml"]);
}

/// An IDX header of uint8 with these dimensions, then so many zeros.
fn idx(dims: &[u32], values: usize) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
    bytes.resize(bytes.len() + values, 0);
    bytes
}

#[test]
fn a_bad_idx_file_is_named() {
    const IMAGES: &str = "files/train-images-idx3-ubyte";
    const LABELS: &str = "files/t10k-labels-idx1-ubyte";
    let cases = [
        (IMAGES, idx(&[20, 28, 28], 19 * 784), "is not a sound IDX file: it declares 20x28x28 values, more than"),
        (IMAGES, idx(&[20, 28, 28], 21 * 784), "more bytes follow its 20x28x28 values"),
        (IMAGES, idx(&[20, 8, 8], 20 * 64), "images of mnist are [N, 1, 28, 28], not [20, 1, 8, 8]"),
        (IMAGES, b"<html>".to_vec(), "it starts with the bytes 3c 68 instead of 00 00"),
        (LABELS, idx(&[9], 9), "it has 9 labels for the 10 images in "),
        (LABELS, [idx(&[10], 0), vec![10; 10]].concat(), "label"),
    ];
    let sandbox = Sandbox::new();
    for (file, bytes, told) in cases {
        sandbox.mnist("files");
        sandbox.write(file, bytes);
        let args = ["train", "--data", "mnist", "--data-dir", "files", "--out", "run"];
        sandbox.refused_with(&args, &[file, told]);
    }
    assert_eq!(sandbox.names(""), ["files"]);
}

#[test]
fn a_folder_that_lacks_files_or_is_not_needed_is_named() {
    let sandbox = Sandbox::new();
    sandbox.mnist("files");
    std::fs::remove_file(sandbox.path("files/t10k-labels-idx1-ubyte")).unwrap();
    let train = ["train", "--out", "run", "--data-dir", "files"];
    let missing = "files has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz, or an empty one: name the folder";
    sandbox.refused_with(&[&train[..], &["--data", "mnist"]].concat(), &[missing]);
    sandbox.refused_with(&train, &["digits is compiled in: leave ", "/files out or name another dataset"]);
    assert_eq!(sandbox.names(""), ["files"]);
}

#[test]
fn a_bad_bundle_is_named_by_every_command_that_takes_one() {
    let sandbox = Sandbox::new();
    let whole = std::fs::read(sandbox.bundle("good.safetensors", 10)).unwrap();
    sandbox.tensor("x.safetensors", "input", Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    sandbox.write("cut.safetensors", &whole[..whole.len() / 2]);
    sandbox.write("long.safetensors", [&whole[..], b"x"].concat());
    sandbox.write("text.safetensors", "not tensors at all");
    let name = whole.windows(6).position(|window| window == b"Conv2d").unwrap();
    sandbox.write("other.safetensors", [&whole[..name], b"Conv9d", &whole[name + 6..]].concat());
    let run = |bundle: &'static str| vec!["run", bundle, "--input", "x.safetensors", "--output", "y.safetensors"];
    let cases = [
        (vec!["eval", "cut.safetensors", "--data", "digits"], "cut.safetensors is damaged or not a .safetensors file"),
        (vec!["predict", "cut.safetensors", "x.png"], "cut.safetensors is damaged"),
        (vec!["summary", "cut.safetensors"], "cut.safetensors is damaged"),
        (run("cut.safetensors"), "cut.safetensors is damaged"),
        (run("long.safetensors"), "long.safetensors is damaged"),
        (vec!["eval", "text.safetensors", "--data", "digits"], "text.safetensors is damaged"),
        (vec!["eval", "no.safetensors", "--data", "digits"], "cannot read no.safetensors: No such file"),
        (
            vec!["predict", "other.safetensors", "x.png"],
            "other.safetensors was not written by this version of striate, or is damaged: layer c1: Conv9d is no layer of Striate's",
        ),
        (vec!["predict", "x.safetensors", "x.png"], "x.safetensors holds weights only"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(&args, &[told]);
    }
    assert!(!sandbox.path("y.safetensors").exists());
}

#[test]
fn a_dataset_of_other_classes_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 7);
    let told = "error: digits: it has classes that are not expected: 7, 8, 9";
    sandbox.refused_with(&["eval", "model.safetensors", "--data", "digits"], &[told]);
}

#[test]
fn a_bad_tensor_is_named_with_the_layer() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
    let cases: [(&str, &str, Tensor, &[&str], &str); 6] = [
        ("lenet5", "inptu", ones(&[1, 1, 32, 32]), &[], "x.safetensors: there is no tensor named input, but inptu"),
        (
            "lenet5",
            "input",
            ones(&[1, 3, 32, 32]),
            &[],
            "input input takes [1, 32, 32], got [3, 32, 32]: layer c1 has parameters",
        ),
        ("lenet5", "input", ones(&[1, 1, 8, 8]), &[], "layer c3 (Conv2d): the input [6, 2, 2] is too small"),
        ("lenet5", "input", ones(&[32, 32]), &[], "layer c1 (Conv2d): expected an input of shape [C, H, W], got [32]"),
        ("lenet5", "input", ones(&[1, 1, 32, 32]), &["--tap", "c11"], "there is no layer c11: did you mean c1?"),
        (
            "model.safetensors",
            "input",
            ones(&[1, 1, 32, 32]),
            &["--weights", "model.safetensors"],
            "model.safetensors brings its own weights: leave --weights out",
        ),
    ];
    for (model, name, tensor, extra, told) in cases {
        sandbox.tensor("x.safetensors", name, tensor);
        let args = ["run", model, "--input", "x.safetensors", "--output", "y.safetensors"];
        sandbox.refused_with(&[&args[..], extra].concat(), &[told]);
    }
    assert_eq!(sandbox.names(""), ["model.safetensors", "x.safetensors"]);
}

#[test]
fn weights_of_another_network_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.bundle("w.safetensors", 7);
    sandbox.tensor("x.safetensors", "input", Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    let args = ["run", "lenet5", "--weights", "w.safetensors", "--input", "x.safetensors", "--output", "y.safetensors"];
    let told = "w.safetensors has weights for 7 classes, the network is for 10: build it for 7, or load the body alone";
    sandbox.refused_with(&args, &[told]);
}

#[test]
fn a_bad_image_is_named_and_the_others_are_answered() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    image::GrayImage::new(8, 8).save(sandbox.path("good.png")).unwrap();
    let png = std::fs::read(sandbox.path("good.png")).unwrap();
    sandbox.write("text.png", "no image");
    sandbox.write("cut.png", &png[..png.len() / 2]);
    for image in ["none.png", "text.png", "cut.png"] {
        let told = format!("error: {image} cannot be read as an image: ");
        let output = sandbox.striate(&["predict", "model.safetensors", "good.png", image]).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(out.starts_with("good.png: ") && out.lines().count() == 1, "{out}");
        assert!(err.starts_with(&told) && err.lines().count() == 1 && output.status.code() == Some(2), "{err}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    sandbox.tensor("x.safetensors", "input", Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    let run = ["run", "lenet5", "--input", "x.safetensors", "--output", "file/y.safetensors"];
    let train = [&["train", "--out", "file/run"], &QUICK[..]].concat();
    for (args, told) in [(&run[..], "cannot write file/y.safetensors: "), (&train, "file/run cannot be written to: ")] {
        let line = crate::sandbox::error_line(sandbox.striate(args), 2);
        assert!(line.starts_with(&format!("error: {told}")), "{line}");
    }
}
