//! What layers draw for a batch of which this process computes a part: the rows that one process would draw for the whole.
use crate::LayerError;
use striate_torch::distributed::{BatchPart, batch_part};
use striate_torch::{MemoryFormat, memory_format, to_memory_format};
use tch::Tensor;

/// The part of a batch that is computed now, if it is a part.
pub(crate) fn part() -> Option<BatchPart> {
    batch_part()
}

/// For each value of a tensor of this size 0, or with probability `survival` its inverse. The tensor lies in memory as `like`, whose
/// rows are those of `part`.
pub(crate) fn kept(part: &BatchPart, size: &[i64], survival: f64, like: &Tensor) -> Result<Tensor, LayerError> {
    let mut whole = size.to_vec();
    whole[0] = part.total;
    let mut drawn = Tensor::f_empty(whole, (like.kind(), like.device()))?;
    if like.size() == size && memory_format(like) == Some(MemoryFormat::ChannelsLast) {
        drawn = to_memory_format(&drawn, MemoryFormat::ChannelsLast)?;
    }
    Ok(drawn.f_bernoulli_float_(survival)?.f_div_scalar_(survival)?.f_narrow(0, part.first, size[0])?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{Dropout, Forward, Mode, StochasticDepth};
    use striate_torch::distributed::{BatchPart, in_part};
    use striate_torch::{MemoryFormat, to_memory_format};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn parts_draw_what_the_whole_draws() {
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        let images = random(&[5, 16, 3, 7]);
        let inputs =
            [random(&[5, 33]), to_memory_format(&images, MemoryFormat::ChannelsLast).unwrap(), images, random(&[5, 4096])];
        let layers: [&dyn Forward; 2] = [&Dropout::new(0.3), &StochasticDepth::new(0.4)];
        for (input, layer) in inputs.iter().flat_map(|input| layers.map(|layer| (input, layer))) {
            // One after another, as in a network.
            let run = |rows: &Tensor| {
                striate_torch::manual_seed(11);
                [0, 1].map(|_| layer.forward(&[], &[rows], Mode::Train).unwrap())
            };
            let whole = run(input);
            let parts = [(0, 2), (2, 3)].map(|(first, len)| {
                let _part = in_part(BatchPart { first, total: 5, norms: None });
                run(&input.narrow(0, first, len))
            });
            for (place, whole) in whole.iter().enumerate() {
                assert_eq!(Tensor::cat(&[&parts[0][place], &parts[1][place]], 0), *whole);
            }
            assert_ne!(whole[0], whole[1]);
        }
    }
}
