//! `cost`.
use crate::sandbox::Sandbox;
use serde_json::{Value, json};

#[test]
fn all_designs_stand_in_groups() {
    insta::assert_snapshot!(Sandbox::new().ok(&["cost"]));
}

#[test]
fn the_figures_are_those_of_the_papers() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["cost", "--json"]);
    let row = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    let macs = |name: &str| row(name)["macs"].as_u64().unwrap();
    assert_eq!((macs("conv5x5"), macs("conv5x5-bottleneck")), (120_422_400, 2_408_448 + 10_035_200));
    assert_eq!(format!("{:.2}", row("conv5x5-bottleneck")["times_fewer_macs"].as_f64().unwrap()), "9.68");
    let millions = |name: &str| format!("{:.1}", macs(name) as f64 / 1e6);
    assert_eq!((millions("inception3a-naive"), millions("inception3a")), ("303.5".to_owned(), "128.0".to_owned()));
    assert_eq!((&row("inception3a-naive")["output"][0], &row("inception3a")["output"][0]), (&json!(416), &json!(256)));
    assert_eq!(row("three-3x3")["receptive_field"], row("one-7x7")["receptive_field"]);
    assert_eq!(row("inception3a")["against"], "inception3a-naive");
}

#[test]
fn designs_and_models_share_a_table_and_follow_the_input() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["cost", "resnet18", "conv5x5", "--json"]);
    assert_eq!((&rows[0]["input"], &rows[1]["input"]), (&json!([3, 224, 224]), &json!([192, 28, 28])));
    let summary = sandbox.json(&["summary", "resnet18", "--json"]);
    assert_eq!((&rows[0]["params"], &rows[0]["macs"]), (&summary["params"], &summary["macs"]));
    assert_eq!(rows[1]["against"], "resnet18");
    let times = summary["macs"].as_f64().unwrap() / 120_422_400.0;
    assert_eq!(rows[1]["times_fewer_macs"], Value::from(times));
    let halved = sandbox.json(&["cost", "conv5x5", "resnet18", "--input", "192,14,14", "--json"]);
    assert_eq!((&halved[0]["macs"], &halved[1]["input"]), (&json!(120_422_400 / 4), &json!([192, 14, 14])));
}

#[test]
fn wrong_names_and_inputs_are_told() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 5] = [
        (&["cost", "conv5x6"], "error: there is no design or model conv5x6: did you mean conv5x5?"),
        (&["cost", "resnet19"], "error: there is no design or model resnet19: did you mean resnet18?"),
        (&["cost", "nope"], "`striate cost` lists the designs and `striate models` the models"),
        (&["cost", "--input", "192,28"], "give three numbers above 0, such as 1,32,32"),
        (&["cost", "--input", "0,28,28"], "give three numbers above 0, such as 1,32,32"),
    ];
    for (args, told) in cases {
        sandbox.refused_with(args, &[told]);
    }
}
