//! Linear layers, with the kernel that is the fastest for each and its weight as that wants it.
use crate::step::{Params, Scales, apply, finish};
use striate_layers::LayerError;
use striate_torch::int8::{self, Scale};
use striate_torch::onednn::{self, Post};
use striate_torch::{Frozen, TorchError, cudnn, pointwise};
use tch::{Kind as Type, Tensor};

/// The batch that bfloat16 weights are packed for by oneDNN; it is as good for others.
const TYPICAL_BATCH: i64 = 16;

#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) kernel: Kernel,
    post: Post,
}

#[derive(Debug)]
pub(crate) enum Kernel {
    Pointwise(pointwise::Weight),
    OneDnn(Params<Frozen>),
    Int8(int8::Linear),
    Plain(Params<Frozen>),
}

impl Kernel {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pointwise(_) => "pointwise",
            Self::OneDnn(_) | Self::Int8(_) => "oneDNN",
            Self::Plain(_) => "",
        }
    }
}

impl Linear {
    /// In this type; `onednn` says whether oneDNN takes it.
    pub(crate) fn new(params: &Params, post: Post, kind: Type, onednn: bool) -> Result<Self, TorchError> {
        let kernel = if onednn && pointwise::suits(kind, params.weight.size()[1]) {
            Kernel::Pointwise(pointwise::Weight::new(&params.weight.f_to_kind(kind)?, params.bias.as_ref())?)
        } else {
            let mut own = params.cast(kind)?;
            own.weight = own.weight.f_contiguous()?;
            match (onednn, kind) {
                (true, Type::BFloat16) => {
                    Kernel::OneDnn(Params { weight: onednn::pack_linear(&own.weight, TYPICAL_BATCH)?, ..own }.freeze())
                }
                (true, _) => Kernel::OneDnn(own.freeze()),
                (false, _) => Kernel::Plain(own.freeze()),
            }
        };
        Ok(Self { kernel, post })
    }

    /// For examples whose bytes have this scale.
    pub(crate) fn int8(params: &Params, post: Post, scale: Scale) -> Result<Self, TorchError> {
        Ok(Self { kernel: Kernel::Int8(int8::Linear::new(&params.weight, params.bias.as_ref(), scale)?), post })
    }

    pub(crate) fn run(&self, input: &Tensor, scales: Option<&Scales>) -> Result<Tensor, LayerError> {
        let relu = self.post == Post::Relu;
        match &self.kernel {
            Kernel::Pointwise(weight) => finish(self.post, weight.linear(input, relu)?),
            Kernel::OneDnn(Params { weight, bias }) => Ok(onednn::linear(input, weight, bias.as_deref(), self.post)?),
            Kernel::Int8(linear) => finish(self.post, linear.forward(input, relu, scales.and_then(Scales::of_output))?),
            Kernel::Plain(Params { weight, bias: Some(bias) }) if relu && input.device().is_cuda() && input.dim() == 2 => {
                Ok(cudnn::linear_relu(input, weight, bias)?)
            }
            Kernel::Plain(Params { weight, bias }) => apply(self.post, input.f_linear(weight, bias.as_deref())?),
        }
    }
}
