//! What the values and gradients of each layer are like, and which units are dead.
use crate::LabError;
use serde::Serialize;
use striate::cam::score_layer;
use striate_graph::{Graph, Network, NodeKind};
use striate_layers::{Activation, Mode, Op};
use tch::{Kind, Tensor};

/// Images whose values are kept at one time.
const BATCH: i64 = 4;

/// What a layer does over some images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStatistics {
    /// The layer's full name.
    pub layer: String,
    /// The kind of layer, such as `Conv2d`.
    pub op: &'static str,
    /// The shape of its output for one image.
    pub shape: Vec<i64>,
    /// The mean of its values.
    pub mean: f64,
    /// Their (population) standard deviation.
    pub std: f64,
    /// The share of them that is exactly 0.
    pub zeros: f64,
    /// The norm of the gradient of the likeliest class's score with respect to the layer's output, the mean over the images. None
    /// where that score does not depend on the layer.
    pub gradient_norm: Option<f64>,
    /// Of a ReLU, the channels (or features) that are not above 0 anywhere in any of the images. None for other layers, where
    /// a channel that is never above 0 can do its part.
    pub dead: Option<Vec<usize>>,
}

/// Runs images (`[N, C, H, W]`, normalised) through the network in evaluation and describes each layer, the input included, in the
/// order of the network. Layers that only training computes are left out.
///
/// # Errors
///
/// No image, or images that do not fit the network.
pub fn statistics(network: &Network, images: &Tensor) -> Result<Vec<LayerStatistics>, LabError> {
    let graph = network.graph();
    let names = layers_of_evaluation(graph);
    let count = images.size().first().copied().unwrap_or_default();
    if count < 1 {
        return Err(LabError::Usage("statistics take at least one image".to_owned()));
    }
    let mut sums: Vec<Sums> = names.iter().map(|_| Sums::default()).collect();
    for start in (0..count).step_by(BATCH as usize) {
        let batch = images.f_narrow(0, start, BATCH.min(count - start))?;
        let batch = batch.f_detach()?.f_set_requires_grad(true)?;
        let taps: Vec<&str> = names.iter().map(String::as_str).chain([score_layer(graph)]).collect();
        let outputs = network.forward_with_taps(&[&batch], Mode::Eval, &taps)?;
        let (values, scores) = outputs.taps().split_at(names.len());
        let (best, _) = scores[0].1.f_flatten(1, -1)?.f_max_dim(1, false)?;
        let values: Vec<&Tensor> = values.iter().map(|(_, value)| value).collect();
        let gradients = Tensor::f_run_backward(&[&best.f_sum(best.kind())?], &values, false, false)?;
        let _no_grad = striate_torch::no_grad();
        for ((sums, value), gradient) in sums.iter_mut().zip(values).zip(gradients) {
            sums.add(value, &gradient)?;
        }
    }
    names.into_iter().zip(sums).map(|(name, sums)| sums.describe(graph, name, count)).collect()
}

/// The channels (`[N, C, H, W]`) or features (`[N, F]`) whose largest value is not above 0.
pub fn dead_units(values: &Tensor) -> Result<Vec<usize>, LabError> {
    never_above_zero(&largest(values)?)
}

fn layers_of_evaluation(graph: &Graph) -> Vec<String> {
    let layers = graph.summary().layers.into_iter();
    layers.filter(|layer| !layer.training_only).map(|layer| layer.name).collect()
}

/// `[C]`: the largest value of each channel or feature.
fn largest(values: &Tensor) -> Result<Tensor, LabError> {
    Ok(values.f_transpose(0, 1)?.f_flatten(1, -1)?.f_amax([1_i64].as_slice(), false)?.f_to_kind(Kind::Double)?)
}

fn never_above_zero(largest: &Tensor) -> Result<Vec<usize>, LabError> {
    let largest = Vec::<f64>::try_from(largest)?;
    Ok(largest.iter().enumerate().filter(|(_, value)| **value <= 0.0).map(|(channel, _)| channel).collect())
}

/// What is summed over the images.
#[derive(Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
    zeros: f64,
    gradient_norms: Option<f64>,
    largest: Option<Tensor>,
}

impl Sums {
    fn add(&mut self, value: &Tensor, gradient: &Tensor) -> Result<(), LabError> {
        let number = |tensor: Tensor| tensor.f_double_value(&[]);
        let value = value.f_detach()?.f_to_kind(Kind::Double)?;
        self.count += value.numel() as f64;
        self.sum += number(value.f_sum(Kind::Double)?)?;
        self.squares += number(value.f_square()?.f_sum(Kind::Double)?)?;
        self.zeros += number(value.f_eq(0.0)?.f_sum(Kind::Double)?)?;
        if gradient.defined() {
            let norms = gradient.f_flatten(1, -1)?.f_to_kind(Kind::Double)?.f_square()?;
            let norms = norms.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?.f_sqrt()?;
            *self.gradient_norms.get_or_insert(0.0) += number(norms.f_sum(Kind::Double)?)?;
        }
        let largest = largest(&value)?;
        self.largest = Some(match self.largest.take() {
            Some(before) => before.f_maximum(&largest)?,
            None => largest,
        });
        Ok(())
    }

