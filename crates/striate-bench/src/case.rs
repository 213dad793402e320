//! What is measured, as plain data with a name that can be typed.
use crate::BenchError;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use striate_models::{find, variants};
use striate_torch::{MemoryFormat, Precision, nearest};
use tch::{Cuda, Device};

/// What is done with a network, or, from [`Mode::Product`] on, without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A forward pass of the network in evaluation.
    Infer,
    /// A forward pass of its inference plan.
    Plan,
    /// Forward pass, loss, backward pass, and a step of SGD with momentum.
    Train,
    /// The training step of two processes, each with the batch and the threads of the case, that sum their gradients.
    Pair,
    /// The same of two processes that only run at the same time: what a pair's step takes longer, it waits for gradients.
    Apart,
    /// An epoch of training steps on JPEG files that the loader decodes and crops meanwhile.
    Fed,
    /// The same of pictures that were decoded before: what [`Fed`](Self::Fed) takes longer, it waits for the loader.
    FedMemory,
    /// The step of SGD with momentum alone.
    Optimizer,
    /// Making the inference plan.
    Planning,
    /// Writing a checkpoint with the state of SGD with momentum.
    Checkpoint,
    /// A product of two square matrices (`matmul`), the fastest that there is, whose rate is the limit that others are held against.
    Product,
    /// An epoch of the loader: over 60,000 images in memory, or over four batches of JPEG files.
    Load,
    /// A start of the program, up to its version, for which it loads no libtorch.
    Start,
}

/// How images and feature maps lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// NCHW.
    Contiguous,
    /// NHWC.
    ChannelsLast,
}

impl From<Layout> for MemoryFormat {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Contiguous => Self::Contiguous,
            Layout::ChannelsLast => Self::ChannelsLast,
        }
    }
}

/// The name of a unit variant, as it stands in ids and in JSON.
pub(crate) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("a unit variant is a string, and not {other:?}"),
    }
}

/// A precision's name in ids and in JSON, which it reads too.
pub(crate) fn short_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 => "fp32",
        Precision::Bfloat16 => "bf16",
        Precision::Float16 => "fp16",
        other => other.name(),
    }
}

fn short<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(short_name(*precision))
}

/// One measurement. Its id, such as `resnet50/plan/b16/224/fp32/channels-last/t2/cpu`, is the fields in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// The network's name in the registry; `matmul`, `loader-plain` and others of the loader, or `striate` for what needs none.
    pub model: String,
    /// What is done.
    pub mode: Mode,
    /// Images at once.
    pub batch: i64,
    /// Height and width of an image, or rows and columns of a matrix.
    pub size: i64,
    /// The type that is computed in: in ids and in JSON `fp32`, `bf16`, `int8`, which is for plans on the CPU alone, or `fp16`, which is
    /// for plans on a GPU alone.
    #[serde(serialize_with = "short")]
    pub precision: Precision,
    /// How images lie in memory.
    pub memory_format: Layout,
    /// Threads of an operator.
    pub threads: usize,
    /// `cpu`, or `cuda:0` and so on.
    pub device: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, mode, batch, size, precision, memory_format, threads, device } = self;
        let (mode, precision, layout) = (word(mode), short_name(*precision), word(memory_format));
        write!(f, "{model}/{mode}/b{batch}/{size}/{precision}/{layout}/t{threads}/{device}")
    }
}

impl FromStr for Case {
    type Err = BenchError;

