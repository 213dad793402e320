//! `data check`, `data preview` and `data split`: what they find, draw and write.
use crate::sandbox::{Sandbox, error_line};
use image::{GenericImageView, Rgb, RgbImage};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use striate::datasets::Transform;

/// A picture that is like no other of another seed: which of 36 fields are bright follows from it.
pub(crate) fn picture(seed: u32) -> RgbImage {
    let bits = u64::from(seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RgbImage::from_fn(48, 48, |x, y| match bits >> (x / 8 + 6 * (y / 8)) & 1 {
        0 => Rgb([30 + (x * 2) as u8, 40, 60]),
        _ => Rgb([220, 200 - y as u8, (seed * 40 % 200) as u8]),
    })
}

pub(crate) fn save(sandbox: &Sandbox, name: &str, picture: &RgbImage) {
    picture.save(sandbox.write(name, "")).unwrap();
}

/// Six pictures of roses and tulips in each part.
pub(crate) fn flowers(sandbox: &Sandbox, parts: &[&str]) {
    for (place, part) in (0..).zip(parts) {
        for (number, class) in (0..).zip(["rose", "tulip"]) {
            for file in 0..6 {
                save(sandbox, &format!("{part}/{class}/{file}.png"), &picture(place * 20 + number * 10 + file));
            }
        }
    }
}

/// Standard output of a check that finds errors.
#[track_caller]
fn finds(sandbox: &Sandbox, args: &[&str], errors: usize) -> String {
    let output = sandbox.striate(&[&["data", "check"], args].concat()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let s = if errors == 1 { "" } else { "s" };
    assert_eq!((output.status.code(), err), (Some(1), format!("error: flowers: {errors} error{s}\n")));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn good_data_are_found_good() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers/train", "flowers/val"]);
    insta::assert_snapshot!("check-good", sandbox.ok(&["data", "check", "flowers"]));
    assert_eq!(sandbox.names(""), ["flowers"]);
}

/// `flowers` with one of each fault.
pub(crate) fn faulty() -> Sandbox {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers/train", "flowers/val"]);
    let copy = |from: &str, to: &str| std::fs::copy(sandbox.path(from), sandbox.write(to, "")).unwrap();
    let whole = std::fs::read(sandbox.path("flowers/train/rose/0.png")).unwrap();
    sandbox.write("flowers/train/rose/cut.png", &whole[..100]);
    copy("flowers/train/rose/1.png", "flowers/train/tulip/was-rose.png");
    copy("flowers/train/rose/2.png", "flowers/val/rose/seen.png");
    copy("flowers/train/rose/3.png", "flowers/train/rose/3 (1).png");
    let small = image::imageops::resize(&picture(4), 30, 30, image::imageops::FilterType::Triangle);
    small.save(sandbox.write("flowers/val/rose/small.jpg", "")).unwrap();
    std::fs::write(sandbox.path("flowers/train/tulip/phone.heic"), "x").unwrap();
    std::fs::write(sandbox.path("flowers/train/tulip/Thumbs.db"), "x").unwrap();
    save(&sandbox, "flowers/train/iris/1.png", &picture(90));
    sandbox
}

#[test]
fn what_is_wrong_is_told_with_its_files() {
    let sandbox = faulty();
    insta::assert_snapshot!("check-faulty", finds(&sandbox, &["flowers", "--page", "page.html"], 5));
    let page = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
    // Each picture of a finding that can be read: five groups of two, and the file that is named like a copy.
    assert_eq!(page.matches("<img ").count(), 9);
    assert!(page.contains("<code>train/rose/cut.png</code>") && page.contains("1 picture under several labels"), "{page}");
    let report: Value = serde_json::from_str(&finds(&sandbox, &["flowers", "--json"], 5)).unwrap();
    let problems: Vec<&str> = report["findings"].as_array().unwrap().iter().map(|f| f["problem"].as_str().unwrap()).collect();
    let all = [
        "unreadable",
        "same-in-classes",
        "same-in-parts",
        "missing-class",
        "left-out",
        "alike-in-parts",
        "same",
        "copy",
        "ignored",
    ];
    assert_eq!(problems, all);
    assert_eq!((&report["errors"], &report["parts"][1]["pictures"]), (&5.into(), &serde_json::json!([0, 8, 6])));
    let same = &report["findings"][1]["groups"][0];
    assert_eq!(
        same[1],
        serde_json::json!({
            "part": "train", "example": same[1]["example"], "place": same[1]["place"], "class": "tulip",
        })
    );
    assert!(same[1]["place"].as_str().unwrap().ends_with("flowers/train/tulip/was-rose.png"));
    let exact: Value = serde_json::from_str(&finds(&sandbox, &["flowers", "--json", "--exact"], 5)).unwrap();
    assert!(!exact.to_string().contains("alike"));
}

#[test]
fn pictures_with_several_classes_count_for_each() {
    let sandbox = Sandbox::new();
    let mut list = "path,label,split\n".to_owned();
    for (number, labels, part) in [(1, "cat|indoors", "train"), (2, "indoors|dog", "train"), (3, "dog|cat|indoors", "val")] {
        let mut picture = image::RgbImage::new(16, 16);
        picture.enumerate_pixels_mut().for_each(|(x, y, pixel)| *pixel = image::Rgb([(x * y * number) as u8, 99, (x + y) as u8]));
        picture.save(sandbox.path(&format!("{number}.png"))).unwrap();
        list += &format!("{number}.png,{labels},{part}\n");
    }
    sandbox.write("list.csv", &list);
    let found = sandbox.json(&["data", "check", "list.csv", "--json"]);
    assert_eq!(found["classes"], serde_json::json!(["cat", "dog", "indoors"]));
    assert_eq!(found["parts"][0]["pictures"], serde_json::json!([1, 1, 2]));
    assert_eq!((&found["errors"], &found["parts"][1]["pictures"]), (&0.into(), &serde_json::json!([1, 1, 1])));
    // What is wrong with a line is found, and the others are looked at; a first line of a missing picture is no header.
    sandbox.write("bad.csv", "0.png,cat\n1.png,cat\n2.png,dog\n");
    let output = sandbox.striate(&["data", "check", "bad.csv"]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("2 pictures, 2 classes") && told.contains("0.png"), "{told}");
    sandbox.refused_with(&["data", "split", "bad.csv", "out"], &["only folders of classes are split"]);
    sandbox.refused_with(&["data", "pack", "bad.csv", "."], &["holds files already"]);
}

#[test]
fn training_warns_of_what_takes_no_look() {
    let sandbox = Sandbox::new();
    for file in 0..20 {
        save(&sandbox, &format!("flowers/rose/{file}.png"), &picture(file));
    }
    for file in 0..2 {
        save(&sandbox, &format!("flowers/tulip/{file}.png"), &picture(30 + file));
    }
    let args =
        [&["train", "lenet5", "--data", "flowers", "--split", "0.25", "--out", "run"], &crate::sandbox::QUICK[..]].concat();
    let output = sandbox.striate(&args).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let told =
        "WARN rose has 15 times as many pictures as tulip (15 and 1): add pictures, or draw all classes as often in training";
    assert!(output.status.success() && err.lines().any(|line| line.trim() == told), "{err}");
}

#[test]
fn a_network_doubts_labels() {
    let sandbox = Sandbox::new();
    sandbox.train_quickly();
    let report = sandbox.json(&["data", "check", "digits", "--bundle", "run/model.safetensors", "--doubts", "3", "--json"]);
    let doubtful = report["findings"].as_array().unwrap().iter().find(|finding| finding["problem"] == "doubtful").unwrap();
    let groups = doubtful["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &doubtful["error"]), (3, &false.into()));
    let own = |group: &Value| {
        let note = group[0]["note"].as_str().unwrap();
        note.rsplit_once(" has ").unwrap().1.trim_end_matches('%').parse::<f64>().unwrap()
    };
    assert!(own(&groups[0]) <= own(&groups[2]) && own(&groups[2]) < 50.0, "{doubtful}");
    // All that the network takes for another class, by another command.
    let wrong = |part: &str| {
        let table = &report["parts"].as_array().unwrap().iter().find(|of| of["part"] == part).unwrap()["pictures"];
        table.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    let accuracy = sandbox.json(&["eval", "run/model.safetensors", "--data", "digits", "--json"])["accuracy"].as_f64().unwrap();
    let told: u64 = doubtful["message"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    let of_test = ((1.0 - accuracy) * wrong("test") as f64).round() as u64;
    assert!(told >= of_test && told <= of_test + wrong("train"), "{told} {of_test}");
    sandbox.bundle("few.safetensors", 7);
    sandbox.refused_with(
        &["data", "check", "digits", "--bundle", "few.safetensors"],
        &["has classes that are not expected: 7, 8, 9"],
    );
}

#[test]
fn a_preview_is_drawn_in_rows_and_columns() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    let preview = |name: &str, more: &[&str]| {
        let args = [&["data", "preview", "flowers", "--count", "2", "--epochs", "3", "--output", name], more].concat();
        assert_eq!(sandbox.ok(&args), format!("2 pictures in {name}\n"));
        image::open(sandbox.path(name)).unwrap().into_rgb8()
    };
    // What LeNet-5 trains on folders with: the picture, brought to 32x32, padded and cropped, flipped; then three epochs.
    let sheet = preview("sheet.png", &[]);
    assert_eq!(sheet.dimensions(), (7 * 136 + 8, 2 * (96 + 22 + 8) + 8 + 11));
    assert_eq!(preview("again.png", &[]), sheet, "draws are the run's");
    assert_ne!(preview("other.png", &["--seed", "7"]), sheet);
    let given = ["--transform", "affine, degrees = 40, translate = [0.1, 0.2]", "--transform", "mix-up", "--input", "3,48,48"];
    assert_eq!(preview("given.png", &given).width(), 6 * 136 + 8);
    assert_eq!(preview("none.png", &["--transform", "none"]).width(), 5 * 136 + 8);
    std::fs::write(sandbox.path("r.toml"), "[data]\nsplit = 0.5\n[[transforms]]\nkind = 'invert'\np = 1\n").unwrap();
    assert_eq!(preview("recipe.png", &["--recipe", "r.toml"]).width(), 6 * 136 + 8);
    // Each transform changes what is seen of some picture: it differs from what is left of it.
    let without = preview("without.png", &["--transform", "none"]);
    const SIZING: [&str; 3] = ["resize", "centre-crop", "random-resized-crop"];
    const MIXING: [&str; 3] = ["mix-up", "cut-mix", "mix-up-or-cut-mix"];
    // What `equalise` leaves has all contrast that there can be.
    let alone: Vec<&str> = [&SIZING[..], &MIXING, &["autocontrast"]].concat();
    let others: Vec<&str> = Transform::KINDS.iter().copied().filter(|kind| !alone.contains(kind)).collect();
    for kinds in alone.chunks(1).chain(others.chunks(6)) {
        let transforms = kinds.iter().flat_map(|kind| {
            let options = match *kind {
                "random-crop" => ", padding = 4",
                "affine" => ", degrees = 30",
                "colour-jitter" => ", brightness = 0.5",
                "resize" => ", crop_pct = 1",
                "grey" => ", p = 0.9",
                "sharpness" | "invert" | "solarise" | "posterise" | "equalise" | "autocontrast" => ", p = 1",
                _ => "",
            };
            ["--transform".to_owned(), format!("{kind}{options}")]
        });
        let transforms: Vec<String> = transforms.collect();
        let sheet = preview("kinds.png", &transforms.iter().map(String::as_str).collect::<Vec<_>>());
        let expected = without.width() + 136 * (kinds.len() as u32);
        assert!(SIZING.contains(&kinds[0]) || sheet.width() == expected, "{kinds:?}: {}", sheet.width());
        // A column has the pictures of both rows. That of the picture at the input's size stands before them all.
        let top = sheet.height() - 2 * (96 + 22 + 8);
        let column = |number: u32| [top, top + 126].map(|y| sheet.view(8 + 136 * number, y, 96, 96).to_image());
        for (number, kind) in (1..).zip(["input"].iter().chain(kinds)).take(sheet.width() as usize / 136 - 4) {
            assert!(column(number) != column(number - 1), "{kind} of {kinds:?}");
        }
    }
    let refused = |more: &[&str], told: &str| {
        let args = [&["data", "preview", "flowers", "--output", "no.png"], more].concat();
        sandbox.refused_with(&args, &[told]);
    };
    refused(&["--transform", "afine"], "error: --transform: ");
    refused(
        &["--transform", "affine, degree = 1"],
        "--transform: unknown key `degree` in [[transforms]] `affine`: did you mean `degrees`?",
    );
    refused(&["--count", "100000", "--epochs", "900"], "pixels, more than 100000000: take fewer pictures or epochs");
    assert!(!sandbox.path("no.png").exists() && !sandbox.path("runs").exists());
}

/// The files of each part, as `part/class/file`.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned())),
            }
        }
    }
    files
}

