//! Pictures, lists and shards that cannot be trained on, or only in part.
use crate::data::{flowers, picture, save};
use crate::sandbox::Sandbox;
use std::io::Write;

const QUICK: [&str; 8] = ["--split", "0.25", "--epochs", "1", "--batch-size", "4", "--threads", "1"];

/// Standard error of a run that succeeds.
#[track_caller]
fn trained(sandbox: &Sandbox, more: &[&str]) -> String {
    let output = sandbox.striate(&[&["train"], more, &QUICK[..]].concat()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{more:?}: {told}");
    told
}

/// A PNG that declares 100,000 x 100,000 pixels, as Python's zlib.crc32 signs its header.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend([0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 8, 2, 0, 0, 0]);
    bytes.extend(CRC.to_be_bytes());
    bytes.extend([&[0; 4][..], b"IDAT", &[0x35, 0xaf, 0x06, 0x1e]].concat());
    bytes
}

const CRC: u32 = 0x27309c9f;

#[test]
fn bad_pictures_end_a_run_in_one_line_or_are_counted() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    let whole = std::fs::read(sandbox.path("flowers/rose/0.png")).unwrap();
    let cases = [
        ("text.png", b"no picture".to_vec(), "its content is of no format that is read"),
        ("0 bytes.png", Vec::new(), "it is empty"),
        ("cut.jpg", whole[..whole.len() / 2].to_vec(), "it is cut off or damaged"),
        ("bomb.png", bomb(), "it has 100000x100000 pixels, more than the limit of 89478485"),
        ("a\u{202e}\n\u{e9}.png", b"x".to_vec(), "flowers/tulip/a\\u{202e}\\n\u{e9}.png cannot be read as an image"),
    ];
    let train = [&["train", "lenet5", "--data", "flowers", "--out", "run"], &QUICK[..]].concat();
    for (name, bytes, told) in &cases {
        let path = sandbox.write(&format!("flowers/tulip/{name}"), bytes);
        sandbox.refused_with(&train, &[told]);
        std::fs::remove_file(path).unwrap();
    }
    for (name, bytes, _) in cases {
        sandbox.write(&format!("flowers/tulip/{name}"), bytes);
    }
    let told = trained(&sandbox, &["lenet5", "--data", "flowers", "--out", "run", "--skip-bad"]);
    let left_out = format!("left out 5 files: 5 that cannot be decoded ({}", sandbox.path("flowers/tulip").display());
    assert!(told.contains(&left_out), "{told}");
}

#[test]
fn a_class_without_pictures_is_refused_and_one_class_or_a_loop_is_told() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    std::fs::create_dir(sandbox.path("flowers/iris")).unwrap();
    let train = [&["train", "lenet5", "--data", "flowers", "--out", "run"], &QUICK[..]].concat();
    sandbox.refused_with(&train, &["flowers/iris: this folder of a class has no picture that can be read"]);
    std::fs::remove_dir(sandbox.path("flowers/iris")).unwrap();
    std::os::unix::fs::symlink("../../flowers", sandbox.path("flowers/rose/again")).unwrap();
    let told = trained(&sandbox, &["lenet5", "--data", "flowers", "--out", "run"]);
    assert!(told.contains("left out 1 file: 1 link to a folder that is read already ("), "{told}");
    save(&sandbox, "one/rose/1.png", &picture(1));
    save(&sandbox, "one/rose/2.png", &picture(2));
    assert!(trained(&sandbox, &["lenet5", "--data", "one", "--out", "other"]).contains("there is one class only, rose"));
}

#[test]
fn bad_lines_and_members_end_a_run_in_one_line_or_are_counted() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    let lines = |class: [&str; 2]| -> String {
        let of =
            |(folder, class): (&str, &str)| (0..6).map(|n| format!("flowers/{folder}/{n}.png,{class}\n")).collect::<String>();
        ["rose", "tulip"].into_iter().zip(class).map(of).collect()
    };
    sandbox.write("classes.txt", "red\nyellow\n");
    sandbox.write("range.csv", lines(["0", "1"]).replace("tulip/3.png,1", "tulip/3.png,7"));
    sandbox.write("label.csv", lines(["red", "yellow"]).replace("tulip/3.png,yellow", "tulip/3.png,"));
    let range = "range.csv, line 10: its class 7 is out of range: classes.txt names 2, which count from 0";
    for (list, told) in [("range.csv", range), ("label.csv", "label.csv, line 10: it has no class")] {
        let train = [&["train", "lenet5", "--data", list, "--out", "run"], &QUICK[..]].concat();
        sandbox.refused_with(&train, &[told]);
        assert!(!sandbox.path("run").exists());
        let told = trained(&sandbox, &["lenet5", "--data", list, "--out", &format!("of-{list}"), "--skip-bad"]);
        assert!(told.contains("left out 1 file: 1 without a class (") && told.contains("flowers/tulip/3.png"), "{told}");
    }
    sandbox.ok(&["data", "pack", "flowers", "shards"]);
    let name = sandbox.names("shards").into_iter().find(|name| name.ends_with(".tar")).unwrap();
    let shard = std::fs::read(sandbox.path("shards").join(name)).unwrap();
    sandbox.write("cut.tar", &shard[..shard.len() * 2 / 3]);
    let train = |shard: &'static str| [&["train", "lenet5", "--data", shard, "--out", "run"], &QUICK[..]].concat();
    sandbox.refused_with(&train("cut.tar"), &["cut.tar: it is cut off: a part of it is missing"]);
    // `../x.png` in the place of the first member's name, with its sum put right.
    let mut out = shard.clone();
    out[..100].fill(0);
    out[..8].copy_from_slice(b"../x.png");
    out[148..156].fill(b' ');
    let sum: u32 = out[..512].iter().map(|byte| u32::from(*byte)).sum();
    write!(&mut out[148..156], "{sum:06o}\0 ").unwrap();
    sandbox.write("out.tar", &out);
    sandbox.refused_with(&train("out.tar"), &["out.tar/../x: its name leads out of the shard"]);
    assert!(!sandbox.path("run").exists() && !sandbox.path("x.png").exists());
}

#[test]
fn each_sampler_trains_and_the_recipe_has_presets_in_full() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    for sampler in ["'each'", "'balanced'", "{ weighted = [1.0, 3.0] }", "{ repeated = 3 }"] {
        let recipe = format!("[data]\nsampler = {sampler}\n[[transforms]]\nkind = 'imagenet-train'\n[train]\nlr = 0.001\n");
        sandbox.write("r.toml", recipe);
        let out = format!("run-{}", sandbox.names("").len());
        trained(&sandbox, &["r.toml", "--data", "flowers", "--out", &out]);
        let written = std::fs::read_to_string(sandbox.path(&out).join("recipe.toml")).unwrap();
        let kinds: Vec<&str> = written.lines().filter(|line| line.starts_with("kind = \"") && line.contains('-')).collect();
        assert_eq!(kinds, ["kind = \"random-resized-crop\"", "kind = \"horizontal-flip\""], "{written}");
        assert!(written.contains("scale = [0.08, 1.0]"), "{written}");
    }
    sandbox.write("r.toml", "[data]\nsampler = { weighted = [1.0] }\n");
    let train = [&["train", "r.toml", "--data", "flowers", "--out", "x"], &QUICK[..]].concat();
    sandbox.refused_with(&train, &["a weight for each of the 2 classes"]);
}
