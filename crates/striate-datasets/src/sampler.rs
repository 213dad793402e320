use crate::transform::{Rng, check};
use crate::{Dataset, DatasetError, Examples, Task};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use striate_torch::{Generator, derive_seed};

/// What sets the seeds of orders apart from others that are derived from the same seed.
const ORDER_SEEDS: u64 = 0x4f52_4452;

/// Which examples are in an epoch, which has as many as the dataset. For a part of a dataset there is
/// [`Subset`](crate::Subset).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Sampler {
    /// Each once.
    #[default]
    Each,
    /// Drawn so that all classes are as likely, however many examples they have.
    Balanced,
    /// Drawn in proportion to the weight of their class; there is a weight for each.
    Weighted(Vec<f64>),
    /// Some of them, each so many times with other transforms, one after another: repeated augmentation (Hoffer 2020,
    /// arXiv:1901.09335).
    Repeated(u32),
    /// Each once, for data in shards that are best read in order: shards in a drawn order, and from what is read of them a buffer of so
    /// many examples, from which the next is drawn.
    Buffered(usize),
}

impl Sampler {
    /// Whether the values are sound for a dataset.
    pub(crate) fn check(&self, dataset: &dyn Dataset, shuffle: bool) -> Result<(), DatasetError> {
        let (classes, name) = (dataset.classes().len(), self.name());
        check(shuffle || *self == Self::Each, "sampler", name, "`each` where nothing is shuffled")?;
        let by_class = matches!(self, Self::Balanced | Self::Weighted(_));
        let single = dataset.task() == Task::SingleLabel;
        check(single || !by_class, "sampler", name, "`each` or `repeated` where a picture has several classes")?;
        match self {
            Self::Each | Self::Balanced => Ok(()),
            Self::Buffered(size) => check(*size > 0, "sampler", name, "at least 1 example"),
            Self::Repeated(times) => check((1..=1000).contains(times), "sampler", name, "from 1 to 1000 times"),
            Self::Weighted(weights) => {
                let each = format!("a weight for each of the {classes} classes");
                check(weights.len() == classes, "sampler", name, &each)?;
                let sound = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
                check(sound && weights.iter().sum::<f64>() > 0.0, "sampler", name, "weights from 0, not all 0")
            }
        }
    }

    /// What recipes call it.
    fn name(&self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Balanced => "balanced",
            Self::Weighted(_) => "weighted",
            Self::Repeated(_) => "repeated",
            Self::Buffered(_) => "buffered",
        }
    }

    /// The examples of an epoch in their order.
    pub(crate) fn order(
        &self,
        examples: &dyn Examples,
        len: usize,
        shuffle: bool,
        seed: u64,
        epoch: u64,
    ) -> Result<Vec<usize>, DatasetError> {
        if !shuffle {
            return Ok((0..len).collect());
        }
        let parts = [ORDER_SEEDS, epoch];
        match self {
            Self::Each | Self::Repeated(_) => {
                let order = Generator::new(derive_seed(seed, &parts)).permutation(len.cast_signed() as i64)?;
                let order = Vec::<i64>::try_from(order)?.into_iter().map(|index| index.unsigned_abs() as usize);
                Ok(match self {
                    Self::Repeated(times) => {
                        order.flat_map(|index| std::iter::repeat_n(index, *times as usize)).take(len).collect()
                    }
                    _ => order.collect(),
                })
            }
            Self::Buffered(size) => buffered(&examples.shards(), len, *size, &mut Rng::new(seed, &parts)),
            Self::Balanced => draw(examples, len, |_, _| 1.0, &mut Rng::new(seed, &parts)),
            Self::Weighted(weights) => {
                draw(examples, len, |class, count| weights[class] * count as f64, &mut Rng::new(seed, &parts))
            }
        }
    }
}

/// All examples: those of the shards one after another, in drawn order, through a buffer from which the next is drawn.
fn buffered(shards: &[Range<usize>], len: usize, size: usize, rng: &mut Rng) -> Result<Vec<usize>, DatasetError> {
    let in_shards = shards.iter().map(ExactSizeIterator::len).sum::<usize>() == len;
    check(in_shards, "sampler", "buffered", "`each` where the data are in no shards")?;
    let mut shards = shards.to_vec();
    for place in (1..shards.len()).rev() {
        shards.swap(place, rng.below(place + 1));
    }
    let (mut buffer, mut order) = (Vec::with_capacity(size.min(len)), Vec::with_capacity(len));
    for example in shards.into_iter().flatten() {
        if buffer.len() < size {
            buffer.push(example);
        } else {
            order.push(std::mem::replace(&mut buffer[rng.below(size)], example));
        }
    }
    while !buffer.is_empty() {
        order.push(buffer.swap_remove(rng.below(buffer.len())));
    }
    Ok(order)
}

