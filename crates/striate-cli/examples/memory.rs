//! The peak memory of a forward pass: the counterpart of `xtask/peers/memory.py`. Linux only.
//!
//! `cargo run --release -p striate-cli --example memory -- resnet50 16 [contiguous | channels-last] [train]` prints MiB of
//! resident memory: what the first forward pass (with `train`, a forward and a backward pass) peaks at, and what three of them
//! do, above what the process has after a pass of one image of 64x64, which loads the code of all layers.
use std::error::Error;
use std::fs;
use striate_graph::{InitOptions, Network};
use striate_layers::Mode;
use striate_models::find;
use striate_torch::MemoryFormat;
use tch::{Device, Kind, Tensor};

/// A figure of `/proc/self/status` in MiB.
fn status(key: &str) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(key)).ok_or("no such figure")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no value")?.parse()?;
    Ok(kib / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, batch) = (args.first().map_or("resnet50", String::as_str), args.get(1).map_or(Ok(16), |batch| batch.parse())?);
    let train = args.iter().any(|arg| arg == "train");
    striate_torch::set_num_threads(2);
    let images = Tensor::f_rand([batch, 3, 224, 224], (Kind::Float, Device::Cpu))?;
    let options: &[(&str, serde_json::Value)] = if name == "googlenet" { &[("aux_heads", false.into())] } else { &[] };
    let mut network = Network::new(find(name)?.model(options)?.graph()?, &InitOptions::default())?;
    let images = if args.iter().any(|arg| arg == "channels-last") {
        network.set_memory_format(MemoryFormat::ChannelsLast)?;
        striate_torch::to_memory_format(&images, MemoryFormat::ChannelsLast)?
    } else {
        images
    };
    let pass = |images: &Tensor| -> Result<(), Box<dyn Error>> {
        if train {
            let outputs = network.forward(images, Mode::Train)?;
            outputs.logits().f_sum(Kind::Float)?.f_backward()?;
            return Ok(());
        }
        let _no_grad = striate_torch::no_grad();
        network.forward(images, Mode::Eval)?;
        Ok(())
    };
    pass(&images.f_narrow(0, 0, 1)?.f_narrow(2, 0, 64)?.f_narrow(3, 0, 64)?.copy())?;
    let base = status("VmRSS")?;
    // The peak counts from now on.
    fs::write("/proc/self/clear_refs", "5")?;
    pass(&images)?;
    let first = status("VmHWM")? - base;
    pass(&images)?;
    pass(&images)?;
    let three = status("VmHWM")? - base;
    let whole = status("VmHWM")?;
    println!("{name} batch {batch}: first {first:.1}, three {three:.1}, the whole process {whole:.0} MiB");
    Ok(())
}
