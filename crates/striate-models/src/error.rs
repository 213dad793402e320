use std::path::PathBuf;
use striate_graph::GraphError;
use striate_torch::FileError;

/// Why a model can't be built, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No variant of that name.
    #[error("there is no model {name}: {}", did_you_mean(*nearest, || "pick a name from the registry".to_owned()))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The name that was meant, if one is near.
        nearest: Option<&'static str>,
    },
    /// No option of that name.
    #[error("{model} has no option {option}: {}", did_you_mean(nearest.as_deref(), || format!("it has {}", known.join(", "))))]
    UnknownOption {
        /// The variant.
        model: &'static str,
        /// What was asked for.
        option: String,
        /// The name that was meant, if one is near.
        nearest: Option<String>,
        /// All options of the variant.
        known: Vec<String>,
    },
    /// An option with a value that it can't have.
    #[error("{model}: bad option: {reason}")]
    BadOption {
        /// The variant.
        model: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The layers don't fit one another, the input or the weights.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file of weights can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of tensors that doesn't say what network it belongs to.
    #[error("{} holds weights only: a bundle also says what network they belong to; name the model beside the file", path.display())]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
    /// A bundle whose description can't be read.
    #[error("{} was not written by this version of striate, or is damaged: {reason}", path.display())]
    BadBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A bundle whose weights don't fit the network that it names.
    #[error("{}: {source}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        source: Box<GraphError>,
    },
    /// A file that should come from `torch.save` and is truncated, damaged or no such file at all.
    #[error("{} is damaged or holds no weights of PyTorch or .safetensors ({reason}): restore it from a copy", path.display())]
    DamagedPickle {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file of PyTorch that is more than data.
    #[error(
        "refused to load {}: it would execute {global}; get it from a source that you trust, and save its weights alone with torch.save(model.state_dict(), FILE)",
        path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// The Python object that it names.
        global: String,
    },
    /// A file of PyTorch without tensors by name.
    #[error("{} holds no tensors by name: save them with torch.save(model.state_dict(), FILE)", path.display())]
    NoWeights {
        /// The file.
        path: PathBuf,
    },
    /// A file that declares far more bytes than it has.
    #[error(
        "{} has {length} bytes and would unpack to {declared}: its tensors are views of few values, or it is damaged; save copies of them with torch.save({{name: tensor.clone() for name, tensor in model.state_dict().items()}}, FILE)",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it declares.
        declared: u64,
        /// The bytes that it has.
        length: u64,
    },
    /// A file of another format.
    #[error("{} is {what}", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A file that holds the weights of several networks.
    #[error("{} holds the weights of several networks ({keys}): say which to read", path.display())]
    SeveralNetworks {
        /// The file.
        path: PathBuf,
        /// The keys under which they are.
        keys: String,
    },
    /// No weights under that key of a file.
    #[error("{} has no weights under {key}: it has {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        key: String,
        /// The keys that it has.
        known: String,
    },
    /// Weights without the auxiliary heads that the network has.
    #[error(
        "{} has no weights for the auxiliary heads ({heads}): build the network with the option aux_heads = false",
        path.display()
    )]
    NoAuxHeads {
        /// The file.
        path: PathBuf,
        /// The heads' names.
        heads: String,
    },
    /// Weights for auxiliary heads that the network has not.
    #[error("{} has weights for auxiliary heads ({heads}): build the network with the option aux_heads = true", path.display())]
    UnusedAuxHeads {
        /// The file.
        path: PathBuf,
        /// The heads' names.
        heads: String,
    },
    /// Weights that fit but for the number of classes.
    #[error(
        "{} has weights for {file} classes, the network is for {network}: build it for {file}, or load the body alone and train a new classifier",
        path.display()
    )]
    OtherClasses {
        /// The file.
        path: PathBuf,
        /// The classes in the file.
        file: i64,
        /// The classes of the network.
        network: i64,
    },
    /// Weights that fit but for the classifier, which is missing or has another form.
    #[error(
        "{} has no classifier {lacks}{}: load the body alone and train a new classifier",
        path.display(),
        if has.is_empty() { String::new() } else { format!(" of the network's shape, but {has}") }
    )]
    OtherHead {
        /// The file.
        path: PathBuf,
        /// The layers of the network that the file lacks.
        lacks: String,
        /// The layers that it has in their place, if any.
        has: String,
    },
    /// No published weights of that name.
    #[error(
        "there are no published weights {name}: {}",
        did_you_mean(*nearest, || "pick a name from the list of published weights".to_owned())
    )]
    UnknownWeights {
        /// What was asked for.
        name: String,
        /// The name that was meant, if one is near.
        nearest: Option<&'static str>,
    },
    /// Published weights that can't be fetched.
    #[error(transparent)]
    Fetch(#[from] striate_fetch::FetchError),
}

/// The name that was meant, or else what there is.
fn did_you_mean(nearest: Option<&str>, known: impl Fn() -> String) -> String {
    nearest.map_or_else(known, |nearest| format!("did you mean {nearest}?"))
}
