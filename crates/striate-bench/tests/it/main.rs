//! The program, with a network that takes no time.
#![allow(clippy::unwrap_used)]
use assert_cmd::Command;
#[cfg(debug_assertions)]
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use striate_bench::{Results, plots, table};

const TINY: &str = "lenet5/plan/b1/32/fp32/channels-last/t1/cpu";

fn bench(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("striate-bench").unwrap();
    command.args(args);
    command
}

/// The one line of a refusal, whose exit code is 2.
fn refusal(args: &[&str]) -> String {
    let output = bench(args).assert().code(2).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name)
}

#[test]
fn a_case_is_measured_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    bench(&["--filter", TINY, "--seed", "7", "--out", out]).assert().success();
    let results = Results::read(&folder.path().join("results.jsonl")).unwrap();
    assert_eq!(results.run.seed, 7);
    assert!(results.absent.is_empty() && results.rows.len() == 1, "{results:?}");
    let row = &results.rows[0];
    assert_eq!((row.id.as_str(), row.side.as_str()), (TINY, "striate"));
    assert!(row.ms.len() >= 10 && row.ms.iter().all(|ms| *ms > 0.0));
    assert!(row.distance.unwrap() < 1e-4 && row.of_limit.unwrap() > 0.0 && row.images_per_second.unwrap() > 0.0);
    assert!(fs::read_to_string(folder.path().join("table.md")).unwrap().contains(TINY));
}

/// A peer that answers as `xtask/peers/bench.py` does, and takes long.
#[cfg(unix)]
#[test]
fn a_peer_takes_turns_with_ours() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let script = fixture("fake_peer.sh");
    let python = ["--python", "sh", script.to_str().unwrap()];
    let args = ["--filter", TINY, "--peers=pytorch,openvino", "--rounds", "3", "--out", out];
    bench(&[&args[..], &python[..]].concat()).assert().success();
    let results = Results::read(&folder.path().join("results.jsonl")).unwrap();
    assert_eq!(results.run.versions["fake"], "1");
    let [ours, theirs] = &results.rows[..] else { panic!("{results:?}") };
    assert_eq!((ours.side.as_str(), theirs.side.as_str()), ("striate", "pytorch"));
    assert_eq!((ours.ms.len(), theirs.ms.as_slice()), (3, &[5000.0; 3][..]));
    assert!(theirs.ratio.unwrap().median > 10.0 && theirs.peak_mib == Some(2.0));
    let [absent] = &results.absent[..] else { panic!("{results:?}") };
    assert_eq!((absent.side.as_str(), absent.reason.as_str()), ("openvino", "there is none"));
    assert!(fs::read_to_string(folder.path().join("ratios.svg")).unwrap().contains("pytorch"));
}

/// The same, as PyTorch on a card. Here, the card is the processor.
#[cfg(unix)]
#[test]
fn sides_of_a_card_stay_for_all_cases() {
    let folder = tempfile::tempdir().unwrap();
    let (out, script) = (folder.path().to_str().unwrap(), fixture("fake_peer.sh"));
    let cases = [TINY, "lenet5/train/b2/32/fp32/channels-last/t1/cpu"];
    let args = ["gpu", "--device", "cpu", "--filter", &cases.join(","), "--rounds", "2", "--out", out];
    let python = ["--python", "sh", "--script", script.to_str().unwrap()];
    let output = bench(&[&args[..], &python[..]].concat()).assert().success().get_output().clone();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("| case | striate, ms | eager | graph | compile | fastest of these / striate |\n|---|"), "{table}");
    for case in cases {
        let row = table.lines().find(|line| line.starts_with(&format!("| {case} | "))).unwrap();
        assert!(row.contains(" | 5000 | - | 5000 | "), "{row}");
    }
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("graph: there is none"), "{told}");
    let results = Results::read(&folder.path().join("results.jsonl")).unwrap();
    assert_eq!((results.rows.len(), results.absent.len()), (6, 2));

    let late = [&args[..7], &["--limit-seconds", "0", "--sides", "eager"], &python].concat();
    let output = bench(&late).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(output).unwrap().contains(&format!("Not begun within the limit of time: {}", cases.join(", "))));
}

