//! By hand: bundles of all networks with random weights, and what they give. zoo OUT [NAME...]
#![allow(clippy::unwrap_used)]
use std::path::Path;
use striate_datasets::{ImageSize, Interpolation, Normalise, Preprocess};
use striate_export::*;
use striate_graph::{InitOptions, Network};
use striate_layers::Mode;
use striate_models::{Bundle, BundleInfo, variants};
use striate_torch::{Generator, TensorFile};
use tch::{Device, Kind, Tensor};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(&args[0]);
    let mut random = Generator::new(0);
    for variant in variants() {
        if args.len() > 1 && !args[1..].iter().any(|a| a == variant.name) { continue; }
        let model = variant.model(&[]).unwrap();
        let graph = model.graph().unwrap();
        let network = Network::new(graph, &InitOptions::default()).unwrap();
        let _g = striate_torch::no_grad();
        for (name, mut tensor) in network.state() {
            if name.ends_with("running_var") { random.uniform(&mut tensor, 0.5, 1.5).unwrap(); }
            if name.ends_with("running_mean") { random.normal(&mut tensor, 0.0, 0.3).unwrap(); }
        }
        let input = model.input();
        let mut x = Tensor::zeros([2, input[0], input[1], input[2]], (Kind::Float, Device::Cpu));
        random.normal(&mut x, 0.0, 1.0).unwrap();
        let y = network.forward(&x, Mode::Eval).unwrap().logits().copy();
        let classes: Vec<String> = (0..model.classes()).map(|c| c.to_string()).collect();
        let short = input[1].max(input[2]) * 8 / 7;
        let n = input[0] as usize;
        let preprocess = Preprocess { image: ImageSize::ShorterSide { shorter_side: short }, input, normalise: Normalise { mean: vec![0.485, 0.456, 0.406][..n].to_vec(), std: vec![0.229, 0.224, 0.225][..n].to_vec() }, interpolation: Interpolation::Bilinear };
        let info = BundleInfo::of_model(&model, &classes, Some(preprocess)).unwrap();
        let path = out.join(format!("{}.safetensors", variant.name));
        Bundle { info, state: network.state() }.write(&path).unwrap();
        let start = std::time::Instant::now();
        let raw = ExportOptions { raw: true, ..ExportOptions::default() };
        Onnx::of_bundle(&path, &raw).unwrap().write(&out.join(format!("{}.onnx", variant.name))).unwrap();
        println!("{} {:?}", variant.name, start.elapsed());
        TensorFile { tensors: [("input".to_owned(), x), ("logits".to_owned(), y)].into(), ..Default::default() }.write(&out.join(format!("{}.io.safetensors", variant.name))).unwrap();
        #[cfg(feature = "check")]
        std::fs::remove_file(&path).unwrap();
    }
}
