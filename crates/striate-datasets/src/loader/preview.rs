//! What happens to examples on their way into a batch, to look at.

use super::{Loader, LoaderOptions, Way};
use crate::transform::Stage;
use crate::{Batch, DatasetError, Pixels, Transform};
use std::path::PathBuf;
use std::sync::Arc;
use striate_torch::Values;
use tch::{Kind, Tensor};

/// An example on its way into the first batch: see [`Loader::preview`].
#[derive(Debug, Clone)]
pub struct Preview {
    /// Where its picture lies: a path, or a number.
    pub place: PathBuf,
    /// The index of its class.
    pub label: i64,
    /// The picture as it lies in the dataset, then after each step, in the first epoch.
    pub steps: Vec<PreviewStep>,
    /// What the network sees of it in each epoch, before it is normalised.
    pub inputs: Vec<PreviewInput>,
}

/// A picture after a step.
#[derive(Debug, Clone)]
pub struct PreviewStep {
    /// The kind of the transform; `picture` for how it lies in the dataset, `input` where it was brought to the input's size.
    pub name: &'static str,
    /// The picture.
    pub picture: Pixels<'static>,
}

/// What a network sees of an example.
#[derive(Debug, Clone)]
pub struct PreviewInput {
    /// The picture.
    pub picture: Pixels<'static>,
    /// Its classes, each with its share: several where pictures are mixed.
    pub classes: Vec<(i64, f64)>,
}

impl Loader<'_> {
    /// What happens to the first `count` examples of the first epoch, step by step, and what the network sees of the same
    /// examples in each of so many `epochs`: the very draws of a training run. But those that mix pictures take a partner from
    /// these examples, instead of from a whole batch. A transform that leaves a picture in another size than the input's, for a
    /// later one to crop, has no step of its own.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read, and what transforms refuse.
    pub fn preview(&self, count: usize, epochs: u64) -> Result<Vec<Preview>, DatasetError> {
        let options = LoaderOptions { workers: Some(0), ..self.options.clone() };
        let in_line = Loader { dataset: self.dataset, way: Arc::clone(&self.way), options };
        let chosen: Vec<(usize, u64)> = in_line.epoch(0)?.plan.order.iter().take(count.max(1)).copied().collect();
        let way = &*self.way;
        let mut all = chosen.iter().map(|(index, _)| way.begun(*index)).collect::<Result<Vec<_>, _>>()?;
        let on_batch = way.transforms.iter().find(|transform| matches!(transform.stage(), Stage::Batch(_)));
        for (name, batch) in way.steps(&chosen)? {
            way.add_step(&mut all, name, &batch)?;
        }
        for epoch in 0..epochs.max(1) {
            let batch = way.mix(epoch, 0, way.values(epoch, &chosen)?)?;
            if let (0, Some(transform)) = (epoch, on_batch) {
                way.add_step(&mut all, transform.kind(), &batch)?;
            }
            for (row, preview) in (0..).zip(&mut all) {
                let classes = match &batch.targets {
                    None => vec![(preview.label, 1.0)],
                    Some(targets) => {
                        let shares = Vec::<f64>::try_from(targets.f_get(row)?.f_to_kind(Kind::Double)?)?;
                        let mut classes: Vec<(i64, f64)> = (0..).zip(shares).filter(|(_, share)| *share > 0.0).collect();
                        classes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
                        classes
                    }
                };
                preview.inputs.push(PreviewInput { picture: way.shown(&batch.images.f_get(row)?)?, classes });
            }
        }
        Ok(all)
    }
}

impl Way {
    /// An example as it lies in the dataset.
    fn begun(&self, index: usize) -> Result<Preview, DatasetError> {
        let Pixels { width, height, channels, data } = self.examples.picture(index)?;
        let picture = Pixels::new([width, height], channels, data.into_owned());
        let steps = vec![PreviewStep { name: "picture", picture }];
        Ok(Preview { place: self.examples.place(index), label: self.examples.label(index), steps, inputs: Vec::new() })
    }