    /// Reads an id. Any batch, size and number of threads will do; a name that is unknown is an error.
    fn from_str(id: &str) -> Result<Self, BenchError> {
        let refuse = |part: &str, what: &str| BenchError::Usage(format!("{id}: `{part}` is no {what}"));
        let parts: Vec<&str> = id.split('/').collect();
        let &[model, mode, batch, size, precision, memory_format, threads, device] = parts.as_slice() else {
            return Err(BenchError::Usage(format!("{id}: an id has eight parts, as {} has", default_set(2)[0])));
        };
        fn parsed<T: for<'a> Deserialize<'a>>(part: &str) -> Option<T> {
            serde_json::from_value(part.into()).ok()
        }
        let number = |part: &str, prefix: &str| part.strip_prefix(prefix)?.parse::<u32>().ok().filter(|number| *number > 0);
        let case = Self {
            model: model.to_owned(),
            mode: parsed(mode).ok_or_else(|| refuse(mode, "mode"))?,
            batch: number(batch, "b").ok_or_else(|| refuse(batch, "batch, such as b16"))?.into(),
            size: number(size, "").ok_or_else(|| refuse(size, "size, such as 224"))?.into(),
            precision: parsed(precision).ok_or_else(|| refuse(precision, "precision: fp32, bf16, fp16 or int8"))?,
            memory_format: parsed(memory_format).ok_or_else(|| refuse(memory_format, "memory format"))?,
            threads: number(threads, "t").ok_or_else(|| refuse(threads, "number of threads, such as t2"))? as usize,
            device: device.to_owned(),
        };
        match case.mode.other_subjects() {
            [] => drop(find(model)?),
            known if !known.contains(&model) => return Err(refuse(model, &format!("subject of {mode}: {}", known.join(", ")))),
            _ => {}
        }
        let trains = matches!(case.mode, Mode::Optimizer | Mode::Checkpoint | Mode::Pair | Mode::Apart);
        if trains && case.precision == Precision::Bfloat16 {
            return Err(refuse(precision, &format!("precision of {mode}, which is fp32")));
        }
        if case.precision == Precision::Int8 && (case.mode != Mode::Plan || device != "cpu") {
            return Err(refuse(precision, "precision but of plan on cpu"));
        }
        if case.precision == Precision::Float16 && (!matches!(case.mode, Mode::Plan | Mode::Product) || device == "cpu") {
            return Err(refuse(precision, "precision but of plan on a GPU"));
        }
        if matches!(case.mode, Mode::Pair | Mode::Apart | Mode::Fed | Mode::FedMemory) && device != "cpu" {
            return Err(refuse(device, &format!("device of {mode}, which is cpu")));
        }
        case.torch_device()?;
        Ok(case)
    }
}

impl Mode {
    /// What is measured in a mode that takes no network.
    fn other_subjects(self) -> &'static [&'static str] {
        match self {
            Self::Product => &["matmul"],
            Self::Load => LOADERS,
            Self::Start => &["striate"],
            _ => &[],
        }
    }
}

impl Case {
    /// A case of the registry's network at its own size, in float32, channels-last, on the CPU.
    pub fn of(model: &str, mode: Mode, batch: i64, threads: usize) -> Self {
        let size = find(model).ok().and_then(|variant| variant.model(&[]).ok()).map_or(1, |model| model.input()[1]);
        let (precision, memory_format, device) = (Precision::Float32, Layout::ChannelsLast, "cpu".to_owned());
        Self { model: model.to_owned(), mode, batch, size, precision, memory_format, threads, device }
    }

    /// The product that tells the limit of cases with this one's precision, threads and device; libtorch has none in int8.
    pub fn limit(&self) -> Option<Self> {
        let limit = Self { model: "matmul".to_owned(), mode: Mode::Product, batch: 1, size: PRODUCT, ..self.clone() };
        let limit = Self { memory_format: Layout::Contiguous, ..limit };
        (self.mode <= Mode::Train && self.precision != Precision::Int8).then_some(limit)
    }

    /// Whether it loads pictures from files.
    pub fn is_of_files(&self) -> bool {
        matches!(self.mode, Mode::Fed | Mode::FedMemory) || LOADERS[IN_MEMORY..].contains(&self.model.as_str())
    }

    /// The device; an error if this machine has none of that name.
    pub fn torch_device(&self) -> Result<Device, BenchError> {
        let refuse = |why: &str| BenchError::Usage(format!("{}: {why}", self.device));
        if self.device == "cpu" {
            return Ok(Device::Cpu);
        }
        let number = self.device.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        let number: usize = number.ok_or_else(|| refuse("there is no such device: name cpu, cuda:0, ..."))?;
        match cards() {
            count if number < count => Ok(Device::Cuda(number)),
            0 => Err(refuse("no graphics card can be used with this libtorch: name cpu")),
            count => Err(refuse(&format!("the last graphics card is cuda:{}", count - 1))),
        }
    }
}

