//! Which kernel serves which convolution: the one table, for training and for plans.
use crate::onednn::{self, Post};
use crate::winograd::{self, LANES, TILE};
use crate::{conv, cudnn, pointwise};
use tch::{Device, Kind};

/// What computes a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// libtorch's own operator.
    Libtorch,
    /// oneDNN's, on a packed weight: [`onednn`].
    OneDnn,
    /// cuDNN's, with the ReLU after it: [`cudnn`].
    CuDnn,
    /// A matrix product of pixels and weights: [`pointwise`].
    Pointwise,
    /// Winograd's algorithm: [`winograd`].
    Winograd,
    /// Matrix products of windows and weights: [`conv`] with gradients, [`pointwise`] without.
    Windows,
}

/// What a convolution is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Training: gradients are needed, and weights change with each step.
    Training,
    /// A plan: the weight is packed once, and this follows the convolution.
    Plan(Post),
}

/// oneDNN's convolutions are as fast as products of windows where an image takes more multiplications than this, since what each call costs does not count there,
/// and a window has more values.
const FEW_PRODUCTS: i64 = 1 << 24;
const FEW_VALUES: i64 = 64;

/// A convolution of images of one size. Pairs are height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Channels of the images.
    pub in_channels: i64,
    /// Channels of what it gives.
    pub out_channels: i64,
    /// The window's size.
    pub kernel_size: [i64; 2],
    /// The window's step.
    pub stride: [i64; 2],
    /// The distance between the values that it reads.
    pub dilation: [i64; 2],
    /// Zeros before and after the image, along each axis.
    pub pads: [(i64, i64); 2],
    /// Groups of channels.
    pub groups: i64,
    /// The images' size.
    pub image: [i64; 2],
    /// The images' type.
    pub kind: Kind,
    /// The weight's type.
    pub weight_kind: Kind,
    /// Where it is computed.
    pub device: Device,
}

impl Convolution {
    /// The fastest kernel for a batch of so many images.
    pub fn kernel(&self, batch: i64, purpose: Purpose) -> Kernel {
        match purpose {
            Purpose::Training => self.for_training(batch),
            Purpose::Plan(post) => self.for_plan(batch, post),
        }
    }

    fn for_training(&self, batch: i64) -> Kernel {
        let half = match self.kind {
            Kind::Float => false,
            Kind::BFloat16 => true,
            _ => return Kernel::Libtorch,
        };
        let ours = self.device == Device::Cpu && self.weight_kind == Kind::Float && winograd::available();
        if !ours || !self.has_whole_lanes() || self.groups != 1 || !self.pads_evenly() {
            return Kernel::Libtorch;
        }
        let narrowest = self.in_channels.min(self.out_channels);
        if narrowest >= 32 && self.tiles().is_some_and(|tiles| self.winograd_trains_faster(tiles, batch, half)) {
            return Kernel::Winograd;
        }
        // Where a window moves by one pixel, libtorch's gradient is as fast; in bfloat16 ours is faster from 64 channels on.
        let moves_apart = self.kernel_size == [1, 1] || self.stride != [1, 1];
        if conv::suits(self.kind) && (moves_apart || half && narrowest >= 64) { Kernel::Windows } else { Kernel::Libtorch }
    }

    /// With few tiles, transforming the weights costs more than it saves. In bfloat16, whose products are twice as fast, so do
    /// tiles that reach far beyond the map.
    fn winograd_trains_faster(&self, tiles: i64, batch: i64, half: bool) -> bool {
        let pixels: i64 = (0..2).map(|axis| self.image[axis] + 2 * self.pads[axis].0 - 2).product();
        match half {
            true => tiles * batch >= 128 && tiles * TILE * TILE * 8 <= pixels * 9,
            false => tiles * batch >= 16,
        }
    }