    /// Examples in the first epoch after each transform but those of batches: the draws of a shorter list are the first of the whole.
    fn steps(&self, examples: &[(usize, u64)]) -> Result<Vec<(&'static str, Batch)>, DatasetError> {
        let on_one = self.transforms.iter().take_while(|transform| !matches!(transform.stage(), Stage::Batch(_)));
        let names = std::iter::once("input").chain(on_one.map(Transform::kind));
        let mut steps = Vec::new();
        for (len, name) in names.enumerate().skip(usize::from(self.sized)) {
            let way = Self { transforms: self.transforms[..len].to_vec(), ..self.clone() };
            match way.values(0, examples) {
                Ok(batch) => steps.push((name, batch)),
                // Not yet of the input's size: the whole list would tell, too.
                Err(DatasetError::Option { .. }) if self.sized => {}
                Err(error) => return Err(error),
            }
        }
        Ok(steps)
    }

    /// Examples as a batch, before it is mixed.
    fn values(&self, epoch: u64, examples: &[(usize, u64)]) -> Result<Batch, DatasetError> {
        let len = self.preprocess.input.iter().product::<i64>().unsigned_abs() as usize;
        let mut images = Vec::new();
        for example in examples {
            let mut values = vec![0.0; len];
            self.write(epoch, *example, Values::Floats(&mut values))?;
            images.push(Tensor::f_from_slice(&values)?.f_view(self.preprocess.input)?);
        }
        let labels = examples.iter().map(|(index, _)| self.examples.labels(*index));
        Batch::labelled(Tensor::f_stack(&images, 0)?, self.task, labels, self.classes.unsigned_abs() as usize)
    }

    fn add_step(&self, all: &mut [Preview], name: &'static str, batch: &Batch) -> Result<(), DatasetError> {
        let pictures = (0..).take(all.len()).map(|row| self.shown(&batch.images.f_get(row)?)).collect::<Result<Vec<_>, _>>()?;
        // Nothing was done to pictures that have the input's size.
        if name == "input" && all.iter().zip(&pictures).all(|(preview, picture)| preview.steps[0].picture == *picture) {
            return Ok(());
        }
        all.iter_mut().zip(pictures).for_each(|(preview, picture)| preview.steps.push(PreviewStep { name, picture }));
        Ok(())
    }

    /// A network's input (`[C, H, W]`) as a picture; of other numbers of channels than 1 and 3, the first.
    fn shown(&self, values: &Tensor) -> Result<Pixels<'static>, DatasetError> {
        let normalise = &self.preprocess.normalise;
        let of_channels = |values: &[f64]| Tensor::f_from_slice(values)?.f_view([-1, 1, 1]);
        let values = values.f_to_kind(Kind::Double)?.f_mul(&of_channels(&normalise.std)?)?;
        let values = values.f_add(&of_channels(&normalise.mean)?)?.f_mul_scalar(255.0)?;
        let values = if values.size()[0] == 3 { values } else { values.f_narrow(0, 0, 1)? };
        Pixels::of_tensor(&values.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?.f_unsqueeze(0)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Dataset, Fit, ImageFolder, LoaderOptions, Normalise, Preprocess, digits, folder};

    fn transforms(kinds: &[&str]) -> Vec<Transform> {
        kinds.iter().map(|kind| toml::from_str(&format!("kind = '{kind}'")).unwrap()).collect()
    }

