use crate::TrainError;
use crate::error::check;
use crate::feed::Feed;
use crate::metrics::{ConfusionMatrix, Running, top_k_correct};
use striate_datasets::{Batch, Loader};
use striate_graph::{Graph, Network, Outputs};
use striate_layers::{Mode, loss::Loss};
use tch::{Device, Tensor};

/// How a network does on a dataset.
#[derive(Debug)]
pub struct Evaluation {
    /// How many examples.
    pub examples: u64,
    /// The mean loss.
    pub loss: f64,
    /// The share whose largest logit is the target's.
    pub accuracy: f64,
    /// The share with the target among the five largest logits.
    pub top5: f64,
    /// Which classes were taken for which.
    pub confusion: ConfusionMatrix,
}

/// Evaluates a network on every example of a dataset.
///
/// Fails if the network has other classes than the dataset, and if the loader leaves examples out.
pub fn evaluate(network: &Network, loader: &Loader, loss: Loss) -> Result<Evaluation, TrainError> {
    let forward = |images: &Tensor| Ok(network.forward(images, Mode::Eval)?);
    evaluate_with(network.graph(), network.device(), loader, loss, forward)
}

/// [`evaluate`], where `forward` runs the network of `graph` on images on `device`: for another way of running it, such as an
/// inference plan.
pub fn evaluate_with(
    graph: &Graph,
    device: Device,
    loader: &Loader,
    loss: Loss,
    forward: impl Fn(&Tensor) -> Result<Outputs, TrainError>,
) -> Result<Evaluation, TrainError> {
    check_classes(graph, loader)?;
    let _no_grad = striate_torch::no_grad();
    let classes = loader.dataset().classes().len();
    let mut confusion = ConfusionMatrix::new(classes);
    let (mut running, mut top5) = (Running::default(), 0);
    let (feed, mut batches) = (Feed::new(device), loader.epoch(0)?);
    let mut next = feed.next(&mut batches);
    while let Some(batch) = next {
        let Batch { images, labels, .. } = feed.take(batch?)?;
        let outputs = forward(&images)?;
        drop(images);
        // While the device computes.
        next = feed.next(&mut batches);
        let logits = outputs.logits();
        let mean = f64::try_from(loss.compute(logits, &labels)?)?;
        running.add(mean, labels.numel() as u64, top_k_correct(logits, &labels, 1)?);
        top5 += top_k_correct(logits, &labels, 5)?;
        confusion.add(logits, &labels)?;
    }
    let all = running.examples == loader.dataset().len() as u64;
    check(all, "drop_last", true, "leaves examples of the evaluation out: use LoaderOptions::eval")?;
    let top5 = top5 as f64 / running.examples as f64;
    Ok(Evaluation { examples: running.examples, loss: running.loss(), accuracy: running.accuracy(), top5, confusion })
}

/// Refuses a network whose logits are of another number of classes than the dataset's.
pub(crate) fn check_classes(graph: &Graph, loader: &Loader) -> Result<(), TrainError> {
    let dataset = loader.dataset();
    let output = graph.outputs().next().map(|(_, node)| node.shape.dims().to_vec()).unwrap_or_default();
    let classes = dataset.classes().len();
    match output.as_slice() {
        [width] if *width == classes as i64 => Ok(()),
        _ => Err(TrainError::Classes { network: output, dataset: dataset.name().to_owned(), classes }),
    }
}
