//! Parameters have torchvision's names and shapes, so that its weights load: `tests/torchvision/names.py` says how
//! `names.tsv` was made.
#![allow(clippy::unwrap_used)]
use crate::find;
use sha2::{Digest, Sha256};
use striate_graph::Graph;

/// One sorted line for each parameter, such as `conv1.weight 64,3,7,7`.
fn entries(graph: &Graph) -> Vec<String> {
    let params = graph.nodes().iter().flat_map(|node| {
        graph.params(node).into_iter().map(|param| {
            let shape = param.shape.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            format!("{}.{} {shape}\n", node.name, param.name)
        })
    });
    let mut lines: Vec<String> = params.collect();
    lines.sort();
    lines
}

#[test]
fn parameters_have_torchvisions_names_and_shapes() {
    for row in include_str!("../tests/torchvision/names.tsv").lines() {
        let [name, count, hash] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let entries = entries(&find(name).unwrap().model(&[]).unwrap().graph().unwrap());
        assert_eq!(entries.len().to_string(), count, "{name}");
        let got: String = Sha256::digest(entries.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, hash, "{name}: compare with torchvision's state dict:\n{}", entries.concat());
    }
}