    fn for_plan(&self, batch: i64, post: Post) -> Kernel {
        if self.device.is_cuda() && post == Post::Relu && self.groups == 1 && cudnn::takes(self.kind) {
            return Kernel::CuDnn;
        }
        if !onednn::takes(self.device, self.kind) {
            return Kernel::Libtorch;
        }
        // Our kernels know no other activation.
        if !matches!(post, Post::None | Post::Relu) {
            return Kernel::OneDnn;
        }
        let one_pixel = self.kernel_size == [1, 1] && self.groups == 1 && self.pads == [(0, 0); 2];
        if one_pixel && pointwise::suits(self.kind, self.in_channels) {
            return Kernel::Pointwise;
        }
        if self.tiles().is_none() && self.has_fast_windows() {
            return Kernel::Windows;
        }
        // With fewer tiles, reading the weights is all that counts. Winograd's are four times as large as float32 ones.
        let many = if self.kind == Kind::BFloat16 { 64 } else { 16 };
        match self.tiles().filter(|_| winograd::available()) {
            Some(tiles) if tiles.saturating_mul(batch) >= many => Kernel::Winograd,
            _ => Kernel::OneDnn,
        }
    }

    /// The tiles of one image, if Winograd's algorithm computes this convolution: 3x3 at stride 1, with whole vectors of channels.
    fn tiles(&self) -> Option<i64> {
        let window = self.kernel_size == [3, 3] && [self.stride, self.dilation] == [[1, 1]; 2] && self.groups == 1;
        let padding = self.pads_evenly() && self.pads.iter().all(|(before, _)| *before <= 2);
        let tiles = |axis: usize| (self.image[axis] + 2 * self.pads[axis].0 - 2 + TILE - 1) / TILE;
        (window && padding && self.has_whole_lanes()).then(|| tiles(0) * tiles(1))
    }

    /// Whether its windows, whose rows are rows of the image's values, are multiplied faster than by oneDNN.
    fn has_fast_windows(&self) -> bool {
        let [height, width] = self.kernel_size;
        let values = self.in_channels * height * width;
        let places = |axis: usize| {
            let (before, after) = self.pads[axis];
            (self.image[axis] + before + after - self.kernel_size[axis]) / self.stride[axis].max(1) + 1
        };
        let products = [values, self.out_channels, places(0), places(1)].into_iter().fold(1, i64::saturating_mul);
        self.groups == 1
            && self.dilation == [1, 1]
            && (products <= FEW_PRODUCTS || values <= FEW_VALUES)
            && pointwise::suits(self.kind, self.in_channels * width)
    }

    fn pads_evenly(&self) -> bool {
        self.pads.iter().all(|(before, after)| before == after)
    }

