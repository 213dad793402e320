//! Weights from the files that `tests/weights/make_fixtures.py` wrote, from damaged ones, and into networks.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate_graph::{InitOptions, Network};
use striate_models::{Bundle, Weights, WeightsFormat, find};
use striate_torch::TensorFile;
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights").join(name)
}

/// The error of reading a file: one line that names it.
fn error(path: &Path) -> String {
    let text = Weights::read(path).unwrap_err().to_string();
    let name = path.file_name().unwrap().to_string_lossy();
    assert!(text.contains(&*name) && !text.contains('\n') && text.len() < 500, "{text}");
    text
}

/// The tensors that the script saves.
fn expected() -> BTreeMap<String, Tensor> {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([4, 6]) / 8.0;
    let tensors = [
        ("float", base.copy()),
        ("double", base.narrow(0, 0, 2).to_kind(Kind::Double)),
        ("half", base.get(0).to_kind(Kind::Half)),
        ("bfloat16", base.get(1).to_kind(Kind::BFloat16)),
        ("transposed", base.tr()),
        ("strided", base.slice(0, 0, None, 2).slice(1, 1, None, 2)),
        ("shared.row", base.get(2)),
        ("int64", Tensor::from_slice(&[1_i64, -2, 3])),
        ("int32", Tensor::from_slice(&[4_i32, -5])),
        ("int16", Tensor::from_slice(&[6_i16, -7])),
        ("uint8", Tensor::from_slice(&[8_u8, 255])),
        ("bool", Tensor::from_slice(&[true, false])),
        ("scalar", Tensor::from(2.5_f32)),
        ("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ("parameter", Tensor::ones([2], (Kind::Float, Device::Cpu))),
    ];
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

#[test]
fn every_file_of_pytorch_gives_the_tensors_that_were_saved() {
    let (zip, legacy) = (WeightsFormat::PytorchZip, WeightsFormat::PytorchLegacy);
    for (name, format) in
        [("zip.pth", zip), ("legacy.pth", legacy), ("model.pth", zip), ("state_dict.th", legacy), ("protocol4.pt", legacy)]
    {
        let weights = Weights::read(&fixture(name)).unwrap();
        assert_eq!(weights.format, format, "{name}");
        assert!(weights.tensors.keys().eq(expected().keys()), "{name}: {:?}", weights.tensors.keys());
        for (key, tensor) in expected() {
            let got = &weights.tensors[&key];
            assert_eq!((got.kind(), got), (tensor.kind(), &tensor), "{name}: {key}");
        }
    }
}

#[test]
fn a_whole_module_gives_its_parameters_and_buffers() {
    let weights = Weights::read(&fixture("module.pt")).unwrap();
    let names: Vec<&str> = weights.tensors.keys().map(String::as_str).collect();
    let batch_norm = ["1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight"];
    assert_eq!(names, [["0.bias", "0.weight"].as_slice(), &batch_norm].concat());
    assert_eq!(weights.tensors["0.weight"].size(), [2, 1, 3, 3]);
}

#[test]
fn code_is_refused_by_name_and_never_run() {
    for name in ["hostile.pth", "hostile-legacy.pth", "hostile-root.pth"] {
        let text = error(&fixture(name));
        assert!(text.contains("wants posix.system to be run"), "{text}");
    }
    for folder in [Path::new("."), &fixture("")] {
        assert!(!folder.join("hostile-was-run").exists());
    }
}

/// A pickle of these instructions, as a file of its own.
fn pickle(folder: &tempfile::TempDir, instructions: &[&[u8]]) -> PathBuf {
    let path = folder.path().join("pickle.pth");
    std::fs::write(&path, [b"\x80\x02".as_slice(), &instructions.concat(), b"."].concat()).unwrap();
    path
}

/// What a pickle calls is found wherever the result goes: nowhere, into an object's state, into another call.
#[test]
fn hidden_calls_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let call: &[u8] = b"cos\nsystem\nX\x02\0\0\0id\x85R";
    let namespace: &[u8] = b"cargparse\nNamespace\n)\x81";
    let partial: &[u8] = b"cfunctools\npartial\n)\x81";
    for (instructions, name) in [
        ([b"}".as_slice(), call, b"0"].as_slice(), "os.system"),
        (&[namespace, b"}X\x01\0\0\0x", call, b"sb"], "os.system"),
        (&[b"(", call, b"1}"], "os.system"),
        (&[b"cos\nsystem\nq\0", b"0h\0)R0}"], "os.system"),
        (&[b"\x8c\x02os\x8c\x06system\x93)R0}"], "os.system"),
        (&[b"(X\x02\0\0\0idios\nsystem\n0}"], "os.system"),
        (&[b"(cos\nsystem\nX\x02\0\0\0ido0}"], "os.system"),
        (&[b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)NtR0}"], "os.system"),
        (&[b"ctorch._tensor\n_rebuild_from_type_v2\n]R0}"], "torch._tensor._rebuild_from_type_v2"),
        (&[partial, b"cos\nsystem\nb)R0}"], "functools.partial"),
        (&[b"NN\x86)R0}"], "a function made on the way"),
    ] {
        let text = error(&pickle(&folder, instructions));
        assert!(text.contains(&format!("wants {name} to be run")), "{text}");
    }
    // An object that calls nothing is skipped.
    let text = error(&pickle(&folder, &[b"}X\x04\0\0\0args", namespace, b"}X\x01\0\0\0xK\x01sbs"]));
    assert!(text.contains("holds no tensors by name"), "{text}");
}

#[test]
fn what_training_scripts_keep_beside_the_weights_is_skipped() {
    let weights = Weights::read(&fixture("training.pth")).unwrap();
    assert!(weights.tensors.keys().eq(["w"]), "{:?}", weights.tensors.keys());
}

#[test]
fn values_that_are_no_numbers_are_told() {
    let tensors = [
        ("fine", Tensor::from_slice(&[1.0_f32, -2.0])),
        ("infinite", Tensor::from_slice(&[1.0_f64, f64::INFINITY])),
        ("nan", Tensor::from_slice(&[f32::NAN]).to_kind(Kind::Half)),
        ("whole", Tensor::from_slice(&[i64::MAX])),
    ];
    let weights = weights(tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into());
    assert_eq!(weights.not_finite().unwrap(), ["infinite", "nan"]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.pth");
    std::fs::write(&text, "no pickle").unwrap();
    let sparse = folder.path().join("sparse.tar.pth");
    std::fs::write(&sparse, [[0; 257].as_slice(), b"ustar", &[0; 512]].concat()).unwrap();
    for (path, told) in [
        (fixture("uint16.pth"), "tensor weight has the unsupported type uint16"),
        (fixture("complex.pth"), "tensor weight has the unsupported type complex64"),
        (fixture("empty.pth"), "holds no tensors by name"),
        (text, "is damaged or holds no weights of PyTorch"),
        (sparse, "load it with PyTorch and save it again"),
        (folder.path().join("none.pth"), "cannot read"),
    ] {
        let error = error(&path);
        assert!(error.contains(told), "{error}");
    }
    let error = Bundle::read(&fixture("zip.pth")).unwrap_err().to_string();
    assert!(error.contains("holds weights only"), "{error}");
}

#[test]
fn declared_sizes_are_checked_before_anything_is_allocated() {
    assert!(error(&fixture("expanded.pth")).contains("bytes and would unpack to 4294967296: "));
    let views = Weights::read(&fixture("views.pth")).unwrap();
    assert_eq!(views.tensors["weight"], Tensor::ones([5000], (Kind::Float, Device::Cpu)));
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("tiny-legacy.pth")).unwrap();
    // The number of values in the storage, 2, is followed by an absent view and the end of the tuple.
    let place = bytes.windows(4).position(|window| window == b"K\x02Nt").unwrap();
    let huge = [&bytes[..place], b"J\xff\xff\xff\x7f", &bytes[place + 2..]].concat();
    let path = folder.path().join("huge.pth");
    std::fs::write(&path, huge).unwrap();
    let text = error(&path);
    assert!(text.contains("8589934588 bytes") && text.contains("beyond the end of the file"), "{text}");
}

/// Truncations of small files, and changes of any of their bytes: an error or other values, but no panic and no wait.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pth");
    for name in ["tiny.pth", "tiny-legacy.pth"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            error(&path);
        }
        for place in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[place] ^= mask;
                std::fs::write(&path, changed).unwrap();
                if Weights::read(&path).is_err() {
                    error(&path);
                }
            }
        }
    }
}