#[test]
fn a_folder_is_split_as_training_would_hold_out() {
    let sandbox = Sandbox::new();
    for class in ["rose", "tulip"] {
        for file in 0..10 {
            save(&sandbox, &format!("all/{class}/{file}.png"), &picture(file + if class == "rose" { 0 } else { 50 }));
        }
    }
    std::fs::copy(sandbox.path("all/rose/0.png"), sandbox.path("all/rose/again.png")).unwrap();
    let out = sandbox.ok(&["data", "split", "all", "parts", "--fraction", "0.3", "--test", "0.2", "--seed", "4", "--link"]);
    let parts = files(&sandbox.path("parts"));
    let count = |part: &str| parts.iter().filter(|file| file.starts_with(part)).count();
    assert_eq!(parts.len(), 21);
    assert!(out.starts_with(&format!("parts: train {}, val {}, test {}", count("train"), count("val"), count("test"))), "{out}");
    assert!((5..=7).contains(&count("val")) && (3..=5).contains(&count("test")), "{out}");
    let part_of = |file: &str| parts.iter().find(|path| path.ends_with(file)).unwrap().split('/').next().unwrap();
    assert_eq!(part_of("rose/0.png"), part_of("rose/again.png"));
    // Nothing but the names is new.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(sandbox.path("all/rose/5.png")).unwrap().nlink(), 2);

    std::fs::remove_file(sandbox.path("all/rose/again.png")).unwrap();
    sandbox.ok(&["data", "split", "all", "copied", "--seed", "4"]);
    // A run with the same fraction and seed holds the same pictures out.
    let held_out: BTreeSet<String> = {
        let mut recipe = striate::recipes::for_data("lenet5", sandbox.path("all").to_str().unwrap()).unwrap();
        (recipe.data.split, recipe.train.seed, recipe.train.threads) = (0.2, 4, 1);
        let val = striate::Run::new(recipe).prepare().unwrap().data.val.unwrap();
        let examples = val.examples().unwrap();
        let name = |index| examples.place(index).strip_prefix(sandbox.path("all")).unwrap().to_str().unwrap().to_owned();
        (0..val.len()).map(name).collect()
    };
    assert_eq!(files(&sandbox.path("copied/val")), held_out);
    assert_eq!(files(&sandbox.path("copied")).len(), 20);
    let (from, to) = (sandbox.path("all/tulip/3.png"), files(&sandbox.path("copied")));
    let to = sandbox.path("copied").join(to.iter().find(|path| path.ends_with("tulip/3.png")).unwrap());
    assert_eq!(std::fs::read(from).unwrap(), std::fs::read(to).unwrap());
    sandbox.ok(&["data", "check", "copied"]);
}

#[test]
fn what_cannot_be_split_is_refused_and_nothing_is_written() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["all", "done/train", "done/val"]);
    save(&sandbox, "few/rose/1.png", &picture(1));
    for file in 0..4 {
        save(&sandbox, &format!("few/tulip/{file}.png"), &picture(10 + file));
    }
    sandbox.write("full/x", "");
    let cases: [(&[&str], &str); 6] = [
        (&["done", "out"], "done: it is split already"),
        (&["none", "out"], "cannot read none"),
        (&["few", "out"], "class rose has too few different pictures for 2 parts"),
        (&["all", "out", "--fraction", "1.5"], "val = 1.5 must be a fraction between 0 and 1"),
        (&["all", "out", "--fraction", "0.6", "--test", "0.5"], "val + test = 1.1 must be a fraction"),
        (&["all", "full"], "full holds files already: give another OUT"),
    ];
    for (args, told) in cases {
        let line = error_line(sandbox.striate(&[&["data", "split"], args].concat()), 2);
        assert!(line.contains(told), "{line}");
    }
    assert_eq!((sandbox.names("").len(), sandbox.names("full")), (4, vec!["x".to_owned()]));
}