/// As many examples as there are, each of a class that is drawn in proportion to `weight` of it and of its number of examples.
fn draw(
    examples: &dyn Examples,
    len: usize,
    weight: impl Fn(usize, usize) -> f64,
    rng: &mut Rng,
) -> Result<Vec<usize>, DatasetError> {
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for index in 0..len {
        let class = examples.label(index).unsigned_abs() as usize;
        if class >= classes.len() {
            classes.resize(class + 1, Vec::new());
        }
        classes[class].push(index);
    }
    let mut sum = 0.0;
    let upto: Vec<f64> = classes
        .iter()
        .enumerate()
        .map(|(class, members)| {
            sum += if members.is_empty() { 0.0 } else { weight(class, members.len()) };
            sum
        })
        .collect();
    check(sum > 0.0, "sampler", sum, "above 0: no class with a weight has an example")?;
    let mut one = || {
        let place = rng.between([0.0, sum]);
        // The last that has a weight, where rounding gives the sum itself.
        let class = upto.partition_point(|upto| *upto <= place).min(upto.partition_point(|upto| *upto < sum));
        classes[class][rng.below(classes[class].len())]
    };
    Ok((0..len).map(|_| one()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::InMemory;
    use tch::{Device, Kind, Tensor};

    /// 1000 examples, of which 700 are of class 0, 300 of class 1, none of class 2.
    fn dataset() -> InMemory {
        let labels = Tensor::arange(1000, (Kind::Int64, Device::Cpu)).ge(700).to_kind(Kind::Int64);
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let images = Tensor::zeros([1000, 1, 1, 1], (Kind::Uint8, Device::Cpu));
        InMemory::new("two", images, &labels, classes).unwrap()
    }

    fn examples() -> std::sync::Arc<dyn Examples> {
        dataset().examples().unwrap()
    }

    fn order(sampler: &Sampler, epoch: u64) -> Vec<usize> {
        sampler.check(&dataset(), true).unwrap();
        let order = sampler.order(&*examples(), 1000, true, 5, epoch).unwrap();
        assert_eq!(order.len(), 1000);
        order
    }

    #[test]
    fn classes_are_as_likely_as_the_sampler_says() {
        let first = |sampler: &Sampler| order(sampler, 0).into_iter().filter(|index| *index < 700).count();
        assert_eq!(first(&Sampler::Each), 700);
        assert!((450..550).contains(&first(&Sampler::Balanced)));
        // 700 * 3 of 700 * 3 + 300 * 1
        assert!((850..900).contains(&first(&Sampler::Weighted(vec![3.0, 1.0, 9.0]))));
        assert_eq!(first(&Sampler::Weighted(vec![0.0, 1.0, 0.0])), 0);
        assert_eq!(first(&Sampler::Weighted(vec![1.0, 0.0, 0.0])), 1000);
        assert_ne!(order(&Sampler::Balanced, 0), order(&Sampler::Balanced, 1));
    }

    #[test]
    fn repeated_examples_stand_together() {
        let order = order(&Sampler::Repeated(3), 0);
        assert!(order.chunks_exact(3).all(|same| same[0] == same[1] && same[1] == same[2]));
        let distinct: std::collections::HashSet<_> = order.iter().collect();
        assert_eq!(distinct.len(), 334);
    }

    /// What leaves a buffer of n came at most n places later, so that a shard is read in order.
    #[test]
    fn a_buffer_mixes_shards_that_are_read_in_order() {
        let shards = [0..400, 400..700, 700..1000];
        let order = |size, seed| buffered(&shards, 1000, size, &mut Rng::new(seed, &[])).unwrap();
        let first = order(50, 1);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(order(50, 1), first);
        assert_ne!(order(50, 2), first);
        // In the order in which they were read, which a buffer of one keeps.
        let read = order(1, 1);
        let place = |example: usize| read.iter().position(|other| *other == example).unwrap();
        assert!(first.iter().zip(0..).all(|(example, taken)| place(*example) <= taken + 50));
        assert!(read.windows(2).filter(|pair| pair[1] != pair[0] + 1).count() <= 2);
        let moved = first.iter().zip(&read).filter(|(one, other)| one != other).count();
        assert!(moved > 900, "{moved}");
        let error = Sampler::Buffered(10).order(&*examples(), 1000, true, 0, 0).unwrap_err().to_string();
        assert_eq!(error, "sampler: \"buffered\" must be `each` where the data are in no shards");
    }

    #[test]
    fn what_cannot_be_sampled_is_refused() {
        let fault = |sampler: Sampler, shuffle| sampler.check(&dataset(), shuffle).unwrap_err().to_string();
        assert_eq!(fault(Sampler::Balanced, false), "sampler: \"balanced\" must be `each` where nothing is shuffled");
        assert!(fault(Sampler::Repeated(0), true).contains("from 1 to 1000"));
        assert!(fault(Sampler::Weighted(vec![1.0]), true).contains("a weight for each of the 3 classes"));
        assert!(fault(Sampler::Weighted(vec![1.0, -1.0, 0.0]), true).contains("weights from 0"));
        let none = Sampler::Weighted(vec![0.0, 0.0, 1.0]).order(&*examples(), 1000, true, 0, 0);
        assert!(none.unwrap_err().to_string().contains("no class with a weight has an example"));
    }
}