    fn has_whole_lanes(&self) -> bool {
        self.in_channels % LANES == 0 && self.out_channels % LANES == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3x3 convolution that keeps the size.
    fn three(channels: i64, side: i64, kind: Kind) -> Convolution {
        Convolution {
            in_channels: channels,
            out_channels: channels,
            kernel_size: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [(1, 1); 2],
            groups: 1,
            image: [side, side],
            kind,
            weight_kind: Kind::Float,
            device: Device::Cpu,
        }
    }

    fn one(channels: i64, side: i64, kind: Kind) -> Convolution {
        Convolution { kernel_size: [1, 1], pads: [(0, 0); 2], ..three(channels, side, kind) }
    }

    fn on_cuda(convolution: Convolution) -> Convolution {
        Convolution { device: Device::Cuda(0), ..convolution }
    }

    #[test]
    fn each_convolution_has_its_kernel() {
        use Kernel::{CuDnn, Libtorch, OneDnn, Pointwise, Windows, Winograd};
        use Kind::{BFloat16, Double, Float, Half};
        let (train, plan) = (Purpose::Training, Purpose::Plan(Post::Relu));
        let table = [
            // 16 tiles of a 14x14 map, 4 of 7x7, 64 of 32x32.
            (three(64, 14, Float), 1, train, Winograd),
            (three(64, 7, Float), 3, train, Libtorch),
            (three(64, 7, Float), 4, train, Winograd),
            (three(16, 14, Float), 8, train, Libtorch),
            (three(24, 14, Float), 8, train, Libtorch),
            (three(64, 32, BFloat16), 1, train, Windows),
            (three(64, 32, BFloat16), 2, train, Winograd),
            (three(32, 32, BFloat16), 1, train, Libtorch),
            // 256 pixels of tiles for 196 of the map.
            (three(64, 14, BFloat16), 64, train, Windows),
            (Convolution { stride: [2, 2], ..three(64, 14, Float) }, 8, train, Windows),
            (Convolution { pads: [(0, 1); 2], ..three(64, 14, Float) }, 8, train, Libtorch),
            (Convolution { groups: 2, ..three(64, 14, Float) }, 8, train, Libtorch),
            (Convolution { weight_kind: Double, ..three(64, 14, Float) }, 8, train, Libtorch),
            (on_cuda(three(64, 14, Float)), 8, train, Libtorch),
            (three(64, 14, Double), 8, train, Libtorch),
            (one(64, 14, Float), 1, train, Windows),
            (one(64, 14, BFloat16), 1, train, Windows),
            (one(64, 14, Float), 1, plan, Pointwise),
            (one(3, 14, BFloat16), 1, plan, OneDnn),
            (Convolution { pads: [(1, 1); 2], ..one(64, 14, Float) }, 1, plan, Windows),
            (Convolution { pads: [(1, 1); 2], ..one(128, 224, Float) }, 1, plan, OneDnn),
            (three(24, 14, Float), 1, plan, Windows),
            (three(24, 14, BFloat16), 1, plan, Windows),
            (three(3, 224, Float), 16, plan, Windows),
            (Convolution { kernel_size: [7, 7], out_channels: 64, ..three(3, 224, Float) }, 1, plan, OneDnn),
            (three(3, 14, BFloat16), 1, plan, OneDnn),
            (three(16, 4, Float), 1, plan, OneDnn),
            (Convolution { pads: [(0, 1); 2], ..three(3, 14, Float) }, 1, plan, Windows),
            (Convolution { groups: 3, ..three(3, 14, Float) }, 1, plan, OneDnn),
            (Convolution { dilation: [1, 2], ..three(3, 14, Float) }, 1, plan, OneDnn),
            (three(3, 14, Float), 1, Purpose::Plan(Post::Tanh), OneDnn),
            (three(64, 14, Float), 1, plan, Winograd),
            (three(64, 7, Float), 3, plan, OneDnn),
            (three(64, 7, Float), 4, plan, Winograd),
            (three(64, 14, BFloat16), 3, plan, OneDnn),
            (three(64, 14, BFloat16), 4, plan, Winograd),
            (Convolution { pads: [(3, 3); 2], ..three(64, 14, Float) }, 8, plan, Windows),
            (Convolution { dilation: [2, 2], ..three(64, 14, Float) }, 8, plan, OneDnn),
            (Convolution { out_channels: 24, ..three(64, 14, Float) }, 8, plan, Windows),
            (three(64, 14, Float), 8, Purpose::Plan(Post::Tanh), OneDnn),
            (one(64, 14, Float), 8, Purpose::Plan(Post::Sigmoid), OneDnn),
            (three(64, 14, Double), 8, plan, Libtorch),
            (on_cuda(one(64, 14, Float)), 8, plan, CuDnn),
            (on_cuda(three(3, 14, Half)), 1, plan, CuDnn),
            (on_cuda(three(64, 7, BFloat16)), 1, plan, CuDnn),
            (on_cuda(Convolution { pads: [(0, 1); 2], ..three(64, 14, Half) }), 8, plan, CuDnn),
            (on_cuda(Convolution { groups: 2, ..three(64, 14, Half) }), 8, plan, Libtorch),
            (on_cuda(three(64, 14, Double)), 8, plan, Libtorch),
            (on_cuda(three(64, 14, Half)), 8, Purpose::Plan(Post::None), Libtorch),
            (on_cuda(three(64, 14, Half)), 8, Purpose::Plan(Post::Tanh), Libtorch),
        ];
        let halves = onednn::supports_bf16() && pointwise::takes(BFloat16, 2);
        for (convolution, batch, purpose, expected) in table {
            if convolution.kind == BFloat16 && !convolution.device.is_cuda() && !halves {
                continue;
            }
            // Without wide vectors none is ours.
            let expected = match expected {
                Pointwise | Winograd | Windows if !winograd::available() && purpose == train => Libtorch,
                Pointwise | Winograd | Windows if !winograd::available() => OneDnn,
                other => other,
            };
            assert_eq!(convolution.kernel(batch, purpose), expected, "{convolution:?}, {batch}, {purpose:?}");
        }
    }
}
