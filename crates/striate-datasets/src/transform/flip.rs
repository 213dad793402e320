use crate::Pixels;

at_random! {
    /// Mirrors a picture left to right.
    RandomHorizontalFlip {}, p = 0.5, "horizontal-flip", |_| Ok(()), |_, picture| mirrored(picture)
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
    use crate::transform::{OnPicture, Rng};

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
            let flip = RandomHorizontalFlip { p };
            let one = |number: &u64| flip.apply(picture.clone(), [2, 1], &mut Rng::new(4, &[*number])).unwrap() != picture;
            (0..400).filter(one).count()
        };
        assert_eq!([mirrored(0.0), mirrored(1.0)], [0, 400]);
        assert!((160..240).contains(&mirrored(0.5)) && (60..140).contains(&mirrored(0.25)));
    }
}
