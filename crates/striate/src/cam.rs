//! Where a network looks when it names a class: Grad-CAM and Grad-CAM++.
use crate::Error;
use striate_graph::{Graph, Network, Node, NodeKind};
use striate_layers::{Mode, Op};
use tch::{Kind, Tensor};

/// Where a class's evidence lies in the feature maps of a layer.
#[derive(Debug)]
pub struct ClassMap {
    /// The class, by its place among the logits.
    pub class: i64,
    /// `[H, W]` of the layer: Grad-CAM (Selvaraju 2017, arXiv:1610.02391, equations 1 and 2), the sum of the feature maps, each
    /// weighted by the mean of the class score's gradient over it, where that is above 0.
    pub grad_cam: Tensor,
    /// `[H, W]`: Grad-CAM++ (Chattopadhay 2018, arXiv:1710.11063, equations 5, 6 and 19), which weighs the positive gradients so
    /// that several small regions count as much as one large one. The paper's score is `exp(S)`, whose derivatives are those of
    /// the logit `S` times `exp(S)`; that factor, equal for the whole map, is left out.
    pub grad_cam_plus_plus: Tensor,
}

/// The maps of some classes for one image (`[1, C, H, W]`, normalised), from the feature maps of `layer`.
///
/// The score of a class is its logit: where a network ends in a softmax, what goes into it, as both papers have it.
///
/// # Errors
///
/// No such layer, one without feature maps, or one that the logits do not depend on.
pub fn class_maps(network: &Network, image: &Tensor, layer: &str, classes: &[i64]) -> Result<Vec<ClassMap>, Error> {
    let graph = network.graph();
    let node = graph.node(layer)?;
    let _ = image_shape(node)?;
    let (maps, scores) = maps_and_scores(network, image, layer)?;
    let maps_of_class = |class: &i64| {
        let score = scores.f_select(1, *class)?.f_sum(scores.kind())?;
        let gradient = Tensor::f_run_backward(&[&score], &[&maps], true, false)?.swap_remove(0);
        if !gradient.defined() {
            return Err(Error::option(format!("layer {layer}:"), "the network's answer does not depend on it: name another"));
        }
        let _no_grad = striate_torch::no_grad();
        let grad_cam = weighted(&maps, &mean_over_places(&gradient)?)?;
        let grad_cam_plus_plus = weighted(&maps, &plus_plus_weights(&maps, &gradient)?)?;
        Ok(ClassMap { class: *class, grad_cam, grad_cam_plus_plus })
    };
    classes.iter().map(maps_of_class).collect()
}

/// The layer whose maps are the last that still tell places apart: the one that both papers look at. None if the network has no
/// convolution, or only a single place is left behind the first.
pub fn last_maps(graph: &Graph) -> Option<&Node> {
    feature_layers(graph).pop()
}

/// For each size of feature maps the last layer of that size, in the order of the network: where its stages end. Pooling,
/// dropout, what only training computes, and maps of a single place are left out.
pub fn feature_layers(graph: &Graph) -> Vec<&Node> {
    let summary = graph.summary();
    let mut layers: Vec<(&Node, [i64; 2])> = Vec::new();
    let mut convolved = vec![false; graph.nodes().len()];
    for (index, (node, row)) in graph.nodes().iter().zip(&summary.layers).enumerate() {
        let NodeKind::Layer(op) = &node.kind else { continue };
        let convolution = matches!(op, Op::Conv2d(_) | Op::SparseConv2d(_));
        convolved[index] = convolution || node.inputs.iter().any(|input| convolved[*input]);
        let shrinks = matches!(
            op,
            Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::AdaptiveAvgPool2d(_) | Op::AdaptiveMaxPool2d(_) | Op::Subsampling2d(_)
        );
        let Ok([_, height, width]) = node.shape.as_image() else { continue };
        let passes = matches!(op, Op::Dropout(_) | Op::StochasticDepth(_));
        if row.training_only || !convolved[index] || shrinks || passes || height * width == 1 {
            continue;
        }
        layers.retain(|(_, size)| *size != [height, width]);
        layers.push((node, [height, width]));
    }
    layers.into_iter().map(|(node, _)| node).collect()
}

