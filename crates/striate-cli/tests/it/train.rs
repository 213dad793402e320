//! `train`, `eval` and `predict` when all goes well.
use crate::sandbox::{QUICK, Sandbox, bits, close};
use serde_json::Value;
use striate_datasets::{Dataset, InMemory, LoadOptions, Loader, LoaderOptions, load};
use striate_graph::InitOptions;
use striate_infer::{Plan, PlanOptions, Precision};
use striate_models::Bundle;
use striate_torch::TensorFile;
use tch::Kind;

#[test]
fn a_run_leaves_a_folder_whose_bundle_is_evaluated_alike() {
    let sandbox = Sandbox::new();
    // What a run that died before its first checkpoint has left.
    sandbox.write("run/metrics.jsonl", "{\"event\":\"run_started\"}\n");
    let out = sandbox.ok(&[&["train", "--out", "run"], &QUICK[..]].concat());
    let logs = ["last.safetensors", "metrics.csv", "metrics.jsonl"];
    let files = [&["best.safetensors"][..], &logs, &["model.safetensors", "recipe.toml", "summary.json"]].concat();
    assert_eq!(sandbox.names("run"), files);
    assert!(out.starts_with("test accuracy ") && out.ends_with("bundle        run/model.safetensors\n"), "{out}");

    let summary: Value = serde_json::from_slice(&std::fs::read(sandbox.path("run/summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["params"], &summary["steps"], &summary["seed"]), (&61_706.into(), &3.into(), &0.into()));
    for bundle in ["run/model.safetensors", "run/last.safetensors"] {
        let mut report = sandbox.json(&["eval", bundle, "--data", "digits", "--threads", "1", "--json"]);
        assert!(close(&report["loss"], &summary["test"]["loss"]), "{bundle}: {report}");
        let mut expected = summary["test"].clone();
        let figures = ["calibration_error", "nll", "brier"];
        if bundle == "run/last.safetensors" {
            // Nothing is fitted before the end.
            assert_eq!((&report["temperature"], &report["unknown"]), (&1.0.into(), &Value::Null));
            expected["probabilities"] = summary["calibrated"]["before"].clone();
            expected["temperature"] = 1.0.into();
            expected["unknown"] = Value::Null;
        }
        assert!(figures.iter().all(|name| close(&report["probabilities"][name], &expected["probabilities"][name])), "{report}");
        for rounded in ["loss", "probabilities"] {
            report[rounded] = expected[rounded].clone();
        }
        assert_eq!(report, expected, "{bundle}");
    }
    let eval = ["eval", "run/model.safetensors", "--data", "digits", "--threads", "1", "--json", "--precision", "bfloat16"];
    let accuracy = |report: &Value| report["accuracy"].as_f64().unwrap();
    let half = sandbox.json(&eval);
    assert!((accuracy(&half) - accuracy(&summary["test"])).abs() < 0.02 && half["loss"] != summary["test"]["loss"], "{half}");
    assert_eq!(summary["test"]["examples"], 899);
    let counted: u64 = summary["test"]["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(counted, 899);
    let step = "step_done";
    let expected =
        ["run_started", "epoch_started", step, step, step, "epoch_done", "checkpoint_saved", "checkpoint_saved", "run_done"];
    assert_eq!(events(&sandbox, "run"), expected);
    let text = sandbox.ok(&["eval", "run/model.safetensors", "--data", "digits", "--threads", "1"]);
    // Figures, the matrix, and a line for each class.
    assert!(text.starts_with("899 images: accuracy ") && text.lines().count() == 3 + 13 + 11, "{text}");
    let temperature = summary["test"]["temperature"].as_f64().unwrap();
    assert!(text.contains(&format!("\ntemperature {temperature:.3}: calibration error ")), "{text}");
    assert!(out.contains(&format!("\nprobabilities temperature {temperature:.3} from test; ")), "{out}");
}

#[test]
fn plans_in_bfloat16_and_int8_give_the_same_class_for_nearly_all_real_images() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["train", "--out", "run", "--epochs", "4", "--threads", "1"]);
    let path = sandbox.path("run/model.safetensors");
    let bundle = Bundle::read(&path).unwrap();
    let network = bundle.network(&path, &InitOptions::default()).unwrap();
    let preprocess = bundle.info.preprocess.clone().unwrap();
    let digits = load("digits", &LoadOptions::default()).unwrap().in_memory().unwrap();
    let images = |data: &InMemory| {
        let loader = Loader::new(data, preprocess.clone(), LoaderOptions::eval(data.len())).unwrap();
        loader.epoch(0).unwrap().next().unwrap().unwrap().images
    };
    let test = images(&digits.test);
    let classes = |plan: Plan| plan.forward(&test).unwrap().logits().argmax(1, false);
    let plan = |precision| Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() }).unwrap();
    let expected = classes(plan(Precision::Float32));
    let check = |plan: Plan, thousandths: i64| {
        let precision = plan.precision();
        let same = expected.eq_tensor(&classes(plan)).sum(Kind::Int64).int64_value(&[]);
        println!("{precision:?}: {same} of {}", digits.test.len());
        assert!(same * 1000 >= digits.test.len() as i64 * thousandths, "{precision:?}: {same} of {}", digits.test.len());
    };
    check(plan(Precision::Bfloat16), 995);

    let eval = ["eval", "run/model.safetensors", "--data", "digits", "--threads", "1", "--json"];
    let int8 = [&eval[..], &["--precision", "int8", "--calibrate", "digits"]].concat();
    if !striate_torch::int8::available() {
        println!("skipped: no AVX-512 VNNI or AVX-VNNI");
        return;
    }
    check(Plan::calibrated(&network, &[images(&digits.train).narrow(0, 0, 256)]).unwrap(), 990);
    let (plain, int8) = (sandbox.json(&eval), sandbox.json(&int8));
    let accuracy = |report: &Value| report["accuracy"].as_f64().unwrap();
    assert!((accuracy(&plain) - accuracy(&int8)).abs() < 0.01 && plain["loss"] != int8["loss"], "{plain} {int8}");
}

