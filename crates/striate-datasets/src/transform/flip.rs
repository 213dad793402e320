use super::{OnPicture, Rng, check, check_p};
use crate::{DatasetError, Pixels};
use serde::{Deserialize, Serialize};

/// Mirrors a picture left to right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomHorizontalFlip {
    /// The probability.
    pub p: f64,
    /// How it is decided.
    pub mode: FlipMode,
}

/// How it is decided whether a picture is mirrored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlipMode {
    /// In each epoch by chance.
    #[default]
    Random,
    /// By chance in the first epoch, and then in turns: in two epochs, a picture is seen once each way (Jordan 2024,
    /// arXiv:2404.00498).
    Alternating,
}

impl Default for RandomHorizontalFlip {
    fn default() -> Self {
        Self { p: 0.5, mode: FlipMode::Random }
    }
}

impl OnPicture for RandomHorizontalFlip {
    fn check(&self, _: [i64; 3]) -> Result<(), DatasetError> {
        check_p("horizontal-flip.p", self.p)?;
        let sound = self.mode == FlipMode::Random || self.p == 0.5;
        check(sound, "horizontal-flip.p", self.p, "0.5 where flips alternate")
    }

    fn apply<'p>(&self, picture: Pixels<'p>, _: [usize; 2], rng: &mut Rng) -> Result<Pixels<'p>, DatasetError> {
        let flips = match self.mode {
            FlipMode::Random => rng.chance(self.p),
            FlipMode::Alternating => rng.turn() % 2 == 1,
        };
        Ok(if flips { mirrored(picture) } else { picture })
    }

    fn is_light(&self) -> bool {
        true
    }
}

at_random! {
    /// Mirrors a picture top to bottom.
    RandomVerticalFlip {}, p = 0.5, "vertical-flip", |_| Ok(()), |_, picture| upside_down(&picture)
}

fn mirrored(picture: Pixels<'_>) -> Pixels<'_> {
    let (row, channels) = (picture.width * picture.channels, picture.channels);
    picture.map(|data| {
        for row in data.chunks_exact_mut(row) {
            match channels {
                1 => row.reverse(),
                3 => row.as_chunks_mut::<3>().0.reverse(),
                channels => {
                    row.reverse();
                    row.chunks_exact_mut(channels).for_each(<[u8]>::reverse);
                }
            }
        }
    })
}

fn upside_down(picture: &Pixels<'_>) -> Pixels<'static> {
    let rows = picture.data.chunks_exact(picture.width * picture.channels).rev();
    Pixels::new([picture.width, picture.height], picture.channels, rows.flatten().copied().collect::<Vec<_>>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_mirrored_pixel_by_pixel() {
        let grey = Pixels::new([3, 2], 1, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(*mirrored(grey.clone()).data, [3, 2, 1, 6, 5, 4]);
        assert_eq!(*upside_down(&grey).data, [4, 5, 6, 1, 2, 3]);
        for channels in [2, 3, 4] {
            let pixel = |number: u8| (0..channels as u8).map(move |channel| 10 * number + channel);
            let row = |numbers: [u8; 3]| numbers.into_iter().flat_map(pixel).collect::<Vec<_>>();
            assert_eq!(*mirrored(Pixels::new([3, 1], channels, row([1, 2, 3]))).data, row([3, 2, 1]));
        }
    }

    #[test]
    fn as_many_are_mirrored_as_the_probability_says() {
        let picture = Pixels::new([2, 1], 1, vec![1, 2]);
        let mirrored = |p: f64| {
            let flip = RandomHorizontalFlip { p, ..RandomHorizontalFlip::default() };
            let one = |number: &u64| flip.apply(picture.clone(), [2, 1], &mut Rng::new(4, &[*number])).unwrap() != picture;
            (0..400).filter(one).count()
        };
        assert_eq!([mirrored(0.0), mirrored(1.0)], [0, 400]);
        assert!((160..240).contains(&mirrored(0.5)) && (60..140).contains(&mirrored(0.25)));
    }

    #[test]
    fn alternating_flips_show_each_picture_both_ways_in_two_epochs() {
        let flip = RandomHorizontalFlip { mode: FlipMode::Alternating, ..RandomHorizontalFlip::default() };
        let picture = Pixels::new([2, 1], 1, vec![1, 2]);
        let flips = |epoch: u64| -> Vec<bool> {
            let one = |index| flip.apply(picture.clone(), [2, 1], &mut Rng::of_example(4, epoch, index, 0)).unwrap() != picture;
            (0..400).map(one).collect()
        };
        let first = flips(0);
        assert!((160..240).contains(&first.iter().filter(|flipped| **flipped).count()));
        assert_eq!(flips(1), first.iter().map(|flipped| !flipped).collect::<Vec<_>>());
        assert_eq!((flips(2), flips(7)), (first.clone(), flips(1)));
        let error = RandomHorizontalFlip { p: 0.3, ..flip.clone() }.check([1, 1, 2]).unwrap_err().to_string();
        assert!(error.contains("horizontal-flip.p") && error.ends_with("0.3 must be 0.5 where flips alternate"), "{error}");
        flip.check([1, 1, 2]).unwrap();
    }
}
