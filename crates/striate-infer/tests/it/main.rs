//! Plans compute what their networks compute in evaluation, whatever the network.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use striate_graph::{InitOptions, Network};
use striate_infer::{Calibration, Plan, PlanOptions, Precision};
use striate_layers::Mode;
use striate_models::{Model, Variant, find, variants};
use striate_torch::{Generator, MemoryFormat};
use tch::{Device, Kind, Tensor};

/// The smallest of these sizes that a variant can be built for is what it is tested at.
const SIZES: [i64; 7] = [28, 32, 64, 96, 160, 224, 299];
/// Differences allowed, relative to the largest logit.
const FP32: f64 = 1e-4;
const BF16: f64 = 0.06;
const INT8: f64 = 0.15;

/// Channels of hidden linear layers, where a variant has such: its millions would only take time.
const HIDDEN: i64 = 64;

fn small(variant: &'static Variant) -> Model {
    let default = variant.model(&[]).unwrap();
    let model = |size: i64| {
        let mut options = vec![("classes", 10.into()), ("input", json!([default.input()[0], size, size]))];
        if default.config().contains_key("hidden") {
            options.push(("hidden", HIDDEN.into()));
        }
        variant.model(&options).unwrap()
    };
    SIZES.into_iter().map(model).find(|model| model.graph().is_ok()).unwrap()
}

/// A network whose every parameter is drawn anew, statistics of batch norm too, so that nothing is folded by chance.
fn network(model: &Model) -> Network {
    let network = Network::new(model.graph().unwrap(), &InitOptions::default()).unwrap();
    let _no_grad = striate_torch::no_grad();
    let mut generator = Generator::new(3);
    let parameters: Vec<_> = network.parameters().collect();
    // The sums of a thousand residual blocks would overflow if each block gave as much as it takes.
    let norms = parameters.iter().filter(|param| param.name.ends_with("running_var")).count();
    let scale = (20.0 / norms as f64).min(1.0);
    for mut param in parameters {
        if param.name.ends_with("running_var") {
            generator.uniform(&mut param.tensor, 0.6, 1.2).unwrap();
        } else if param.tensor.dim() == 1 && param.name.ends_with("weight") {
            generator.uniform(&mut param.tensor, 0.6 * scale, 1.2 * scale).unwrap();
        } else if param.tensor.dim() > 1 {
            // From PyTorch's initial values to He's, so that signals reach the end and logits are not the last biases alone.
            let _ = param.tensor.g_mul_scalar_(6_f64.sqrt());
        } else if param.tensor.dim() == 1 {
            generator.uniform(&mut param.tensor, -0.2, 0.2).unwrap();
        }
    }
    network
}

fn images(model: &Model, batch: i64, more: i64, kind: Kind) -> Tensor {
    let [channels, height, width] = model.input();
    let mut images = Tensor::zeros([batch, channels, height + more, width + more], (kind, Device::Cpu));
    Generator::new(batch.unsigned_abs()).normal(&mut images, 0.0, 1.0).unwrap();
    images
}

/// How far the plan's logits are from the network's, relative to the largest.
fn distance(network: &Network, plan: &Plan, images: &Tensor) -> f64 {
    let _no_grad = striate_torch::no_grad();
    let expected = network.forward(images, Mode::Eval).unwrap();
    let before = images.copy();
    let got = plan.forward(images).unwrap();
    assert_eq!(images, &before, "the input was written over");
    let names = |outputs: &striate_graph::Outputs| outputs.outputs().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&got));
    let (expected, got) = (expected.logits(), got.logits());
    assert_eq!((got.size(), got.kind()), (expected.size(), Kind::Float));
    let spread = expected.std(false).double_value(&[]);
    assert!(spread > 1e-6 && spread.is_finite(), "the logits spread by {spread}");
    ((got - expected).abs().max() / expected.abs().max()).double_value(&[])
}

/// Larger and deeper ones have the layers of smaller ones only; with STRIATE_ALL_NETWORKS set they are tested too, in minutes.
const PARAMETERS: u64 = 12_000_000;
const LAYERS: usize = 330;

/// Those of `quick` first; with STRIATE_ALL_NETWORKS set, those of `more` too.
fn chosen<'a>(quick: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let more = if all_networks() { more } else { &[] };
    [quick, more].concat()
}

fn all_networks() -> bool {
    std::env::var_os("STRIATE_ALL_NETWORKS").is_some()
}

