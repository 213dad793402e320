//! Classifies pictures with an export and tract: no libtorch and nothing of Striate.
//!
//! ```text
//! predict_tract digits.onnx seven.png
//! ```
use std::path::Path;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, pictures @ ..] = args.as_slice() else { return Err("usage: predict_tract MODEL.onnx PICTURE...".into()) };

    // The file names its classes.
    let file = tract_onnx::onnx().proto_model_for_path(Path::new(model))?;
    let classes = file.metadata_props.iter().find(|entry| entry.key == "classes").ok_or("the file names no classes")?;
    let classes: Vec<String> = serde_json::from_str(&classes.value)?;
    let network = tract_onnx::onnx().model_for_path(model)?;
    let channels = network.input_fact(0)?.shape.dim(3).and_then(|dim| dim.concretize()).ok_or("the file takes no pictures")?;

    // tract prepares a network for one size of pictures.
    let mut prepared = None;
    for path in pictures {
        // Pixels as they are, [1, height, width, channels]: resizing and normalising are in the file.
        let picture = image::open(path)?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels = if channels == 1.to_dim() { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
        let shape = [1, height, width, pixels.len() / (height * width)];
        let runnable = match prepared.take().filter(|(of, _)| *of == shape) {
            Some((_, runnable)) => runnable,
            None => {
                let mut network = network.clone();
                network.set_input_fact(0, InferenceFact::dt_shape(u8::datum_type(), shape))?;
                network.into_optimized()?.into_runnable()?
            }
        };
        let outputs = runnable.run(tvec![Tensor::from_shape(&shape, &pixels)?.into()])?;
        prepared = Some((shape, runnable));

        let probabilities = outputs[0].try_as_plain_ram()?.as_slice::<f32>()?;
        let mut answers: Vec<(&f32, &String)> = probabilities.iter().zip(&classes).collect();
        answers.sort_by(|one, other| other.0.total_cmp(one.0));
        for (probability, class) in answers.iter().take(3) {
            println!("{class} {:.1}%", 100.0 * **probability);
        }
    }
    Ok(())
}
