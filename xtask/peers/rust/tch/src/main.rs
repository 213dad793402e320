//! The Rust peers of `cargo xtask bench --peers`: one process does a case's work when it is its turn, and answers as
//! crates/striate-bench/src/turns.rs says. So far there is one peer: tch's own vision models, as tch's users run them.

use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;
use tch::nn::{ModuleT, OptimizerConfig, VarStore};
use tch::vision::{alexnet, resnet, vgg};
use tch::{Device, Tensor};

/// So small that weights stay what they are.
const LR: f64 = 1e-6;
const CLASSES: i64 = 1000;

type Outcome<T> = Result<T, Box<dyn Error>>;
type Run = Box<dyn FnMut() -> Outcome<()>>;

fn main() -> Outcome<()> {
    // tch's models panic where libtorch refuses, with its many lines escaped; the last line that is written is what is told.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{}", panic.payload_as_str().and_then(|reason| reason.split("\\n").next()).unwrap_or("it panicked"));
    }));
    let mut lines = std::io::stdin().lock().lines();
    let Some(line) = lines.next() else { return Ok(()) };
    let Ready { mut run, distance, base } = match prepare(&serde_json::from_str(&line?)?) {
        Ok(ready) => ready,
        Err(error) => return say(&json!({"error": error.to_string().lines().next()})),
    };
    say(&json!({"ready": {"distance": distance, "versions": {"tch": "0.26.0"}}}))?;
    for line in lines {
        let line = line?;
        let Some(repeats) = line.strip_prefix("run ") else {
            let memory = base.zip(status("VmHWM")).map(|(base, peak)| [peak - base, peak]);
            say(&json!({"memory": memory}))?;
            continue;
        };
        let repeats: usize = repeats.parse()?;
        let start = Instant::now();
        for _ in 0..repeats {
            run()?;
        }
        say(&json!({"ms": 1e3 * start.elapsed().as_secs_f64() / repeats as f64}))?;
    }
    Ok(())
}

fn say(answer: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

/// A figure of this process in MiB.
fn status(key: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

struct Ready {
    run: Run,
    /// How far its logits are from those of the file, relative to the largest.
    distance: f64,
    /// Resident memory before the first pass, in MiB.
    base: Option<f64>,
}

fn prepare(request: &Value) -> Outcome<Ready> {
    let case = &request["case"];
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("the request lacks something");
    let (path, model) = (text(&request["shared"])?, text(&case["model"])?);
    tch::set_num_threads(i32::try_from(case["threads"].as_i64().unwrap_or(1))?);
    let tensors = Tensor::read_safetensors(&path)?;
    let input = |wanted: &str| {
        let found = tensors.iter().find(|(name, _)| name == wanted);
        found.map(|(_, tensor)| tensor.shallow_clone()).ok_or(format!("the file has no {wanted}"))
    };
    let (images, labels, expected) = (input("bench.images")?, input("bench.labels")?, input("bench.logits")?);
    let mut vs = VarStore::new(Device::Cpu);
    let net = network(&vs, &model)?;
    vs.load(&path)?;
    drop(tensors);
    // The peak counts from now on.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let base = status("VmRSS");
    let logits = tch::no_grad(|| net.forward_t(&images, false));
    let furthest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let distance = furthest(&(logits - &expected)) / furthest(&expected);
    if case["mode"] != "train" {
        let run = move || {
            let _logits = tch::no_grad(|| net.forward_t(&images, false));
            Ok(())
        };
        return Ok(Ready { run: Box::new(run), distance, base });
    }
    let mut optimizer = tch::nn::Sgd { momentum: 0.9, ..Default::default() }.build(&vs, LR)?;
    let run = move || {
        let loss = net.forward_t(&images, true).cross_entropy_for_logits(&labels);
        optimizer.backward_step(&loss);
        Ok(())
    };
    Ok(Ready { run: Box::new(run), distance, base })
}

fn network(vs: &VarStore, name: &str) -> Outcome<Box<dyn ModuleT>> {
    let root = &vs.root();
    Ok(match name {
        "alexnet" => Box::new(alexnet::alexnet(root, CLASSES)),
        "vgg11" => Box::new(vgg::vgg11(root, CLASSES)),
        "vgg13" => Box::new(vgg::vgg13(root, CLASSES)),
        "vgg16" => Box::new(vgg::vgg16(root, CLASSES)),
        "vgg19" => Box::new(vgg::vgg19(root, CLASSES)),
        "vgg11-bn" => Box::new(vgg::vgg11_bn(root, CLASSES)),
        "vgg13-bn" => Box::new(vgg::vgg13_bn(root, CLASSES)),
        "vgg16-bn" => Box::new(vgg::vgg16_bn(root, CLASSES)),
        "vgg19-bn" => Box::new(vgg::vgg19_bn(root, CLASSES)),
        "resnet18" => Box::new(resnet::resnet18(root, CLASSES)),
        "resnet34" => Box::new(resnet::resnet34(root, CLASSES)),
        "resnet50" => Box::new(resnet::resnet50(root, CLASSES)),
        "resnet101" => Box::new(resnet::resnet101(root, CLASSES)),
        "resnet152" => Box::new(resnet::resnet152(root, CLASSES)),
        _ => return Err(format!("tch has no {name}").into()),
    })
}
