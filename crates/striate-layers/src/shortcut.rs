use crate::shape::{one, positive};
use crate::{Forward, Layer, LayerError, Mode, Pair, Receptive, Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Where a [`PadShortcut`] puts its channels of zeros. Weights fit either way, but answer rightly only in the one that they
/// were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ZeroChannels {
    /// All behind the input's.
    #[default]
    Behind,
    /// Half of them before the input's channels and the rest behind, as in the CIFAR-10 ResNets of akamaster.
    Around,
}

/// The shortcut of a residual block without parameters where a stage begins ("option A" of He 2015, arXiv:1512.03385, section
/// 3.3): every `stride`-th value of height and width, and channels of zeros up to `out_channels`. `[N, C, H, W]` to
/// `[N, out_channels, ceil(H / stride), ceil(W / stride)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadShortcut {
    /// Channels of the output, at least those of the input.
    pub out_channels: i64,
    /// The distance between the values that are kept.
    pub stride: Pair,
    /// Where the zeros are.
    #[serde(default)]
    pub zeros: ZeroChannels,
}

impl PadShortcut {
    /// Keeps every `stride`-th value and fills up to `out_channels` channels, with the zeros behind.
    pub fn new(out_channels: i64, stride: impl Into<Pair>) -> Self {
        Self { out_channels, stride: stride.into(), zeros: ZeroChannels::default() }
    }

    /// With the zeros there.
    #[must_use]
    pub fn zeros(self, zeros: ZeroChannels) -> Self {
        Self { zeros, ..self }
    }
}

impl Layer for PadShortcut {
    fn name(&self) -> &'static str {
        "PadShortcut"
    }

    fn describe(&self) -> String {
        let stride = self.stride.0[0];
        match self.zeros {
            ZeroChannels::Behind => format!("1x1/{stride}"),
            ZeroChannels::Around => format!("1x1/{stride}, zeros around"),
        }
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let [channels, height, width] = one(inputs)?.as_image()?;
        positive("out_channels", self.out_channels)?;
        for stride in self.stride.0 {
            positive("stride", stride)?;
        }
        if self.out_channels < channels {
            let reason = format!("is fewer than the {channels} input channels: zeros can only add channels");
            return Err(LayerError::option(format!("out_channels = {}", self.out_channels), reason));
        }
        let kept = |axis: usize, size: i64| (size + self.stride.0[axis] - 1) / self.stride.0[axis];
        Ok(Shape::image(self.out_channels, kept(0, height), kept(1, width)))
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Window { kernel: 1.into(), stride: self.stride, dilation: 1.into() }
    }
}

impl Forward for PadShortcut {
    fn forward(&self, _params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        let [channels, _, _] = Shape::of_batch(input).as_image()?;
        let [down, across] = self.stride.0;
        let kept = input.f_slice(2, None, None, down)?.f_slice(3, None, None, across)?;
        let added = self.out_channels - channels;
        let before = match self.zeros {
            ZeroChannels::Behind => 0,
            ZeroChannels::Around => added / 2,
        };
        Ok(kept.f_constant_pad_nd([0, 0, 0, 0, before, added - before])?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_every_second_value_and_adds_channels_of_zeros() {
        let x = Tensor::arange(15, (tch::Kind::Float, tch::Device::Cpu)).view([1, 1, 3, 5]);
        let shortcut = PadShortcut::new(3, 2);
        let y = shortcut.forward(&[], &[&x], Mode::Train).unwrap();
        assert_eq!(shortcut.output_shape(&[Shape::image(1, 3, 5)]).unwrap(), Shape::of_batch(&y));
        let values = Vec::<f32>::try_from(y.view([-1])).unwrap();
        assert_eq!(values[..6], [0.0, 2.0, 4.0, 10.0, 12.0, 14.0]);
        assert_eq!(values[6..], [0.0; 12]);
    }

    /// akamaster's `F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))` of two channels with `planes = 4`.
    #[test]
    fn zeros_may_stand_around_the_channels() {
        let x = Tensor::from_slice(&[1_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).view([1, 2, 2, 2]);
        let channels =
            |shortcut: PadShortcut| Vec::<f32>::try_from(shortcut.forward(&[], &[&x], Mode::Eval).unwrap().view([-1])).unwrap();
        assert_eq!(channels(PadShortcut::new(4, 2).zeros(ZeroChannels::Around)), [0.0, 1.0, 5.0, 0.0]);
        assert_eq!(channels(PadShortcut::new(4, 2)), [1.0, 5.0, 0.0, 0.0]);
        assert_eq!(channels(PadShortcut::new(5, 2).zeros(ZeroChannels::Around)), [0.0, 1.0, 5.0, 0.0, 0.0]);
    }

    #[test]
    fn it_fits_the_3x3_convolution_beside_it_at_any_size() {
        let convolution = crate::Conv2d::new(8, 3).padding(1).stride(2);
        for size in 1..9 {
            let input = [Shape::image(4, size, 9 - size)];
            assert_eq!(PadShortcut::new(8, 2).output_shape(&input), convolution.output_shape(&input));
        }
    }

    #[test]
    fn channels_cannot_be_taken_away() {
        let error = PadShortcut::new(2, 1).output_shape(&[Shape::image(3, 4, 4)]).unwrap_err().to_string();
        assert_eq!(error, "out_channels = 2 is fewer than the 3 input channels: zeros can only add channels");
        assert!(PadShortcut::new(3, 0).output_shape(&[Shape::image(3, 4, 4)]).is_err());
    }
}
