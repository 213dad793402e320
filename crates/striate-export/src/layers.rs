//! The nodes of each layer.
use crate::nodes::{CustomNodes, Nodes};
use crate::onnx::Attribute;
use crate::{ExportError, Precision, pool};
use striate_graph::Node;
use striate_layers::{
    Activation, BatchNorm2d, Conv2d, Linear, LocalResponseNorm, Op, PadShortcut, Shape, SparseConv2d, ZeroChannels,
};

/// The amplitude of [`Activation::ScaledTanh`].
const AMPLITUDE: f32 = 1.7159;

/// Writes a layer: the name of the value that it gives. `norm` is the batch norm that goes into a convolution.
pub(crate) fn write(
    op: &Op,
    nodes: &mut Nodes<'_, '_>,
    norm: Option<(&BatchNorm2d, &Node)>,
    custom: &CustomNodes,
) -> Result<String, ExportError> {
    let input = nodes.input();
    Ok(match op {
        Op::Activation(Activation::Relu) => nodes.add("Relu", &[&input], Vec::new()),
        Op::Activation(Activation::Tanh) => nodes.add("Tanh", &[&input], Vec::new()),
        Op::Activation(Activation::Sigmoid) => nodes.add("Sigmoid", &[&input], Vec::new()),
        Op::Activation(Activation::ScaledTanh) => {
            let slope = nodes.numbers("slope", &[], &[2.0 / 3.0])?;
            let amplitude = nodes.numbers("amplitude", &[], &[AMPLITUDE])?;
            let scaled = nodes.add("Mul", &[&input, &slope], Vec::new());
            let tanh = nodes.add("Tanh", &[&scaled], Vec::new());
            nodes.add("Mul", &[&tanh, &amplitude], Vec::new())
        }
        Op::AdaptiveAvgPool2d(pool) => pool::adaptive(nodes, pool.output_size, pool::Adaptive::Mean)?,
        Op::AdaptiveMaxPool2d(pool) => pool::adaptive(nodes, pool.output_size, pool::Adaptive::Largest)?,
        Op::AvgPool2d(layer) => pool::avg(nodes, layer)?,
        Op::MaxPool2d(layer) => pool::max(nodes, layer)?,
        Op::Add(_) => {
            let others = nodes.inputs.clone();
            let mut sum = input;
            for other in &others[1..] {
                sum = nodes.add("Add", &[&sum, other], Vec::new());
            }
            sum
        }
        Op::Concat(_) => {
            let inputs = nodes.inputs.clone();
            nodes.add("Concat", &texts(&inputs), vec![Attribute::int("axis", 1)])
        }
        Op::BatchNorm2d(norm) => batch_norm(nodes, norm)?,
        Op::Conv2d(conv) => convolution(nodes, conv, norm)?,
        // They do nothing in evaluation.
        Op::Dropout(_) | Op::StochasticDepth(_) => input,
        Op::Flatten(_) => nodes.add("Flatten", &[&input], vec![Attribute::int("axis", 1)]),
        Op::Linear(linear) => fully_connected(nodes, linear)?,
        Op::LocalResponseNorm(norm) => local_response_norm(nodes, norm)?,
        Op::PadShortcut(shortcut) => pad_shortcut(nodes, shortcut)?,
        Op::RbfOutput(_) => {
            let codes = nodes.parameter("weight")?;
            let [axis, last] = [nodes.integers("axis", &[1]), nodes.integers("last", &[-1])];
            let apart = nodes.add("Unsqueeze", &[&input, &axis], Vec::new());
            let difference = nodes.add("Sub", &[&apart, &codes], Vec::new());
            let squares = nodes.add("Mul", &[&difference, &difference], Vec::new());
            let distance = nodes.add("ReduceSum", &[&squares, &last], vec![Attribute::int("keepdims", 0)]);
            nodes.add("Neg", &[&distance], Vec::new())
        }
        Op::Softmax(_) => nodes.add("Softmax", &[&input], vec![Attribute::int("axis", 1)]),
        Op::SparseConv2d(conv) => sparse_convolution(nodes, conv)?,
        Op::Subsampling2d(layer) => {
            // Sums of windows of each channel apart, times the channel's weight: a convolution with as many groups as channels.
            let size = layer.kernel_size;
            let weights = nodes.values("weight")?;
            let channels = weights.len().cast_signed() as i64;
            let window = (size * size).unsigned_abs() as usize;
            let values: Vec<f32> = weights.iter().flat_map(|weight| std::iter::repeat_n(*weight, window)).collect();
            let weight = nodes.numbers("weight", &[channels, 1, size, size], &values)?;
            let bias = nodes.parameter("bias")?;
            let attributes = vec![Attribute::ints("strides", [size, size]), Attribute::int("group", channels)];
            nodes.add("Conv", &[&input, &weight, &bias], attributes)
        }
        Op::Custom(layer) => {
            let (name, op) = (nodes.node.name.clone(), layer.name());
            let write = custom.get(op).ok_or(ExportError::Custom { layer: name, op })?;
            write(&layer.options().unwrap_or_default(), nodes)?
        }
    })
}

