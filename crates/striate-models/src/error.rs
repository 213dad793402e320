use std::path::PathBuf;
use striate_graph::GraphError;
use striate_torch::{FileError, Shown};

/// Why a model can't be built, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No variant of that name.
    #[error("there is no model {}: {}", Shown(name), did_you_mean(*nearest, || "pick a name from the registry".to_owned()))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The name that was meant, if one is near.
        nearest: Option<&'static str>,
    },
    /// No option of that name.
    #[error("{model} has no option {}: {}", Shown(option), did_you_mean(nearest.as_deref(), || format!("it has {}", known.join(", "))))]
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
    #[error("{model}: bad option: {}", Shown(reason))]
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
    #[error("{} holds weights only: a bundle also says what network they belong to; make one from them, or name the model beside the file", Shown(path.display()))]
    NoBundle {
        /// The file.
        path: PathBuf,
    },
    /// A bundle whose description can't be read.
    #[error("{} was not written by this version of striate, or is damaged: {}", Shown(path.display()), Shown(reason))]
    BadBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A bundle whose weights don't fit the network that it names.
    #[error("{}: {source}", Shown(path.display()))]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What doesn't fit.
        source: Box<GraphError>,
    },
    /// A file that should come from `torch.save` and is truncated, damaged or no such file at all.
    #[error("{} is damaged or holds no weights of PyTorch or .safetensors ({}): restore it from a copy", Shown(path.display()), Shown(reason))]
    DamagedPickle {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file of PyTorch that is more than data.
    #[error(
        "refused to load {}: it would execute {}; get it from a source that you trust, and save its weights alone with torch.save(model.state_dict(), FILE)",
        Shown(path.display()),
        Shown(global)
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// The Python object that it names.
        global: String,
    },
    /// A file of PyTorch without tensors by name.
    #[error("{} holds no tensors by name: save them with torch.save(model.state_dict(), FILE)", Shown(path.display()))]
    NoWeights {
        /// The file.
        path: PathBuf,
    },
    /// A file that declares far more than it has.
    #[error(
        "{} would take more than {allowed} bytes to read, far more than its length: its tensors are views of few values, or it is damaged; save copies of them with torch.save({{name: tensor.clone() for name, tensor in model.state_dict().items()}}, FILE), or raise the read budget if you trust it",
        Shown(path.display())
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bytes of memory that it may take.
        allowed: u64,
    },
    /// A file of another format.
    #[error("{} is {what}", Shown(path.display()))]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A file that holds the weights of several networks.
    #[error("{} holds the weights of several networks ({}): say which to read", Shown(path.display()), Shown(keys))]
    SeveralNetworks {
        /// The file.
        path: PathBuf,
        /// The keys under which they are.
        keys: String,
    },
    /// No weights under that key of a file.
    #[error("{} has no weights under {}: it has {}", Shown(path.display()), Shown(key), Shown(known))]
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
        "{} has no weights for the auxiliary heads ({}): build the network with the option aux_heads = false",
        Shown(path.display()),
        Shown(heads)
    )]
    NoAuxHeads {
        /// The file.
        path: PathBuf,
        /// The heads' names.
        heads: String,
    },
    /// Weights for auxiliary heads that the network has not.
    #[error("{} has weights for auxiliary heads ({}): build the network with the option aux_heads = true", Shown(path.display()), Shown(heads))]
    UnusedAuxHeads {
        /// The file.
        path: PathBuf,
        /// The heads' names.
        heads: String,
    },
    /// Weights that fit but for the number of classes.
    #[error(
        "{} has weights for {file} classes, the network is for {network}: build it for {file}, or load the body alone and train a new classifier",
        Shown(path.display())
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
        Shown(path.display()),
        if has.is_empty() { String::new() } else { format!(" of the network's shape, but {}", Shown(has)) }
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
        "there are no published weights {}: {}",
        Shown(name),
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