#[test]
fn bad_input_is_refused_in_one_line() {
    assert!(refusal(&["--filter", "resnt50/plan"]).contains("the nearest are resnet50/plan/"));
    assert!(refusal(&["--filter", "lenet5/plan/b1/32/fp32/channels-last/t1/tpu"]).contains("no such device"));
    assert!(refusal(&["--list", "--baseline", "/nowhere.jsonl"]).contains("cannot read /nowhere.jsonl"));
    let script = fixture("fake_peer.sh");
    assert!(refusal(&["--baseline", script.to_str().unwrap()]).contains("line 1 is none of a results.jsonl"));
    assert!(refusal(&["--filter", TINY, "--peers=pytorhc"]).contains("did you mean pytorch?"));
    assert!(refusal(&["gpu", "--device", "cpu", "--filter", "nope"]).contains("no case of a card matches nope"));
    assert!(refusal(&["--thresold", "3"]).contains("--thresold"));
    assert!(refusal(&["--threshold=-3", "--list"]).contains("0 or more"));
}

#[test]
fn the_default_set_is_listed() {
    let listed = String::from_utf8(bench(&["--list", "--threads", "2"]).assert().success().get_output().stdout.clone()).unwrap();
    assert!(listed.lines().count() > 50 && listed.contains("resnet50/plan/b16/224/fp32/channels-last/t2/cpu"), "{listed}");
    let full = bench(&["--list", "--full", "--filter", "vgg19/train"]).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(full).unwrap().lines().all(|line| line.starts_with("vgg19/train/")));
}

#[test]
fn a_run_is_held_against_another() {
    let results = fixture("results.jsonl");
    let results = results.to_str().unwrap();
    // The other run's ResNet-18 took 10 ms where this one's took 12.
    let earlier = fixture("earlier.jsonl");
    let against =
        |threshold| bench(&["--results", results, "--baseline", earlier.to_str().unwrap(), "--threshold", threshold]).assert();
    let failed = against("10").code(1).get_output().clone();
    assert!(String::from_utf8(failed.stdout).unwrap().contains("| 10.000 | 12.000 | 1.20 | slower |"));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("1 of 2 cases are slower"));
    against("25").success();
}

#[test]
fn tables_are_put_into_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("results.md");
    let publish =
        ["--results", fixture("results.jsonl").to_str().unwrap(), "--publish", document.to_str().unwrap()].map(str::to_owned);
    let publish: Vec<&str> = publish.iter().map(String::as_str).collect();
    assert!(refusal(&publish).contains("cannot read"));
    fs::write(&document, "# Ours\n").unwrap();
    assert!(refusal(&publish).contains("between two lines `<!-- bench -->` and"));
    fs::write(&document, "# Ours\n\n<!-- bench -->\n<!-- /bench -->\n\nEnd.\n").unwrap();
    bench(&publish).assert().success();
    let text = fs::read_to_string(&document).unwrap();
    let tables = table(&Results::read(&fixture("results.jsonl")).unwrap());
    assert_eq!(text, format!("# Ours\n\n<!-- bench -->\n\n{}\n\n<!-- /bench -->\n\nEnd.\n", tables.trim()));
    assert!(text.contains("linux x86_64; 2025-11-24; libtorch 2.13.0"), "{text}");
}

/// The names in a folder, and what the files have.
#[cfg(debug_assertions)]
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().into(), fs::read_to_string(path).unwrap())).collect()
}

#[cfg(debug_assertions)]
#[test]
fn a_disk_that_fails_leaves_tables_and_figures_whole_or_as_they_were() {
    const BEFORE: &str = "# Ours\n\n<!-- bench -->\n<!-- /bench -->\n";
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("results.md");
    let fixture = fixture("results.jsonl");
    let mut after = BTreeMap::new();
    // Each start of the program takes a quarter of a second.
    for number in (0..).step_by(3) {
        for name in files(folder.path()).keys() {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        fs::write(&document, BEFORE).unwrap();
        let mut bench = bench(&["--results", fixture.to_str().unwrap()]);
        bench.arg("--out").arg(folder.path()).arg("--publish").arg(&document);
        let output = bench.env("STRIATE_FAULT", number.to_string()).output().unwrap();
        let (now, told) = (files(folder.path()), String::from_utf8(output.stderr).unwrap());
        if number == 0 {
            assert!(now.len() > 2, "{:?}", now.keys());
            after = now;
        } else if !told.contains("injected fault") {
            assert!(number > 9 && now == after);
            break;
        } else if !output.status.success() {
            assert_eq!((output.status.code(), told.matches("error: ").count()), (Some(2), 1), "{told}");
            let whole =
                |(name, text): (&PathBuf, &String)| after[name] == *text || name == Path::new("results.md") && text == BEFORE;
            assert!(now.contains_key(Path::new("results.md")) && now.iter().all(whole), "{told} {now:?}");
        }
    }
}

#[test]
fn tables_and_figures_are_made_of_results() {
    let results = Results::read(&fixture("results.jsonl")).unwrap();
    insta::assert_snapshot!("table", table(&results));
    for (name, svg) in plots(&results).unwrap() {
        insta::assert_snapshot!(name, svg);
    }
}