/// The bias of a convolution or linear layer that has one.
fn bias(nodes: &Nodes<'_, '_>, has: bool) -> Result<Option<Vec<f64>>, ExportError> {
    if !has {
        return Ok(None);
    }
    Ok(Some(nodes.values("bias")?.into_iter().map(f64::from).collect()))
}

/// The values `weight` and `bias` of a convolution or linear layer, whose rows are multiplied by `factors`.
fn weight_and_bias(
    nodes: &mut Nodes<'_, '_>,
    factors: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
) -> Result<Vec<String>, ExportError> {
    let (shape, name) = (nodes.shape_of("weight")?, nodes.full("weight"));
    let mut values = Vec::with_capacity(2);
    let Some(step) = nodes.step else {
        values.push(nodes.writer.parameter(&name, &shape, factors));
        if let Some(bias) = bias {
            let bias: Vec<f32> = bias.into_iter().map(|value| value as f32).collect();
            values.push(nodes.numbers("bias", &shape[..1], &bias)?);
        }
        return Ok(values);
    };
    let (weight, steps) = nodes.writer.quantised_parameter(&name, &shape, factors)?;
    values.push(weight);
    if let Some(bias) = bias {
        let steps: Vec<f32> = steps.iter().map(|row| row * step).collect();
        values.push(nodes.writer.quantised_bias(&nodes.full("bias"), &bias, &steps));
    }
    Ok(values)
}

fn fully_connected(nodes: &mut Nodes<'_, '_>, linear: &Linear) -> Result<String, ExportError> {
    let bias = bias(nodes, linear.bias)?;
    let mut inputs = vec![nodes.input()];
    inputs.extend(weight_and_bias(nodes, None, bias)?);
    if nodes.writer.precision != Precision::Float16 {
        return Ok(nodes.add("Gemm", &texts(&inputs), vec![Attribute::int("transB", 1)]));
    }
    // tract has `Gemm` in float32 alone.
    let weight = nodes.add("Transpose", &[&inputs[1]], vec![Attribute::ints("perm", [1, 0])]);
    let product = nodes.add("MatMul", &[&inputs[0], &weight], Vec::new());
    Ok(inputs.get(2).map(|bias| nodes.add("Add", &[&product, bias], Vec::new())).unwrap_or(product))
}

fn geometry(conv: &Conv2d, [_, height, width]: [i64; 3]) -> Vec<Attribute> {
    let [(top, bottom), (left, right)] = [conv.pads(0, height), conv.pads(1, width)];
    vec![
        Attribute::ints("kernel_shape", conv.kernel_size.0),
        Attribute::ints("strides", conv.stride.0),
        Attribute::ints("dilations", conv.dilation.0),
        Attribute::ints("pads", [top, left, bottom, right]),
        Attribute::int("group", conv.groups),
    ]
}

fn convolution(nodes: &mut Nodes<'_, '_>, conv: &Conv2d, norm: Option<(&BatchNorm2d, &Node)>) -> Result<String, ExportError> {
    let mut bias = bias(nodes, conv.bias)?;
    let mut factors = None;
    if let Some((norm, node)) = norm {
        let (scale, mut shift) = scale_and_shift(nodes, norm, &node.name)?;
        for ((shift, scale), bias) in shift.iter_mut().zip(&scale).zip(bias.into_iter().flatten()) {
            *shift += scale * bias;
        }
        (factors, bias) = (Some(scale), Some(shift));
    }
    let mut inputs = vec![nodes.input()];
    inputs.extend(weight_and_bias(nodes, factors, bias)?);
    let attributes = geometry(conv, image(nodes)?);
    Ok(nodes.add("Conv", &texts(&inputs), attributes))
}

/// What batch norm multiplies each channel by, and what it adds then.
fn scale_and_shift(nodes: &Nodes<'_, '_>, norm: &BatchNorm2d, name: &str) -> Result<(Vec<f64>, Vec<f64>), ExportError> {
    let values = |parameter: &str| nodes.writer.weights.values(&format!("{name}.{parameter}"));
    let (mean, variance) = (values("running_mean")?, values("running_var")?);
    let mut scale: Vec<f64> = variance.iter().map(|variance| (f64::from(*variance) + norm.eps).sqrt().recip()).collect();
    if norm.affine {
        scale.iter_mut().zip(values("weight")?).for_each(|(scale, weight)| *scale *= f64::from(weight));
    }
    let mut shift: Vec<f64> = mean.iter().zip(&scale).map(|(mean, scale)| -f64::from(*mean) * scale).collect();
    if norm.affine {
        shift.iter_mut().zip(values("bias")?).for_each(|(shift, bias)| *shift += f64::from(bias));
    }
    Ok((scale, shift))
}

fn batch_norm(nodes: &mut Nodes<'_, '_>, norm: &BatchNorm2d) -> Result<String, ExportError> {
    let channels = nodes.shape_of("running_mean")?;
    let count = channels.iter().product::<i64>().unsigned_abs() as usize;
    let mut inputs = vec![nodes.input()];
    for (name, value) in [("weight", 1.0), ("bias", 0.0)] {
        inputs.push(match norm.affine {
            true => nodes.parameter(name)?,
            false => nodes.numbers(name, &channels, &vec![value; count])?,
        });
    }
    inputs.extend([nodes.parameter("running_mean")?, nodes.parameter("running_var")?]);
    Ok(nodes.add("BatchNormalization", &texts(&inputs), vec![Attribute::float("epsilon", norm.eps)]))
}