/// The values of a layer and the logits before any softmax, with gradients from one to the other.
fn maps_and_scores(network: &Network, images: &Tensor, layer: &str) -> Result<(Tensor, Tensor), Error> {
    let score = score_layer(network.graph());
    // A frozen network has gradients too, if its input has.
    let images = images.f_detach()?.f_set_requires_grad(true)?;
    let outputs = network.forward_with_taps(&[&images], Mode::Eval, &[layer, score])?;
    let tap = |name: &str| outputs.tap(name).map_or_else(Tensor::new, Tensor::shallow_clone);
    Ok((tap(layer), tap(score)))
}

/// `[C, H, W]` of a layer that has feature maps.
///
/// # Errors
///
/// A layer without rows and columns.
pub fn image_shape(node: &Node) -> Result<[i64; 3], Error> {
    let refuse = |_| {
        Error::option(
            format!("layer {}", node.name),
            format!("gives {}, which has no rows and columns: name one with feature maps", node.shape),
        )
    };
    node.shape.as_image().map_err(refuse)
}

/// The name of the layer that gives the logits, before any softmax.
pub fn score_layer(graph: &Graph) -> &str {
    let Some((_, node)) = graph.outputs_in(Mode::Eval).next() else { return "" };
    match (&node.kind, node.inputs.as_slice()) {
        (NodeKind::Layer(Op::Softmax(_)), [before]) => &graph.nodes()[*before].name,
        _ => &node.name,
    }
}

/// `[1, K, 1, 1]`: a weight for each of the maps.
fn mean_over_places(values: &Tensor) -> Result<Tensor, Error> {
    Ok(values.f_mean_dim([2_i64, 3].as_slice(), true, values.kind())?)
}

/// `[1, K, 1, 1]`: the sum of the positive gradients, each with the paper's alpha.
fn plus_plus_weights(maps: &Tensor, gradient: &Tensor) -> Result<Tensor, Error> {
    let places = [2_i64, 3];
    let square = gradient.f_square()?;
    let total = maps.f_sum_dim_intlist(places.as_slice(), true, maps.kind())?;
    let denominator = square.f_mul_scalar(2.0)?.f_add(&total.f_mul(&square.f_mul(gradient)?)?)?;
    let none = denominator.f_eq(0.0)?;
    let alpha = square.f_div(&denominator)?.f_masked_fill(&none, 0.0)?;
    Ok(alpha.f_mul(&gradient.f_relu()?)?.f_sum_dim_intlist(places.as_slice(), true, maps.kind())?)
}

/// `[H, W]`: what is positive of the weighted sum of the maps.
fn weighted(maps: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
    let sum = maps.f_mul(weights)?.f_sum_dim_intlist([1_i64].as_slice(), false, maps.kind())?;
    Ok(sum.f_relu()?.f_select(0, 0)?.f_detach()?)
}