#[test]
fn networks_of_every_family_keep_their_logits() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for variant in variants() {
        let model = small(variant);
        let graph = model.graph().unwrap();
        if !all_networks() && (graph.summary().params > PARAMETERS || graph.nodes().len() > LAYERS) {
            continue;
        }
        seen.insert(variant.family);
        let network = network(&model);
        let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
        let distance = distance(&network, &plan, &images(&model, 2, 0, Kind::Float));
        if distance.is_nan() || distance > FP32 {
            wrong.push(format!("{}: {distance:.1e}", variant.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen, variants().map(|variant| variant.family).collect());
}

const SOME_OF_EACH_KIND: [&str; 8] =
    ["lenet5", "alexnet-tiny", "alexnet-paper-tiny", "vgg-tiny", "nin-tiny", "googlenet-tiny", "resnet18", "resnet50"];

#[test]
fn bfloat16_is_close() {
    let mut wrong = Vec::new();
    for name in SOME_OF_EACH_KIND {
        let model = small(find(name).unwrap());
        let network = network(&model);
        let plan = Plan::new(&network, &PlanOptions { precision: Precision::Bfloat16, ..PlanOptions::default() }).unwrap();
        assert_eq!(plan.precision(), Precision::Bfloat16);
        let distance = distance(&network, &plan, &images(&model, 4, 0, Kind::Float));
        // It would be exact if nothing were rounded.
        if !(FP32..=BF16).contains(&distance) {
            wrong.push(format!("{name}: {distance:.1e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether this machine has no int8; says so.
fn skipped() -> bool {
    let skipped = !striate_torch::int8::available();
    if skipped {
        println!("skipped: no AVX-512 VNNI or AVX-VNNI");
    }
    skipped
}

#[test]
fn int8_is_close_at_any_batch_and_size() {
    if skipped() {
        return;
    }
    let mut wrong = Vec::new();
    for name in SOME_OF_EACH_KIND.into_iter().chain(["inception-v3-tiny", "preact-resnet-tiny"]) {
        let model = small(find(name).unwrap());
        let network = network(&model);
        let takes_any = network.forward(&images(&model, 1, 37, Kind::Float), Mode::Eval).is_ok();
        for more in [0].into_iter().chain(takes_any.then_some(37)) {
            let calibration = [images(&model, 8, more, Kind::Float), images(&model, 3, more, Kind::Float)];
            let plan = Plan::calibrated(&network, &calibration).unwrap();
            assert_eq!(plan.precision(), Precision::Int8);
            assert!(plan.to_string().contains("int8"), "{plan}");
            for batch in [1, 4] {
                let distance = distance(&network, &plan, &images(&model, batch, more, Kind::Float));
                println!("{name}, batch {batch}, {more} more: {distance:.1e}");
                if !(FP32..=INT8).contains(&distance) {
                    wrong.push(format!("{name}, batch {batch}, {more} more: {distance:.1e}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn int8_needs_images_with_finite_values() {
    if skipped() {
        return;
    }
    let model = small(find("lenet5").unwrap());
    let network = network(&model);
    let error = |images: &[Tensor]| Plan::calibrated(&network, images).unwrap_err().to_string();
    assert_eq!(error(&[]), "int8 needs at least one image to calibrate");
    assert_eq!(error(&[images(&model, 1, 0, Kind::Float).narrow(0, 0, 0)]), "int8 needs at least one image to calibrate");
    let nan = images(&model, 1, 0, Kind::Float) * f64::NAN;
    assert!(error(&[nan]).starts_with("input: the calibration images give values that are not finite"));
    let refused = |precision| Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() }).unwrap_err().to_string();
    assert_eq!(refused(Precision::Int8), "int8 needs a calibration: measure one with `Calibration::measure`");
    assert_eq!(refused(Precision::Float16), "float16 needs a CUDA device: use float32 or bfloat16");
}

/// From its JSON a calibration makes the same plan, to the last bit.
#[test]
fn a_calibration_can_be_kept() {
    if skipped() {
        return;
    }
    for name in ["lenet5", "googlenet-tiny", "resnet18"] {
        let model = small(find(name).unwrap());
        let network = network(&model);
        let images = images(&model, 8, 0, Kind::Float);
        let calibration = Calibration::measure(&network, std::slice::from_ref(&images)).unwrap();
        let text = serde_json::to_string(&calibration).unwrap();
        assert!((100..4000).contains(&text.len()), "{text}");
        let again: Calibration = serde_json::from_str(&text).unwrap();
        assert_eq!(again, calibration);
        let options = PlanOptions { precision: Precision::Int8, calibration: Some(again), ..PlanOptions::default() };
        let logits = |plan: Plan| plan.forward(&images).unwrap().logits().copy();
        let plan = Plan::calibrated(&network, std::slice::from_ref(&images)).unwrap();
        assert_eq!(logits(Plan::new(&network, &options).unwrap()), logits(plan));
        // Other images give other ranges.
        assert_ne!(Calibration::measure(&network, &[&images * 3.0]).unwrap(), calibration);
    }
}

#[test]
fn a_calibration_that_does_not_fit_is_one_line() {
    if skipped() {
        return;
    }
    let model = small(find("lenet5").unwrap());
    let network = network(&model);
    let good = serde_json::to_value(Calibration::measure(&network, &[images(&model, 2, 0, Kind::Float)]).unwrap()).unwrap();
    let refusal = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut value = good.clone();
        change(value.as_object_mut().unwrap());
        let calibration = Some(serde_json::from_value(value).unwrap());
        let options = PlanOptions { precision: Precision::Int8, calibration, ..PlanOptions::default() };
        Plan::new(&network, &options).unwrap_err().to_string()
    };
    let first = good.as_object().unwrap().keys().find(|layers| *layers != "input").unwrap();
    let told = |reason: String| format!("the calibration does not fit the network: {reason}: measure one of this network");
    assert_eq!(refusal(&|scales| drop(scales.remove(first))), told(format!("it has no scale for {first}")));
    let other = json!({ "step": 1.0, "zero_point": 0 });
    let added = refusal(&|scales| drop(scales.insert("layer9".to_owned(), other.clone())));
    assert_eq!(added, told("it has a scale for layer9, which the network lacks".to_owned()));
    for wrong in [json!({ "step": 0.0, "zero_point": 0 }), json!({ "step": 1.0, "zero_point": 256 })] {
        let wrong = refusal(&|scales| drop(scales.insert(first.clone(), wrong.clone())));
        assert!(wrong.contains(&format!("{first} cannot have Scale")) && !wrong.contains('\n'), "{wrong}");
    }
}

#[test]
fn one_plan_takes_any_batch_and_size() {
    let quick = ["resnet-tiny", "googlenet-tiny", "nin-tiny", "inception-v3-tiny", "preact-resnet-tiny", "alexnet-tiny"];
    for name in chosen(&quick, &["resnet18", "googlenet"]) {
        let model = small(find(name).unwrap());
        let network = network(&model);
        let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
        for (batch, more) in [(1, 0), (5, 0), (5, 37), (1, 64), (2, 0)] {
            let distance = distance(&network, &plan, &images(&model, batch, more, Kind::Float));
            assert!(distance < FP32, "{name}, batch {batch}, {more} more: {distance:.1e}");
        }
    }
}

#[test]
fn what_the_network_refuses_the_plan_refuses_in_the_same_words() {
    let model = small(find("lenet5").unwrap());
    let network = network(&model);
    let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
    let image = images(&model, 1, 0, Kind::Float);
    for batch in [images(&model, 1, 8, Kind::Float), image.repeat([1, 2, 1, 1]), image.flatten(1, -1), image.narrow(3, 0, 2)] {
        let expected = network.forward(&batch, Mode::Eval).unwrap_err();
        assert_eq!(plan.forward(&batch).unwrap_err(), expected);
    }
    assert_eq!(plan.forward_all(&[]).unwrap_err().to_string(), "the network takes 1 inputs, got 0");
}

#[test]
fn a_plan_takes_its_inputs_in_any_layout_and_type_and_keeps_no_tie_to_the_network() {
    let model = small(find("resnet18").unwrap());
    let mut network = network(&model);
    let images = images(&model, 3, 0, Kind::Float);
    let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
    let logits = plan.forward(&images).unwrap().logits().copy();
    let transposed = images.transpose(2, 3).contiguous().transpose(2, 3);
    for other in
        [images.to_kind(Kind::Double), transposed, striate_torch::to_memory_format(&images, MemoryFormat::ChannelsLast).unwrap()]
    {
        assert!(plan.forward(&other).unwrap().logits().allclose(&logits, 1e-5, 1e-5, false));
    }
    network.set_memory_format(MemoryFormat::ChannelsLast).unwrap();
    assert!(distance(&network, &plan, &images) < FP32);
    let _no_grad = striate_torch::no_grad();
    for param in network.parameters().filter(|param| param.tensor.is_floating_point()) {
        let _ = param.tensor.shallow_clone().zero_();
    }
    assert_eq!(plan.forward(&images).unwrap().logits(), &logits);
    assert!(!logits.requires_grad());
}

/// A network of this variant on the first graphics card, and on the CPU; `None`, which says so, where there is none.
fn on_a_gpu(name: &str) -> Option<(Model, Network, Network)> {
    if !tch::Cuda::is_available() {
        println!("skipped: there is no CUDA device");
        return None;
    }
    let model = small(find(name).unwrap());
    let on_cpu = network(&model);
    let options = InitOptions { devices: vec![Device::Cuda(0)], ..InitOptions::default() };
    let on_gpu = Network::new(model.graph().unwrap(), &options).unwrap();
    on_gpu.load_state(&on_cpu.state()).unwrap();
    Some((model, on_cpu, on_gpu))
}

/// Each shape's first calls run step by step and the later ones as a graph: all give what the network does, wherever the batch lies.
#[test]
fn on_a_gpu_plans_compute_what_networks_do_before_and_after_they_are_recorded() {
    for name in SOME_OF_EACH_KIND.into_iter().chain(["lenet5-paper", "inception-v3-tiny", "preact-resnet-tiny"]) {
        let Some((model, on_cpu, on_gpu)) = on_a_gpu(name) else { return };
        let batches: Vec<Tensor> = [1, 4].map(|batch| images(&model, batch, 0, Kind::Float)).into();
        for (precision, most) in [(Precision::Float32, 1e-4), (Precision::Bfloat16, BF16), (Precision::Float16, 2e-2)] {
            let options = PlanOptions { precision, tf32: Some(false), ..PlanOptions::default() };
            let plan = Plan::new(&on_gpu, &options).unwrap();
            for call in 0..5 {
                for batch in &batches {
                    let expected = {
                        let _no_grad = striate_torch::no_grad();
                        on_cpu.forward(batch, Mode::Eval).unwrap()
                    };
                    let given = if call % 2 == 0 { batch.shallow_clone() } else { batch.to_device(Device::Cuda(0)) };
                    let got = plan.forward(&given).unwrap().logits().to_device(Device::Cpu);
                    let distance = ((got - expected.logits()).abs().max() / expected.logits().abs().max()).double_value(&[]);
                    assert!(distance < most, "{name} {precision} call {call}: {distance:.1e}\n{plan}");
                }
            }
            let recorded = if name == "lenet5-paper" { 0 } else { batches.len() };
            assert_eq!(plan.recorded(), recorded, "{name} {precision}: {:?}", plan.not_recorded());
            if ["resnet50", "googlenet-tiny", "vgg-tiny"].contains(&name) {
                assert!(plan.to_string().contains("[cuDNN"), "{plan}");
            }
            println!("{name} {precision}: {} recorded, {:?}", plan.recorded(), plan.not_recorded());
            if (name, precision) == ("resnet50", Precision::Bfloat16) {
                println!("{plan}");
            }
        }
    }
}

#[test]
fn on_a_gpu_threads_share_one_plan_and_graphs_are_bounded() {
    let Some((model, _, on_gpu)) = on_a_gpu("googlenet-tiny") else { return };
    let plan = Plan::new(&on_gpu, &PlanOptions { precision: Precision::Bfloat16, ..PlanOptions::default() }).unwrap();
    let batches: Vec<Tensor> = (1..=10).map(|batch| images(&model, batch, 0, Kind::Float)).collect();
    let logits = |batch: &Tensor| plan.forward(batch).unwrap().logits().to_device(Device::Cpu);
    for batch in batches.iter().flat_map(|batch| [batch; 4]) {
        let _ = logits(batch);
    }
    assert_eq!(plan.recorded(), 8);
    let expected: Vec<Tensor> = batches.iter().map(logits).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (batches, expected): (Vec<Tensor>, Vec<Tensor>) =
                batches.iter().zip(&expected).map(|(batch, logits)| (batch.copy(), logits.copy())).unzip();
            let plan = &plan;
            scope.spawn(move || {
                for call in 0..60 {
                    let index = (thread * 3 + call) % batches.len();
                    let got = plan.forward(&batches[index]).unwrap().logits().to_device(Device::Cpu);
                    let worst = (got - &expected[index]).abs().max() / expected[index].abs().max();
                    // Without a graph, another thread chooses its own algorithms.
                    assert!(worst.double_value(&[]) < BF16, "batch {}", index + 1);
                }
            });
        }
    });
}

#[test]
fn on_a_gpu_what_does_not_fit_is_one_line() {
    let Some((model, _, on_gpu)) = on_a_gpu("resnet18") else { return };
    let plan = Plan::new(&on_gpu, &PlanOptions::default()).unwrap();
    let huge = images(&model, 1, 0, Kind::Float).to_device(Device::Cuda(0)).expand([1 << 24, -1, -1, -1], false);
    let error = plan.forward(&huge).unwrap_err().to_string();
    assert!(error.starts_with("not enough memory on cuda:0 for a batch of 16777216: ") && !error.contains('\n'), "{error}");
    let int8 = PlanOptions { precision: Precision::Int8, ..PlanOptions::default() };
    assert!(Plan::new(&on_gpu, &int8).unwrap_err().to_string().starts_with("int8 needs a CPU"));
}

/// Sizes at which 3x3 convolutions have tiles enough for Winograd's algorithm in every stage.
#[test]
fn deep_networks_keep_their_logits_with_winograds_algorithm() {
    for name in chosen(&["vgg13-bn", "resnet18", "googlenet", "resnet56-cifar"], &["vgg16", "resnet34", "resnet50"]) {
        let classes = ("classes", 10.into());
        let model = match name {
            "vgg13-bn" | "vgg16" => {
                find(name).unwrap().model(&[classes, ("hidden", HIDDEN.into()), ("input", json!([3, 160, 160]))])
            }
            "resnet56-cifar" => find(name).unwrap().model(&[classes]),
            _ => find(name).unwrap().model(&[classes, ("input", json!([3, 224, 224]))]),
        };
        let model = model.unwrap();
        let network = network(&model);
        let plan = Plan::new(&network, &PlanOptions::default()).unwrap();
        if striate_torch::winograd::available() {
            assert!(["Winograd", "pointwise"].iter().all(|kernel| plan.to_string().contains(kernel)), "{plan}");
        }
        let distance = distance(&network, &plan, &images(&model, 2, 0, Kind::Float));
        assert!(distance < FP32, "{name}: {distance:.1e}");
        println!("{name}: {distance:.1e}");
    }
}

/// Calls of several threads at once give the bits that one thread gets.
#[test]
fn threads_share_one_plan() {
    const THREADS: usize = 8;
    fn shared<T: Send + Sync + 'static>(value: T) -> Arc<T> {
        Arc::new(value)
    }
    striate_torch::set_num_threads(2);
    for name in ["lenet5", "googlenet-tiny", "resnet18", "preact-resnet-tiny"] {
        let model = small(find(name).unwrap());
        let network = network(&model);
        let batches: Vec<Tensor> = (1..=6).map(|batch| images(&model, batch, 0, Kind::Float)).collect();
        let mut plans = vec![];
        for precision in [Precision::Float32, Precision::Bfloat16] {
            plans.push(Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() }).unwrap());
        }
        if !skipped() {
            plans.push(Plan::calibrated(&network, &batches[5..]).unwrap());
        }
        for plan in plans {
            let logits = |plan: &Plan, batch: usize| plan.forward(&batches[batch]).unwrap().logits().copy();
            let expected: Vec<Tensor> = (0..batches.len()).map(|batch| logits(&plan, batch)).collect();
            let plan = shared(plan);
            // A batch for each call, in another order in each thread.
            let calls = |thread: usize| (0..12).map(move |call| (thread + call * (1 + 4 * (thread % 2))) % 6);
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (plan, calls) = (Arc::clone(&plan), calls(thread));
                    let batches: Vec<Tensor> = batches.iter().map(Tensor::shallow_clone).collect();
                    std::thread::spawn(move || {
                        striate_torch::set_num_threads(2);
                        calls.map(|batch| plan.forward(&batches[batch]).unwrap().logits().copy()).collect::<Vec<_>>()
                    })
                })
                .collect();
            for (thread, handle) in threads.into_iter().enumerate() {
                for (got, batch) in handle.join().unwrap().iter().zip(calls(thread)) {
                    assert_eq!(got, &expected[batch], "{name}, {:?}, batch {}", plan.precision(), batch + 1);
                }
            }
        }
    }
}
