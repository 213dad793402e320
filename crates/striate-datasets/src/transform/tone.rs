//! Changes of each value by itself, as Pillow's `ImageOps` make them.

use crate::Pixels;

at_random! {
    /// Turns every value around: what was dark is bright.
    RandomInvert {}, p = 0.5, "invert", |_| Ok(()), |_, picture| invert(picture)
}

at_random! {
    /// Turns the values from a threshold on around.
    RandomSolarise {
        /// The least value that is turned.
        threshold: u8 = 128,
    }, p = 0.5, "solarise", |_| Ok(()), |transform, picture| solarise(picture, f64::from(transform.threshold))
}

at_random! {
    /// Keeps only the highest bits of each value.
    RandomPosterise {
        /// How many.
        bits: u8 = 4,
    }, p = 0.5, "posterise",
    |transform| super::check(transform.bits <= 8, "posterise.bits", transform.bits, "from 0 to 8"),
    |transform, picture| posterise(picture, transform.bits)
}

at_random! {
    /// Spreads the values of each channel so that all are about as frequent.
    RandomEqualise {}, p = 0.5, "equalise", |_| Ok(()), |_, picture| equalise(picture)
}

at_random! {
    /// Stretches the values of each channel from 0 to 255.
    RandomAutocontrast {}, p = 0.5, "autocontrast", |_| Ok(()), |_, picture| autocontrast(picture)
}

/// A new value for each value.
type Table = [u8; 256];

fn table(value: impl FnMut(u8) -> u8) -> Table {
    let mut values: Table = std::array::from_fn(|index| index as u8);
    let mut value = value;
    values.iter_mut().for_each(|entry| *entry = value(*entry));
    values
}

/// The picture with each value replaced by its entry.
pub(super) fn mapped<'p>(picture: Pixels<'p>, value: impl FnMut(u8) -> u8) -> Pixels<'p> {
    let table = table(value);
    picture.map(|data| data.iter_mut().for_each(|value| *value = table[usize::from(*value)]))
}

/// The same with a table for each channel, which is made of how often each value occurs there.
fn mapped_by_counts<'p>(picture: Pixels<'p>, of_counts: impl Fn(&[u32; 256]) -> Table) -> Pixels<'p> {
    let channels = picture.channels;
    let of_channel = |channel: usize| {
        let mut counts = [0_u32; 256];
        picture.data[channel..].iter().step_by(channels).for_each(|value| counts[usize::from(*value)] += 1);
        of_counts(&counts)
    };
    let tables: Vec<Table> = (0..channels).map(of_channel).collect();
    picture.map(|data| {
        for (channel, table) in tables.iter().enumerate() {
            data[channel..].iter_mut().step_by(channels).for_each(|value| *value = table[usize::from(*value)]);
        }
    })
}

pub(super) fn invert(picture: Pixels<'_>) -> Pixels<'_> {
    mapped(picture, |value| !value)
}

pub(super) fn solarise(picture: Pixels<'_>, threshold: f64) -> Pixels<'_> {
    mapped(picture, |value| if f64::from(value) < threshold { value } else { !value })
}

pub(super) fn posterise(picture: Pixels<'_>, bits: u8) -> Pixels<'_> {
    let mask = !(0xff_u32 >> bits) as u8;
    mapped(picture, |value| value & mask)
}

pub(super) fn equalise(picture: Pixels<'_>) -> Pixels<'_> {
    mapped_by_counts(picture, |counts| {
        let total: u32 = counts.iter().sum();
        let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or_default();
        match (total - last) / 255 {
            0 => table(|value| value),
            step => {
                let mut sum = step / 2;
                table(|value| {
                    let entry = (sum / step).min(255) as u8;
                    sum += counts[usize::from(value)];
                    entry
                })
            }
        }
    })
}

pub(super) fn autocontrast(picture: Pixels<'_>) -> Pixels<'_> {
    mapped_by_counts(picture, |counts| {
        let occurs = |count: &u32| *count > 0;
        let (low, high) = (counts.iter().position(occurs), counts.iter().rposition(occurs));
        match low.zip(high) {
            Some((low, high)) if high > low => {
                let scale = 255.0 / (high - low) as f64;
                let offset = -(low as f64) * scale;
                // Converting clips.
                table(|value| (f64::from(value) * scale + offset) as u8)
            }
            _ => table(|value| value),
        }
    })
}
