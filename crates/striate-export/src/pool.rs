//! The nodes of pooling layers.
use crate::ExportError;
use crate::layers::{image, texts};
use crate::nodes::Nodes;
use crate::onnx::Attribute;
use striate_layers::{AvgPool2d, Layer, MaxPool2d, Pair};

/// How far windows reach beyond the input and its padding at the bottom and right, which takes the place of `ceil_mode`: runtimes
/// disagree on that.
fn beyond(
    nodes: &Nodes<'_, '_>,
    layer: &dyn Layer,
    spans: [i64; 2],
    stride: Pair,
    padding: Pair,
) -> Result<[i64; 2], ExportError> {
    let fault = |error: &dyn std::fmt::Display| nodes.fault(error.to_string());
    let [_, height, width] = image(nodes)?;
    let [_, rows, columns] =
        layer.output_shape(&nodes.shapes()).and_then(|shape| shape.as_image()).map_err(|error| fault(&error))?;
    let axes = [(0, height, rows), (1, width, columns)];
    Ok(axes.map(|(axis, size, outputs)| ((outputs - 1) * stride.0[axis] + spans[axis] - size - 2 * padding.0[axis]).max(0)))
}

fn window(kernel: Pair, stride: Pair, padding: Pair, beyond: [i64; 2]) -> Vec<Attribute> {
    let [top, left] = padding.0;
    vec![
        Attribute::ints("kernel_shape", kernel.0),
        Attribute::ints("strides", stride.0),
        Attribute::ints("pads", [top, left, top + beyond[0], left + beyond[1]]),
    ]
}

pub(crate) fn max(nodes: &mut Nodes<'_, '_>, layer: &MaxPool2d) -> Result<String, ExportError> {
    let MaxPool2d { kernel_size, stride, padding, dilation, .. } = *layer;
    let spans = [0, 1].map(|axis| dilation.0[axis] * (kernel_size.0[axis] - 1) + 1);
    let beyond = beyond(nodes, layer, spans, stride, padding)?;
    let mut attributes = window(kernel_size, stride, padding, beyond);
    if dilation.0 != [1, 1] {
        attributes.push(Attribute::ints("dilations", dilation.0));
    }
    let input = nodes.input();
    Ok(nodes.add("MaxPool", &[&input], attributes))
}

pub(crate) fn avg(nodes: &mut Nodes<'_, '_>, layer: &AvgPool2d) -> Result<String, ExportError> {
    let AvgPool2d { kernel_size, stride, padding, count_include_pad, .. } = *layer;
    let beyond = beyond(nodes, layer, kernel_size.0, stride, padding)?;
    let mut input = nodes.input();
    if !(count_include_pad && beyond != [0, 0] && padding.0 != [0, 0]) {
        let mut attributes = window(kernel_size, stride, padding, beyond);
        attributes.push(Attribute::int("count_include_pad", (count_include_pad && beyond == [0, 0]).into()));
        return Ok(nodes.add("AveragePool", &[&input], attributes));
    }
    // The padding counts and what lies beyond it does not.
    let [top, left] = padding.0;
    let pads = nodes.integers("pads", &[0, 0, top, left, 0, 0, top, left]);
    input = nodes.add("Pad", &[&input, &pads], Vec::new());
    Ok(nodes.add("AveragePool", &[&input], window(kernel_size, stride, 0.into(), beyond)))
}

/// What adaptive pooling takes of each window.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Adaptive {
    Mean,
    Largest,
}

pub(crate) fn adaptive(nodes: &mut Nodes<'_, '_>, output: Pair, take: Adaptive) -> Result<String, ExportError> {
    let (input, [_, height, width]) = (nodes.input(), image(nodes)?);
    let (size, output) = ([height, width], output.0);
    let [global, windows] = match take {
        Adaptive::Mean => ["GlobalAveragePool", "AveragePool"],
        Adaptive::Largest => ["GlobalMaxPool", "MaxPool"],
    };
    if output == size {
        return Ok(input);
    }
    if output == [1, 1] {
        return Ok(nodes.add(global, &[&input], Vec::new()));
    }
    if [0, 1].iter().all(|axis| size[*axis] % output[*axis] == 0) {
        let kernel = Pair([0, 1].map(|axis| size[axis] / output[axis]));
        return Ok(nodes.add(windows, &[&input], window(kernel, kernel, 0.into(), [0, 0])));
    }
    // Windows of several sizes: rows of windows, then columns.
    let mut value = input;
    for axis in [0, 1] {
        value = match take {
            Adaptive::Mean => means(nodes, &value, size[axis], output[axis], axis)?,
            Adaptive::Largest => largest(nodes, &value, size[axis], output[axis], axis),
        };
    }
    Ok(value)
}

/// Where each of `output` windows begins and ends, as PyTorch has it.
fn windows(size: i64, output: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..output).map(move |index| (index * size / output, ((index + 1) * size + output - 1) / output))
}

/// A product with the share that each value has in each mean.
fn means(nodes: &mut Nodes<'_, '_>, value: &str, size: i64, output: i64, axis: usize) -> Result<String, ExportError> {
    let share = |(start, end): (i64, i64), place: i64| match (start..end).contains(&place) {
        true => 1.0 / (end - start) as f32,
        false => 0.0,
    };
    let windows: Vec<(i64, i64)> = windows(size, output).collect();
    if axis == 0 {
        let shares: Vec<f32> = windows.iter().flat_map(|window| (0..size).map(move |place| share(*window, place))).collect();
        let shares = nodes.numbers("rows", &[output, size], &shares)?;
        return Ok(nodes.add("MatMul", &[&shares, value], Vec::new()));
    }
    let shares: Vec<f32> = (0..size).flat_map(|place| windows.iter().map(move |window| share(*window, place))).collect();
    let shares = nodes.numbers("columns", &[size, output], &shares)?;
    Ok(nodes.add("MatMul", &[value, &shares], Vec::new()))
}

fn largest(nodes: &mut Nodes<'_, '_>, value: &str, size: i64, output: i64, axis: usize) -> String {
    let axis = axis as i64 + 2;
    let axes = nodes.integers("axes", &[axis]);
    let mut parts = Vec::new();
    for (start, end) in windows(size, output) {
        let [start, end] = [("starts", start), ("ends", end)].map(|(name, place)| nodes.integers(name, &[place]));
        let part = nodes.add("Slice", &[value, &start, &end, &axes], Vec::new());
        parts.push(nodes.add("ReduceMax", &[&part, &axes], Vec::new()));
    }
    nodes.add("Concat", &texts(&parts), vec![Attribute::int("axis", axis)])
}
