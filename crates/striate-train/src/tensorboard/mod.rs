//! Event files that TensorBoard reads, written without it.
mod event;
mod proto;

use self::event::{Histogram, histogram, image, record, scalar, session_end, session_start, start, summary, text, version};
use self::proto::Message;
use crate::picture::{first_filters, grid_of_filters, png};
use crate::{Event, Listener, Recipe, TrainError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use striate_files::{FilesError, Records};
use striate_graph::Network;
use tch::{Device, Kind, Tensor};
use toml::Table;

/// Points of a curve over steps in an epoch, at most.
const POINTS: u64 = 100;
/// Buckets of a histogram.
const BUCKETS: i64 = 30;
/// How the files' names begin, as TensorBoard looks for them, and end.
const BEGIN: &str = "events.out.tfevents.";
const END: &str = ".striate";

/// Writes what TensorBoard shows of a run into its folder: as scalars, loss, learning rate and speed over the steps, and the
/// figures of each epoch; histograms of the weights and a picture of the first convolution's filters after each epoch; the recipe
/// as a text and as hyperparameters.
///
/// Each process of a run writes a file of its own. TensorBoard takes together those in one folder, and forgets the steps that a
/// killed process did after the checkpoint from which the run went on.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    recipe: Option<Recipe>,
    /// Open once the run has started.
    file: Option<Records>,
    /// Steps done.
    step: u64,
    /// Steps between two points of a curve.
    every: u64,
    /// The losses since the last point: their sum and number.
    losses: (f64, u64),
    judge: &'static str,
    measure: String,
}

impl TensorBoard {
    /// Writes into this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            recipe: None,
            file: None,
            step: 0,
            every: 1,
            losses: (0.0, 0),
            judge: "test",
            measure: String::new(),
        }
    }

    /// Shows this recipe too.
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = Some(recipe);
        self
    }

    fn write(&mut self, event: Message) -> Result<(), TrainError> {
        self.file.as_mut().map_or(Ok(()), |file| Ok(file.write(record(event))?))
    }

    /// Writes values that are of the last step.
    fn show(&mut self, values: impl IntoIterator<Item = Message>) -> Result<(), TrainError> {
        self.write(summary(now(), self.step, values))
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        self.file.as_mut().map_or(Ok(()), |file| Ok(file.flush()?))
    }

    fn begin(&mut self, step: u64, steps_per_epoch: u64) -> Result<(), TrainError> {
        (self.step, self.every) = (step, steps_per_epoch.div_ceil(POINTS).max(1));
        self.file = Some(new_file(&self.folder)?);
        self.write(version(now()))?;
        if step > 0 {
            self.write(start(now(), step + 1))?;
        }
        if let Some(recipe) = self.recipe.take() {
            let sections = Table::try_from(&recipe).unwrap_or_default();
            // An indented block is one of code.
            let recipe: String = recipe.to_toml().lines().map(|line| format!("    {line}\n")).collect();
            self.write(summary(now(), 0, [text("recipe", &recipe), session_start(now(), &sections)]))?;
        }
        self.flush()
    }
}

