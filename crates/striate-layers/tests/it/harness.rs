//! Runs a layer or a loss on what a golden case gives, and compares all that comes out.
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use striate_layers::{Mode, Op, ParamKind, Shape, loss::Loss};
use striate_torch::{TensorFile, set_num_threads};
use tch::{Kind, Tensor};

pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// What is compared with PyTorch.
pub(crate) enum Subject {
    Layer(Op, Mode),
    Loss(Loss),
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) subject: Subject,
}

/// What PyTorch was given and what it made of it; the names are told in `make_goldens.py`.
#[derive(Default)]
pub(crate) struct Golden {
    pub(crate) given: Tensors,
    pub(crate) expected: Tensors,
}

impl Golden {
    /// The same golden with every tensor changed.
    pub(crate) fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        let change = |part: &Tensors| part.iter().map(|(name, tensor)| (name.clone(), change(tensor))).collect();
        Self { given: change(&self.given), expected: change(&self.expected) }
    }
}

/// The content of the golden file.
#[derive(Default)]
pub(crate) struct Goldens {
    pub(crate) cases: BTreeMap<String, Golden>,
    pub(crate) inits: BTreeMap<String, Tensors>,
    pub(crate) init_seed: u64,
}

/// Reads the golden file, for tests that run on one thread each.
pub(crate) fn goldens() -> Goldens {
    set_num_threads(1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/layers.safetensors");
    let file = TensorFile::read(&path).unwrap();
    assert!(file.metadata["torch"].starts_with("2.13."), "{:?}", file.metadata);
    let mut goldens = Goldens::default();
    for (name, tensor) in file.tensors {
        match name.split('/').collect::<Vec<_>>()[..] {
            ["init", "seed"] => goldens.init_seed = tensor.int64_value(&[]).unsigned_abs(),
            ["init", case, key] => drop(goldens.inits.entry(case.into()).or_default().insert(key.into(), tensor)),
            [case, "given", key] => drop(goldens.cases.entry(case.into()).or_default().given.insert(key.into(), tensor)),
            [case, "expected", key] => drop(goldens.cases.entry(case.into()).or_default().expected.insert(key.into(), tensor)),
            _ => panic!("unknown name {name}"),
        }
    }
    goldens
}

impl Case {
    /// The output, the gradients and the state afterwards, under the golden's names.
    pub(crate) fn run(&self, given: &Tensors) -> Result<Tensors, Box<dyn Error>> {
        // Layers may write to what they are given, as batch norm does.
        let mut given: Tensors = given.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let upstream = take(&mut given, "upstream")?;
        let mut leaves = BTreeMap::new();
        let mut inputs = Vec::new();
        while let Some(input) = given.remove(&format!("input{}", inputs.len())) {
            let input = input.set_requires_grad(true);
            leaves.insert(format!("input{}", inputs.len()), input.shallow_clone());
            inputs.push(input);
        }
        let mut results = Tensors::new();
        let output = match &self.subject {
            Subject::Loss(loss) => loss.compute(inputs.first().ok_or("no input0")?, &take(&mut given, "targets")?)?,
            Subject::Layer(op, mode) => {
                let (output, params) = forward(op, *mode, &inputs, &mut given)?;
                leaves.extend(params.trainable);
                results.extend(params.buffers.into_iter().map(|(name, tensor)| (format!("after.{name}"), tensor)));
                output
            }
        };
        if let Some(name) = given.keys().next() {
            return Err(format!("{name} is not used").into());
        }
        // The gradient of this sum with respect to the output is `upstream`.
        (&output * upstream).sum(output.kind()).f_backward()?;
        results.extend(leaves.into_iter().map(|(name, leaf)| (format!("grad.{name}"), leaf.grad())));
        results.insert("output".to_owned(), output.detach());
        Ok(results)
    }
}

/// The parameters of a layer by name, and in the order that it takes them.
struct Params {
    ordered: Vec<Tensor>,
    trainable: Tensors,
    buffers: Tensors,
}

impl Params {
    /// Takes what `Layer::params` asks for, and checks the shapes that it tells.
    fn take(op: &Op, inputs: &[Shape], given: &mut Tensors) -> Result<Self, Box<dyn Error>> {
        let mut params = Self { ordered: Vec::new(), trainable: Tensors::new(), buffers: Tensors::new() };
        for spec in op.layer().params(inputs) {
            let tensor = take(given, spec.name)?;
            if tensor.size() != spec.shape {
                return Err(format!("{} is {:?}, PyTorch's {:?}", spec.name, spec.shape, tensor.size()).into());
            }
            let trainable = spec.kind == ParamKind::Trainable;
            let tensor = tensor.set_requires_grad(trainable);
            let of_kind = if trainable { &mut params.trainable } else { &mut params.buffers };
            of_kind.insert(spec.name.to_owned(), tensor.shallow_clone());
            params.ordered.push(tensor);
        }
        Ok(params)
    }
}

/// The output, whose shape must be the one that `Layer::output_shape` tells, and the parameters.
fn forward(op: &Op, mode: Mode, inputs: &[Tensor], given: &mut Tensors) -> Result<(Tensor, Params), Box<dyn Error>> {
    let shapes: Vec<Shape> = inputs.iter().map(Shape::of_batch).collect();
    let promised = op.layer().output_shape(&shapes)?;
    let params = Params::take(op, &shapes, given)?;
    let output = op.forward(&params.ordered, &inputs.iter().collect::<Vec<_>>(), mode)?;
    if Shape::of_batch(&output) != promised {
        return Err(format!("output_shape tells {promised}, the output has {:?}", output.size()).into());
    }
    Ok((output, params))
}

fn take(tensors: &mut Tensors, name: &str) -> Result<Tensor, String> {
    tensors.remove(name).ok_or_else(|| format!("{name} is missing"))
}

/// How far a value may be from the expected one: the larger of the two bounds.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) relative: f64,
    pub(crate) absolute: f64,
}

/// Both must have the same names, and under each the same kind, shape and, within the tolerance, values.
pub(crate) fn compare(expected: &Tensors, got: &Tensors, tolerance: Tolerance) -> Result<(), Box<dyn Error>> {
    if !expected.keys().eq(got.keys()) {
        return Err(format!("PyTorch has {:?}, we have {:?}", expected.keys(), got.keys()).into());
    }
    for (name, expected) in expected {
        let got = &got[name];
        if !got.defined() || (got.kind(), got.size()) != (expected.kind(), expected.size()) {
            return Err(format!("{name} is {got:?}, PyTorch's {expected:?}").into());
        }
        let [got, expected] = [got, expected].map(|tensor| tensor.to_kind(Kind::Double));
        let allowed = (expected.abs() * tolerance.relative).clamp_min(tolerance.absolute);
        let difference = (got - expected).abs();
        // Not `difference > allowed`: NaN must fail.
        if !bool::try_from(difference.le_tensor(&allowed).all())? {
            let excess = (difference - allowed).max().double_value(&[]);
            return Err(format!("{name} differs by {excess:e} more than allowed").into());
        }
    }
    Ok(())
}
