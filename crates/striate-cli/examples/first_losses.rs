//! The first steps of a run in a file, for another framework to repeat: initial weights, batches, learning rates and losses.
//! `xtask/peers/resnet20.py losses FILE` reads it.
//!
//! cargo run --release -p striate-cli --example first_losses -- RECIPE.toml STEPS FILE

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use striate::{Recipe, Run};
use striate_torch::TensorFile;
use striate_train::{Optimizer, Step};
use tch::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, steps, file] = args.as_slice() else { return Err("name RECIPE.toml, STEPS and FILE".into()) };
    let steps: usize = steps.parse()?;
    let prepared = Run::new(Recipe::read(Path::new(recipe))?).prepare()?;
    let (network, config) = (&prepared.network, &prepared.config);
    let loader = prepared.train_loader()?;
    let copies =
        |state: BTreeMap<String, Tensor>| state.into_iter().map(|(name, tensor)| (format!("init/{name}"), tensor.copy()));
    let mut tensors: BTreeMap<String, Tensor> = copies(network.state()).collect();
    let optimizer = Optimizer::new(config.optimizer.clone(), network.trainable())?;
    let objective = config.objective(&*prepared.data.train, network.device())?;
    let mut step = Step::new(network, objective, optimizer, config.step_options())?;
    let epoch = loader.len() as u64;
    let (mut rates, mut losses) = (Vec::new(), Vec::new());
    for (number, batch) in loader.epoch(0)?.take(steps).enumerate() {
        let batch = batch?;
        let lr = config.schedule.lr(config.lr, number as u64, config.epochs * epoch, epoch);
        losses.push(f64::try_from(step.run(&batch.images, batch.targets(), lr)?.loss)?);
        rates.push(lr);
        tensors.insert(format!("images/{number}"), batch.images.contiguous());
        tensors.insert(format!("labels/{number}"), batch.labels);
    }
    tensors.insert("rates".to_owned(), Tensor::from_slice(&rates));
    tensors.insert("losses".to_owned(), Tensor::from_slice(&losses));
    TensorFile { tensors, metadata: BTreeMap::new() }.write(Path::new(file))?;
    println!("{} steps, losses from {:.4} to {:.4}", losses.len(), losses[0], losses[losses.len() - 1]);
    Ok(())
}
