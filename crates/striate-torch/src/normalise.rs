//! Bytes of pixels as the values that networks take.
//!
//! In Rust, unlike the other kernels: its compiler never makes one rounding of two, so every level of instructions, and libtorch's
//! multiplication and addition on any device, give the same bits.
use crate::cpu::Level;

/// `byte * scale + shift`, rounded after each, of one channel of pixels of so many bytes. Writes as many values as there are pixels, or
/// as `out` has room for; none if the pixels have no such channel.
pub fn normalise(pixels: &[u8], [channels, channel]: [usize; 2], [scale, shift]: [f32; 2], out: &mut [f32]) {
    at(Level::in_use(), pixels, [channels, channel], [scale, shift], out);
}

fn at(level: Level, pixels: &[u8], channels: [usize; 2], by: [f32; 2], out: &mut [f32]) {
    match level {
        // SAFETY: the level in use is one that the processor has.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { with_avx512(pixels, channels, by, out) },
        // SAFETY: likewise.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { with_avx2(pixels, channels, by, out) },
        _ => each(pixels, channels, by, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512(pixels: &[u8], channels: [usize; 2], by: [f32; 2], out: &mut [f32]) {
    each(pixels, channels, by, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(pixels: &[u8], channels: [usize; 2], by: [f32; 2], out: &mut [f32]) {
    each(pixels, channels, by, out);
}

#[inline(always)]
fn each(pixels: &[u8], [channels, channel]: [usize; 2], [scale, shift]: [f32; 2], out: &mut [f32]) {
    if channel >= channels {
        return;
    }
    let normal = |(out, value): (&mut f32, u8)| *out = f32::from(value) * scale + shift;
    match channels {
        1 => out.iter_mut().zip(pixels.iter().copied()).for_each(normal),
        3 => out.iter_mut().zip(pixels.as_chunks::<3>().0.iter().map(|pixel| pixel[channel])).for_each(normal),
        _ => out.iter_mut().zip(pixels.iter().copied().skip(channel).step_by(channels)).for_each(normal),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_rounded_twice_at_every_level() {
        // ImageNet's red: one rounding in place of two would change 133 of the 256 values.
        let by = [(1.0 / (255.0 * 0.229)) as f32, (-0.485 / 0.229) as f32];
        let expected = |value: u8| {
            let scaled = std::hint::black_box(f32::from(value) * by[0]);
            scaled + by[1]
        };
        let fused = (0..=255).filter(|value| f32::from(*value).mul_add(by[0], by[1]) != expected(*value)).count();
        assert!(fused > 30, "{fused}");
        let mut untouched = [7.0];
        [[3, 3], [0, 0]].into_iter().for_each(|channels| normalise(&[1; 6], channels, by, &mut untouched));
        assert_eq!(untouched, [7.0]);
        for level in Level::ALL.into_iter().filter(|level| *level <= Level::of_processor()) {
            for channels in 1..=4 {
                for count in [0, 1, 7, 256, 300] {
                    let pixels: Vec<u8> = (0..count * channels).map(|index| (index * 37 % 256) as u8).collect();
                    for channel in 0..channels {
                        let mut out = vec![f32::NAN; count];
                        at(level, &pixels, [channels, channel], by, &mut out);
                        let values = pixels.chunks(channels).map(|pixel| expected(pixel[channel]));
                        assert!(out.iter().copied().eq(values), "{level:?}, {count} pixels of {channels}");
                    }
                }
            }
        }
    }
}
