//! A look inside: what is written, how it reads in a browser, and what is refused.
use crate::sandbox::{Sandbox, interrupt, program};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use striate_lab::find_claim;
use striate_models::Bundle;

/// A sandbox with LeNet-5 at its first weights and a folder of two pictures.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.bundle("lenet.safetensors", 10);
    std::fs::create_dir(sandbox.path("pictures")).unwrap();
    for name in ["a", "b"] {
        let picture = image::RgbImage::from_fn(40, 30, |x, y| [x as u8 * 6, y as u8 * 8, name.as_bytes()[0]].into());
        picture.save(sandbox.path(&format!("pictures/{name}.png"))).unwrap();
    }
    sandbox.write("pictures/notes.txt", "no picture");
    sandbox
}

#[test]
fn a_folder_of_pictures_becomes_a_page() {
    let sandbox = sandbox();
    let args =
        ["lab", "inspect", "lenet.safetensors", "pictures", "--layer", "c1", "--layer", "f6", "--unit", "c3:2,3", "--show", "1"];
    let out = sandbox.ok(&args);
    assert!(out.contains("pictures/a.png: ") && out.contains("c3:2,3 sees rows 4 to 17, columns 6 to 19"), "{out}");
    assert!(out.contains(" (few pictures prove little: others may wake them)\npage lab/inspect-lenet5-1/index.html\n"), "{out}");
    assert_eq!(sandbox.names("lab/inspect-lenet5-1"), ["filters.png", "image-1", "index.html", "report.json"]);
    let json = sandbox.json(&[&args[..], &["--json"]].concat());
    assert_eq!((json["image_count"].as_u64(), json["images"].as_array().unwrap().len()), (Some(2), 1));
    let maps: Vec<&str> =
        json["images"][0]["feature_maps"].as_array().unwrap().iter().map(|m| m["layer"].as_str().unwrap()).collect();
    assert_eq!(maps, ["c1", "f6"]);
    for maps in json["images"][0]["feature_maps"].as_array().unwrap() {
        assert!(sandbox.path("lab/inspect-lenet5-2").join(maps["file"].as_str().unwrap()).is_file(), "a folder of its own");
    }
    let written = std::fs::read_to_string(sandbox.path("lab/inspect-lenet5-2/report.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), json);
}

#[test]
fn probabilities_are_those_of_predictions() {
    let sandbox = Sandbox::new();
    sandbox.train_quickly();
    sandbox.ok(&["data", "digits", "--pictures", "pictures", "--count", "1"]);
    let bundle = "run/model.safetensors";
    assert_ne!(Bundle::read(&sandbox.path(bundle)).unwrap().info.answering.temperature, 1.0);
    let seen = sandbox.json(&["lab", "inspect", bundle, "pictures", "--json"]);
    let told = sandbox.json(&["predict", bundle, "pictures", "--json"]);
    let [seen, told] = [&seen["images"][0]["top"][0], &told[0]["top"][0]].map(|top| top["probability"].as_f64().unwrap());
    assert!((seen - told).abs() < 1e-5, "{seen} {told}");
}

#[test]
fn what_cannot_be_looked_at_is_refused_and_nothing_is_written() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    sandbox.write("damaged.png", b"\x89PNG\r\n\x1a\nrest");
    sandbox.write("empty.png", b"");
    let before = sandbox.names("");
    let cases: [(&[&str], &str); 12] = [
        (&["damaged.png"], "damaged.png cannot be read as an image"),
        (&["pictures/notes.txt"], "notes.txt cannot be read as an image: its content is of no format that is read"),
        (&["empty.png"], "error: empty.png cannot be read as an image: it is empty"),
        (&["none.png"], "none.png cannot be read as an image"),
        (&["empty"], "empty: it holds no picture that is read"),
        (&["pictures", "--layer", "c3_atc"], "there is no layer c3_atc: did you mean c3_act?"),
        (&["pictures", "--cam-layer", "f6"], "layer f6 gives [84], which has no rows and columns"),
        (
            &["pictures", "--unit", "c3:10,0"],
            "unit c3:10,0 lies outside of the maps: c3 has 10 rows and 10 columns, counted from 0",
        ),
        (&["pictures", "--unit", "c9:1,1"], "there is no layer c9"),
        (&["pictures", "--unit", "c3"], "unit c3: write it as LAYER:ROW,COLUMN"),
        (&["pictures", "--out", "pictures"], "pictures holds files already: give another --out"),
        (&["pictures", "--out", "empty.png"], "error: empty.png is a file, not a folder: give another --out"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(&[&["lab", "inspect", "lenet.safetensors"], args].concat(), &[told]);
    }
    sandbox.refused_with(&["lab", "surface", "lenet.safetensors", "--data", "digits", "--points", "1"], &["points = 1 must be"]);
    sandbox.refused_with(&["lab", "lr", "lenet6", "--data", "digits"], &["there is no model lenet6: did you mean lenet5?"]);
    sandbox.refused_with(
        &["lab", "lr", "lenet5", "--from", "1", "--to", "0.1"],
        &["the learning rate = 1 to 0.1 must grow: give two above 0"],
    );
    sandbox.bundle("seven.safetensors", 7);
    sandbox.refused_with(
        &["lab", "confusion", "seven.safetensors", "--data", "digits"],
        &["digits: it has classes that are not expected: 7, 8, 9"],
    );
    std::fs::remove_file(sandbox.path("seven.safetensors")).unwrap();
    assert_eq!(sandbox.names(""), before);
}

#[test]
fn what_is_no_bundle_is_told_what_to_name() {
    let sandbox = sandbox();
    for (file, bundle) in [("done", "model"), ("stopped", "last")] {
        sandbox.write(&format!("runs/{file}/recipe.toml"), "");
        sandbox.write(&format!("runs/{file}/{bundle}.safetensors"), "");
    }
    sandbox.tensor("w.safetensors", "c1.weight", tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu)));
    let bundles = [
        ("lenet5", "error: lenet5 is a model's name: name a trained bundle of it, such as a run's model.safetensors"),
        ("runs/done", "error: runs/done is a folder: name the bundle in it, runs/done/model.safetensors"),
        ("runs/stopped", "error: runs/stopped is a folder: name the bundle in it, runs/stopped/last.safetensors"),
        ("pictures", "error: pictures is a folder without a model.safetensors: name a bundle, such as a finished run's"),
        (
            "w.safetensors",
            "error: w.safetensors holds weights only: name a run's model.safetensors, or make a bundle with `striate ",
        ),
    ];
    for (bundle, told) in bundles {
        sandbox.refused_with(&["lab", "inspect", bundle, "pictures"], &[told]);
        for command in [&["lab", "surface"][..], &["lab", "confusion"], &["eval"]] {
            sandbox.refused_with(&[command, &[bundle, "--data", "digits"]].concat(), &[told]);
        }
    }
    sandbox.refused_with(&["lab", "lr", "w.safetensors"], &["w.safetensors"]);
    sandbox.refused_with(&["lab", "lr", "none/lenet5"], &["there is no model none/lenet5"]);
    for command in [&["lab", "lr"][..], &["train"], &["summary"]] {
        let line = sandbox.refused(&[command, &["runs/done"]].concat());
        assert_eq!(line, "error: runs/done is a folder: name the bundle in it, runs/done/model.safetensors");
    }
    let line = sandbox.refused(&["lab", "lr", "lenet5", "--data", "pictures"]);
    assert!(line.contains("pictures: it has ") && line.contains("but no folders"), "{line}");
}