/// A map (`[H, W]`) enlarged to the size of the picture, bilinearly, with its largest absolute value at 1; a map of zeros stays so.
///
/// # Errors
///
/// A map of another shape.
pub fn over_the_picture(map: &Tensor, height: i64, width: i64) -> Result<Tensor, Error> {
    let _no_grad = striate_torch::no_grad();
    let map = map.f_to_kind(Kind::Float)?.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let map = map.f_upsample_bilinear2d([height, width], false, None, None)?.f_squeeze_dim(0)?.f_squeeze_dim(0)?;
    let largest = map.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok(if largest > 0.0 { map.f_div_scalar(largest)? } else { map })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{InitOptions, NetworkBuilder, Value};
    use striate_layers::{Activation, AdaptiveAvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Softmax};
    use striate_models::find;
    use tch::Device;

    fn network(define: impl FnOnce(&mut NetworkBuilder, Value) -> Result<Value, striate_graph::GraphError>) -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 8, 8]);
            let x = define(net, x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions { kind: Kind::Double, ..InitOptions::default() }).unwrap()
    }

    fn image() -> Tensor {
        Tensor::arange(64, (Kind::Double, Device::Cpu)).sin().view([1, 1, 8, 8])
    }

    #[test]
    fn behind_global_pooling_grad_cam_is_cam() {
        let network = network(|net, x| {
            let x = net.add("conv", Conv2d::new(3, 3), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("pool", AdaptiveAvgPool2d::global(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            net.add("fc", Linear::new(2), x)
        });
        let outputs = network.forward_with_taps(&[&image()], Mode::Eval, &["relu"]).unwrap();
        let weights = network.state()["fc.weight"].shallow_clone();
        for ClassMap { class, grad_cam, .. } in class_maps(&network, &image(), "relu", &[0, 1]).unwrap() {
            // Zhou 2016: the classifier's weights times the maps; Grad-CAM's are those over the number of places.
            let cam = outputs.tap("relu").unwrap() * weights.select(0, class).view([1, 3, 1, 1]) / 36.0;
            let cam = cam.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double).squeeze_dim(0).relu();
            assert!((cam - grad_cam).abs().max().double_value(&[]) < 1e-14);
        }
    }

    #[test]
    fn the_score_is_what_goes_into_a_softmax() {
        let layers = |net: &mut NetworkBuilder, x| {
            let x = net.add("conv", Conv2d::new(3, 3), x)?;
            let x = net.add("flatten", Flatten, x)?;
            net.add("fc", Linear::new(2), x)
        };
        let plain = network(layers);
        let softmax = network(|net, x| {
            let x = layers(net, x)?;
            net.add("softmax", Softmax, x)
        });
        let map = |network: &Network| class_maps(network, &image(), "conv", &[1]).unwrap().remove(0).grad_cam_plus_plus;
        assert_eq!(map(&plain), map(&softmax));
    }

    #[test]
    fn a_frozen_network_and_the_input_itself_have_maps() {
        let mut network = network(|net, x| {
            let x = net.add("conv", Conv2d::new(3, 3), x)?;
            let x = net.add("flatten", Flatten, x)?;
            net.add("fc", Linear::new(2), x)
        });
        network.freeze_through("fc").unwrap();
        for (layer, size) in [("input", 8), ("conv", 6)] {
            assert_eq!(class_maps(&network, &image(), layer, &[0]).unwrap()[0].grad_cam.size(), [size, size]);
        }
        let error = class_maps(&network, &image(), "fc", &[0]).unwrap_err().to_string();
        assert_eq!(error, "layer fc gives [2], which has no rows and columns: name one with feature maps");
    }

    #[test]
    fn the_layers_that_are_looked_at() {
        let names = |name: &str| {
            let graph = find(name).unwrap().model(&[]).unwrap().graph().unwrap();
            feature_layers(&graph).iter().map(|node| node.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("resnet18"), ["relu", "layer1.1.relu2", "layer2.1.relu2", "layer3.1.relu2", "layer4.1.relu2"]);
        assert_eq!(names("vgg11"), ["features.1", "features.4", "features.9", "features.14", "features.19"]);
        assert_eq!(names("googlenet").last().unwrap(), "inception5b.concat");
        assert_eq!(names("lenet5"), ["c1_act", "c3_act"]);
        let dense = network(|net, x| {
            let x = net.add("pool", MaxPool2d::new(2), x)?;
            let x = net.add("flatten", Flatten, x)?;
            net.add("fc", Linear::new(2), x)
        });
        assert!(last_maps(dense.graph()).is_none());
    }

    #[test]
    fn a_map_lies_over_the_picture() {
        let map = Tensor::from_slice(&[0.0, -4.0, 2.0, 0.0]).view([2, 2]);
        let large = over_the_picture(&map, 4, 4).unwrap();
        assert_eq!(large.size(), [4, 4]);
        assert_eq!((large.double_value(&[0, 3]), large.double_value(&[3, 0])), (-1.0, 0.5));
        assert_eq!(over_the_picture(&(map * 0.0), 4, 4).unwrap().abs().max().double_value(&[]), 0.0);
    }
}
