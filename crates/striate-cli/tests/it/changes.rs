//! Pictures that change: between runs, whose cache of them is made again then, and during one.
use crate::data::{flowers, save};
use crate::sandbox::{Sandbox, bits, error_line};
use assert_cmd::Command;
use image::RgbImage;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Trains for two epochs into `out`, with the pictures in a file below `home`.
fn train(sandbox: &Sandbox, out: &str, cache: &str, home: &Path) -> Command {
    let mut command = sandbox.striate(&["train", "resnet20-cifar", "--data", "flowers", "--cache", cache, "--out", out]);
    command.args(["--epochs", "2", "--batch-size", "6", "--threads", "1"]).env("STRIATE_HOME", home);
    command
}

/// The files of the cache, by which they are known, and their length.
fn kept(home: &Path) -> Vec<(PathBuf, u64, u64)> {
    let Ok(files) = fs::read_dir(home.join("pictures")) else { return Vec::new() };
    let mut files: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let about = fs::metadata(&path).unwrap();
            (path, about.ino(), about.len())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_cache_is_found_again_until_its_pictures_change() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers/train", "flowers/val"]);
    let home = sandbox.path("home");
    let weights = |out: &str, cache: &str| {
        train(&sandbox, out, cache, &home).assert().success();
        bits(&sandbox.path(out).join("model.safetensors"))
    };
    let plain = weights("plain", "off");
    assert_eq!(kept(&home), []);
    assert!(weights("made", "file") == plain, "the cache changes no value");
    let made = kept(&home);
    // One for each part, of 12 pictures of 32x32 in three channels each.
    assert!(made.len() == 2 && made.iter().all(|(_, _, length)| *length > 12 * 32 * 32 * 3), "{made:?}");
    assert!(weights("again", "file") == plain);
    assert_eq!(kept(&home), made, "found again");

    let (path, _, length) = &made[0];
    File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    assert!(weights("cut", "file") == plain);
    let anew = kept(&home);
    assert!(anew[0].1 != made[0].1 && anew[0].2 == *length && anew[1] == made[1], "{anew:?}");

    // A picture of another length, so that no clock matters.
    save(&sandbox, "flowers/train/rose/0.png", &RgbImage::new(48, 48));
    let changed = weights("changed", "file");
    assert!(changed != plain && changed == weights("changed-plain", "off"));
    assert_eq!(kept(&home).iter().zip(&anew).filter(|(now, before)| now != before).count(), 1, "that of one part");
}

#[test]
fn a_cache_that_finds_no_room_leaves_none() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers/train", "flowers/val"]);
    let Some(disk) = sandbox.small_disk("home", "20k") else { return };
    let line = error_line(train(&sandbox, "run", "file", disk.path()), 2);
    assert!(line.starts_with("error: cannot write ") && line.contains("No space left"), "{line}");
    assert!(kept(disk.path()).is_empty() && !sandbox.path("run/model.safetensors").exists());
    train(&sandbox, "other", "memory", disk.path()).assert().success();
}

/// Trains without an end in sight, changes the pictures once an epoch is done, and returns the error's line.
fn changed_during_a_run(sandbox: &Sandbox, out: &str, change: impl Fn(&Path)) -> String {
    flowers(sandbox, &["flowers/train", "flowers/val"]);
    let args = ["train", "resnet20-cifar", "--data", "flowers", "--cache", "off", "--workers", "2", "--out", out];
    let mut command = std::process::Command::new(crate::sandbox::program());
    command.current_dir(sandbox.path("")).args(args).args(["--epochs", "100000", "--batch-size", "6", "--threads", "1"]);
    let child = command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (checkpoint, start) = (sandbox.path(out).join("last.safetensors"), Instant::now());
    while !checkpoint.exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    change(&sandbox.path("flowers"));
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && !told.contains("panicked"), "{told}");
    errors[0].to_owned()
}

#[test]
fn pictures_that_vanish_or_change_during_a_run_end_it_and_it_goes_on_from_there() {
    let sandbox = Sandbox::new();
    let gone = changed_during_a_run(&sandbox, "gone", |folder| fs::rename(folder, folder.with_extension("away")).unwrap());
    assert!(gone.contains(".png") && gone.contains("No such file"), "{gone}");
    let line = sandbox.refused(&["train", "--resume", "gone"]);
    assert!(line.contains("flowers"), "{line}");
    fs::remove_dir_all(sandbox.path("flowers.away")).unwrap();
    let changed = changed_during_a_run(&sandbox, "changed", |folder| {
        for number in 0..6 {
            fs::write(folder.join(format!("train/rose/{number}.png")), "no picture").unwrap();
        }
    });
    assert!(changed.contains(".png cannot be read as an image"), "{changed}");
    // What was there is whole.
    flowers(&sandbox, &["flowers/train", "flowers/val"]);
    sandbox.ok(&["eval", "changed/last.safetensors", "--data", "flowers", "--threads", "1"]);
}
