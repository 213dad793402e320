use crate::transform::{Rng, check};
use crate::{DatasetError, Examples};
use serde::{Deserialize, Serialize};
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
}

impl Sampler {
    /// Whether the values are sound for a dataset of so many classes.
    pub(crate) fn check(&self, classes: usize, shuffle: bool) -> Result<(), DatasetError> {
        check(shuffle || *self == Self::Each, "sampler", self, "`each` where nothing is shuffled")?;
        match self {
            Self::Each | Self::Balanced => Ok(()),
            Self::Repeated(times) => check((1..=1000).contains(times), "sampler", self, "from 1 to 1000 times"),
            Self::Weighted(weights) => {
                let each = format!("a weight for each of the {classes} classes");
                check(weights.len() == classes, "sampler", self, &each)?;
                let sound = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
                check(sound && weights.iter().sum::<f64>() > 0.0, "sampler", self, "weights from 0, not all 0")
            }
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
            Self::Balanced => draw(examples, len, |_, _| 1.0, &mut Rng::new(seed, &parts)),
            Self::Weighted(weights) => {
                draw(examples, len, |class, count| weights[class] * count as f64, &mut Rng::new(seed, &parts))
            }
        }
    }
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
    use crate::{Dataset, InMemory};
    use tch::{Device, Kind, Tensor};

    /// 1000 examples, of which 700 are of class 0, 300 of class 1, none of class 2.
    fn examples() -> std::sync::Arc<dyn Examples> {
        let labels = Tensor::arange(1000, (Kind::Int64, Device::Cpu)).ge(700).to_kind(Kind::Int64);
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        let images = Tensor::zeros([1000, 1, 1, 1], (Kind::Uint8, Device::Cpu));
        InMemory::new("two", images, &labels, classes).unwrap().examples().unwrap()
    }

    fn order(sampler: &Sampler, epoch: u64) -> Vec<usize> {
        sampler.check(3, true).unwrap();
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

    #[test]
    fn what_cannot_be_sampled_is_refused() {
        let fault = |sampler: Sampler, shuffle| sampler.check(3, shuffle).unwrap_err().to_string();
        assert_eq!(fault(Sampler::Balanced, false), "sampler: Balanced must be `each` where nothing is shuffled");
        assert!(fault(Sampler::Repeated(0), true).contains("from 1 to 1000"));
        assert!(fault(Sampler::Weighted(vec![1.0]), true).contains("a weight for each of the 3 classes"));
        assert!(fault(Sampler::Weighted(vec![1.0, -1.0, 0.0]), true).contains("weights from 0"));
        let none = Sampler::Weighted(vec![0.0, 0.0, 1.0]).order(&*examples(), 1000, true, 0, 0);
        assert!(none.unwrap_err().to_string().contains("no class with a weight has an example"));
    }
}
