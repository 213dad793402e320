//! What a run leaves for people: its page, and event files for TensorBoard.
use crate::sandbox::Sandbox;
use serde_json::Value;

#[test]
fn a_run_leaves_a_page_that_needs_no_other_file() {
    let sandbox = Sandbox::new();
    let args = ["train", "--out", "run", "--epochs", "2", "--batch-size", "300", "--threads", "1", "--split", "0.2"];
    let out = sandbox.ok(&[&args[..], &["--report", "--tensorboard"]].concat());
    assert!(out.ends_with("bundle        run/model.safetensors\nreport        run/report.html\n"), "{out}");
    let page = || std::fs::read_to_string(sandbox.path("run/report.html")).unwrap();
    let whole = page();
    for part in ["Learning rate", ">Confusion matrix</title>", "<caption>Each class</caption>", "<h2 id=\"filters\">", "lr = "] {
        assert!(whole.contains(part), "{part}");
    }
    for outside in ["src=\"http", "href=\"http", "url(", "<script", "@import"] {
        assert!(!whole.contains(outside), "{outside}");
    }
    // The figures are those of the run.
    let summary: Value = serde_json::from_slice(&std::fs::read(sandbox.path("run/summary.json")).unwrap()).unwrap();
    let confusion = summary["test"]["confusion"].as_array().unwrap();
    let right: u64 = confusion.iter().enumerate().map(|(class, row)| row[class].as_u64().unwrap()).sum();
    assert_eq!(summary["judge"], "val");
    assert!(whole.contains(&format!(">test accuracy</th><td>{:.1}% of 899 images<", 100.0 * right as f64 / 899.0)));
    let taken = |row: usize, column: usize| format!("<title>{row} taken for {column}: {}</title>", confusion[row][column]);
    assert!((0..10).all(|row| (0..10).all(|column| whole.contains(&taken(row, column)))));
    assert_eq!(whole.matches("alt=\"Test image").count(), 12);
    assert_eq!(whole.matches("alt=\"Grad-CAM of").count(), 24);

    // For TensorBoard, a file of this process.
    let events: Vec<String> = sandbox.names("run").into_iter().filter(|name| name.contains("tfevents")).collect();
    let bytes = std::fs::read(sandbox.path(&format!("run/{}", events[0]))).unwrap();
    let holds = |tag: &str| bytes.windows(tag.len()).any(|window| window == tag.as_bytes());
    for tag in ["step/loss", "val/accuracy", "weights/c1.weight", "filters/c1", "train.batch_size", "session_end_info"] {
        assert!(holds(tag), "{tag}");
    }
    assert_eq!(events.len(), 1);

    let out = sandbox.ok(&["report", "run", "--worst", "2"]);
    assert_eq!((out.as_str(), page().matches("alt=\"Test image").count()), ("report run/report.html\n", 2));
}

#[test]
fn a_page_is_of_a_finished_run() {
    let sandbox = Sandbox::new();
    sandbox.train_quickly();
    std::fs::remove_file(sandbox.path("run/summary.json")).unwrap();
    sandbox.refused_with(&["report", "run"], &["error: run holds a run that is not finished: resume it first"]);
    sandbox.refused_with(&["report", "none"], &["none is no folder"]);
    assert!(!sandbox.path("run/report.html").exists() && sandbox.names("run").iter().all(|name| !name.contains("tfevents")));
}