#[test]
fn one_seed_is_told_to_decide_nothing() {
    let sandbox = Sandbox::new();
    let run = ["lab", "run", "gradient-norms", "--data", "digits", "--seeds", "1", "--threads", "1"];
    let output = sandbox.striate(&run).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && err.contains("one seed gives no interval"), "{err}");
    assert!(out.contains(", measured once: no interval; to be above -1.00\n") && !out.contains("inf"), "{out}");
    assert!(out.ends_with("\nlab/quick/index.html\n"), "{out}");
    let page = std::fs::read_to_string(sandbox.path("lab/quick/index.html")).unwrap();
    for file in ["gradient-norms/digits/numbers.csv", "gradient-norms/digits/outcome.json"] {
        assert!(page.contains(&format!("<a href=\"{file}\">")) && sandbox.path("lab/quick").join(file).is_file(), "{file}");
    }
}

fn picture(sandbox: &Sandbox, name: &str, colour: [u8; 3]) {
    let path = sandbox.write(name, "");
    image::RgbImage::from_pixel(20, 20, colour.into()).save(path).unwrap();
}

/// What was measured on a folder is measured anew when the folder has changed.
#[test]
fn a_claim_is_tested_on_a_folder_of_pictures() {
    let sandbox = Sandbox::new();
    for (number, class) in ["dark", "light"].into_iter().enumerate() {
        for index in 0..40 {
            let value = 100 * number as u8 + index;
            picture(&sandbox, &format!("tones/{class}/{index}.png"), [value, value / 2, value]);
        }
    }
    let run = ["lab", "run", "gradient-norms", "--data", "tones", "--seeds", "2", "--threads", "1"];
    let out = sandbox.ok(&run);
    assert!(out.ends_with("\nlab/quick/index.html\n"), "{out}");
    let text = |file: &str| std::fs::read_to_string(sandbox.path("lab/quick/gradient-norms/tones").join(file)).unwrap();
    let outcome: serde_json::Value = serde_json::from_str(&text("outcome.json")).unwrap();
    assert_eq!(outcome["data"], "tones");
    let trials = || text("trials.jsonl").lines().count();
    let once = trials();
    assert_eq!(sandbox.ok(&run), out);
    assert_eq!(trials(), once);
    picture(&sandbox, "tones/dark/more.png", [9, 9, 9]);
    sandbox.ok(&run);
    assert_eq!(trials(), 2 * once);
}

