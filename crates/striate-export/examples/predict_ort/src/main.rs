//! Classifies pictures with an export and ONNX Runtime: no libtorch and nothing of Striate.
//!
//! ```text
//! ORT_DYLIB_PATH=libonnxruntime.so predict_ort digits.onnx seven.png
//! ```
//!
//! The program is built without ONNX Runtime and loads its library when it starts. Take the library from a release of ONNX Runtime
//! or from Python's package `onnxruntime` (`onnxruntime/capi/libonnxruntime.so.VERSION`).
use ort::session::Session;
use ort::value::TensorRef;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, pictures @ ..] = args.as_slice() else { return Err("usage: predict_ort MODEL.onnx PICTURE...".into()) };
    let library = std::env::var_os("ORT_DYLIB_PATH").ok_or("set ORT_DYLIB_PATH to ONNX Runtime's library")?;
    let environment = ort::init_from(library)?.build()?;
    let mut session = Session::builder(&environment)?.commit_from_file(model)?;

    // The file names its classes.
    let classes = session.metadata()?.custom("classes").ok_or("the file names no classes")?;
    let classes: Vec<String> = serde_json::from_str(&classes)?;

    // Pixels as they are, [1, height, width, channels]: resizing and normalising are in the file.
    let shape = session.inputs()[0].dtype().tensor_shape().ok_or("the file takes no pictures")?;
    let is_grey = shape.get(3) == Some(&1);
    for path in pictures {
        let picture = image::open(path)?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels = if is_grey { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
        let shape = [1, height, width, pixels.len() / (height * width)];
        let outputs = session.run(ort::inputs![TensorRef::from_array_view((shape, pixels.as_slice()))?])?;
        let (_, probabilities) = outputs[0].try_extract_tensor::<f32>()?;
        let mut answers: Vec<(&f32, &String)> = probabilities.iter().zip(&classes).collect();
        answers.sort_by(|one, other| other.0.total_cmp(one.0));
        for (probability, class) in answers.iter().take(3) {
            println!("{class} {:.1}%", 100.0 * **probability);
        }
    }
    Ok(())
}
