//! The peak memory of a forward pass: the counterpart of `xtask/peers/memory.py`. Linux only.
//!
//! `cargo run --release -p striate-cli --example memory -- resnet50 16 [contiguous | channels-last] [train]` prints MiB of
//! resident memory: what the first forward pass (with `train`, a forward and a backward pass) peaks at, and what three of them
//! do, above what the process has after a pass of one image of 64x64, which loads the code of all layers.
use std::error::Error;
use striate_graph::{InitOptions, Network};
use striate_layers::Mode;
use striate_models::find;
use striate_torch::{MemoryFormat, peak_memory, reset_peak_memory, resident_memory};
use tch::{Device, Kind, Tensor};

/// Bytes in MiB.
fn mib(bytes: Option<u64>) -> Result<f64, Box<dyn Error>> {
    Ok(bytes.ok_or("this system does not tell memory")? as f64 / 1024.0 / 1024.0)
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
    let base = mib(resident_memory())?;
    // The peak counts from now on.
    reset_peak_memory();
    pass(&images)?;
    let first = mib(peak_memory())? - base;
    pass(&images)?;
    pass(&images)?;
    let three = mib(peak_memory())? - base;
    let whole = mib(peak_memory())?;
    println!("{name} batch {batch}: first {first:.1}, three {three:.1}, the whole process {whole:.0} MiB");
    Ok(())
}
