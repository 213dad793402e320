//! `run`: a tensor in, outputs and taps out.
use crate::cli::RunArgs;
use crate::error::CliError;
use crate::source::{self, Source, parse_options, with_classes};
use striate::devices;
use striate_graph::{InitOptions, Network};
use striate_torch::{TensorFile, few, manual_seed};
use tch::{Kind, Tensor};

pub(crate) fn run(args: &RunArgs) -> Result<(), CliError> {
    let devices = devices(&args.devices)?;
    let input = read_input(args)?;
    let source = Source::open(&args.model, &with_classes(parse_options(&args.options)?, args.classes))?;
    let options = InitOptions { devices, kind: input.kind(), seed: args.seed };
    let network = Network::new(source.graph, &options)?;
    match (&args.weights, &source.bundle) {
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(format!("{} brings its own weights: leave --weights out", args.model)));
        }
        (Some(name), None) => striate::load(&network, &source::weights(name)?, args.head.into(), Some(&args.model))?,
        (None, Some(bundle)) => {
            network.load_state(&bundle.state).map_err(|error| CliError::Usage(format!("{}: {error}", args.model)))?;
        }
        (None, None) => {
            tracing::info!("without --weights {} runs with the random weights of seed {}", args.model, args.seed);
        }
    }
    manual_seed(args.seed);
    let _no_grad = striate_torch::no_grad();
    let taps: Vec<&str> = args.taps.iter().map(String::as_str).collect();
    let input = input.f_to_device(network.device())?;
    let outputs = network.forward_with_taps(&[&input], args.mode.into(), &taps)?;
    let values = outputs.outputs().iter().chain(outputs.taps());
    let tensors = values.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    Ok(TensorFile { tensors, ..TensorFile::default() }.write(&args.output)?)
}

/// The tensor `input` of the file, float32 unless it is float64.
fn read_input(args: &RunArgs) -> Result<Tensor, CliError> {
    let mut file = TensorFile::read(&args.input)?;
    let names = if file.tensors.is_empty() { "nothing".to_owned() } else { few(file.tensors.keys()) };
    let missing = || CliError::Usage(format!("{}: there is no tensor named input, but {names}", args.input.display()));
    let input = file.tensors.remove("input").ok_or_else(missing)?;
    Ok(if input.kind() == Kind::Double { input } else { input.f_to_kind(Kind::Float)? })
}