/// Channels as the height of a picture, whose mean over windows of `size` is taken. PyTorch has the odd neighbour before the channel
/// and ONNX's own operator behind it, which has no groups either.
fn local_response_norm(nodes: &mut Nodes<'_, '_>, norm: &LocalResponseNorm) -> Result<String, ExportError> {
    let (input, [channels, height, width]) = (nodes.input(), image(nodes)?);
    let LocalResponseNorm { size, alpha, beta, k, groups } = *norm;
    if groups == 1 && size % 2 == 1 {
        let attributes = [("alpha", alpha), ("beta", beta), ("bias", k)].map(|(name, value)| Attribute::float(name, value));
        return Ok(nodes.add("LRN", &[&input], [&attributes[..], &[Attribute::int("size", size)]].concat()));
    }
    let squares = nodes.add("Mul", &[&input, &input], Vec::new());
    let [apart, together] = [
        nodes.integers("groups", &[-1, 1, channels / groups, height * width]),
        nodes.integers("shape", &[-1, channels, height, width]),
    ];
    let squares = nodes.add("Reshape", &[&squares, &apart], Vec::new());
    let mean = nodes.add(
        "AveragePool",
        &[&squares],
        vec![
            Attribute::ints("kernel_shape", [size, 1]),
            Attribute::ints("pads", [size / 2, 0, (size - 1) / 2, 0]),
            Attribute::int("count_include_pad", 1),
        ],
    );
    let mean = nodes.add("Reshape", &[&mean, &together], Vec::new());
    let constants = [("alpha", alpha), ("k", k), ("beta", beta)];
    let constants = constants.into_iter().map(|(name, value)| nodes.numbers(name, &[], &[value as f32]));
    let constants = constants.collect::<Result<Vec<_>, _>>()?;
    let scaled = nodes.add("Mul", &[&mean, &constants[0]], Vec::new());
    let shifted = nodes.add("Add", &[&scaled, &constants[1]], Vec::new());
    let divisor = nodes.add("Pow", &[&shifted, &constants[2]], Vec::new());
    Ok(nodes.add("Div", &[&input, &divisor], Vec::new()))
}

fn pad_shortcut(nodes: &mut Nodes<'_, '_>, shortcut: &PadShortcut) -> Result<String, ExportError> {
    let [channels, height, width] = image(nodes)?;
    let mut value = nodes.input();
    let [down, across] = shortcut.stride.0;
    if [down, across] != [1, 1] {
        let rows = [("starts", [0, 0]), ("ends", [height, width]), ("axes", [2, 3]), ("steps", [down, across])];
        let [starts, ends, axes, steps] = rows.map(|(name, values)| nodes.integers(name, &values));
        value = nodes.add("Slice", &[&value, &starts, &ends, &axes, &steps], Vec::new());
    }
    let added = shortcut.out_channels - channels;
    if added == 0 {
        return Ok(value);
    }
    let before = match shortcut.zeros {
        ZeroChannels::Around => added / 2,
        _ => 0,
    };
    let pads = nodes.integers("pads", &[0, before, 0, 0, 0, added - before, 0, 0]);
    Ok(nodes.add("Pad", &[&value, &pads], Vec::new()))
}

/// With every connection; those that the table lacks are 0.
fn sparse_convolution(nodes: &mut Nodes<'_, '_>, conv: &SparseConv2d) -> Result<String, ExportError> {
    let [channels, ..] = image(nodes)?;
    let [height, width] = conv.kernel_size.0;
    let window = (height * width).unsigned_abs() as usize;
    let maps = conv.table.len();
    let mut dense = vec![0.0; maps * channels.unsigned_abs() as usize * window];
    let pairs = conv
        .table
        .iter()
        .enumerate()
        .flat_map(|(map, inputs)| inputs.iter().map(move |input| (map, input.unsigned_abs() as usize)));
    for ((map, input), values) in pairs.zip(nodes.values("weight")?.chunks_exact(window)) {
        let start = (map * channels.unsigned_abs() as usize + input) * window;
        dense[start..start + window].copy_from_slice(values);
    }
    let weight = nodes.numbers("weight", &[maps.cast_signed() as i64, channels, height, width], &dense)?;
    let (input, bias) = (nodes.input(), nodes.parameter("bias")?);
    Ok(nodes.add("Conv", &[&input, &weight, &bias], Vec::new()))
}

pub(crate) fn texts(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// The shape of the image that the layer reads.
pub(crate) fn image(nodes: &Nodes<'_, '_>) -> Result<[i64; 3], ExportError> {
    let shape = nodes.shapes().into_iter().next().unwrap_or_else(|| Shape::new([]));
    shape.as_image().map_err(|error| nodes.fault(error.to_string()))
}