#[test]
fn safetensors_are_known_by_content_and_checkpoints_give_the_network_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    let tensor = || Tensor::from_slice(&[1.0_f32]);
    let names = ["module.w", "module.v", "optimizer/w"];
    let tensors = names.map(|name| (name.to_owned(), tensor())).into();
    TensorFile { tensors, ..TensorFile::default() }.write(&path).unwrap();
    let weights = Weights::read(&path).unwrap();
    assert!(weights.format == WeightsFormat::Safetensors && weights.info.is_none());
    assert!(weights.tensors.keys().eq(["v", "w"]));
}

fn network(model: &str, classes: i64, seed: u64) -> Network {
    let model = find(model).unwrap().model(&[("classes", classes.into())]).unwrap();
    Network::new(model.graph().unwrap(), &InitOptions { seed, ..InitOptions::default() }).unwrap()
}

fn weights(tensors: BTreeMap<String, Tensor>) -> Weights {
    Weights::new(Path::new("w.pth"), WeightsFormat::PytorchZip, tensors)
}

/// The weights of `network` with other names.
fn renamed(network: &Network, rename: impl Fn(&str) -> Option<String>) -> Weights {
    weights(network.state().into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect())
}

#[test]
fn names_of_other_repositories_fit() {
    let rename = |name: &str| match name {
        name if name.ends_with("num_batches_tracked") => None,
        name => Some(name.replace("fc.", "linear.").replace("downsample.", "shortcut.")),
    };
    for model in ["resnet-tiny", "resnet-bottleneck-tiny"] {
        let (from, into) = (network(model, 10, 1), network(model, 10, 2));
        renamed(&from, rename).load(&into).unwrap();
        assert_eq!(into.state(), from.state(), "{model}");
    }
}

