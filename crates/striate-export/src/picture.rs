//! From pictures of any size to the network's input, and from its logits to probabilities.
use crate::ExportError;
use crate::onnx::{Attribute, Size, Type, ValueInfo};
use crate::writer::Writer;
use striate_datasets::{ImageSize, Interpolation, Preprocess};

/// Adds the input `images`, uint8 `[N, H, W, C]`, and all that makes it the network's input: the name of that, `[N, C, H, W]` in
/// float32.
pub(crate) fn input(writer: &mut Writer<'_>, preprocess: &Preprocess) -> Result<String, ExportError> {
    let [channels, rows, columns] = preprocess.input;
    let sizes = ["batch", "height", "width"].map(|name| Size::Named(name.to_owned()));
    let sizes = sizes.into_iter().chain([Size::Fixed(channels)]);
    let images = writer.input("images", |name| ValueInfo::new(name, Type::Uint8, sizes));
    let value = writer.cast("images/Cast", &images, Type::Float32);
    let value = writer.node("Transpose", "images/Transpose", &[&value], vec![Attribute::ints("perm", [0, 3, 1, 2])]);
    let resized = match preprocess.image {
        ImageSize::Exact(size) => {
            let [height, width] = size.map(|side| writer.integers("images/size", &[side]));
            let resized = resize(writer, &value, [&height, &width], preprocess.interpolation)?;
            pad(writer, resized, size, [rows, columns])
        }
        ImageSize::ShorterSide { shorter_side } => {
            let [height, width] = sizes_of(writer, &value, shorter_side);
            let resized = resize(writer, &value, [&height, &width], preprocess.interpolation)?;
            crop(writer, &resized, [&height, &width], preprocess.input)
        }
        other => return Err(ExportError::Resizing { what: other.to_string() }),
    };
    let normalise = &preprocess.normalise;
    let scale: Vec<f32> = normalise.std.iter().map(|std| (1.0 / (255.0 * std)) as f32).collect();
    let shift: Vec<f32> = normalise.mean.iter().zip(&normalise.std).map(|(mean, std)| (-mean / std) as f32).collect();
    let by_channel = |values: &[f32]| [1, values.len().cast_signed() as i64, 1, 1];
    let scale = writer.float32("images/scale", &by_channel(&scale), &scale);
    let shift = writer.float32("images/shift", &by_channel(&shift), &shift);
    let scaled = writer.node("Mul", "images/Mul", &[&resized, &scale], Vec::new());
    Ok(writer.node("Add", "images/Add", &[&scaled, &shift], Vec::new()))
}

/// Resizes rows and then columns, antialiased, each to whole values: as Pillow does it, and Striate, but for pictures whose height shrinks by
/// more than twice what the width does.
fn resize(writer: &mut Writer<'_>, value: &str, [height, width]: [&str; 2], by: Interpolation) -> Result<String, ExportError> {
    let mut attributes = vec![Attribute::text("coordinate_transformation_mode", "half_pixel"), Attribute::int("antialias", 1)];
    attributes.extend(match by {
        Interpolation::Bicubic => {
            vec![Attribute::text("mode", "cubic"), Attribute::float("cubic_coeff_a", -0.5), Attribute::int("exclude_outside", 1)]
        }
        // Runtimes take `exclude_outside` for cubic alone.
        Interpolation::Bilinear => vec![Attribute::text("mode", "linear")],
        other => return Err(ExportError::Resizing { what: format!("{other:?} interpolation") }),
    });
    let [half, least, most] = [("images/half", 0.5), ("images/least", 0.0), ("images/most", 255.0)]
        .map(|(name, value)| writer.float32(name, &[], &[value]));
    // All four sizes: ONNX Runtime mistakes two of them where it moves a `Transpose` across.
    let outer = sizes(writer, value, 0, 2);
    let rows = sizes(writer, value, 2, 3);
    let mut value = value.to_owned();
    for height in [&rows, height] {
        let sizes = writer.node("Concat", "images/sizes", &[&outer, height, width], vec![Attribute::int("axis", 0)]);
        let resized = writer.node("Resize", "images/Resize", &[&value, "", "", &sizes], attributes.clone());
        // `Round` would round halves to even, and Pillow rounds them up.
        let raised = writer.node("Add", "images/Raise", &[&resized, &half], Vec::new());
        let rounded = writer.node("Floor", "images/Floor", &[&raised], Vec::new());
        value = writer.node("Clip", "images/Clip", &[&rounded, &least, &most], Vec::new());
    }
    Ok(value)
}

