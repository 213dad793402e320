//! The page of a finished run: how it went, what it confuses, and where it looked when it was wrong.
use crate::LabError;
use crate::confusion::{Confusion, Mistake, confusion};
use crate::figure::{Axis, Labels, Series, lines};
use crate::inspect::{class_maps, last_maps, picture as draw};
use crate::page::{document, escape, figure, number, percent, picture, table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use striate::cam::over_the_picture;
use striate::{BUNDLE, Bundle, Prepared, Report, Run, Scores, Summary};
use striate_datasets::{Loader, LoaderOptions, Subset};
use striate_files::FilesError;
use striate_graph::{Kernels, Network};
use striate_layers::Mode;
use striate_train::picture::{first_filters, grid_of_filters};
use tch::{Device, Tensor};

/// Points of a curve over steps, at most.
const POINTS: usize = 1000;
/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// The page of a finished run, which was [resumed](Run::resume) from its `folder`: curves, figures, the confusion matrix, each
/// class, the `worst` mistakes with Grad-CAM, the first filters and the recipe. It is one file that needs no other.
///
/// # Errors
///
/// A run that is not finished, and whatever a run fails with before it trains, such as data that were moved.
pub fn run_page(mut run: Run<'_>, folder: &Path, worst: usize) -> Result<String, LabError> {
    let Some(summary) = run.finished()? else {
        return Err(LabError::Usage(format!("{} holds a run that is not finished: resume it first", folder.display())));
    };
    let recipe = run.recipe().to_toml();
    let mut prepared = run.prepare()?;
    prepared.network.load_state(&Bundle::read(&folder.join(BUNDLE))?.state)?;
    let what = format!("{} on {}", summary.model, summary.data);
    let mut body = format!(
        "<header>\n<h1>{}</h1>\n<p>{} {} of {} on {} images of {}.</p>\n</header>\n<main>\n",
        escape(&what),
        percent(summary.test.accuracy),
        summary.test.measure(),
        escape(&summary.model),
        summary.test.examples,
        escape(summary.tested_on()),
    );
    let events = Events::read(&folder.join("metrics.jsonl"))?;
    body += &curves(&events, &summary)?;
    body += &figures(&summary, &events);
    body += &match &summary.test.scores {
        Scores::SingleLabel(_) => mistakes(&mut prepared, worst)?,
        Scores::MultiLabel(_) => several(&summary.test),
    };
    body += &filters(&prepared.network)?;
    body += &section("recipe", "Recipe", &format!("<pre><code>{}</code></pre>\n", lines_of(&recipe)));
    Ok(document(&what, &format!("{body}</main>\n")))
}

/// What a run has told of its steps and epochs; of what it did twice, the later.
#[derive(Default)]
struct Events {
    epochs: BTreeMap<u64, Value>,
    steps: BTreeMap<u64, Value>,
}

impl Events {
    fn read(path: &Path) -> Result<Self, LabError> {
        let (text, mut events) = (striate_files::read_to_string(path)?, Self::default());
        for line in text.lines() {
            let bad = |error: serde_json::Error| FilesError::new("read", path)(error.into());
            let event: Value = serde_json::from_str(line).map_err(bad)?;
            let number = |key: &str| event[key].as_u64().unwrap_or_default();
            match event["event"].as_str() {
                Some("epoch_done") => drop(events.epochs.insert(number("epoch") + 1, event)),
                Some("step_done") => drop(events.steps.insert(number("step"), event)),
                _ => {}
            }
        }
        Ok(events)
    }

    /// A line through a figure of each epoch.
    fn by_epoch(&self, name: &str, key: &str) -> Series {
        Series { name: name.to_owned(), points: points(&self.epochs, key).collect(), dashed: false }
    }

    /// A line through a figure of some steps, evenly chosen.
    fn by_step(&self, name: &str, key: &str) -> Series {
        let every = self.steps.len().div_ceil(POINTS).max(1);
        Series { name: name.to_owned(), points: points(&self.steps, key).step_by(every).collect(), dashed: false }
    }
}

fn points<'e>(events: &'e BTreeMap<u64, Value>, key: &'e str) -> impl Iterator<Item = (f64, f64)> + 'e {
    events.iter().filter_map(move |(at, event)| Some((*at as f64, event[key].as_f64()?)))
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{content}</section>\n")
}

fn curves(events: &Events, summary: &Summary) -> Result<String, LabError> {
    let (judge, measure) = (summary.judge.as_str(), summary.test.measure());
    let of = |train: &str, test: &str| [events.by_epoch("train", train), events.by_epoch(judge, test)];
    let (losses, shares) = (of("train_loss", "test_loss"), of("train_accuracy", "test_accuracy"));
    // A run may have gone on from a checkpoint alone.
    if events.epochs.is_empty() || events.steps.is_empty() {
        return Ok(section("curves", "Curves", "<p>The run's folder has no figures of its epochs.</p>\n"));
    }
    let charts = [
        lines(Labels { title: "Loss", x: "epoch", y: "mean loss" }, Axis::Linear, &losses)?,
        lines(Labels { title: "Right answers", x: "epoch", y: measure }, Axis::Linear, &shares)?,
        lines(Labels { title: "Learning rate", x: "step", y: "rate" }, Axis::Linear, &[events.by_step("rate", "lr")])?,
    ];
    let charts: String = charts.iter().map(|chart| format!("<figure class=\"wide\">{}</figure>\n", chart.trim())).collect();
    Ok(section("curves", "Curves", &charts))
}

fn figures(summary: &Summary, events: &Events) -> String {
    let Report { examples, loss, accuracy, .. } = &summary.test;
    let measure = summary.test.measure();
    let seconds: f64 = points(&events.epochs, "seconds").map(|(_, seconds)| seconds).sum();
    let mut rows = vec![
        (format!("{} {measure}", summary.tested_on()), format!("{} of {examples} images", percent(*accuracy))),
        (format!("{} loss", summary.tested_on()), number(*loss)),
    ];
    if let Some(val) = &summary.val {
        rows.push((format!("val {measure}"), format!("{} of {} images", percent(val.accuracy), val.examples)));
    }
    if let Some(best) = summary.best_accuracy {
        rows.push((format!("best {} {measure} after an epoch", summary.judge), percent(best)));
    }
    rows.extend([
        ("learned values".to_owned(), summary.params.to_string()),
        ("epochs, steps".to_owned(), format!("{}, {}", summary.epochs, summary.steps)),
        ("seed".to_owned(), summary.seed.to_string()),
        ("training time, without evaluation".to_owned(), format!("{seconds:.1} s")),
    ]);
    let known = |what: &str, value: Option<String>| value.map(|value| (what.to_owned(), value));
    rows.extend(known("images a second", summary.images_per_second.map(|rate| format!("{rate:.0}"))));
    rows.extend(known("waiting for data", summary.waiting.map(percent)));
    rows.extend(known("peak memory", summary.peak_memory.map(|bytes| format!("{:.0} MiB", bytes as f64 / MIB))));
    rows.extend([
        ("machine".to_owned(), summary.machine.clone()),
        ("threads".to_owned(), summary.threads.to_string()),
        ("versions".to_owned(), format!("striate {}, libtorch {}", summary.striate, summary.libtorch)),
    ]);
    let rows: Vec<Vec<String>> = rows.iter().map(|(what, value)| vec![escape(what), escape(value)]).collect();
    section("figures", "Figures", &table("The run", &[("What", false), ("Value", false)], &rows))
}

/// What the network confuses, and its worst mistakes.
fn mistakes(prepared: &mut Prepared, worst: usize) -> Result<String, LabError> {
    let network = &prepared.network;
    let loader = prepared.test_loader()?;
    let confusion = confusion(&loader, |images| {
        let outputs = network.forward(&images.f_to_device(network.device())?, Mode::Eval)?;
        Ok(outputs.logits().f_to_device(Device::Cpu)?)
    })?;
    drop(loader);
    // Gradients are those of libtorch's operators in float32.
    prepared.network.set_kernels(Kernels::Libtorch);
    prepared.network.set_autocast(None);
    let worst = &confusion.mistakes[..worst.min(confusion.mistakes.len())];
    let content =
        if worst.is_empty() { "<p>There is none to show.</p>\n".to_owned() } else { shown(prepared, &confusion, worst)? };
    let matrix = "<h2 id=\"confusion\">Confusion matrix</h2>\n".to_owned() + &confusion.about();
    Ok(matrix + &section("mistakes", "Worst mistakes", &content))
}

/// A row for each mistake: the picture, and where the evidence lies for what it was taken for and for what it is.
fn shown(prepared: &Prepared, confusion: &Confusion, worst: &[Mistake]) -> Result<String, LabError> {
    let Prepared { network, preprocess, .. } = prepared;
    let loader = prepared.test_loader()?;
    let places: Vec<i64> = worst.iter().map(|mistake| mistake.example).collect();
    let few = Subset::new(loader.dataset(), &places)?;
    let few = Loader::new(&few, preprocess.clone(), LoaderOptions::eval(places.len()))?;
    let Some(batch) = few.epoch(0)?.next().transpose()? else { return Ok(String::new()) };
    let layer = last_maps(network.graph()).map(|node| node.name.clone());
    let mut rows = Vec::new();
    for (row, mistake) in (0..).zip(worst) {
        let image = batch.images.f_narrow(0, row, 1)?.f_to_device(network.device())?;
        let picture = Pictured::new(network, &image, draw::of_input(&image, &preprocess.normalise)?, layer.as_deref(), mistake)?;
        rows.push(picture.row(confusion, mistake)?);
    }
    let columns = [("Picture", false), ("Evidence for its answer", false), ("Evidence for its class", false)];
    let about = "<p>The images whose own class was thought least likely, as the network sees them. Grad-CAM shows where the \
                 evidence lies for a class.</p>\n";
    Ok(format!("{about}{}", table("Mistakes", &columns, &rows)))
}

/// A mistake's picture, and the evidence over it for its answer and its class.
struct Pictured {
    picture: Vec<u8>,
    evidence: Vec<Vec<u8>>,
}

impl Pictured {
    fn new(
        network: &Network,
        image: &Tensor,
        picture: image::RgbImage,
        layer: Option<&str>,
        mistake: &Mistake,
    ) -> Result<Self, LabError> {
        let classes = [mistake.predicted as i64, mistake.target as i64];
        let maps = layer.map_or(Ok(Vec::new()), |layer| class_maps(network, image, layer, &classes))?;
        let over = |map: &Tensor| {
            let heat = over_the_picture(map, i64::from(picture.height()), i64::from(picture.width()))?;
            Ok(draw::png(&draw::heated(&picture, &heat)?)?)
        };
        let evidence = maps.iter().map(|map| over(&map.grad_cam)).collect::<Result<_, LabError>>()?;
        Ok(Self { picture: draw::png(&draw::enlarge(&picture, draw::zoom(&picture)))?, evidence })
    }

    fn row(&self, confusion: &Confusion, mistake: &Mistake) -> Result<Vec<String>, LabError> {
        let name = |class: usize| confusion.classes.get(class).map_or("", String::as_str);
        let (target, predicted, example) = (name(mistake.target), name(mistake.predicted), mistake.example);
        let caption = format!("<strong>{}</strong>, {}", escape(target), escape(&mistake.name()));
        let mut cells = vec![figure(&self.picture, &format!("Test image {example}, {target}"), &caption)];
        let shares = [(predicted, mistake.predicted_probability), (target, mistake.target_probability)];
        for (index, (class, probability)) in shares.into_iter().enumerate() {
            let map = self.evidence.get(index).map(|png| picture(png, &format!("Grad-CAM of {class} over image {example}")));
            cells.push(format!("{}{} {}", map.unwrap_or_default(), escape(class), percent(probability)));
        }
        Ok(cells)
    }
}

/// How well classes are found that do not exclude each other.
fn several(report: &Report) -> String {
    let Scores::MultiLabel(scores) = &report.scores else { return String::new() };
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    let row = |(name, class): (&String, &striate_train::metrics::ClassMetrics)| {
        let shares = [class.precision, class.recall, Some(class.f1), class.average_precision].map(share);
        [vec![escape(name), class.examples.to_string()], shares.to_vec()].concat()
    };
    let rows: Vec<Vec<String>> = report.classes.iter().zip(&scores.per_class).map(row).collect();
    let columns = ["Examples", "Precision", "Recall", "F1", "Average precision"].map(|name| (name, true));
    section("classes", "Classes", &table("Each class", &[&[("Class", false)], &columns[..]].concat(), &rows))
}

fn filters(network: &Network) -> Result<String, LabError> {
    let Some((layer, weight)) = first_filters(network) else { return Ok(String::new()) };
    let png = draw::png(&grid_of_filters(&weight)?)?;
    let caption = format!("<code>{}</code>, each with 0 in the middle of its range.", escape(layer));
    Ok(section("filters", "First filters", &figure(&png, &format!("Filters of {layer}"), &caption)))
}

/// Lines as HTML.
fn lines_of(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_done_twice_the_later_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let step = |step: u64, lr: f64| format!("{{\"event\":\"step_done\",\"step\":{step},\"lr\":{lr}}}\n");
        let epoch = |loss: f64| format!("{{\"event\":\"epoch_done\",\"epoch\":0,\"train_loss\":{loss}}}\n");
        let steps: String = (1..=2500).map(|number| step(number, 0.5)).collect();
        std::fs::write(&path, format!("{steps}{}{}{}", epoch(2.0), step(1, 0.25), epoch(1.0))).unwrap();
        let events = Events::read(&path).unwrap();
        assert_eq!(events.by_epoch("train", "train_loss").points, [(1.0, 1.0)]);
        let rates = events.by_step("rate", "lr").points;
        assert_eq!((rates.len(), rates[0], rates[833]), (834, (1.0, 0.25), (2500.0, 0.5)));
        std::fs::write(&path, "{").unwrap();
        assert!(Events::read(&path).is_err_and(|error| error.to_string().contains("metrics.jsonl")));
    }
}