fn cards() -> usize {
    usize::try_from(Cuda::device_count()).unwrap_or(0)
}

/// What the loader is measured with: pictures in memory, or files that the bench makes, small ones and those of photographs' size.
const LOADERS: &[&str] = &[
    "loader-plain",
    "loader-crop-flip",
    "loader-affine",
    CIFAR,
    CIFAR_IN_MEMORY,
    DECODE,
    "loader-jpeg",
    "loader-imagenet-train",
    "loader-imagenet-eval",
    "loader-rand-augment",
    "loader-trivial-augment",
];
/// The subject whose files are small.
pub(crate) const CIFAR: &str = "loader-cifar-jpeg";
/// The same files, decoded before the first epoch that counts.
pub(crate) const CIFAR_IN_MEMORY: &str = "loader-cifar-memory";
/// The subject that decodes whole pictures, and does nothing else.
pub(crate) const DECODE: &str = "loader-decode";
/// How many subjects of the loader take pictures in memory; they come first.
const IN_MEMORY: usize = 3;
/// Rows and columns of the matrices that tell the limit.
const PRODUCT: i64 = 2048;
/// The networks that are measured by default, with the batch that their training is measured at.
const NETWORKS: [(&str, i64); 7] = [
    ("lenet5", 128),
    ("resnet20-cifar", 128),
    ("alexnet", 16),
    ("vgg16", 4),
    ("googlenet", 16),
    ("resnet18", 16),
    ("resnet50", 8),
];

/// The networks that two processes train, with the batch of each.
const PAIRS: [(&str, i64); 3] = [("resnet18", 8), ("resnet20-cifar", 64), ("vgg16", 2)];

/// What is measured unless told otherwise: some minutes.
pub fn default_set(threads: usize) -> Vec<Case> {
    let case = |model, mode, batch| Case::of(model, mode, batch, threads);
    let mut cases: Vec<Case> = NETWORKS.iter().map(|(model, batch)| case(model, Mode::Train, *batch)).collect();
    for (model, _) in NETWORKS {
        for batch in [1, 16] {
            let plan = case(model, Mode::Plan, batch);
            cases.extend([case(model, Mode::Infer, batch), Case { precision: Precision::Bfloat16, ..plan.clone() }, plan]);
        }
    }
    // How time grows with batch, size and depth.
    cases.extend([2, 4, 8].map(|batch| case("resnet18", Mode::Plan, batch)));
    cases.extend([96, 160, 288].map(|size| Case { size, ..case("resnet18", Mode::Plan, 1) }));
    cases.extend(["resnet34", "resnet101"].map(|model| case(model, Mode::Plan, 1)));
    // What threads and memory formats change.
    for (mode, batch) in [(Mode::Plan, 16), (Mode::Infer, 16), (Mode::Train, 16)] {
        let resnet18 = case("resnet18", mode, batch);
        if mode != Mode::Plan {
            cases.push(Case { memory_format: Layout::Contiguous, ..resnet18.clone() });
        }
        cases.push(Case { threads: 1, ..resnet18 });
    }
    cases.extend([Mode::Optimizer, Mode::Planning, Mode::Checkpoint].map(|mode| case("resnet50", mode, 1)));
    for (model, batch) in PAIRS {
        cases.extend([Mode::Pair, Mode::Apart].map(|mode| Case::of(model, mode, batch, 1)));
    }
    cases.extend([Mode::Fed, Mode::FedMemory].map(|mode| case("resnet18", mode, 16)));
    let loads = Mode::Load.other_subjects().iter().flat_map(|model| [1, threads].map(|threads| (*model, threads)));
    cases.extend(loads.map(|(model, threads)| {
        let small = [CIFAR, CIFAR_IN_MEMORY].contains(&model) || LOADERS[..IN_MEMORY].contains(&model);
        let (batch, size) = if small { (128, 32) } else { (64, 224) };
        Case { size, ..Case::of(model, Mode::Load, batch, threads) }
    }));
    cases.push(case("striate", Mode::Start, 1));
    cases.extend(limits(&cases));
    sorted(cases)
}