/// Some sizes of a value.
fn sizes(writer: &mut Writer<'_>, value: &str, start: i64, end: i64) -> String {
    let between = vec![Attribute::int("start", start), Attribute::int("end", end)];
    writer.node("Shape", "images/Shape", &[value], between)
}

/// The height and width at which the shorter side has so many pixels, rounded down.
fn sizes_of(writer: &mut Writer<'_>, value: &str, shorter_side: i64) -> [String; 2] {
    let [rows, columns] = [2, 3].map(|axis| sizes(writer, value, axis, axis + 1));
    let shorter = writer.node("Min", "images/Min", &[&rows, &columns], Vec::new());
    let wanted = writer.integers("images/shorter_side", &[shorter_side]);
    [rows, columns].map(|side| {
        let product = writer.node("Mul", "images/side/Mul", &[&side, &wanted], Vec::new());
        writer.node("Div", "images/side/Div", &[&product, &shorter], Vec::new())
    })
}

/// The middle of a picture of these sizes. It starts where torchvision's does: half of what is left out, rounded to even.
fn crop(writer: &mut Writer<'_>, value: &str, sizes: [&str; 2], [channels, rows, columns]: [i64; 3]) -> String {
    let sizes = writer.node("Concat", "images/crop/Concat", &sizes, vec![Attribute::int("axis", 0)]);
    let window = writer.integers("images/window", &[rows, columns]);
    let axes = writer.integers("images/axes", &[2, 3]);
    let half = writer.float32("images/half", &[], &[0.5]);
    let rest = writer.node("Sub", "images/crop/Sub", &[&sizes, &window], Vec::new());
    let rest = writer.cast("images/crop/Cast", &rest, Type::Float32);
    let halves = writer.node("Mul", "images/crop/Mul", &[&rest, &half], Vec::new());
    let rounded = writer.node("Round", "images/crop/Round", &[&halves], Vec::new());
    let starts = writer.cast("images/crop/starts", &rounded, Type::Int64);
    let ends = writer.node("Add", "images/crop/ends", &[&starts, &window], Vec::new());
    let cropped = writer.node("Slice", "images/Slice", &[value, &starts, &ends, &axes], Vec::new());
    // Nothing else says that the sizes are these.
    let shape = writer.integers("images/shape", &[-1, channels, rows, columns]);
    writer.node("Reshape", "images/Reshape", &[&cropped, &shape], Vec::new())
}

/// Zeros around a picture of `size`, so that it is as large as `input`; an odd rest goes to the bottom and right.
fn pad(writer: &mut Writer<'_>, value: String, size: [i64; 2], input: [i64; 2]) -> String {
    let [rows, columns] = [0, 1].map(|axis| input[axis] - size[axis]);
    if [rows, columns] == [0, 0] {
        return value;
    }
    let (top, left) = (rows / 2, columns / 2);
    let pads = writer.integers("images/pads", &[0, 0, top, left, 0, 0, rows - top, columns - left]);
    writer.node("Pad", "images/Pad", &[&value, &pads], Vec::new())
}

/// The probabilities of logits: of classes that exclude each other, or of each class on its own.
pub(crate) fn probabilities(writer: &mut Writer<'_>, logits: &str, multi_label: bool, temperature: f64) -> String {
    let mut logits = logits.to_owned();
    if writer.float() != Type::Float32 {
        logits = writer.cast("logits/Cast", &logits, Type::Float32);
    }
    if temperature != 1.0 {
        let temperature = writer.float32("temperature", &[], &[temperature as f32]);
        logits = writer.node("Div", "logits/Div", &[&logits, &temperature], Vec::new());
    }
    match multi_label {
        true => writer.node("Sigmoid", "logits/Sigmoid", &[&logits], Vec::new()),
        false => writer.node("Softmax", "logits/Softmax", &[&logits], vec![Attribute::int("axis", 1)]),
    }
}