#[test]
fn int8_and_images_to_calibrate_go_together() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    for command in [&["eval", "model.safetensors", "--data", "digits"][..], &["predict", "model.safetensors", "x.png"]] {
        let told = "error: --precision int8 needs images: name a dataset or a folder with --calibrate";
        sandbox.refused_with(&[command, &["--precision", "int8"]].concat(), &[told]);
        let told = "error: --calibrate is for --precision int8 only";
        sandbox.refused_with(&[command, &["--calibrate", "digits"]].concat(), &[told]);
        let missing = ["--precision", "int8", "--calibrate", "no/folder"];
        let told = "no/folder does not exist: name a folder of pictures, a list, shards, or a dataset";
        sandbox.refused_with(&[command, &missing].concat(), &[told]);
    }
}

#[test]
fn folders_of_pictures_are_trained_on_and_evaluated() {
    let sandbox = Sandbox::new();
    for (part, count) in [("train", 12), ("val", 5)] {
        for (class, level) in [("dark", 40), ("light", 200)] {
            for number in 0..count {
                let path = sandbox.write(&format!("pictures/{part}/{class}/{number}.png"), "");
                let colour = image::Rgb([level + number as u8, level, 255 - level]);
                image::RgbImage::from_pixel(40 + number, 36, colour).save(path).unwrap();
            }
        }
    }
    let quick = ["--epochs", "8", "--batch-size", "8", "--threads", "1"];
    let out = sandbox.ok(&[&["train", "lenet5", "--data", "pictures", "--out", "run"], &quick[..]].concat());
    let summary: Value = serde_json::from_slice(&std::fs::read(sandbox.path("run/summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["data"], &summary["test"]["examples"]), (&"pictures".into(), &10.into()));
    // There is no test set.
    assert_eq!((&summary["judge"], &summary["val"]), (&"val".into(), &Value::Null));
    assert!(out.starts_with("val accuracy 100.00% (10 images) after 8 epochs in "), "{out}");
    let csv = std::fs::read_to_string(sandbox.path("run/metrics.csv")).unwrap();
    assert!(csv.starts_with("epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,best,"), "{csv}");
    let metrics = |file: &str| Bundle::read(&sandbox.path(file)).unwrap().info.metrics.into_keys().collect::<Vec<_>>();
    for file in ["run/model.safetensors", "run/last.safetensors"] {
        assert_eq!(metrics(file), ["val_accuracy", "val_loss"]);
    }
    assert_eq!((&summary["test"]["accuracy"], &summary["test"]["classes"]), (&1.0.into(), &serde_json::json!(["dark", "light"])));
    // The folder as it was given, its part, and what a recipe calls it.
    for data in [&["--data", "pictures"][..], &["--data", "pictures/val"], &["--data", "image-folder", "--data-dir", "pictures"]]
    {
        let report = sandbox.json(&[&["eval", "run/model.safetensors", "--threads", "1", "--json"], data].concat());
        assert!(close(&report["loss"], &summary["test"]["loss"]), "{report}");
        assert_eq!(report["confusion"], serde_json::json!([[5, 0], [0, 5]]));
    }
    let predict = ["predict", "run/model.safetensors", "pictures/val/light/1.png"];
    assert!(sandbox.ok(&predict).contains("light"));
    if striate_torch::int8::available() {
        // The folder with parts, or a folder of classes.
        for folder in ["pictures", "pictures/train"] {
            let int8 = ["--precision", "int8", "--calibrate", folder];
            assert!(sandbox.ok(&[&predict[..], &int8].concat()).contains("light"));
        }
    }
    let out = sandbox.ok(&["train", "run/recipe.toml", "--epochs", "1"]);
    assert!(out.contains(" after 1 epoch in ") && out.contains("run folder    runs/lenet5-pictures-1\n"), "{out}");
    assert!(sandbox.ok(&["runs"]).contains("  pictures "));
    // Of two classes the right one is always among the first five.
    assert!(!sandbox.ok(&["eval", "run/model.safetensors", "--data", "pictures"]).contains("top-5"));

    let error = sandbox.refused(&["train", "--data", "pictures/train"]);
    assert!(error.contains("nothing to judge by") && error.ends_with("with `split = 0.2` in [data] (--split 0.2)"), "{error}");
    sandbox.refused_with(
        &["train", "pictures"],
        &["pictures is a folder, not a model: to train on its pictures, pass --data pictures"],
    );
    assert!(sandbox.refused(&["train", "--data", "pictures/vla"]).contains("pictures/vla does not exist"));
    let error = sandbox.refused(&["train", "--data", "image-folder"]);
    assert!(error.contains("--data-dir"), "{error}");
    std::fs::rename(sandbox.path("pictures/val/dark"), sandbox.path("pictures/val/black")).unwrap();
    let error = sandbox.refused(&["train", "--data", "pictures"]);
    assert!(error.contains("pictures/val") && error.contains("black") && error.contains("dark"), "{error}");
    sandbox.write("pictures/train/dark/3.png", "no picture");
    std::fs::rename(sandbox.path("pictures/val/black"), sandbox.path("pictures/val/dark")).unwrap();
    let error = sandbox.refused(&["train", "--data", "pictures"]);
    assert!(
        error.contains("3.png cannot be read as an image") && error.ends_with(" (--skip-bad skips what cannot be read)"),
        "{error}"
    );
    // A part to judge by is missing, whatever the pictures are.
    let error = sandbox.refused(&["train", "--data", "pictures/train"]);
    assert!(error.contains("nothing to judge by"), "{error}");
}

/// The kinds of a run's events.
fn events(sandbox: &Sandbox, run: &str) -> Vec<String> {
    let metrics = std::fs::read_to_string(sandbox.path(run).join("metrics.jsonl")).unwrap();
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
    metrics.lines().map(event).collect()
}

#[test]
fn the_seed_decides_the_weights_and_the_recipe_of_a_run_repeats_it() {
    let sandbox = Sandbox::new();
    let args = ["train", "--lr", "0.02", "--optimizer", "sgd", "--schedule", "cosine", "-o", "activation=tanh"];
    sandbox.ok(&[&args[..], &QUICK[..], &["--seed", "7", "--out", "a"]].concat());
    sandbox.ok(&["train", "a/recipe.toml", "--out", "b"]);
    sandbox.ok(&["train", "a/recipe.toml", "--seed", "8", "--out", "c"]);
    let recipe = |run: &str| std::fs::read_to_string(sandbox.path(run).join("recipe.toml")).unwrap();
    let weights = |run: &str| bits(&sandbox.path(run).join("model.safetensors"));
    assert!(recipe("a").contains("activation = \"tanh\"") && recipe("a").contains("lr = 0.02"), "{}", recipe("a"));
    assert_eq!(recipe("a"), recipe("b"));
    assert_eq!(weights("a").len(), 10);
    assert_eq!(weights("a"), weights("b"));
    assert_ne!(weights("a"), weights("c"));
}

#[test]
fn precision_and_kernels_change_the_last_digits_only() {
    let sandbox = Sandbox::new();
    let loss = |run: &str, args: &[&str]| {
        sandbox.ok(&[&["train"], args, &["--out", run]].concat());
        let summary: Value = serde_json::from_slice(&std::fs::read(sandbox.path(run).join("summary.json")).unwrap()).unwrap();
        summary["test"]["loss"].as_f64().unwrap()
    };
    let fast = loss("fast", &[&["resnet-tiny"], &QUICK[..]].concat());
    let recipe = std::fs::read_to_string(sandbox.path("fast/recipe.toml")).unwrap();
    sandbox.write("plain.toml", recipe.replace("kernels = \"fast\"", "kernels = \"libtorch\""));
    let plain = loss("plain", &["plain.toml"]);
    let half = loss("half", &["plain.toml", "--precision", "bfloat16"]);
    let apart = |loss: f64| ((loss - plain) / plain).abs();
    assert!([fast, half].iter().all(|loss| apart(*loss) > 0.0 && apart(*loss) < 1e-3) && fast != half, "{fast} {plain} {half}");
    let weights = TensorFile::read(&sandbox.path("half/model.safetensors")).unwrap().tensors;
    assert!(weights.iter().all(|(_, weight)| weight.kind() != tch::Kind::BFloat16));
}

#[test]
fn a_folder_of_idx_files_is_trained_on_into_the_next_free_run() {
    let sandbox = Sandbox::new();
    sandbox.mnist("files");
    let args = [&["train", "lenet5", "--data", "mnist", "--data-dir", "files"], &QUICK[..]].concat();
    let summary = sandbox.json(&[&args[..], &["--json"]].concat());
    assert_eq!((&summary["data"], &summary["test"]["examples"]), (&"mnist".into(), &10.into()));
    sandbox.ok(&args);
    assert_eq!(sandbox.names("runs"), ["lenet5-mnist-1", "lenet5-mnist-2"]);
}

#[test]
fn datasets_of_the_catalogue_are_trained_on_from_memory_and_from_files() {
    let sandbox = Sandbox::new();
    let record = |label: u8| [vec![label], vec![20 * label; 3072]].concat();
    let ten = (0..10).flat_map(record).collect::<Vec<u8>>();
    for file in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        sandbox.write(&format!("files/cifar-10-batches-bin/{file}.bin"), &ten);
    }
    let run = |args: &[&str]| sandbox.json(&[args, &["--data-dir", "files", "--json"]].concat());
    let summary = run(&[&["train", "resnet-tiny", "--data", "cifar-10", "--out", "cifar"], &QUICK[..]].concat());
    assert_eq!((&summary["data"], &summary["test"]["examples"]), (&"cifar-10".into(), &10.into()));
    let preprocess = |run: &str| {
        let bundle = Bundle::read(&sandbox.path(&format!("{run}/model.safetensors"))).unwrap();
        bundle.info.preprocess.unwrap().normalise
    };
    // The means of the real training pictures.
    assert_eq!(preprocess("cifar").mean, [0.4914, 0.4822, 0.4465]);

    for part in ["train", "val"] {
        for (synset, level) in [("n01440764", 60), ("n03888257", 180)] {
            for number in 0..4 {
                let path = sandbox.write(&format!("files/imagenette2-160/{part}/{synset}/{number}.JPEG"), "");
                image::RgbImage::from_pixel(40 + number, 36, image::Rgb([level; 3])).save(path).unwrap();
            }
        }
    }
    let summary = run(&[&["train", "resnet-tiny", "--data", "imagenette-160", "--out", "nette"], &QUICK[..]].concat());
    assert_eq!((&summary["data"], &summary["test"]["examples"]), (&"imagenette-160".into(), &8.into()));
    assert_eq!((&summary["test"]["classes"][0], &summary["test"]["classes"][9]), (&"tench".into(), &"parachute".into()));
    assert_eq!(preprocess("nette").mean, [0.485, 0.456, 0.406]);
    let report = run(&["eval", "nette/model.safetensors", "--data", "imagenette-160"]);
    assert!(close(&report["loss"], &summary["test"]["loss"]), "{report}");
    sandbox.refused_with(
        &["eval", "nette/model.safetensors", "--data", "imagenet"],
        &["imagenet cannot be downloaded by a program: get it from https://image-net.org/challenges/LSVRC/2012/"],
    );
}

#[test]
fn predictions_of_grey_and_colour_files_and_of_the_test_set_agree() {
    let sandbox = Sandbox::new();
    sandbox.bundle("model.safetensors", 10);
    let digit = load("digits", &LoadOptions::default()).unwrap().in_memory().unwrap().test.images().get(0);
    let mut pixels = vec![0; 64];
    digit.copy_data_u8(&mut pixels, 64);
    let grey = image::GrayImage::from_raw(8, 8, pixels).unwrap();
    grey.save(sandbox.path("grey.png")).unwrap();
    image::DynamicImage::ImageLuma8(grey).to_rgb8().save(sandbox.path("colour.png")).unwrap();

    let predict = ["predict", "model.safetensors", "grey.png", "colour.png", "--top", "10"];
    let predictions = sandbox.json(&[&predict[..], &["--json"]].concat());
    assert_eq!((&predictions[0]["image"], &predictions[1]["image"]), (&"grey.png".into(), &"colour.png".into()));
    assert_eq!(predictions[0]["top"], predictions[1]["top"]);
    let top: Vec<f64> = predictions[0]["top"].as_array().unwrap().iter().map(|a| a["probability"].as_f64().unwrap()).collect();
    assert!(top.len() == 10 && top.is_sorted_by(|a, b| a >= b) && (top.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{top:?}");
    let text = sandbox.ok(&predict);
    assert!(text.starts_with("grey.png: ") && text.lines().count() == 2, "{text}");
    // The same picture by its dataset's name; a file of that name goes before.
    let test_set = sandbox.json(&["predict", "model.safetensors", "digits", "--top", "10", "--json"]);
    assert_eq!(predictions[0]["unknown"], false);
    assert_eq!((&test_set[0]["image"], test_set.as_array().unwrap().len()), (&"digits/0".into(), 899));
    assert_eq!(test_set[0]["top"], predictions[0]["top"]);
    sandbox.write("digits", "no picture");
    sandbox.refused_with(&["predict", "model.safetensors", "digits"], &["digits cannot be read as an image"]);
}

#[test]
fn fine_tuning_starts_from_weights_and_keeps_what_is_frozen() {
    let sandbox = Sandbox::new();
    sandbox.bundle("start.safetensors", 7);
    let start = ["train", "lenet5", "--weights", "start.safetensors", "--freeze-through", "s4", "--out", "run"];
    let whole = sandbox.refused(&[&start[..], &QUICK[..]].concat());
    assert!(whole.contains("start.safetensors") && whole.contains("--head replace"), "{whole}");
    sandbox.ok(&[&start[..], &["--head", "replace"], &QUICK[..]].concat());
    let weights = |file: &str| TensorFile::read(&sandbox.path(file)).unwrap().tensors;
    let (before, after) = (weights("start.safetensors"), weights("run/model.safetensors"));
    assert_eq!((before["c1.weight"] == after["c1.weight"], before["c3.bias"] == after["c3.bias"]), (true, true));
    assert_ne!(before["c5.weight"], after["c5.weight"]);
    assert_eq!((before["output.weight"].size(), after["output.weight"].size()), (vec![7, 84], vec![10, 84]));
    let near = (&before["c5.weight"] - &after["c5.weight"]).abs().max().double_value(&[]);
    assert!(near < 0.05, "{near}: one epoch of small steps does not go far from the weights that were given");

    let unknown = sandbox.refused(&[&["train", "lenet5", "--freeze-through", "output2", "--out", "other"], &QUICK[..]].concat());
    assert!(unknown.contains("no layer output2") && unknown.contains("did you mean output?"), "{unknown}");
    sandbox.refused_with(&["train", "lenet5", "--weights", "resnet18", "--out", "other"], &["resnet18-imagenet1k-v1"]);
    assert!(!sandbox.path("other").exists());
}