impl Listener for TensorBoard {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::RunStarted { steps_per_epoch, step, judge, measure, .. } => {
                (self.judge, self.measure) = (*judge, measure.replace(' ', "_"));
                self.begin(*step, *steps_per_epoch)
            }
            Event::StepDone { step, loss, lr, images_per_second, waiting, .. } => {
                self.step = *step;
                self.losses = (self.losses.0 + loss, self.losses.1 + 1);
                if !step.is_multiple_of(self.every) {
                    return Ok(());
                }
                let (sum, count) = std::mem::take(&mut self.losses);
                self.show([
                    scalar("step/loss", sum / count as f64),
                    scalar("step/lr", *lr),
                    scalar("step/images_per_second", *images_per_second),
                    scalar("step/waiting", *waiting),
                ])
            }
            Event::EpochDone { step, train_loss, train_accuracy, test_loss, test_accuracy, .. } => {
                self.step = *step;
                let (judge, measure) = (self.judge, self.measure.clone());
                self.show([
                    scalar("train/loss", *train_loss),
                    scalar(&format!("train/{measure}"), *train_accuracy),
                    scalar(&format!("{judge}/loss"), *test_loss),
                    scalar(&format!("{judge}/{measure}"), *test_accuracy),
                ])?;
                self.flush()
            }
            Event::RunDone { finished: true, .. } => {
                self.write(summary(now(), 0, [session_end(now())]))?;
                self.flush()
            }
            _ => Ok(()),
        }
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        self.file.as_mut().map_or(Ok(()), |file| Ok(file.sync()?))
    }

    fn after_epoch(&mut self, network: &Network) -> Result<(), TrainError> {
        let _no_grad = striate_torch::no_grad();
        for parameter in network.parameters() {
            let values = histogram_of(&parameter.tensor)?;
            self.show([histogram(&format!("weights/{}", parameter.name), &values)])?;
        }
        if let Some((layer, weight)) = first_filters(network) {
            let picture = grid_of_filters(&weight)?;
            self.show([image(&format!("filters/{layer}"), [picture.height(), picture.width()], &png(&picture)?)])?;
        }
        self.flush()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A file whose name comes after those of the run's former processes.
fn new_file(folder: &Path) -> Result<Records, TrainError> {
    let after = event_files(folder)?.iter().filter_map(|path| seconds_of(path)).max().map_or(0, |last| last + 1);
    let path = folder.join(format!("{BEGIN}{}{END}", after.max(now() as u64)));
    Ok(Records::create_new(&path)?)
}

/// The seconds in the name of an event file of ours.
fn seconds_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(BEGIN)?.strip_suffix(END)?.parse().ok()
}

/// The files that [`TensorBoard`] has written into a folder.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn event_files(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut files = read().map_err(FilesError::new("read", folder))?;
    files.retain(|path| seconds_of(path).is_some());
    Ok(files)
}

