//! tch's own vision models, as tch's users run them.

use serde_json::json;
use striate_peer::{LR, MOMENTUM, Outcome, Ready, Request, resident_before, serve};
use tch::nn::{ModuleT, OptimizerConfig, VarStore};
use tch::vision::{alexnet, resnet, vgg};
use tch::{Device, Tensor};

const CLASSES: i64 = 1000;

fn main() -> Outcome<()> {
    serve(json!({"tch": "0.26.0"}), prepare)
}

fn prepare(request: &Request) -> Outcome<Ready> {
    tch::set_num_threads(request.threads);
    let tensors = Tensor::read_safetensors(&request.shared)?;
    let input = |wanted: &str| {
        let found = tensors.iter().find(|(name, _)| name == wanted);
        found.map(|(_, tensor)| tensor.shallow_clone()).ok_or(format!("the file has no {wanted}"))
    };
    let (images, labels, expected) = (input("bench.images")?, input("bench.labels")?, input("bench.logits")?);
    let mut vs = VarStore::new(Device::Cpu);
    let net = network(&vs, &request.model)?;
    vs.load(&request.shared)?;
    drop(tensors);
    let base = resident_before();
    let logits = tch::no_grad(|| net.forward_t(&images, false));
    let furthest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let distance = furthest(&(logits - &expected)) / furthest(&expected);
    if !request.trains {
        let run = move || {
            let _logits = tch::no_grad(|| net.forward_t(&images, false));
            Ok(())
        };
        return Ok(Ready { run: Box::new(run), distance, base });
    }
    let mut optimizer = tch::nn::Sgd { momentum: MOMENTUM, ..Default::default() }.build(&vs, LR)?;
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
