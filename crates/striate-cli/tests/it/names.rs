//! Names that are no UTF-8, in every place where one can stand.
use crate::sandbox::{QUICK, Sandbox, program};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

fn odd(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[track_caller]
fn ok(folder: &Path, args: &[&OsStr]) -> String {
    let output = Command::new(program()).current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_run_works_in_any_folder_on_any_folder() {
    let sandbox = Sandbox::new();
    let here = sandbox.path("").join(odd(b"caf\xe9"));
    for (part, count) in [("train", 4), ("test", 2)] {
        for class in ["a", "b"] {
            let folder = here.join(odd(b"data\xff")).join(part).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let shade = image::Luma([(number * 50) as u8]);
                image::GrayImage::from_pixel(20, 20, shade).save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
    }
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut train = words(&["train", "lenet5", "--data", "image-folder", "--epochs", "1", "--batch-size", "4", "--threads", "1"]);
    train.extend([odd(b"--data-dir"), odd(b"data\xff"), odd(b"--out"), odd(b"run\xfe")].map(OsStr::to_owned));
    ok(&here, &train.iter().map(OsString::as_os_str).collect::<Vec<_>>());

    let run = here.join(odd(b"run\xfe"));
    let event = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let saved =
        event.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|event| event["event"] == "checkpoint_saved");
    let path = &saved.unwrap()["path"];
    assert_eq!(path["text"], "run\u{fffd}/best.safetensors");
    assert_eq!(path["bytes"], json!(b"run\xfe/best.safetensors"));
    // It finds its data again, by the recipe in its folder.
    std::fs::remove_file(run.join("model.safetensors")).unwrap();
    ok(&here, &[odd(b"train"), odd(b"--resume"), odd(b"run\xfe")]);
    assert!(run.join("model.safetensors").is_file());
}

#[test]
fn files_of_any_name_are_read_and_written() {
    let sandbox = Sandbox::new();
    let here = sandbox.path("");
    sandbox.ok(&[&["train", "--out", "run"], &QUICK[..]].concat());
    ok(&here, &[odd(b"weights"), odd(b"convert"), odd(b"run/model.safetensors"), odd(b"b\xe9.safetensors")]);
    ok(&here, &[odd(b"data"), odd(b"digits"), odd(b"--pictures"), odd(b"p\xe9"), odd(b"--count"), odd(b"1")]);
    let answers = ok(&here, &[odd(b"predict"), odd(b"b\xe9.safetensors"), odd(b"p\xe9/00.png"), odd(b"--json")]);
    let answers: Value = serde_json::from_str(&answers).unwrap();
    assert_eq!(answers[0]["image"], json!({"text": "p\u{fffd}/00.png", "bytes": b"p\xe9/00.png"}));
}