    fn describe(self, graph: &Graph, layer: String, images: i64) -> Result<LayerStatistics, LabError> {
        let node = graph.node(&layer)?;
        let mean = self.sum / self.count;
        let relu = matches!(&node.kind, NodeKind::Layer(Op::Activation(Activation::Relu)));
        let dead = self.largest.filter(|_| relu).map(|largest| never_above_zero(&largest)).transpose()?;
        Ok(LayerStatistics {
            op: node.op_name(),
            shape: node.shape.dims().to_vec(),
            layer,
            mean,
            std: (self.squares / self.count - mean * mean).max(0.0).sqrt(),
            zeros: self.zeros / self.count,
            gradient_norm: self.gradient_norms.map(|sum| sum / images as f64),
            dead,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::InitOptions;
    use striate_layers::{Conv2d, Flatten, Linear};
    use tch::Device;

    /// Three channels: the image times 1, times -1, and times 1 less 100.
    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 2, 2]);
            let x = net.add("conv", Conv2d::new(3, 1), x)?; // [3, 2, 2]
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?; // [12]
            let x = net.add("fc", Linear::new(2), x)?; // [2]
            net.output("logits", x)
        });
        let network = Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap();
        let mut state = network.state();
        let values = |values: &[f64], shape: &[i64]| Tensor::from_slice(values).view(shape);
        state.insert("conv.weight".to_owned(), values(&[1.0, -1.0, 1.0], &[3, 1, 1, 1]));
        state.insert("conv.bias".to_owned(), values(&[0.0, 0.0, -100.0], &[3]));
        state.insert(
            "fc.weight".to_owned(),
            Tensor::cat(
                &[Tensor::ones([1, 12], (Kind::Double, Device::Cpu)), Tensor::zeros([1, 12], (Kind::Double, Device::Cpu))],
                0,
            ),
        );
        state.insert("fc.bias".to_owned(), values(&[0.0, -1.0], &[2]));
        network.load_state(&state).unwrap();
        network
    }

    fn images() -> Tensor {
        Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 2.0, 2.0, 2.0, 2.0]).view([2, 1, 2, 2])
    }

    #[test]
    fn a_network_by_hand() {
        let rows = statistics(&network(), &images()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.layer.as_str()).collect();
        assert_eq!(names, ["input", "conv", "relu", "flatten", "fc"]);
        let relu = &rows[2];
        // The first channel passes 1, 2, 3, 4 and 2, 2, 2, 2; the others are 0.
        assert_eq!((relu.mean, relu.zeros), (18.0 / 24.0, 16.0 / 24.0));
        assert!((relu.std - (46.0 / 24.0_f64 - 0.75 * 0.75).sqrt()).abs() < 1e-12);
        // Each of the 12 values counts once in the first logit, and four places of the input do.
        assert!((relu.gradient_norm.unwrap() - 12f64.sqrt()).abs() < 1e-12);
        assert!((rows[0].gradient_norm.unwrap() - 2.0).abs() < 1e-12);
        assert_eq!((rows[4].gradient_norm, rows[4].shape.as_slice(), rows[4].op), (Some(1.0), &[2][..], "Linear"));
        assert_eq!((relu.dead.clone(), rows[1].dead.clone()), (Some(vec![1, 2]), None));
    }

    #[test]
    fn a_unit_that_one_image_wakes_is_not_dead() {
        let images = Tensor::cat(&[images(), Tensor::from_slice(&[0.0, 0.0, 0.0, -1.0]).view([1, 1, 2, 2])], 0);
        assert_eq!(statistics(&network(), &images).unwrap()[2].dead, Some(vec![2]));
        // Five images take two batches.
        let images = Tensor::cat(&[images.shallow_clone(), images.narrow(0, 0, 2) * 100.0], 0);
        assert_eq!(statistics(&network(), &images).unwrap()[2].dead, Some(vec![]));
        assert_eq!(dead_units(&Tensor::from_slice(&[0.0, 1.0, 0.0, 0.0]).view([2, 2])).unwrap(), [0]);
    }

    #[test]
    fn no_image_is_refused() {
        assert!(statistics(&network(), &images().narrow(0, 0, 0)).unwrap_err().to_string().contains("at least one image"));
    }
}