    fn loader<'d>(data: &'d dyn Dataset, preprocess: &Preprocess, kinds: &[&str]) -> Loader<'d> {
        let options = LoaderOptions { transforms: transforms(kinds), ..LoaderOptions::train(4, 3) };
        Loader::new(data, preprocess.clone(), options).unwrap()
    }

    fn names(preview: &Preview) -> Vec<&'static str> {
        preview.steps.iter().map(|step| step.name).collect()
    }

    /// The values of a picture as a loader gives them.
    fn normalised(picture: &Pixels<'_>, normalise: &Normalise) -> Tensor {
        normalise.apply(picture.to_tensor().unwrap()).unwrap()
    }

    #[test]
    fn a_preview_has_the_pictures_of_the_first_batch() {
        let train = digits().unwrap().train;
        let preprocess = Preprocess::new([1, 8, 8], [1, 32, 32], Fit::Resize, Normalise::of(&train).unwrap()).unwrap();
        let loader = loader(&train, &preprocess, &["horizontal-flip", "trivial-augment", "random-erasing"]);
        let previews = loader.preview(3, 2).unwrap();
        let batch = loader.epoch(0).unwrap().next().unwrap().unwrap();
        for (row, preview) in (0..).zip(&previews) {
            assert_eq!(names(preview), ["picture", "input", "horizontal-flip", "trivial-augment", "random-erasing"]);
            assert_eq!((preview.label, preview.inputs.len()), (batch.labels.int64_value(&[row]), 2));
            assert_eq!(preview.inputs[0].classes, [(preview.label, 1.0)]);
            assert_eq!(preview.steps[4].picture, preview.inputs[0].picture);
            let seen = normalised(&preview.inputs[0].picture, &preprocess.normalise);
            // What is erased has the mean, which is no whole number.
            let difference = (seen.squeeze_dim(0) - batch.images.get(row)).abs().max().double_value(&[]);
            assert!(difference < 0.5 / 255.0 / preprocess.normalise.std[0] + 1e-6, "{difference}");
        }
        // The same example in the second epoch's order.
        let order = Vec::<usize>::from_iter(loader.epoch(1).unwrap().plan.order.iter().map(|(index, _)| *index));
        let place = order.iter().position(|index| previews[0].place.to_str() == Some(&index.to_string())).unwrap();
        let batch = loader.epoch_from(1, place / 4).unwrap().next().unwrap().unwrap();
        let seen = normalised(&previews[0].inputs[1].picture, &preprocess.normalise).squeeze_dim(0);
        let difference = (seen - batch.images.get((place % 4) as i64)).abs().max().double_value(&[]);
        assert!(difference < 0.5 / 255.0 / preprocess.normalise.std[0] + 1e-6, "{difference}");
    }

    #[test]
    fn mixed_pictures_have_the_shares_of_their_classes() {
        let train = digits().unwrap().train;
        let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::identity()).unwrap();
        let previews = loader(&train, &preprocess, &["mix-up"]).preview(4, 1).unwrap();
        for (row, preview) in previews.iter().enumerate() {
            assert_eq!(names(preview), ["picture", "mix-up"]);
            let (own, partner) = (preview.label, previews[(row + 3) % 4].label);
            let classes: Vec<i64> = preview.inputs[0].classes.iter().map(|(class, _)| *class).collect();
            assert!(classes.iter().all(|class| [own, partner].contains(class)), "{classes:?}");
            assert!((preview.inputs[0].classes.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn what_is_not_of_the_inputs_size_has_no_step() {
        let train = digits().unwrap().train;
        let preprocess = Preprocess::new([1, 8, 8], [1, 6, 6], Fit::Resize, Normalise::identity()).unwrap();
        let previews = loader(&train, &preprocess, &["vertical-flip", "centre-crop", "invert"]).preview(2, 1).unwrap();
        assert_eq!(names(&previews[0]), ["picture", "centre-crop", "invert"]);
    }

    #[test]
    fn files_are_seen_as_they_lie_there() {
        let root = folder::tests::flowers();
        let data = ImageFolder::open(root.path(), folder::tests::preprocess(8)).unwrap();
        let previews = loader(&data, &folder::tests::preprocess(8), &["random-resized-crop"]).preview(9, 1).unwrap();
        assert_eq!(previews.len(), data.len());
        for preview in &previews {
            assert_eq!(names(preview), ["picture", "random-resized-crop"]);
            let size = image::image_dimensions(&preview.place).unwrap();
            let picture = &preview.steps[0].picture;
            assert_eq!((picture.width as u32, picture.height as u32), size);
        }
    }
}