#[test]
fn all_that_does_not_fit_is_told_and_nothing_is_changed() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    let before: BTreeMap<String, Tensor> = into.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    let wrong = renamed(&from, |name| Some(name.replace("layer1.0.conv1.weight", "layer9.weight")));
    for error in [wrong.load(&into).unwrap_err(), wrong.load_body(&into).unwrap_err()] {
        let text = error.to_string();
        let told = "w.pth: the weights do not fit: 1 missing (layer1.0.conv1.weight); 1 unexpected (layer9.weight)";
        assert_eq!(text, told);
    }
    assert_eq!(into.state(), before);
}

#[test]
fn another_number_of_classes_names_the_options_that_mend_it() {
    for model in ["resnet-tiny", "alexnet-tiny", "nin-tiny", "googlenet-tiny"] {
        let (from, into) = (network(model, 7, 1), network(model, 5, 2));
        let weights = renamed(&from, |name| Some(name.to_owned()));
        let text = weights.load(&into).unwrap_err().to_string();
        let told = "w.pth has weights for 7 classes, the network is for 5: build it for 7, or load the body alone";
        assert!(text.starts_with(told), "{model}: {text}");

        let head = network(model, 5, 2).state();
        weights.load_body(&into).unwrap();
        for (name, tensor) in into.state() {
            let trained = &from.state()[&name];
            let expected = if trained.size() == tensor.size() { trained } else { &head[&name] };
            assert_eq!(&tensor, expected, "{model}: {name}");
        }
    }
}

#[test]
fn a_new_head_is_started_even_for_the_same_classes() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    renamed(&from, |name| Some(name.to_owned())).load_body(&into).unwrap();
    assert_eq!(into.state()["conv1.weight"], from.state()["conv1.weight"]);
    assert_eq!(into.state()["fc.weight"], network("resnet-tiny", 10, 2).state()["fc.weight"]);
}