/// Buckets of equal width from the least value to the largest.
fn histogram_of(values: &Tensor) -> Result<Histogram, TrainError> {
    let values = values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_flatten(0, -1)?;
    let number = |tensor: Tensor| tensor.f_double_value(&[]);
    let (min, max) = (number(values.f_min()?)?, number(values.f_max()?)?);
    let (limits, counts) = if min < max {
        let width = (max - min) / BUCKETS as f64;
        let limits = (1..BUCKETS).map(|end| min + width * end as f64).chain([max]).collect();
        (limits, Vec::<f64>::try_from(values.f_histc(BUCKETS)?)?)
    } else {
        (vec![max], vec![values.numel() as f64])
    };
    Ok(Histogram {
        min,
        max,
        count: values.numel() as f64,
        sum: number(values.f_sum(Kind::Double)?)?,
        sum_of_squares: number(values.f_square()?.f_sum(Kind::Double)?)?,
        limits,
        counts,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{Conv2d, Flatten, Linear};

    /// The events of a file as their parts: fields of a message, each with its number, and the bytes of what has a length.
    fn events(path: &Path) -> Vec<Vec<(u64, Vec<u8>)>> {
        let bytes = std::fs::read(path).unwrap();
        let mut events = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            events.push(fields(&rest[12..12 + length]));
            rest = &rest[16 + length..];
        }
        events
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let end = bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1;
            let value = bytes[..end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
            *bytes = &bytes[end..];
            value
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    fields.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)).unwrap(),
                _ => 4,
            };
            fields.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        fields
    }

    fn field(fields: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
        fields.iter().find(|(field, _)| *field == number).map(|(_, bytes)| bytes.as_slice())
    }

    /// Each value with the step of its event, its tag, and its number if it is a scalar.
    fn values(path: &Path) -> Vec<(u64, String, Option<f32>)> {
        let mut values = Vec::new();
        for event in events(path) {
            let step = field(&event, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
            for (_, value) in fields(field(&event, 5).unwrap_or_default()) {
                let value = fields(&value);
                let number = field(&value, 2).map(|number| f32::from_le_bytes(number.try_into().unwrap()));
                values.push((step, String::from_utf8(field(&value, 1).unwrap().to_vec()).unwrap(), number));
            }
        }
        values
    }

    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 4, 4]);
            let x = net.add("conv", Conv2d::same(2, 3), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(2).no_bias(), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    /// An epoch of 250 steps, from the one after `done` on; the loss of step `n` is `n`.
    fn epoch(folder: &Path, done: u64) {
        let recipe = Recipe::parse("[train]\nlr = 0.25", "r.toml".as_ref()).unwrap();
        let mut board = TensorBoard::new(folder).recipe(recipe);
        let (judge, measure) = ("val", "exact match");
        board.on_event(&Event::RunStarted { epochs: 1, steps_per_epoch: 250, step: done, judge, measure }).unwrap();
        for step in done + 1..=250 {
            let (images_per_second, waiting) = (8.0, 0.5);
            let loss = step as f64;
            board.on_event(&Event::StepDone { epoch: 0, step, loss, lr: 0.1, images_per_second, waiting }).unwrap();
        }
        let done = Event::EpochDone {
            epoch: 0,
            step: 250,
            train_loss: 1.5,
            train_accuracy: 0.25,
            test_loss: 2.5,
            test_accuracy: 0.75,
            raw: None,
            best: true,
            seconds: 2.0,
            images_per_second: 8.0,
            waiting: 0.5,
            peak_memory: None,
        };
        board.on_event(&done).unwrap();
        board.after_epoch(&network()).unwrap();
        board.on_event(&Event::RunDone { finished: true, step: 250, best_accuracy: None }).unwrap();
        // As a kill does.
        std::mem::forget(board);
    }

    #[test]
    fn an_epoch_leaves_its_figures_weights_and_recipe() {
        let folder = tempfile::tempdir().unwrap();
        epoch(folder.path(), 0);
        let values = values(&event_files(folder.path()).unwrap()[0]);
        let of = |tag: &str| values.iter().filter(|value| value.1 == tag).map(|value| (value.0, value.2)).collect::<Vec<_>>();
        // A point for every third step, of the mean of three.
        let losses = of("step/loss");
        assert_eq!((losses.len(), losses[0], losses[82]), (83, (3, Some(2.0)), (249, Some(248.0))));
        for (tag, number) in [("train/loss", 1.5), ("train/exact_match", 0.25), ("val/loss", 2.5), ("val/exact_match", 0.75)] {
            assert_eq!(of(tag), [(250, Some(number))], "{tag}");
        }
        for tag in ["weights/conv.weight", "weights/conv.bias", "weights/fc.weight", "filters/conv"] {
            assert_eq!(of(tag), [(250, None)], "{tag}");
        }
        for tag in ["recipe", "_hparams_/session_start_info", "_hparams_/session_end_info"] {
            assert_eq!(of(tag), [(0, None)], "{tag}");
        }
    }

    #[test]
    fn a_resumed_run_has_a_later_file_that_says_where_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        epoch(folder.path(), 0);
        let first = event_files(folder.path()).unwrap().remove(0);
        epoch(folder.path(), 100);
        let files = event_files(folder.path()).unwrap();
        let second = files.iter().find(|path| **path != first).unwrap();
        assert!(files.len() == 2 && *second > first, "{files:?}");
        let started = |path: &Path| events(path).into_iter().find(|event| field(event, 7).is_some());
        assert_eq!(started(&first), None);
        let start = started(second).unwrap();
        assert_eq!((field(&start, 2).unwrap(), field(&start, 7).unwrap()), (&101_u64.to_le_bytes()[..], &[8, 1][..]));
    }

    #[test]
    fn buckets_hold_every_value() {
        let values = Tensor::from_slice(&[0.0, 1.0, 2.9, 30.0, 30.0, 15.5]);
        let histogram = histogram_of(&values).unwrap();
        let mut counts = vec![0.0; 30];
        (counts[0], counts[1], counts[2], counts[15], counts[29]) = (1.0, 1.0, 1.0, 1.0, 2.0);
        assert_eq!((histogram.counts, histogram.limits[0], histogram.limits[29]), (counts, 1.0, 30.0));
        assert_eq!((histogram.min, histogram.max, histogram.count), (0.0, 30.0, 6.0));
        assert!((histogram.sum - 79.4).abs() < 1e-9 && (histogram.sum_of_squares - 2049.66).abs() < 1e-9);
        // A layer's biases start at 0.
        let same = histogram_of(&Tensor::from_slice(&[0.5, 0.5])).unwrap();
        assert_eq!((same.limits, same.counts), (vec![0.5], vec![2.0]));
    }
}