#[test]
fn a_run_of_all_claims_that_is_stopped_has_a_page_of_those_before() {
    let sandbox = Sandbox::new();
    let all = ["lab", "run", "all", "--data", "digits", "--seeds", "2", "--threads", "1", "--out", "lab"];
    let mut command = Command::new(program());
    command.current_dir(sandbox.path("")).args(all).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let trained = |line: &String| line.contains("INFO pooling-order: ReLU before pooling");
    let first = lines.find(trained).expect("a training run is told");
    interrupt(&child);
    assert_eq!(lines.last().as_deref(), Some("error: stopped; the same command goes on where it was"));
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    let told = String::from_utf8(stdout).unwrap();
    let page = std::fs::read_to_string(sandbox.path("lab/index.html")).unwrap();
    let done: Vec<&str> = page.split("<section id=\"").skip(1).map(|section| section.split('"').next().unwrap()).collect();
    assert_eq!(done, ["shapes", "parameters"], "the lecture's order");
    for name in done {
        assert!(told.contains(&format!("{}: supported\n", find_claim(name).unwrap().title)), "{told}");
    }
    // What was measured is kept, so that the next run need not measure it.
    let trials = std::fs::read_to_string(sandbox.path("lab/pooling-order/digits/trials.jsonl")).unwrap();
    let what = first.split(": ").nth(1).unwrap().split(" (").next().unwrap();
    assert!(trials.lines().next().is_some_and(|trial| trial.contains(what)), "{first}: {trials}");
}

#[test]
fn the_surface_the_range_and_the_confusion_are_written() {
    let sandbox = sandbox();
    let surface =
        sandbox.json(&["lab", "surface", "lenet.safetensors", "--data", "digits", "--points", "3", "--examples", "40", "--json"]);
    assert_eq!((surface["examples"].as_u64(), &surface["losses"][1][1]), (Some(40), &surface["centre"]));
    assert_eq!(sandbox.names("lab/surface-lenet5-1"), ["surface.csv", "surface.svg"]);
    let lr = sandbox.ok(&["lab", "lr", "lenet5", "--data", "digits", "--steps", "30", "--out", "lr"]);
    assert!(lr.starts_with("lenet5 on digits: ") && lr.contains("suggestion ") && lr.contains("lr/lr.svg"), "{lr}");
    assert_eq!(sandbox.names("lr"), ["lr.csv", "lr.svg"]);
    let confusion =
        sandbox.json(&["lab", "confusion", "lenet.safetensors", "--data", "digits", "--worst", "3", "--json", "--out", "c"]);
    let eval = sandbox.json(&["eval", "lenet.safetensors", "--data", "digits", "--json"]);
    assert_eq!((&confusion["confusion"], &confusion["accuracy"]), (&eval["confusion"], &eval["accuracy"]));
    assert_eq!(sandbox.names("c"), ["confusion.csv", "confusion.svg", "index.html"]);
}

/// A script that tells the size of each picture once all are loaded.
const PROBE: &str = "<script>addEventListener('load', () => document.body.dataset.sizes = \
                     [...document.images].map(i => i.complete ? i.naturalWidth * i.naturalHeight : 0).join(' '))</script>";

#[test]
fn the_pages_open_in_a_browser() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let there = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let Some(chromium) = names.iter().find(there) else {
        eprintln!("skipped: there is no Chromium to open a page in");
        return;
    };
    let sandbox = sandbox();
    sandbox.ok(&["lab", "inspect", "lenet.safetensors", "pictures", "--unit", "c3:2,3", "--out", "look"]);
    sandbox.ok(&["lab", "confusion", "lenet.safetensors", "--data", "digits", "--out", "confused"]);
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab/index.html");
    sandbox.write("claims.html", std::fs::read(published).unwrap());
    for (page, pictures) in [("look/index.html", 2 * (1 + 10 + 1 + 1 + 2) + 1), ("confused/index.html", 24), ("claims.html", 0)] {
        let html = std::fs::read_to_string(sandbox.path(page)).unwrap();
        for outside in ["<script", "<link rel=\"stylesheet", "src=\"http", "@import", "url("] {
            assert!(!html.contains(outside), "{page} holds {outside}");
        }
        let probed = sandbox.write("probed.html", html.replacen("</head>", &format!("{PROBE}</head>"), 1));
        let (dom, messages) = open(chromium, &probed, &sandbox.path("profile"));
        let sizes = dom.split("data-sizes=\"").nth(1).unwrap_or_else(|| panic!("{page}: {messages}")).split('"').next().unwrap();
        let sizes: Vec<u64> = sizes.split_whitespace().map(|size| size.parse().unwrap()).collect();
        assert_eq!(sizes.len(), pictures, "{page}");
        assert!(sizes.iter().all(|size| *size > 0), "{page}: {sizes:?}");
        assert!(!messages.contains("CONSOLE"), "{page}: {messages}");
    }
    let broken = sandbox
        .write("broken.html", format!("<!doctype html><head>{PROBE}<script>nothing()</script></head><img src=\"none.png\">"));
    let (dom, messages) = open(chromium, &broken, &sandbox.path("profile"));
    assert!(dom.contains("data-sizes=\"0\"") && messages.contains("CONSOLE"), "the checks can fail: {messages}");
}

/// What a page becomes in the browser, and what that has to say of it.
fn open(chromium: &str, page: &Path, profile: &Path) -> (String, String) {
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).into()
}
