//! Names and values from outside: none sends a terminal a command, errors stay one line, and JSON stays JSON.
use crate::sandbox::{QUICK, Sandbox};
use serde_json::Value;
use std::process::Output;
use tch::{Device, Kind, Tensor};

/// Sets a terminal's title and colour, ends the line, and turns the direction of writing.
const ODD: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\nerror: b\u{202e}";
const SHOWN: &str = r"\u{1b}]0;owned\u{7}\u{9b}31m\nerror: b\u{202e}";

/// Both outputs of a run, after a look at what a terminal would make of them.
#[track_caller]
fn run(sandbox: &Sandbox, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sandbox.striate(args).output().unwrap();
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    for text in [&out, &err] {
        let steers = |letter: char| (letter.is_control() && letter != '\n') || ('\u{202a}'..='\u{202e}').contains(&letter);
        assert!(!text.contains(steers), "striate {args:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("error: b")), "striate {args:?}: {text}");
    }
    (status.code().unwrap(), out, err)
}

/// Standard output of a run that succeeds.
#[track_caller]
fn ok(sandbox: &Sandbox, args: &[&str]) -> String {
    let (code, out, err) = run(sandbox, args);
    assert_eq!(code, 0, "striate {args:?}: {err}");
    out
}

/// The line of a run that is refused.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str]) -> String {
    let (code, out, err) = run(sandbox, args);
    assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "striate {args:?}: {err}");
    err
}

#[test]
fn classes_and_files_of_odd_names() {
    let sandbox = Sandbox::new();
    let odd = format!("{ODD}.png");
    for part in ["train", "test"] {
        for (class, grey) in [(ODD, 9), ("cat", 200)] {
            for file in ["1.png", "2.png"] {
                let path = sandbox.write(&format!("pics/{part}/{class}/{file}"), "");
                image::GrayImage::from_pixel(8, 8, [grey].into()).save(path).unwrap();
            }
        }
    }
    std::fs::copy(sandbox.path("pics/train/cat/1.png"), sandbox.path(&odd)).unwrap();
    let train = [&["train", "lenet5", "--data", "pics", "--out", ODD], &QUICK[..]].concat();
    assert!(ok(&sandbox, &train).contains(&format!("run folder    {SHOWN}\n")));
    std::fs::rename(sandbox.path(ODD), sandbox.path("run")).unwrap();
    let bundle = "run/model.safetensors";
    let answers = ok(&sandbox, &["predict", bundle, &odd]);
    assert!(answers.lines().count() == 1 && answers.matches(SHOWN).count() == 2, "{answers}");
    assert!(ok(&sandbox, &["eval", bundle, "--data", "pics"]).contains(SHOWN));
    assert!(ok(&sandbox, &["lab", "inspect", bundle, &odd, "--out", "inspect"]).starts_with(SHOWN));
    ok(&sandbox, &["lab", "confusion", bundle, "--data", "pics", "--out", "confusion"]);
    ok(&sandbox, &["summary", bundle]);
    ok(&sandbox, &["weights", "inspect", bundle]);
    let (code, found, _) = run(&sandbox, &["data", "check", "pics", "--page", "check.html"]);
    assert!(code == 1 && found.matches(SHOWN).count() > 2, "{found}");
    ok(&sandbox, &["data", "preview", "pics", "--output", "sheet.png"]);
    assert!(refused(&sandbox, &["data", "split", "pics/train", ODD]).contains("too few different pictures"));
    for page in ["check.html", "inspect/index.html", "confusion/index.html", "confusion/confusion.svg"] {
        let page = std::fs::read_to_string(sandbox.path(page)).unwrap();
        assert!(!page.contains('\u{1b}') && page.contains(r"\u{1b}]0;owned"), "{page}");
    }

    let json = |args: &[&str]| -> Value { serde_json::from_str(&ok(&sandbox, args)).unwrap() };
    let prediction = &json(&["predict", bundle, &odd, "--json"])[0];
    assert_eq!(prediction["image"], odd.as_str());
    assert!(prediction["top"].as_array().unwrap().iter().any(|answer| answer["class"] == ODD), "{prediction}");
    assert!(json(&["eval", bundle, "--data", "pics", "--json"])["classes"].as_array().unwrap().contains(&ODD.into()));
    assert!(json(&["lab", "confusion", bundle, "--data", "pics", "--json", "--out", "again"])["classes"].is_array());

    let missing = refused(&sandbox, &["predict", bundle, ODD]);
    assert!(missing.starts_with(&format!("error: {SHOWN} cannot be read as an image: ")), "{missing}");
    sandbox.write(&odd, "no picture");
    let bad = refused(&sandbox, &["predict", bundle, &odd]);
    assert!(bad.starts_with(&format!("error: {SHOWN}.png cannot be read as an image: ")), "{bad}");
}

#[test]
fn tensors_options_and_keys_of_odd_names() {
    let sandbox = Sandbox::new();
    sandbox.tensor("odd.safetensors", ODD, Tensor::full([2], f64::NAN, (Kind::Float, Device::Cpu)));
    let (code, out, warning) = run(&sandbox, &["weights", "inspect", "odd.safetensors"]);
    assert!(code == 0 && out.contains(SHOWN) && warning.contains(SHOWN) && warning.lines().count() == 1, "{out}{warning}");
    let (code, out, _) = run(&sandbox, &["weights", "inspect", "odd.safetensors", "--json"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["tensors"][0]["name"], ODD);
    let weights = ["run", "lenet5", "--weights", "odd.safetensors", "--input", "odd.safetensors", "--output", "y.safetensors"];
    sandbox.tensor("input.safetensors", "input", Tensor::ones([1, 1, 32, 32], (Kind::Float, Device::Cpu)));
    let key: String = ODD.chars().map(|letter| format!("\\U{:08x}", u32::from(letter))).collect();
    sandbox.write("r.toml", format!("[train]\n\"{key}\" = 1"));
    let option = format!("{ODD}=1");
    for args in [
        &weights[..],
        &["run", "lenet5", "--weights", "odd.safetensors", "--input", "input.safetensors", "--output", "y.safetensors"],
        &["weights", "convert", "odd.safetensors", "to.safetensors"],
        &["summary", ODD],
        &["summary", "lenet5", "-o", &option],
        &["models", "--diff", "lenet5", ODD],
        &["cost", ODD],
        &["data", ODD],
        &["lab", "run", ODD],
        &["train", "r.toml"],
        &["train", ODD],
        &["train", "--data", ODD],
        &["train", "--optimizer", ODD],
        &["eval", ODD, "--data", "digits"],
        &["predict", ODD, "x.png"],
        &[ODD],
    ] {
        refused(&sandbox, args);
    }
}

/// Formatting to a width beyond 65,535 panics, and tables as wide as that fill a disk.
#[test]
fn a_name_as_long_as_a_book_makes_no_table_as_wide() {
    let sandbox = Sandbox::new();
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    let tensors = [("a".to_owned(), one()), ("n".repeat(70_000), one())].into();
    striate_torch::TensorFile { tensors, ..Default::default() }.write(&sandbox.path("long.safetensors")).unwrap();
    let out = ok(&sandbox, &["weights", "inspect", "long.safetensors"]);
    assert!(out.contains(&format!("\na{}  float32   [1]\n", " ".repeat(199))), "{}", out.len());
}