/// Every network in every way: thousands, to choose from.
pub fn full_set(threads: usize) -> Vec<Case> {
    let devices: Vec<String> = std::iter::once("cpu".to_owned()).chain((0..cards()).map(|card| format!("cuda:{card}"))).collect();
    let mut cases = default_set(threads);
    for variant in variants().filter(|variant| !variant.name.ends_with("-tiny")) {
        for mode in [Mode::Infer, Mode::Plan, Mode::Train, Mode::Optimizer, Mode::Planning, Mode::Checkpoint] {
            let runs = mode <= Mode::Train;
            let batches: &[i64] = if runs { &[1, 4, 16, 64, 128] } else { &[1] };
            let precisions: &[Precision] = match mode {
                Mode::Plan => &Precision::ALL,
                Mode::Infer | Mode::Train => &[Precision::Float32, Precision::Bfloat16],
                _ => &[Precision::Float32],
            };
            // A plan has its own.
            let layouts: &[Layout] = if matches!(mode, Mode::Infer | Mode::Train) {
                &[Layout::ChannelsLast, Layout::Contiguous]
            } else {
                &[Layout::ChannelsLast]
            };
            let all = Case::of(variant.name, mode, 1, threads);
            for device in &devices {
                for &batch in batches {
                    let on_device = |precision: &&Precision| match precision {
                        Precision::Int8 => device == "cpu",
                        Precision::Float16 => device != "cpu",
                        _ => true,
                    };
                    for &precision in precisions.iter().filter(on_device) {
                        for &memory_format in layouts {
                            for threads in [1, threads] {
                                cases.push(Case {
                                    batch,
                                    precision,
                                    memory_format,
                                    threads,
                                    device: device.clone(),
                                    ..all.clone()
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    for (model, mode, size) in ["resnet18", "resnet50", "vgg16"]
        .into_iter()
        .flat_map(|model| [Mode::Infer, Mode::Plan, Mode::Train].map(|mode| (model, mode)))
        .flat_map(|(model, mode)| [96, 128, 160, 192, 256, 288].map(|size| (model, mode, size)))
    {
        cases.push(Case { size, ..Case::of(model, mode, 1, threads) });
    }
    cases.extend(limits(&cases));
    sorted(cases)
}

fn limits(cases: &[Case]) -> BTreeSet<Case> {
    cases.iter().filter_map(Case::limit).collect()
}

/// In a fixed order, each once.
fn sorted(mut cases: Vec<Case>) -> Vec<Case> {
    cases.sort();
    cases.dedup();
    cases
}

/// Whether some parts of the id that follow one another are those of the pattern; `*` stands for any letters of a part.
pub(crate) fn matches(id: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    let patterns: Vec<&str> = pattern.split('/').collect();
    parts.windows(patterns.len()).any(|window| window.iter().zip(&patterns).all(|(part, pattern)| glob(part, pattern)))
}

fn glob(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| glob(&text[at..], rest))),
    }
}

/// The cases that match every filter. Whole ids are these cases, whether a set has them or not.
///
/// # Errors
///
/// Nothing matches; the error names the nearest ids, or tells that `--full` has some.
pub fn select(full: bool, threads: usize, filters: &[String]) -> Result<Vec<Case>, BenchError> {
    if !filters.is_empty() && filters.iter().all(|filter| is_id(filter)) {
        return filters.iter().map(|id| id.parse()).collect();
    }
    let matching = |set: Vec<Case>| -> Vec<Case> {
        let all = |case: &Case| filters.iter().all(|filter| matches(&case.to_string(), filter));
        set.into_iter().filter(all).collect()
    };
    let found = matching(if full { full_set(threads) } else { default_set(threads) });
    if !found.is_empty() {
        return Ok(found);
    }
    let wanted = filters.join(" and ");
    if !full {
        let more = matching(full_set(threads));
        if let Some(first) = more.first() {
            let count = more.len();
            return Err(BenchError::Usage(format!(
                "nothing of the default set matches {wanted}; {count} of --full do, such as {first}"
            )));
        }
    }
    Err(BenchError::Usage(format!("nothing matches {wanted}; the nearest are {}", near(&full_set(threads), filters).join(", "))))
}

/// Whether a filter is a whole id.
pub(crate) fn is_id(filter: &str) -> bool {
    filter.split('/').count() == 8 && !filter.contains('*')
}

/// Up to three ids whose parts are those of the filters, or the nearest to them.
fn near(set: &[Case], filters: &[String]) -> Vec<String> {
    let wanted: Vec<&str> = filters.iter().flat_map(|filter| filter.split('/')).collect();
    let ids: Vec<String> = set.iter().map(Case::to_string).collect();
    let score = |id: &String| {
        let parts: Vec<&str> = id.split('/').collect();
        let near = |wanted: &&str| match parts.iter().any(|part| glob(part, wanted)) {
            true => 3,
            false => nearest(wanted, parts.iter().copied()).map_or(0, |_| 2),
        };
        wanted.iter().map(near).sum::<i32>()
    };
    let mut scored: Vec<(i32, &String)> = ids.iter().map(|id| (-score(id), id)).collect();
    scored.sort_by_key(|(score, _)| *score);
    scored.into_iter().take(3).map(|(_, id)| id.clone()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_id_reads_back_as_its_case() {
        let full = full_set(2);
        assert!(full.len() > 2000, "{}", full.len());
        for case in &full {
            assert_eq!(&case.to_string().parse::<Case>().unwrap(), case);
        }
        assert!(default_set(2).iter().all(|case| full.contains(case)));
        let id = "resnet50/plan/b16/224/fp32/channels-last/t2/cpu";
        assert_eq!(Case::of("resnet50", Mode::Plan, 16, 2).to_string(), id);
    }

    #[test]
    fn ids_that_cannot_be_are_refused_in_one_line() {
        for (id, word) in [
            ("resnet50", "eight parts"),
            ("resnet5/plan/b1/224/fp32/channels-last/t1/cpu", "resnet50"),
            ("resnet50/plam/b1/224/fp32/channels-last/t1/cpu", "`plam` is no mode"),
            ("resnet50/plan/b0/224/fp32/channels-last/t1/cpu", "`b0` is no batch"),
            ("resnet50/optimizer/b1/224/bf16/channels-last/t1/cpu", "which is fp32"),
            ("resnet50/infer/b1/224/int8/channels-last/t1/cpu", "but of plan"),
            ("resnet50/plan/b1/224/fp16/channels-last/t1/cpu", "but of plan on a GPU"),
            ("resnet50/plan/b1/224/fp32/channels-last/t1/tpu", "no such device"),
            ("resnet50/plan/b1/224/fp32/channels-last/t1/cuda:99", "graphics card"),
            ("resnet18/pair/b8/224/bf16/channels-last/t1/cpu", "which is fp32"),
            ("resnet50/load/b1/224/fp32/channels-last/t1/cpu", "loader-plain"),
            ("resnet18/fed/b8/224/fp32/channels-last/t1/cuda:99", "which is cpu"),
        ] {
            let error = id.parse::<Case>().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{id}: {error}");
        }
    }

    #[test]
    fn filters_match_whole_parts() {
        let ids = |filters: &[&str]| -> Vec<String> {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            select(false, 2, &filters).unwrap().iter().map(Case::to_string).collect()
        };
        assert!(ids(&["b1"]).iter().all(|id| id.contains("/b1/")));
        let plans = ids(&["resnet18/plan"]);
        assert!(plans.len() > 5 && plans.iter().all(|id| id.starts_with("resnet18/plan/")), "{plans:?}");
        assert_eq!(ids(&["resnet*/train", "t1"]), ["resnet18/train/b16/224/fp32/channels-last/t1/cpu"]);
        let own = "resnet18/plan/b3/100/fp32/channels-last/t1/cpu";
        let other = "lenet5/plan/b1/32/int8/channels-last/t1/cpu";
        assert_eq!(ids(&[own, other]), [own, other]);
    }

    #[test]
    fn what_matches_nothing_is_told_with_what_is_near() {
        let error = |filter: &str| select(false, 2, &[filter.to_owned()]).unwrap_err().to_string();
        assert!(error("resnet152").contains("of --full do, such as resnet152/"), "{}", error("resnet152"));
        let near = error("resnt50/plan");
        assert!(near.contains("nothing matches") && near.contains("resnet50/plan/"), "{near}");
    }
}
