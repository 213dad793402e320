use crate::{Forward, Layer, LayerError, Mode, ParamKind, ParamSpec, Shape, infer_shape};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor, nn};

/// A layer that stands alone, with its parameters in a [`tch::nn::VarStore`].
///
/// A layer with one input is also a [`tch::nn::ModuleT`], so that it fits into a `tch::nn::SequentialT`; as everywhere in
/// tch, that form panics where [`Module::forward`] returns an error.
#[derive(Debug)]
pub struct Module<L> {
    layer: L,
    params: Vec<Tensor>,
}

impl<L: Forward> Module<L> {
    /// Makes the layer's parameters under `path`, for inputs of these shapes, drawn from `generator`.
    ///
    /// Fails if the inputs don't fit the layer, or if a parameter of that name exists already.
    pub fn new(path: &nn::Path, layer: L, inputs: &[Shape], generator: &mut Generator) -> Result<Self, LayerError> {
        infer_shape(&layer, inputs)?;
        let params = create_params(&layer, inputs, path.kind(), Some(generator))?;
        if let Some((spec, _)) = params.iter().find(|(spec, _)| path.get(spec.name).is_some()) {
            return Err(LayerError::NameTaken { name: path.path(spec.name) });
        }
        let add = |(spec, tensor): (ParamSpec, Tensor)| {
            let tensor = tensor.f_to_device(path.device())?;
            Ok(path.add(spec.name, tensor, spec.kind == ParamKind::Trainable))
        };
        let params = params.into_iter().map(add).collect::<Result<_, LayerError>>()?;
        Ok(Self { layer, params })
    }

    /// The layer.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// Its parameters, in the order of [`Layer::params`].
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// Computes the output; inputs have the batch as their first dimension.
    pub fn forward(&self, inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
        self.layer.forward(&self.params, inputs, mode)
    }
}

impl<L: Forward> nn::ModuleT for Module<L> {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Tensor {
        let mode = if train { Mode::Train } else { Mode::Eval };
        match self.forward(&[xs], mode) {
            Ok(output) => output,
            Err(error) => panic!("{}: {error}", self.layer.name()),
        }
    }
}

/// The parameters of a layer for inputs of these shapes, on the CPU, initialised in order from `generator`, or zeros without one;
/// floating-point ones are of `kind`.
pub fn create_params(
    layer: &dyn Layer,
    inputs: &[Shape],
    kind: Kind,
    mut generator: Option<&mut Generator>,
) -> Result<Vec<(ParamSpec, Tensor)>, LayerError> {
    let create = |spec: ParamSpec| {
        let kind = if spec.kind == ParamKind::Counter { Kind::Int64 } else { kind };
        let (shape, options) = (spec.shape.as_slice(), (kind, Device::Cpu));
        let Some(generator) = generator.as_deref_mut() else {
            let zeros = Tensor::f_zeros(shape, options)?;
            return Ok((spec, zeros));
        };
        let mut tensor = Tensor::f_empty(shape, options)?;
        spec.init.fill(&mut tensor, spec.fans, generator)?;
        Ok((spec, tensor))
    };
    layer.params(inputs).into_iter().map(create).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::BatchNorm2d;

    #[test]
    fn a_colliding_name_is_an_error() {
        let vs = nn::VarStore::new(Device::Cpu);
        let shape = [Shape::image(4, 2, 2)];
        let mut generator = Generator::new(0);
        Module::new(&(vs.root() / "bn"), BatchNorm2d::new(), &shape, &mut generator).unwrap();
        assert_eq!(vs.trainable_variables().len(), 2);
        assert_eq!(vs.variables()["bn.num_batches_tracked"].kind(), Kind::Int64);
        let error = Module::new(&(vs.root() / "bn"), BatchNorm2d::new(), &shape, &mut generator).unwrap_err();
        assert!(error.to_string().contains("bn.weight exists already"), "{error}");
        assert_eq!(vs.len(), 5);
    }
}
