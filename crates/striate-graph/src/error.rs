use striate_layers::{LayerError, Shape};
use striate_torch::Shown;

/// Why a network can't be built, changed or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A layer can't take its inputs, or failed.
    #[error("layer {layer} ({op}): {source}")]
    Layer {
        /// The layer's full name.
        layer: String,
        /// The kind of layer.
        op: &'static str,
        /// What is wrong.
        source: LayerError,
    },
    /// A layer in a description that nobody has, or with options that it does not take.
    #[error("layer {}: {}", Shown(layer), Shown(source))]
    Description {
        /// The layer's full name.
        layer: String,
        /// What is wrong.
        source: LayerError,
    },
    /// An input of a shape that no value can have.
    #[error("input {input}: {source}")]
    Input {
        /// The input's name.
        input: String,
        /// What is wrong.
        source: LayerError,
    },
    /// An architecture's option that it can't have.
    #[error("{} {}", Shown(option), Shown(reason))]
    Option {
        /// The option and its value, such as `depths = []`.
        option: String,
        /// Why it can't be.
        reason: String,
    },
    /// Two inputs or layers, or two outputs, under one name.
    #[error("the name {} is taken: every input, every layer and every output needs a name of its own", Shown(name))]
    NameTaken {
        /// The full name.
        name: String,
    },
    /// A name that holds a character that full names or files give a meaning.
    #[error(
        "the name {:?} is empty, too long, or holds a `/`, a space or an empty part between dots: use letters, digits, `_`, `-`",
        short(name, 100)
    )]
    BadName {
        /// The full name.
        name: String,
    },
    /// No layer of that name.
    #[error("there is no layer {}{}", Shown(name), did_you_mean(nearest))]
    UnknownLayer {
        /// What was asked for.
        name: String,
        /// The name that was meant, if one is near.
        nearest: Vec<String>,
    },
    /// A network without outputs.
    #[error("the network has no output: name one with `output`")]
    NoOutput,
    /// A wrong number of inputs to a network.
    #[error("the network takes {expected} inputs, got {got}")]
    InputCount {
        /// How many inputs it has.
        expected: usize,
        /// How many it was given.
        got: usize,
    },
    /// A batch that doesn't fit the parameters of a network.
    #[error("input {input} takes {expected}, got {got}: layer {layer} has parameters for {expected} only")]
    InputSize {
        /// The input's name.
        input: String,
        /// The shape that the network was built for.
        expected: Shape,
        /// The shape of one example of what it was given.
        got: Shape,
        /// The first layer whose parameters don't fit.
        layer: String,
    },
    /// A network whose last layer can't be replaced.
    #[error(
        "output {output} ends in layer {layer} ({op}), whose classes are fixed: only Linear and Conv2d heads can be replaced"
    )]
    FixedHead {
        /// The output.
        output: String,
        /// The layer that decides its classes.
        layer: String,
        /// The kind of layer.
        op: &'static str,
    },
    /// Too few devices for the places that the network names.
    #[error("the network is placed on {needed} devices, got {got}: give one device for all, or one for each place")]
    Devices {
        /// The number of places.
        needed: usize,
        /// The number of devices given.
        got: usize,
    },
    /// Several devices for a network that has no towers to put on them.
    #[error("the network has no {devices} towers for {devices} devices: give one device")]
    NoTowers {
        /// The number of devices given.
        devices: usize,
    },
    /// Weights that don't fit: all names at once.
    #[error("the weights do not fit: {}", describe_misfit(missing, unexpected, mismatched))]
    Weights {
        /// Parameters that the weights lack.
        missing: Vec<String>,
        /// Weights that the network has no parameter for.
        unexpected: Vec<String>,
        /// Parameters whose shape differs, each with both shapes.
        mismatched: Vec<String>,
    },
    /// A parameter with a value that is no number.
    #[error("the weights hold NaN or infinite values, first in {}: the file comes from a diverged training", Shown(name))]
    NotFinite {
        /// The first such parameter.
        name: String,
    },
    /// A batch norm with a variance below 0.
    #[error(
        "the weights hold negative variances, first in {}: the file is damaged, or its tensors have the wrong names",
        Shown(name)
    )]
    NegativeVariance {
        /// The first such parameter.
        name: String,
    },
    /// Too little memory on a GPU.
    #[error(
        "not enough memory on {device} for a batch of {batch}: {} more needed, {} free{}: take a smaller batch",
        size(*asked), size(*free), fits.map_or_else(String::new, |fits| format!(", and about {fits} would fit"))
    )]
    OutOfMemory {
        /// The device, such as `cuda:0`.
        device: String,
        /// The examples in the batch.
        batch: i64,
        /// The bytes that were asked for.
        asked: u64,
        /// The bytes that were free.
        free: u64,
        /// A batch that would fit, if the network tells one.
        fits: Option<i64>,
    },
    /// libtorch failed outside of a layer.
    #[error(transparent)]
    Torch(#[from] striate_torch::TorchError),
}

impl GraphError {
    /// Whether libtorch failed, as for lack of memory, where otherwise something that was given is wrong.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Torch(_) | Self::OutOfMemory { .. } | Self::Layer { source: LayerError::Torch(_), .. })
    }
}

impl From<tch::TchError> for GraphError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => ": the network's summary lists them".to_owned(),
        [one] => format!(": did you mean {one}?"),
        [first @ .., last] => format!(": did you mean {} or {last}?", first.join(", ")),
    }
}

/// Bytes, as people read them.
fn size(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        few if few < 1.0 => format!("{:.0} MiB", few * 1024.0),
        many => format!("{many:.1} GiB"),
    }
}

/// The beginning of a name that a file may have.
fn short(name: &str, longest: usize) -> String {
    Shown(name.chars().take(longest).collect::<String>()).to_string()
}

/// How many names there are of each kind, and the first few.
fn describe_misfit(missing: &[String], unexpected: &[String], mismatched: &[String]) -> String {
    // Names, and names with two shapes, of as many letters at most.
    let parts = [("missing", missing, 2, 60), ("unexpected", unexpected, 2, 60), ("of another shape", mismatched, 1, 100)];
    let parts = parts.iter().filter(|(_, names, ..)| !names.is_empty()).map(|(what, names, shown, longest)| {
        let mut few: Vec<String> = names.iter().take(*shown).map(|name| short(name, *longest)).collect();
        few.extend((names.len() > *shown).then(|| "...".to_owned()));
        format!("{} {what} ({})", names.len(), few.join(", "))
    });
    parts.collect::<Vec<_>>().join("; ")
}
