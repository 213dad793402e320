//! The tutorials: their commands and programs do what they say.
use crate::data::{faulty, flowers};
use crate::sandbox::{Sandbox, program};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use striate_datasets::{Split, Transform, digits, idx};
use striate_lab::{Outcome, Scale, Verdict, claims};
use tch::{Device, Kind, Tensor};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}

/// The blocks of code in that language.
pub(crate) fn blocks<'a>(tutorial: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = tutorial.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Whether `got` is what `told` says. In `told`, three dots stand for any lines, or for the rest of one.
fn agrees(told: &[&str], got: &[&str]) -> bool {
    match (told, got) {
        ([], got) => got.is_empty(),
        (["...", told @ ..], got) => (0..=got.len()).any(|skipped| agrees(told, &got[skipped..])),
        ([line, told @ ..], [first, got @ ..]) => {
            let same = line.strip_suffix("...").map_or(line == first, |start| first.starts_with(start));
            same && agrees(told, got)
        }
        (_, []) => false,
    }
}

#[track_caller]
pub(crate) fn check(told: &str, got: &str) {
    let (told_lines, got_lines): (Vec<&str>, Vec<&str>) = (told.lines().collect(), got.lines().collect());
    assert!(agrees(&told_lines, &got_lines), "the tutorial says\n{told}\nbut there is\n{got}");
}

#[test]
fn the_checks_can_fail() {
    let got = ["a 1", "b 2", "c 3"];
    for told in [&["a 1", "b 2", "c 3"][..], &["a ...", "...", "c 3"], &["...", "c 3"], &["..."]] {
        assert!(agrees(told, &got), "{told:?}");
    }
    for told in [&["a 1", "b 2"][..], &["a 1", "...", "d ..."], &["a 2", "..."], &["a 1", "b 2", "c 3", "d"]] {
        assert!(!agrees(told, &got), "{told:?}");
    }
}

#[test]
fn build_your_own_network() {
    let tutorial = text("../../docs/tutorials/own-network.md");
    let example = text("examples/own_block.rs");
    let pieces = blocks(&tutorial, "rust");
    assert!(pieces.len() > 5);
    for piece in pieces {
        assert!(example.contains(piece.trim_end()), "the example lacks\n{piece}");
    }
    let folder = tempfile::tempdir().unwrap();
    let example = program().with_file_name("examples").join("own_block");
    let output = Command::new(example).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // How well it learns is not the same on every machine.
    let figure = |line: &str| match line.split_once("test accuracy 0.9") {
        Some((start, _)) => format!("{start}test accuracy 0.9"),
        None => line.to_owned(),
    };
    let got: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(figure).collect();
    let told: Vec<String> = blocks(&tutorial, "text").iter().flat_map(|block| block.lines()).map(figure).collect();
    let lines = |lines: Vec<String>| lines.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(lines(told), lines(got));
}

#[test]
fn load_torchvisions_weights() {
    let sandbox = Sandbox::new();
    unpack("tests/tutorials/resnet18.pth.zip", &sandbox.path("resnet18-f37072fd.pth"));
    sandbox.tensor("x.safetensors", "input", Tensor::ones([4, 3, 224, 224], (Kind::Float, Device::Cpu)));
    image::RgbImage::from_fn(300, 260, |x, y| [x as u8, y as u8, 128].into()).save(sandbox.path("photo.png")).unwrap();
    assert_eq!(run_commands(&sandbox, "../../docs/tutorials/torchvision-weights.md"), 9);
}

