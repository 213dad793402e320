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

/// Instructions for a text.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A file of PyTorch before 1.6 with this content, and with a storage `0` of the values 1 and -2.
fn legacy(folder: &tempfile::TempDir, content: &[&[u8]]) -> PathBuf {
    let values = [1.0_f32, -2.0].map(f32::to_le_bytes).concat();
    let parts: [&[u8]; 8] = [
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.",
        b"\x80\x02",
        &content.concat(),
        b".\x80\x02]",
        &text("0"),
        b"a.",
        &2_u64.to_le_bytes(),
        &values,
    ];
    let path = folder.path().join("legacy.pth");
    std::fs::write(&path, parts.concat()).unwrap();
    path
}

/// Instructions for the tensor of the storage `0`, with what is said of it.
fn tensor(said: &[u8]) -> Vec<u8> {
    let storage = [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cpu"), b"K\x02NtQ".to_vec()].concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(), &storage, b"K\0K\x02\x85K\x01\x85\x89}", said, b"tR"].concat()
}

/// They keep the class of a module as they keep storages, with its source.
#[test]
fn a_whole_module_of_old_files_gives_its_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let class = [b"(".as_slice(), &text("module"), b"cmine\nNet\n", &text("net.py"), &text("class Net: ..."), b"tQ"].concat();
    let parameters = [&text("_parameters")[..], b"}", &text("weight"), &tensor(b""), b"s"].concat();
    let path = legacy(&folder, &[&class, b")\x81}(", &parameters, &text("_modules"), b"}ub"]);
    assert_eq!(Weights::read(&path).unwrap().tensors["weight"], Tensor::from_slice(&[1.0_f32, -2.0]));
    // It calls no more than others.
    let path = legacy(&folder, &[b"(", &text("module"), b"cos\nsystem\nNNtQ", &text("id"), b"\x85R"]);
    assert!(error(&path).contains("it would execute os.system;"));
}

/// `torch.save({"w": torch._neg_view(x)}, ...)`: PyTorch keeps x, and says that it stands for -x.
#[test]
fn negative_views_are_negated() {
    let folder = tempfile::tempdir().unwrap();
    for (said, expected) in [(b"".as_slice(), [1.0_f32, -2.0]), (&[b"}", &text("neg")[..], b"\x88s"].concat(), [-1.0, 2.0])] {
        let path = legacy(&folder, &[b"}", &text("w"), &tensor(said), b"s"]);
        assert_eq!(Weights::read(&path).unwrap().tensors["w"], Tensor::from_slice(&expected));
    }
}

