//! `train --seeds`, `sweep`, `runs` and `compare`: what they print, and how they refuse.
use crate::sandbox::Sandbox;

/// Two epochs of LeNet-5 on the digits.
const RECIPE: &str =
    "[data]\nsplit = 0.1\n[train]\nepochs = 2\nbatch_size = 300\nthreads = 1\nlr = 0.003\n[optimizer]\nkind = 'adamw'\n";

/// A table without its figures, which are other ones on other processors.
fn words(text: &str) -> Vec<Vec<&str>> {
    let is_word = |word: &&str| !word.contains(|letter: char| letter.is_ascii_digit()) || word.contains('/');
    text.lines().map(|line| line.split_whitespace().filter(is_word).collect()).collect()
}

#[test]
fn seeds_are_reported_listed_and_compared() {
    let sandbox = Sandbox::new();
    sandbox.write("a.toml", RECIPE);
    sandbox.write("b.toml", RECIPE.replace("0.003", "0.01"));
    let told = sandbox.ok(&["train", "a.toml", "--seeds", "2", "--out", "runs/a"]);
    assert!(told.starts_with("test accuracy ") && told.contains("], mean and 95% interval over seeds 0, 1\n"), "{told}");
    let report = sandbox.json(&["train", "--resume", "runs/a", "--json"]);
    assert_eq!((&report["seeds"], &report["judge"], &report["accuracy"]["n"]), (&[0, 1].into(), &"test".into(), &2.into()));
    sandbox.ok(&["train", "b.toml", "--seeds", "2", "--out", "runs/b"]);

    sandbox.refused_with(&["report", "runs/a"], &["runs/a holds several runs: name one of them, such as runs/a/seed-"]);

    let listed = sandbox.ok(&["runs"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 5, "{listed}");
    assert_eq!(lines[1][..6], ["runs/a/seed-0", "lenet5", "digits", "0", "2/2", "test"]);
    assert_eq!(lines[4][0], "runs/b/seed-1");
    std::fs::write(sandbox.path("runs/a/seed-0/recipe.toml"), "[train]\nlrr = 1").unwrap();
    let output = sandbox.striate(&["runs", "--json"]).output().unwrap();
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 3);
    assert!(runs.as_array().unwrap().iter().all(|run| run["state"] == "finished"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("runs/a/seed-0 was left out: ") && told.contains("did you mean `lr`?"), "{told}");

    let compared = sandbox.ok(&["compare", "runs/a/seed-1", "runs/b/*", "--output", "c.svg"]);
    let words = words(&compared);
    assert_eq!(words[0], ["A", "runs/a/seed-1", "(seed"], "{compared}");
    assert!(compared.contains("\ntrain.lr ") && compared.contains("A and B cannot be told apart: "), "{compared}");
    assert!(sandbox.path("c.svg").is_file());
    let json = sandbox.json(&["compare", "runs/a/seed-1", "runs/b", "--json"]);
    assert_eq!(json["differences"][0]["values"], serde_json::json!(["0.003", "0.01"]));
}

#[test]
fn a_sweep_is_listed_run_and_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("s.toml", format!("{RECIPE}[sweep]\nkind = 'grid'\nfields = {{ train.lr = [0.003, 1e-6] }}"));
    let listed = sandbox.ok(&["sweep", "s.toml", "--dry-run"]);
    assert_eq!(words(&listed)[0], ["trial", "train.lr", "epochs", "accuracy", "state"]);
    assert!(sandbox.names("") == ["s.toml"]);
    let told = sandbox.ok(&["sweep", "s.toml"]);
    assert_eq!(words(&told)[0], ["trial", "train.lr", "epochs", "val", "accuracy", "test", "accuracy", "state"]);
    assert!(told.ends_with("\ntable        runs/s-1/trials.csv\nfigure       runs/s-1/trials.svg\n"), "{told}");
    let again = sandbox.json(&["sweep", "--resume", "runs/s-1", "--json"]);
    assert_eq!((&again[0]["values"]["train.lr"], &again[0]["state"]), (&0.003.into(), &"finished".into()));

    sandbox.write("bad.toml", format!("{RECIPE}[sweep]\nkind = 'grid'\nfields = {{ train.lrr = [0.003] }}"));
    sandbox.refused_with(&["sweep", "bad.toml"], &["error: bad.toml: unknown key `lrr` in [train]: did you mean `lr`?"]);
    sandbox.refused_with(&["sweep", "s.toml", "--out", "runs/s-1"], &["holds runs already: resume them, or take another folder"]);
    sandbox.refused_with(&["sweep"], &["<FILE>"]);
    sandbox.refused_with(&["train", "--resume", "runs/s-1"], &["holds a sweep: go on with: sweep --resume runs/s-1"]);
    assert_eq!(sandbox.names("runs"), ["s-1"]);
}

#[test]
fn a_run_is_extended_where_that_is_exact() {
    let sandbox = Sandbox::new();
    let recipe = RECIPE.replace("split = 0.1", "");
    sandbox.write("two.toml", &recipe);
    sandbox.write("three.toml", recipe.replace("epochs = 2", "epochs = 3"));
    sandbox.write("cosine.toml", format!("{recipe}[schedule]\nkind = 'cosine'"));
    for name in ["two", "three", "cosine"] {
        sandbox.ok(&["train", &format!("{name}.toml"), "--out", name]);
    }
    sandbox.ok(&["train", "--resume", "two", "--epochs", "3"]);
    let bits = |run: &str| crate::sandbox::bits(&sandbox.path(run).join("model.safetensors"));
    assert_eq!(bits("two"), bits("three"));
    sandbox.refused_with(
        &["train", "--resume", "cosine", "--epochs", "3"],
        &["cosine holds a run whose epochs cannot change from 2 to 3", "start a new run, or train on from its bundle"],
    );
    sandbox.refused_with(&["train", "--resume", "three", "--epochs", "1"], &["3 are done; set 3 or more"]);
}

#[test]
fn what_is_no_run_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["runs"], "error: runs is no folder: name one with runs"),
        (&["compare", "none"], "error: none is no folder: name one with runs"),
        (&["compare", "empty"], "error: empty holds no run: name a run's folder, or one with runs in it"),
        (&["compare", "x*"], "error: x*: no folder is called so"),
        (&["train", "--seeds", "1"], "invalid value '1' for '--seeds <N>': 1 is not in 2..=1000"),
        (&["train", "--seeds", "2", "--resume", "empty"], "the argument '--seeds <N>' cannot be used with '--resume <FOLDER>'"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(args, &[told]);
    }
    assert!(sandbox.ok(&["runs", "empty"]).starts_with("run "));
}
