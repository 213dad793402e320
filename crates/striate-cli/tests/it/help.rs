//! Help, and what a wrong call is told.
use crate::sandbox::Sandbox;

/// The commands whose help is held as a snapshot.
const COMMANDS: [&str; 17] = [
    "train",
    "sweep",
    "runs",
    "compare",
    "eval",
    "predict",
    "models",
    "summary",
    "cost",
    "run",
    "report",
    "export",
    "serve",
    "weights",
    "data",
    "lab",
    "self-test",
];

#[test]
fn the_help_of_each_command() {
    let sandbox = Sandbox::new();
    for command in COMMANDS {
        insta::assert_snapshot!(command, sandbox.ok(&[command, "--help"]));
    }
}

#[test]
fn the_help_of_each_look_inside() {
    let sandbox = Sandbox::new();
    for command in ["inspect", "surface", "lr", "confusion"] {
        insta::assert_snapshot!(format!("lab-{command}"), sandbox.ok(&["lab", command, "--help"]));
    }
}

#[test]
fn the_help_of_each_command_of_data() {
    let sandbox = Sandbox::new();
    for command in ["check", "preview", "split"] {
        insta::assert_snapshot!(format!("data-{command}"), sandbox.ok(&["data", command, "--help"]));
    }
}

#[test]
fn the_help_of_the_program_names_every_command() {
    let sandbox = Sandbox::new();
    let help = sandbox.ok(&["--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
    }
    let bare = sandbox.striate(&[]).assert().code(2);
    assert_eq!(String::from_utf8_lossy(&bare.get_output().stderr), help);
}

#[test]
fn a_wrong_call_is_told_the_nearest_right_one() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 14] = [
        (&["trian"], "unrecognized subcommand 'trian'; a similar subcommand exists: 'train' (--help tells more)"),
        (
            &["train", "--epohcs", "3"],
            "unexpected argument '--epohcs' found; a similar argument exists: '--epochs' (--help tells more)",
        ),
        (
            &["eval", "x.safetensors"],
            "the following required arguments were not provided: --data <NAME or FOLDER> (--help tells more)",
        ),
        (&["train", "--lr", "fast"], "invalid value 'fast' for '--lr <LR>': invalid float literal (--help tells more)"),
        (&["train", "--lr", "-1"], "train.lr = -1.0 must be above 0"),
        (&["train", "--threads", "100000"], "threads = 100000 must be at most 1024: 0 takes all cores"),
        (&["train", "--optimizer", "adamax"], "--optimizer adamax: unknown variant `adamax`, expected one of `sgd`, `adam`, "),
        (
            &["predict", "x.safetensors", "y.png", "--top", "0"],
            "invalid value '0' for '--top <TOP>': give a whole number above 0 (--help",
        ),
        (
            &["lab", "inspect", "x", "y", "--top", "-1"],
            "invalid value '-1' for '--top <TOP>': give a whole number above 0 (--help",
        ),
        (
            &["lab", "run", "shapes", "--first-seed", "-1"],
            "invalid value '-1' for '--first-seed <SEED>': give a whole number from 0 to 9223372036854775807 (--help",
        ),
        (&["lab", "run", "shapes", "--seeds", "-1"], "invalid value '-1' for '--seeds <N>': -1 is not in 1..=1000 (--help"),
        (&["data", "digits", "mnist", "--pictures", "x"], "--pictures takes one dataset"),
        (&["data", "digits", "--pictures", "x", "--count", "0"], "invalid value '0' for '--count <COUNT>': give a whole number"),
        (
            &["summary", "lenet5", "--input", "1,32"],
            "invalid value '1,32' for '--input <C,H,W>': give three numbers above 0, such as 1,32,32",
        ),
    ];
    for (args, told) in cases {
        sandbox.refused_with(args, &[&format!("error: {told}")]);
    }
    assert!(sandbox.names("").is_empty());
}

#[test]
fn an_unknown_name_is_told_the_nearest() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 13] = [
        (&["summary", "nope"], "error: there is no model nope: pick a name from the registry (`striate models` lists them)"),
        (
            &["weights", "fetch", "nope"],
            "error: there are no published weights nope: pick a name from the list of published weights (`striate weights list` prints it)",
        ),
        (&["train", "--data", "nope"], "error: nope is no folder here, and no dataset: the datasets are digits, "),
        (&["train", "lenet6"], "there is no model lenet6: did you mean lenet5?"),
        (&["train", "--data", "./flwoers"], "./flwoers does not exist: name a folder of pictures, a list, shards, or a dataset"),
        (&["train", "--data", "flwoers/"], "flwoers/ does not exist: name a folder of pictures, a list, shards, or a dataset"),
        (&["data", "check", "./flwoers"], "./flwoers does not exist: name a folder of pictures, a list, shards, or a dataset"),
        (&["train", "--data", "digts"], "there is no dataset `digts` (did you mean `digits`?)"),
        (&["lab", "run", "shapes", "--data", "digts"], "there is no dataset `digts` (did you mean `digits`?)"),
        (&["train", "-o", "activaton=tanh"], "lenet5 has no option activaton: did you mean activation?"),
        (&["train", "-o", "activation"], "--option activation: write it as NAME=VALUE"),
        (&["train", "-o", "classes=7"], "the network gives [7], but digits has 10 classes"),
        (&["train", "-o", "input=[1,8,8]"], "layer c3 (Conv2d): the input [6, 2, 2] is too small"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(args, &[told]);
    }
    assert!(sandbox.names("").is_empty());
}

#[test]
fn the_readme_shows_the_example_of_the_front_door() {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(package.join(path)).unwrap();
    let (readme, front_door) = (read("../../README.md"), read("../striate/src/lib.rs"));
    let example = front_door.split("//! ```").nth(1).unwrap().lines().skip(1);
    let shown = example.map(|line| line.strip_prefix("//! ").unwrap_or_default()).filter(|line| !line.starts_with("# "));
    let shown = shown.collect::<Vec<_>>().join("\n");
    assert!(shown.contains("Classifier::open") && readme.contains(&format!("```rust\n{shown}\n```")), "{shown}");
    assert!(readme.contains("](crates/striate-cli/examples/own_network.rs)"));
}
