//! `self-test` on a processor.
use crate::sandbox::Sandbox;

#[test]
fn kernels_of_this_machine_are_right() {
    let sandbox = Sandbox::new();
    let table = sandbox.ok(&["self-test", "--devices", "cpu", "--parts", "kernels"]);
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("kernels  cpu ")).collect();
    assert!(rows.len() > 3 && rows.iter().all(|row| row.ends_with("  ok")), "{table}");
    assert!(table.starts_with("striate 0.1.0, libtorch "), "{table}");
    assert!(sandbox.names("").is_empty());
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.refused_with(&["self-test", "--devices", "cuda:99"], &["cuda:99"]);
    sandbox.refused_with(&["self-test", "--parts", "kernel"], &["a similar value exists: 'kernels'"]);
}