#[test]
fn is_recipe_a_better_than_b() {
    let sandbox = Sandbox::new();
    let page = text("../../docs/tutorials/which-recipe.md");
    let [large, search] = blocks(&page, "toml")[..] else { panic!("there are two files") };
    sandbox.write("large.toml", large);
    sandbox.write("small.toml", large.replace("batch_size = 64", "batch_size = 16"));
    sandbox.write("search.toml", search);
    assert_eq!(run_commands(&sandbox, "../../docs/tutorials/which-recipe.md"), 9);
    assert!(std::fs::read_to_string(sandbox.path("curves.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn fine_tune_on_few_pictures() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    unpack("tests/tutorials/resnet18.pth.zip", &sandbox.path("resnet18-f37072fd.pth"));
    assert_eq!(run_commands(&sandbox, "../../docs/tutorials/fine-tune.md"), 4);
}

#[test]
fn looking_inside() {
    let sandbox = Sandbox::new();
    assert_eq!(run_commands(&sandbox, "../../docs/looking-inside.md"), 7);
}

#[test]
fn what_a_run_leaves() {
    let sandbox = Sandbox::new();
    assert_eq!(run_commands(&sandbox, "../../docs/training.md"), 2);
}

#[test]
fn train_with_several_processes() {
    assert_eq!(run_commands(&Sandbox::new(), "../../docs/distributed.md"), 1);
}

#[test]
fn ship_a_network() {
    let sandbox = Sandbox::new();
    sandbox.bundle("digits.safetensors", 10);
    assert_eq!(run_commands(&sandbox, "../../docs/shipping.md"), 7);
}

#[test]
fn train_on_your_own_pictures() {
    let sandbox = Sandbox::new();
    flowers(&sandbox, &["flowers"]);
    assert_eq!(run_commands(&sandbox, "../../docs/own-pictures.md"), 6);
    assert!(sandbox.path("sheet.png").is_file());
}

#[test]
fn what_is_wrong_with_my_data() {
    let sandbox = faulty();
    assert_eq!(run_commands(&sandbox, "../../docs/data-problems.md"), 3);
    assert!(sandbox.path("problems.html").is_file());
}

/// Draws every sheet of the page again.
#[test]
fn transforms_in_pictures() {
    let sandbox = Sandbox::new();
    let (page, folder) = (text("../../docs/transforms.md"), file("../../docs/transforms"));
    let pictures = folder.join("pictures");
    let mut sheets = 0;
    for part in page.split("\n## The sheets\n").nth(1).unwrap().split(")\n") {
        let Some((list, name)) = part.split_once("](transforms/") else { continue };
        let transforms: Vec<&str> = list.split_once(": ").unwrap().0.split('`').skip(1).step_by(2).collect();
        let mixes =
            Transform::mix_labels(&[toml::from_str(&format!("kind = '{}'", transforms[0].split(',').next().unwrap())).unwrap()]);
        let mut args = vec!["data", "preview", pictures.to_str().unwrap(), "--count", if mixes { "2" } else { "1" }];
        args.extend(["--epochs", "4", "--input", "3,40,40", "--seed", "2", "--output", name]);
        transforms.iter().for_each(|transform| args.extend(["--transform", transform]));
        sandbox.ok(&args);
        let [drawn, told] = [sandbox.path(name), folder.join(name)].map(|path| image::open(path).unwrap().into_rgb8());
        // Processors differ in the last bits of what is blended.
        let alike = drawn.iter().zip(told.iter()).all(|(one, other)| one.abs_diff(*other) <= 2);
        assert!(drawn.dimensions() == told.dimensions() && alike, "draw docs/transforms/{name} again: {args:?}");
        sheets += 1;
    }
    assert_eq!(sheets, Transform::KINDS.len() - 1, "resize and centre-crop share one");
}

/// Runs each command of a page and checks what the page says it prints; returns how many there are.
fn run_commands(sandbox: &Sandbox, page: &str) -> usize {
    let page = text(page);
    let mut commands = 0;
    for block in blocks(&page, "console") {
        for part in block.split("$ cargo xtask ").skip(1) {
            let (command, told) = part.split_once('\n').unwrap_or((part, ""));
            let args: Vec<&str> = command.split(' ').collect();
            let output = sandbox.striate(&args).env("OMP_NUM_THREADS", "1").output().unwrap();
            let got = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
            check(told.trim_end(), &got);
            commands += 1;
        }
    }
    commands
}

/// Writes the archive with nothing compressed, as PyTorch does.
fn unpack(packed: &str, to: &Path) {
    let mut packed = zip::ZipArchive::new(std::fs::File::open(file(packed)).unwrap()).unwrap();
    let mut plain = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..packed.len() {
        let mut entry = packed.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        plain.start_file(entry.name().unwrap(), stored).unwrap();
        std::io::Write::write_all(&mut plain, &content).unwrap();
    }
    std::fs::write(to, plain.finish().unwrap().into_inner()).unwrap();
}

/// Experiments that train are run in their quick form on a few digits, with two seeds: quick enough for a test, and their figures are
/// other ones.
const SMALL: [&str; 10] = ["--data", "mnist", "--data-dir", "few", "--seeds", "2", "--threads", "1", "--out", "lab"];

/// Writes some of the digits as MNIST's files into the folder `few`.
fn write_few_digits(sandbox: &Sandbox) {
    std::fs::create_dir(sandbox.path("few")).unwrap();
    let Split { train, test } = digits().unwrap();
    for (part, data, count) in [("train", train, 64), ("t10k", test, 32)] {
        let few = data.range(0..count).unwrap().resize(28, 28).unwrap();
        let path = |file: &str| sandbox.path(&format!("few/{part}-{file}"));
        idx::write_images(&path("images-idx3-ubyte"), few.images()).unwrap();
        idx::write_labels(&path("labels-idx1-ubyte"), &few.labels().to_kind(Kind::Uint8)).unwrap();
    }
}

/// The chapters of the lecture run side by side.
macro_rules! lecture {
    ($($name:ident: $chapter:literal, $commands:literal;)*) => {$(
        #[test]
        fn $name() {
            follow_the_lecture($chapter, $commands);
        }
    )*};
}
lecture! {
    the_lecture_on_classic_networks: "The classic networks", 7;
    the_lecture_on_residual_networks: "Residual networks", 7;
    the_lecture_on_1x1_convolutions: "1x1 convolutions", 2;
    the_lecture_on_inception: "Inception", 3;
}

fn follow_the_lecture(chapter: &str, commands: usize) {
    let sandbox = Sandbox::new();
    write_few_digits(&sandbox);
    let tutorial = text("../../docs/tutorials/lecture.md");
    let chapter = tutorial.split("\n## ").find(|part| part.starts_with(&format!("{chapter}\n"))).unwrap();
    let blocks = blocks(chapter, "console");
    assert_eq!(blocks.len(), commands);
    for block in blocks {
        let (command, told) = block.strip_prefix("$ cargo xtask ").unwrap().split_once('\n').unwrap();
        let command = command.strip_suffix(" --full").unwrap_or(command);
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(SMALL);
        let output = sandbox.striate(&args).env("OMP_NUM_THREADS", "1").output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        let got = String::from_utf8(output.stdout).unwrap();
        let [told, got] = [told, got.as_str()].map(|text| text.lines().map(statement).collect::<Vec<_>>());
        assert_eq!(told[..], got[..told.len()], "{command}");
        let rest: Vec<&String> = got[told.len()..].iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(rest, ["lab/index.html"], "{command}");
    }
}

#[test]
fn the_lecture_quotes_the_published_outcomes() {
    let tutorial = text("../../docs/tutorials/lecture.md");
    let page = text("../../docs/lab/index.html");
    let blocks = blocks(&tutorial, "console");
    assert_eq!(blocks.len(), claims().len());
    for (block, claim) in blocks.into_iter().zip(claims()) {
        let outcome: Outcome = serde_json::from_str(&text(&format!("../../docs/lab/{}/outcome.json", claim.name))).unwrap();
        assert_eq!((outcome.claim.as_str(), outcome.verdict), (claim.name, Verdict::of(&outcome.checks)));
        assert_eq!(outcome.scale, Scale::Full);
        let (command, told) = block.split_once('\n').unwrap();
        assert_eq!(command.trim_end_matches(" --full"), format!("$ cargo xtask lab run {}", claim.name));
        let mut lines = vec![format!("{}: {}", claim.title, outcome.verdict)];
        for check in &outcome.checks {
            lines.push(format!("  {:<9}  {}: {}", check.verdict.to_string(), check.what, check.measured));
            assert!(page.contains(&format!("<td>{}</td>", check.measured)), "the page lacks {}", check.measured);
        }
        assert_eq!(told.lines().collect::<Vec<_>>(), lines);
        let figure = format!("../lab/{}/figure.svg", claim.name);
        assert!(tutorial.contains(&format!("]({figure})")) && file("../../docs/tutorials").join(&figure).is_file(), "{figure}");
    }
}

/// A line of an outcome without what depends on data, seeds and size: the verdict, the numbers measured, and how deep networks are.
fn statement(line: &str) -> String {
    let statement = match line.strip_prefix("  ") {
        Some(check) => check.trim_start_matches(char::is_alphabetic).split(": ").next().unwrap_or_default().trim().to_owned(),
        None => line.rsplit_once(": ").map_or(line, |(title, _)| title).to_owned(),
    };
    statement.replace(|character: char| character.is_ascii_digit(), "")
}