#[test]
fn code_is_refused_by_name_and_never_run() {
    for name in ["hostile.pth", "hostile-legacy.pth", "hostile-root.pth"] {
        let text = error(&fixture(name));
        assert!(text.contains("it would execute posix.system"), "{text}");
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
        assert!(text.contains(&format!("it would execute {name};")), "{text}");
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
fn weights_are_found_below_many_keys_and_plain_values_beside_them_call_nothing() {
    let deep = fixture("deep.pth");
    let weights = Weights::read(&deep).unwrap();
    assert_eq!(weights.key.as_deref(), Some("runs.a.b.c.d.0"));
    assert!(weights.tensors.keys().eq(["encoder_k.conv.weight", "encoder_q.conv.weight"]));
    // Parts go by their names in the file, and by those that messages have.
    for key in ["encoder_q", "module.encoder_q", "runs.a.b.c.d.0.encoder_q"] {
        assert_eq!(Weights::read_at(&deep, key).unwrap().tensors["conv.weight"].double_value(&[0]), 1.0, "{key}");
    }
}

#[test]
fn values_that_differ_from_their_checksum_are_told_if_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let ones = [1.0_f32.to_le_bytes(), 1.0_f32.to_le_bytes()].concat();
    for (name, checked) in [("tiny.pth", true), ("no-checksums.pth", false)] {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        let place = bytes.windows(8).position(|window| window == ones).unwrap();
        bytes[place..place + 4].copy_from_slice(&2.0_f32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        if checked {
            assert!(error(&path).contains("is damaged"));
        } else {
            assert_eq!(Weights::read(&path).unwrap().tensors["w"].double_value(&[0]), 2.0);
        }
    }
}

#[test]
fn an_archive_is_read_whatever_the_length_of_its_name() {
    let weights = Weights::read(&fixture(&format!("{}.pth", "n".repeat(21)))).unwrap();
    assert_eq!(weights.tensors["w"], Tensor::ones([2], (Kind::Float, Device::Cpu)));
}

#[test]
fn of_several_networks_the_likelier_is_taken_and_the_others_told() {
    let ema = fixture("ema.pth");
    let weights = Weights::read(&ema).unwrap();
    assert_eq!((weights.key.as_deref(), &*weights.others), (Some("state_dict"), &["state_dict_ema".to_owned()][..]));
    assert_eq!(weights.arch.as_deref(), Some("resnet18"));
    assert!(weights.tensors.keys().eq(["conv.bias", "conv.weight"]));
    assert_eq!(weights.tensors["conv.weight"].double_value(&[0]), 1.0);
    let average = Weights::read_at(&ema, "state_dict_ema").unwrap();
    assert_eq!(average.tensors["conv.weight"].double_value(&[0]), 0.5);

    let two = fixture("two.pth");
    assert!(error(&two).contains("several networks (generator, discriminator.net): say which"));
    assert_eq!(Weights::read_at(&two, "discriminator.net").unwrap().tensors["conv.weight"].double_value(&[0]), 0.5);
    assert!(Weights::read_at(&two, "generator.conv").unwrap().tensors.keys().eq(["bias", "weight"]));
    let text = Weights::read_at(&two, "teacher").unwrap_err().to_string();
    assert!(text.ends_with("has no weights under teacher: it has generator, discriminator.net"), "{text}");
    let text = Weights::read_at(&fixture("zip.pth"), "teacher").unwrap_err().to_string();
    assert!(text.ends_with("has no weights under teacher: it has the beginnings of its names"), "{text}");
}

#[test]
fn a_network_in_a_list_is_found_and_two_go_by_their_places() {
    let weights = Weights::read(&fixture("list.pth")).unwrap();
    assert_eq!(weights.key.as_deref(), Some("0"));
    assert!(weights.tensors.keys().eq(["conv.bias", "conv.weight"]));
    let two = fixture("tuple.pth");
    assert!(error(&two).contains("several networks (0, 1): say which"));
    assert_eq!(Weights::read_at(&two, "1").unwrap().tensors["conv.weight"].double_value(&[0]), 0.5);
}

#[test]
fn files_of_another_kind_are_called_by_their_name() {
    assert!(error(&fixture("scripted.pt")).contains("is a scripted module"));
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, told) in [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0".as_slice(), "a pointer of Git LFS"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        ("b.pth", b"\n<!DOCTYPE html><html>", "a web page"),
        ("c.h5", b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
        ("d.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("e.pth", b"\x1f\x8b\x08\0", "compressed with gzip"),
        ("f.json", b"{\"a\": 1}", "JSON"),
        ("g.npz", &archive(&["a.npy"]), "an archive of NumPy arrays"),
        ("h.zip", &archive(&[]), "a zip archive without weights"),
        ("i.pt2", &archive(&["i/archive_format", "i/models/model.json"]), "an exported program"),
        ("j.pt", &archive(&["j/.data/extern_modules"]), "a package of code"),
        ("k.pth", b"\x80\x02ctorch._utils\n_rebuild_qtensor\n)R.", "a file with quantised, sparse or nested tensors"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = error(&path);
        assert!(text.contains(&format!("{name} is {told}")), "{text}");
    }
}

/// A zip archive with these empty entries.
fn archive(names: &[&str]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in names {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn content_decides_and_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really-pytorch.safetensors");
    std::fs::copy(fixture("tiny.pth"), &path).unwrap();
    assert_eq!(Weights::read(&path).unwrap().format, WeightsFormat::PytorchZip);
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
    assert!(error(&fixture("expanded.pth")).contains("would take more than "));
    let views = Weights::read(&fixture("views.pth")).unwrap();
    assert_eq!(views.tensors["weight"], Tensor::ones([5000], (Kind::Float, Device::Cpu)));
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(fixture("tiny-legacy.pth")).unwrap();
    // The number of values in the storage, 2, comes before their eight bytes.
    let place = bytes.len() - 16;
    assert_eq!(bytes[place..place + 8], 2_u64.to_le_bytes());
    let huge = [&bytes[..place], &0x7fff_ffff_u64.to_le_bytes(), &bytes[place + 8..]].concat();
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
    let names = ["module.w", "a.module.v", "optimizer/w"];
    let tensors = names.map(|name| (name.to_owned(), tensor())).into();
    TensorFile { tensors, ..TensorFile::default() }.write(&path).unwrap();
    let weights = Weights::read(&path).unwrap();
    assert!(weights.format == WeightsFormat::Safetensors && weights.info.is_none());
    assert!(weights.tensors.keys().eq(["a.v", "w"]));
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
fn whatever_stands_before_the_names_is_taken_off() {
    let from = network("resnet-tiny", 10, 1);
    let beside = |name: &str| if name.starts_with("fc.") { name.to_owned() } else { format!("backbone.{name}") };
    let renames: [&dyn Fn(&str) -> String; 4] = [
        &|name| format!("model.{name}"),
        &|name| format!("_orig_mod.module.{name}"),
        &|name| format!("model.encoder.0.net.{name}"),
        &beside,
    ];
    for rename in renames {
        let into = network("resnet-tiny", 10, 2);
        renamed(&from, |name| Some(rename(name))).load(&into).unwrap();
        assert_eq!(into.state(), from.state(), "{}", rename("conv1.weight"));
    }
}

#[test]
fn what_profilers_and_other_parts_leave_is_ignored_and_named() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    let mut weights = renamed(&from, |name| Some(format!("net.{name}")));
    for extra in ["net.conv1.total_ops", "net.total_params", "criterion.weight"] {
        weights.tensors.insert(extra.to_owned(), Tensor::zeros([1], (Kind::Double, Device::Cpu)));
    }
    let loaded = weights.load(&into).unwrap();
    assert_eq!((loaded.prefix.as_str(), loaded.renamed.len()), ("net.", 0));
    assert_eq!(loaded.ignored, ["criterion.weight", "net.conv1.total_ops", "net.total_params"]);
    // Within the network's own names, what it has no place for says that it is another network.
    weights.tensors.insert("net.layer1.1.conv1.weight".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    let text = weights.load(&into).unwrap_err().to_string();
    assert!(text.ends_with("1 unexpected (layer1.1.conv1.weight)"), "{text}");
}

#[test]
fn two_networks_under_prefixes_are_told_but_for_averages() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    let twice = |second: &str| {
        let mut weights = renamed(&from, |name| Some(format!("model.{name}")));
        weights.tensors.extend(renamed(&network("resnet-tiny", 10, 3), |name| Some(format!("{second}.{name}"))).tensors);
        weights
    };
    let text = twice("teacher").load(&into).unwrap_err().to_string();
    assert_eq!(text, "w.pth holds the weights of several networks (model, teacher): say which to read");
    let mut below = twice("teacher");
    below.key = Some("saved".to_owned());
    let text = below.load(&into).unwrap_err().to_string();
    assert!(text.contains("(saved.model, saved.teacher)"), "{text}");
    let loaded = twice("model_ema").load(&into).unwrap();
    let note = "the weights under model are taken, not their average under model_ema: FILE#model_ema names it";
    assert_eq!(loaded.notes()[0], note);
    assert_eq!(into.state(), from.state());
    // Also where both have another name for the classifier.
    let mut linear = twice("ema");
    linear.tensors = linear.tensors.into_iter().map(|(name, tensor)| (name.replace("fc.", "linear."), tensor)).collect();
    let into = network("resnet-tiny", 10, 4);
    linear.load(&into).unwrap();
    assert_eq!(into.state(), from.state());
}

#[test]
fn linear_layers_have_any_name_where_shapes_tell_them_apart() {
    for other in ["linear", "head.out", "fc.1"] {
        let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
        let loaded = renamed(&from, |name| Some(name.replace("fc.", &format!("{other}.")))).load(&into).unwrap();
        assert_eq!(loaded.renamed, [("fc".to_owned(), other.to_owned())]);
        assert_eq!(into.state(), from.state());
    }
    // The names of VGGs of 2014 and of today's; two layers of one shape can't be told apart.
    let old = |name: &str| Some(name.replace("classifier.0.", "classifier.1.").replace("classifier.3.", "classifier.4."));
    let vgg = |hidden: i64| {
        let options =
            [("classes", 10.into()), ("input", serde_json::json!([3, 32, 32])), ("width", 4.into()), ("hidden", hidden.into())];
        let graph = find("vgg11").unwrap().model(&options).unwrap().graph().unwrap();
        Network::new(graph, &InitOptions::default()).unwrap()
    };
    renamed(&vgg(16), old).load(&vgg(16)).unwrap();
    let features = 32 * 7 * 7;
    let text = renamed(&vgg(features), old).load(&vgg(features)).unwrap_err().to_string();
    assert!(text.contains("4 missing (classifier.0.weight, classifier.0.bias, ...)"), "{text}");
}

#[test]
fn a_classifier_of_another_form_is_left_with_the_body_alone() {
    let from = network("resnet-tiny", 10, 1);
    type Rename<'a> = &'a dyn Fn(&str) -> Option<String>;
    let forms: [(Rename, &str); 3] = [
        (&|name| (!name.starts_with("fc.")).then(|| format!("backbone.{name}")), "has no classifier fc: load the body alone"),
        (&|name| (!name.starts_with("fc.")).then(|| name.to_owned()), "has no classifier fc: load the body alone"),
        (&|name| Some(name.replace("fc.", "fc.3.")), "has no classifier fc of the network's shape, but fc.3: load the body"),
    ];
    for (rename, told) in forms {
        let into = network("resnet-tiny", 7, 2);
        let weights = renamed(&from, rename);
        let text = weights.load(&into).unwrap_err().to_string();
        assert!(text.contains(told), "{text}");
        weights.load_body(&into).unwrap();
        assert_eq!(into.state()["layer3.0.conv2.weight"], from.state()["layer3.0.conv2.weight"]);
        assert_eq!(into.state()["fc.weight"], network("resnet-tiny", 7, 2).state()["fc.weight"]);
    }
    // A body that is not all there is an error.
    let part = renamed(&from, |name| (!name.starts_with("layer3.")).then(|| name.to_owned()));
    assert!(part.load_body(&network("resnet-tiny", 7, 2)).is_err());
}

#[test]
fn auxiliary_heads_that_one_side_lacks_name_their_option() {
    let build = |aux: bool| {
        let options = [("classes", 10.into()), ("aux_heads", aux.into())];
        let graph = find("googlenet-tiny").unwrap().model(&options).unwrap().graph().unwrap();
        Network::new(graph, &InitOptions::default()).unwrap()
    };
    let all = |network: &Network| renamed(network, |name| Some(name.to_owned()));
    let told =
        [(false, true, "no weights for the auxiliary heads", "false"), (true, false, "weights for auxiliary heads", "true")];
    for (file, network, what, option) in told {
        let text = all(&build(file)).load(&build(network)).unwrap_err().to_string();
        assert_eq!(text, format!("w.pth has {what} (aux1, aux2): build the network with the option aux_heads = {option}"));
    }
}

#[test]
fn weights_that_may_be_of_another_wiring_are_doubted() {
    let graph = |options: &[(&str, serde_json::Value)]| find("resnet-tiny").unwrap().model(options).unwrap().graph().unwrap();
    let linear = renamed(&network("resnet-tiny", 10, 1), |name| Some(name.replace("fc.", "linear.")));
    assert!(linear.doubt(&graph(&[])).unwrap().contains("zero_channels = around"));
    assert_eq!(linear.doubt(&graph(&[("zero_channels", "around".into())])), None);

    let named = Weights::read(&fixture("ema.pth")).unwrap();
    assert_eq!(named.other_architecture("resnet18"), None);
    assert_eq!(named.other_architecture("resnet34").as_deref(), Some("resnet18"));
}

/// However many names there are and however long.
#[test]
fn what_does_not_fit_is_told_in_500_letters() {
    let wrong = renamed(&network("resnet18", 10, 1), |name| Some(name.replace("conv", &"long".repeat(100))));
    let text = wrong.load(&network("resnet18", 10, 2)).unwrap_err().to_string();
    assert!(text.len() < 500 && text.contains("17 missing (conv1.weight, layer1.0.conv1.weight, ...)"), "{text}");
}

#[test]
fn all_that_does_not_fit_is_told_and_nothing_is_changed() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    let before: BTreeMap<String, Tensor> = into.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    let wrong = renamed(&from, |name| Some(name.replace("layer1.0.conv1.weight", "layer9.weight")));
    let told = "w.pth: the weights do not fit: 1 missing (layer1.0.conv1.weight)";
    assert_eq!(wrong.load(&into).unwrap_err().to_string(), format!("{told}; 1 unexpected (layer9.weight)"));
    // What is nowhere in the body may be another head.
    assert_eq!(wrong.load_body(&into).unwrap_err().to_string(), told);
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
fn a_head_of_another_rank_is_not_told_as_other_classes() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    let mut file = renamed(&from, |name| Some(name.to_owned()));
    let head = file.tensors["fc.weight"].unsqueeze(-1).unsqueeze(-1);
    file.tensors.insert("fc.weight".to_owned(), head);
    let text = file.load(&into).unwrap_err().to_string();
    assert!(text.contains("fc.weight") && !text.contains("classes"), "{text}");
}

#[test]
fn a_new_head_is_started_even_for_the_same_classes() {
    let (from, into) = (network("resnet-tiny", 10, 1), network("resnet-tiny", 10, 2));
    renamed(&from, |name| Some(name.to_owned())).load_body(&into).unwrap();
    assert_eq!(into.state()["conv1.weight"], from.state()["conv1.weight"]);
    assert_eq!(into.state()["fc.weight"], network("resnet-tiny", 10, 2).state()["fc.weight"]);
}
