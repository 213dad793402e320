//! The mean and deviation of a dataset's pixels: of all or of a sample, and kept for the next time.

use crate::cache::fingerprint;
use crate::{Dataset, DatasetError, ImageFolder, Normalise, PictureFile};
use std::path::Path;
use tch::{Device, Tensor};

/// Examples that are counted at one time.
const CHUNK: usize = 256;

/// What [`channel_statistics`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Each channel's mean and standard deviation.
    pub normalise: Normalise,
    /// The number of examples they were computed from.
    pub examples: usize,
}

/// The mean and (population) standard deviation of each channel, with pixels scaled to 0..1.
///
/// If the dataset has more than `sample` examples, it takes that many, evenly spaced; pass
/// `usize::MAX` to take all. The values are exact for the examples taken, because it counts how often
/// each of the 256 values occurs. A channel whose pixels are all equal gets a standard deviation of
/// 1, so that it can be normalised.
///
/// `progress` gets the number of examples done and the total. Return `false` from it to stop.
///
/// ```
/// use striate_datasets::{channel_statistics, digits};
/// let statistics = channel_statistics(&digits()?.train, 200, &mut |done, of| done <= of)?;
/// assert_eq!(statistics.examples, 200);
/// assert!((statistics.normalise.mean[0] - 0.31).abs() < 0.01);
/// # Ok::<(), striate_datasets::DatasetError>(())
/// ```
///
/// # Errors
///
/// A `sample` of none, an example that cannot be read, or [`DatasetError::Interrupted`].
pub fn channel_statistics(
    dataset: &dyn Dataset,
    sample: usize,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Statistics, DatasetError> {
    let (len, channels) = (dataset.len(), dataset.shape()[0]);
    let sample = sample.min(len);
    if sample == 0 {
        return Err(DatasetError::option("sample", format!("statistics need an example, and {} has {len}", dataset.name())));
    }
    // In 128 bits, since the product of two counts may not fit 64.
    let indices: Vec<i64> = (0..sample).map(|index| (index as u128 * len as u128 / sample as u128) as i64).collect();
    let mut counts = vec![[0_i64; 256]; channels.unsigned_abs() as usize];
    for (number, chunk) in indices.chunks(CHUNK).enumerate() {
        if !progress(number * CHUNK, sample) {
            return Err(DatasetError::Interrupted);
        }
        let images = dataset.batch(&Tensor::f_from_slice(chunk)?)?.images;
        for (channel, counts) in counts.iter_mut().enumerate() {
            let pixels = images.f_select(1, channel.cast_signed() as i64)?.f_flatten(0, -1)?;
            let found = Vec::<i64>::try_from(pixels.f_bincount(None::<&Tensor>, 256)?.f_to_device(Device::Cpu)?)?;
            counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
        }
    }
    progress(sample, sample);
    let (mean, std) = counts.iter().map(mean_and_std).unzip();
    Ok(Statistics { normalise: Normalise { mean, std }, examples: sample })
}

fn mean_and_std(counts: &[i64; 256]) -> (f64, f64) {
    let moment = |power: i32| -> f64 {
        counts.iter().enumerate().map(|(value, count)| *count as f64 * (value as f64 / 255.0).powi(power)).sum()
    };
    let total = moment(0);
    let mean = moment(1) / total;
    let values = counts.iter().filter(|count| **count > 0).count();
    (mean, if values > 1 { (moment(2) / total - mean * mean).max(f64::MIN_POSITIVE).sqrt() } else { 1.0 })
}

impl ImageFolder {
    /// As [`channel_statistics`], but keeps the result in Striate's cache folder and takes it from
    /// there the next time, while the files' paths, sizes and times, the preprocessing and the
    /// sample are the same. You may delete the cache at any time.
    ///
    /// # Errors
    ///
    /// See [`channel_statistics`]. An unusable cache is ignored.
    pub fn statistics(&self, sample: usize, progress: &mut dyn FnMut(usize, usize) -> bool) -> Result<Statistics, DatasetError> {
        let cache = striate_fetch::cache_dir().ok().map(|cache| cache.join("statistics"));
        self.statistics_kept_in(cache.as_deref(), sample, progress)
    }

    fn statistics_kept_in(
        &self,
        cache: Option<&Path>,
        sample: usize,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Statistics, DatasetError> {
        let kept = cache.zip(self.fingerprint(sample)).map(|(cache, key)| cache.join(format!("{key}.txt")));
        if let Some(statistics) = kept.as_deref().and_then(|file| read(file, self.shape()[0])) {
            return Ok(statistics);
        }
        let statistics = channel_statistics(self, sample, progress)?;
        if let Some(file) = kept {
            write(&file, &statistics);
        }
        Ok(statistics)
    }

    /// A name for all that the statistics depend on; none if a file is gone.
    fn fingerprint(&self, sample: usize) -> Option<String> {
        let geometry = (self.preprocess().image, self.preprocess().input, self.preprocess().interpolation);
        fingerprint(format!("2 {sample} {geometry:?}\0"), self.files().iter().map(PictureFile::stamp))
    }
}

/// What an earlier process kept, to the last bit; none if the file is not there or not sound.
fn read(file: &Path, channels: i64) -> Option<Statistics> {
    let text = striate_files::read_to_string(file).ok()?;
    let [examples, mean, std] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let list = |text: &str| text.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>().ok();
    let normalise = Normalise { mean: list(mean)?, std: list(std)? };
    normalise.check(channels).ok()?;
    Some(Statistics { normalise, examples: examples.parse().ok()? })
}

fn write(file: &Path, statistics: &Statistics) {
    let write = || {
        let list = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let Normalise { mean, std } = &statistics.normalise;
        let text = format!("{} {} {}", statistics.examples, list(mean), list(std));
        striate_files::write_bytes(file, text)
    };
    if let Err(error) = write() {
        tracing::debug!("statistics are not kept: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::tests::counting;
    use crate::folder::tests::{flowers, preprocess};
    use crate::{InMemory, digits};
    use std::fs;
    use tch::Kind;

    fn of_all(dataset: &dyn Dataset) -> Normalise {
        channel_statistics(dataset, usize::MAX, &mut |_, _| true).unwrap().normalise
    }

    #[test]
    fn statistics_are_those_of_the_pixels() {
        // numpy, over the first 898 of sklearn's digits, scaled and rounded as here
        let Normalise { mean, std } = of_all(&digits().unwrap().train);
        assert!((mean[0] - DIGITS.0).abs() < 1e-9 && (std[0] - DIGITS.1).abs() < 1e-9, "{mean:?} {std:?}");
        let two = counting(CHUNK as i64 + 3, [2, 1, 1]); // channel 0 has the even values, 1 the odd ones
        let stats = of_all(&two);
        let images = two.images().to_kind(Kind::Double) / 255.0;
        for channel in [0, 1] {
            let pixels = images.select(1, channel);
            let expected = (pixels.mean(Kind::Double).double_value(&[]), pixels.std(false).double_value(&[]));
            let got = (stats.mean[channel as usize], stats.std[channel as usize]);
            assert!((got.0 - expected.0).abs() < 1e-9 && (got.1 - expected.1).abs() < 1e-9, "{got:?} {expected:?}");
        }
    }

    const DIGITS: (f64, f64) = (0.307_453_859_884_711_13, 0.377_016_224_453_166_9);

    #[test]
    fn one_colour_has_a_deviation_of_one() {
        let images = Tensor::from_slice(&[90_u8, 120, 10]).view([1, 3, 1, 1]).repeat([4, 1, 2, 2]);
        let data = InMemory::new("same", images, &Tensor::zeros([4], (Kind::Int64, Device::Cpu)), vec!["a".into()]).unwrap();
        let Normalise { mean, std } = of_all(&data);
        assert_eq!(std, [1.0; 3]);
        assert!(mean.iter().zip([90.0, 120.0, 10.0]).all(|(mean, value)| (mean - value / 255.0).abs() < 1e-12), "{mean:?}");
    }

    #[test]
    fn a_sample_is_evenly_spaced_and_can_be_interrupted() {
        let data = counting(10, [1, 1, 1]); // 0, 1, ..., 9
        let statistics = channel_statistics(&data, 4, &mut |_, _| true).unwrap();
        assert_eq!(statistics.examples, 4);
        assert!((statistics.normalise.mean[0] - (0.0 + 2.0 + 5.0 + 7.0) / 4.0 / 255.0).abs() < 1e-12);
        let data = counting(3 * CHUNK as i64, [1, 1, 1]);
        let mut told = Vec::new();
        let stop = &mut |done, of| {
            told.push((done, of));
            done < CHUNK
        };
        assert!(matches!(channel_statistics(&data, usize::MAX, stop), Err(DatasetError::Interrupted)));
        assert_eq!(told, [(0, 3 * CHUNK), (CHUNK, 3 * CHUNK)]);
        assert!(channel_statistics(&data, 0, &mut |_, _| true).is_err());
    }

    #[test]
    fn what_was_computed_is_kept_until_a_file_changes() {
        let (folder, cache) = (flowers(), tempfile::tempdir().unwrap());
        let kept = cache.path().join("statistics");
        let data = || ImageFolder::open(folder.path(), preprocess(8)).unwrap();
        // Whether anything had to be computed, and what came out.
        let ask = |data: &ImageFolder, sample| {
            let mut computed = false;
            let told = &mut |_, _| {
                computed = true;
                true
            };
            let statistics = data.statistics_kept_in(Some(&kept), sample, told).unwrap();
            (computed, statistics)
        };
        let (computed, first) = ask(&data(), 100);
        assert!(computed && first.examples == 4);
        assert_eq!(ask(&data(), 100), (false, first.clone()));
        assert!(ask(&data(), 2).0, "another sample");
        assert!(ask(&data().fit(&preprocess(6)).unwrap(), 100).0, "another size");
        for bytes in ["4 0.5,0.5,0.5 1,1,0", "", "4 0.5 1 1", "4 0.5,x,0.5 1,1,1"] {
            fs::remove_dir_all(&kept).unwrap();
            ask(&data(), 100);
            fs::write(fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path(), bytes).unwrap();
            assert_eq!(ask(&data(), 100), (true, first.clone()), "a bad file is none");
        }
        let rose = folder.path().join("rose/x.png");
        image::RgbImage::from_pixel(8, 8, image::Rgb([200; 3])).save(&rose).unwrap();
        fs::File::options().write(true).open(&rose).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let (computed, other) = ask(&data(), 100);
        assert!(computed && other != first);
        fs::remove_dir_all(&kept).unwrap();
        fs::write(&kept, "no folder").unwrap();
        assert_eq!(ask(&data(), 100), (true, other), "a cache that cannot be written is none");
    }
}
