//! `lab`: claims as experiments, and a look inside trained networks.
pub(crate) mod args;
mod claims;
mod points;

use self::args::{LabCommand, LabConfusionArgs, LabData, LabInspectArgs, LabLrArgs, LabOutput, LabSurfaceArgs};
use self::points::Points;
use crate::cli::TrainArgs;
use crate::error::CliError;
use crate::eval::{opened, preprocess_of, section, set_threads};
use crate::output::{counted, new_or_empty};
use crate::pictures::pictures;
use crate::{print, print_json, recipes, signals, source};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use striate::data::Opened;
use striate::{Bundle, Classifier, ClassifierOptions, LrFound, Run, devices, new_folder};
use striate_datasets::{Dataset, DecodeOptions, Loader, LoaderOptions, Preprocess, Subset, decode_image};
use striate_files::FilesError;
use striate_graph::{InitOptions, Network};
use striate_lab::confusion::confusion;
use striate_lab::inspect::{InspectOptions, PAGE, Report, Subject, Unit, inspect};
use striate_lab::surface::{SurfaceOptions, loss_surface};
use striate_lab::{LabError, lr_range_svg};
use striate_torch::Shown;
use striate_train::{DataSection, LrRangeOptions};
use tch::{Device, Tensor};

/// Images of one evaluation step.
const BATCH: usize = 256;
/// Of fewer pictures than this, what they do not wake may not be dead.
const MANY: usize = 20;

pub(crate) fn lab(command: &LabCommand) -> Result<(), CliError> {
    match command {
        LabCommand::List(args) => claims::list(args),
        LabCommand::Run(args) => claims::run(args),
        LabCommand::Inspect(args) => look_inside(args),
        LabCommand::Surface(args) => surface(args),
        LabCommand::Lr(args) => lr(args),
        LabCommand::Confusion(args) => confused(args),
    }
}

fn look_inside(args: &LabInspectArgs) -> Result<(), CliError> {
    set_threads(args.threads)?;
    args.output.check()?;
    let units: Vec<Unit> = args.units.iter().map(|unit| unit.parse()).collect::<Result<_, _>>()?;
    let Subjects { bundle, preprocess, network } = Subjects::open(&args.bundle, vec![Device::Cpu])?;
    let info = &bundle.info;
    if info.loss.is_multi_label() {
        let bundle = args.bundle.display();
        return Err(CliError::Usage(format!("{bundle}: its classes do not exclude each other, and this looks at the likeliest")));
    }
    let mut images = Vec::new();
    for picture in &pictures(&args.images)? {
        images.push((picture.name.display().to_string(), decode_image(picture, &preprocess, &DecodeOptions::default())?));
    }
    let name = info.name();
    let (normalise, temperature) = (&preprocess.normalise, info.answering.temperature);
    let subject = Subject { name, network: &network, normalise, classes: &info.classes, temperature };
    let (layers, cam_layer) = (args.layers.clone(), args.cam_layer.clone());
    let options = InspectOptions { layers, cam_layer, units, top: args.top, show: args.show };
    let inspection = inspect(&subject, &images, &options)?;
    for note in &inspection.report.notes {
        tracing::warn!("{note}");
    }
    let folder = args.output.write(&format!("inspect-{name}"), inspection.files)?;
    if args.output.json {
        return print_json(&inspection.report);
    }
    print(&format!("{}page {}\n", describe(&inspection.report), Shown(folder.join(PAGE).display())))
}

/// A line for each image that is shown, then what is remarkable of the layers.
fn describe(report: &Report) -> String {
    let mut text = String::new();
    for image in &report.images {
        let top: Vec<String> = image.top.iter().map(|a| format!("{} {:.1}%", a.class, 100.0 * a.probability)).collect();
        text += &format!("{}: {}\n", Shown(&image.image), Shown(top.join(", ")));
        for unit in &image.units {
            let (rows, columns) = (&unit.sees.rows, &unit.sees.columns);
            let (last_row, last_column) = (rows.end - 1, columns.end - 1);
            text +=
                &format!("  {} sees rows {} to {last_row}, columns {} to {last_column}\n", unit.unit, rows.start, columns.start);
        }
    }
    let with_dead = report.layers.iter().filter_map(|layer| Some((layer, layer.dead.as_ref().filter(|dead| !dead.is_empty())?)));
    let dead: Vec<String> = with_dead
        .map(|(layer, dead)| format!("{} {} of {}", layer.layer, dead.len(), layer.shape.first().unwrap_or(&0)))
        .collect();
    let few = if report.image_count < MANY { " (few pictures prove little: others may wake them)" } else { "" };
    match dead.as_slice() {
        [] => text + "dead units: none\n",
        dead => text + &format!("dead units: {}{few}\n", dead.join(", ")),
    }
}

fn surface(args: &LabSurfaceArgs) -> Result<(), CliError> {
    set_threads(args.compute.threads)?;
    args.output.check()?;
    let Subjects { bundle, preprocess, network } = Subjects::open(&args.bundle, devices(&args.compute.devices)?)?;
    let info = &bundle.info;
    let data = opened(&args.data.section()?, Opened::to_train)?.with_classes(&info.classes)?.fit(&preprocess)?;
    let data = Subset::drawn(&*data, args.examples, args.seed)?;
    let loader = Loader::new(&data, preprocess, LoaderOptions::eval(BATCH))?;
    let options = SurfaceOptions { points: args.points, reach: args.reach, seed: args.seed };
    let bar = Points::new();
    let loss = info.loss.unsmoothed();
    let surface = loss_surface(&network, &loader, loss, options, &mut |done, all| bar.update(done, all))?;
    drop(bar);
    let svg = surface.to_svg(&format!("Loss around {} on {}", info.name(), data.name()))?;
    let files = [("surface.csv", surface.to_csv()), ("surface.svg", svg)];
    let folder = args.output.write(&format!("surface-{}", info.name()), texts(files))?;
    let losses = || surface.losses.iter().flatten().copied();
    let centre = (args.points % 2 == 1).then(|| surface.losses[args.points / 2][args.points / 2]);
    let (least, largest) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    if args.output.json {
        return print_json(&json!({
            "network": info.name(), "data": data.name(), "examples": data.len(), "reach": args.reach, "seed": args.seed,
            "centre": centre, "steps": surface.steps, "losses": surface.losses,
        }));
    }
    let centre = centre.map(|loss| format!("{loss:.4} at the weights, ")).unwrap_or_default();
    let images = data.len();
    print(&format!(
        "loss of {images} training images: {centre}from {least:.4} to {largest:.4} around them\ncsv    {}\nfigure {}\n",
        Shown(folder.join("surface.csv").display()),
        Shown(folder.join("surface.svg").display())
    ))
}

fn lr(args: &LabLrArgs) -> Result<(), CliError> {
    set_threads(args.compute.threads)?;
    args.output.check()?;
    let train_args = TrainArgs {
        what: Some(args.what.clone()),
        data: args.data.clone(),
        data_dir: args.data_dir.clone(),
        batch_size: args.batch_size,
        optimizer: args.optimizer.clone(),
        seed: args.seed,
        ..TrainArgs::default()
    };
    let mut recipe = recipes::resolve(&train_args)?.recipe;
    recipe.train.devices.clone_from(&args.compute.devices);
    let (data, batch_size, seed) = (recipe.data.name.clone(), recipe.train.batch_size, recipe.train.seed);
    let options = LrRangeOptions { from: args.from, to: args.to, steps: args.steps };
    let LrFound { network: name, range: tested } = Run::new(recipe).find_lr(options)?;
    let svg = lr_range_svg(&tested, &format!("Learning-rate range of {name} on {data}"))?;
    let folder = args.output.write(&format!("lr-{name}"), texts([("lr.csv", tested.to_csv()), ("lr.svg", svg)]))?;
    if args.output.json {
        let mut result = json!({ "model": name, "data": data, "batch_size": batch_size, "seed": seed });
        merge(&mut result, serde_json::to_value(&tested).unwrap_or_default());
        return print_json(&result);
    }
    let suggestion = match (tested.suggestion, tested.lowest) {
        (Some(rate), Some(lowest)) => {
            format!("suggestion {rate:.2e}: there the smoothed loss falls fastest; it is least at {lowest:.2e}")
        }
        _ => "suggestion none: the loss never fell; try lower rates (--from) or more --steps".to_owned(),
    };
    let (steps, last) = (tested.points.len(), tested.points.last().map_or(0.0, |point| point.lr));
    let end = if tested.blew_up { format!("until the loss blew up at {last:.2e}") } else { format!("up to {last:.2e}") };
    print(&format!(
        "{} on {}: {steps} steps, {end}\n{suggestion}\ncsv    {}\nfigure {}\n",
        Shown(&name),
        Shown(&data),
        Shown(folder.join("lr.csv").display()),
        Shown(folder.join("lr.svg").display())
    ))
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

fn confused(args: &LabConfusionArgs) -> Result<(), CliError> {
    set_threads(args.compute.threads)?;
    args.output.check()?;
    let bundle = source::bundle(&args.bundle)?;
    let mut options = ClassifierOptions::default();
    options.stop = signals::stop();
    options.devices = devices(&args.compute.devices)?;
    let classifier = Classifier::of(&bundle, &args.bundle, options)?;
    let (info, preprocess) = (classifier.info(), classifier.preprocess());
    let data = opened(&args.data.section()?, Opened::to_judge)?.with_classes(&info.classes)?.fit(preprocess)?;
    let loader = Loader::new(&*data, preprocess.clone(), LoaderOptions::eval(BATCH))?;
    let confusion = confusion(&loader, |images| classifier.logits(images).map_err(|error| LabError::Usage(error.to_string())))?;
    let worst: Vec<i64> = confusion.mistakes.iter().take(args.worst).map(|mistake| mistake.example).collect();
    let images = match worst.as_slice() {
        [] => None,
        worst => Some(data.batch(&Tensor::f_from_slice(worst)?)?.images),
    };
    let page = confusion.to_html(info.name(), data.name(), images.as_ref())?;
    let files = [(PAGE, page), ("confusion.svg", confusion.to_svg()), ("confusion.csv", confusion.to_csv())];
    let folder = args.output.write(&format!("confusion-{}", info.name()), texts(files))?;
    let (pairs, name) = (confusion.pairs(), |class: usize| confusion.classes.get(class).cloned().unwrap_or_default());
    if args.output.json {
        let pairs: Vec<Value> = (pairs.iter())
            .map(|p| json!({"target": name(p.target), "predicted": name(p.predicted), "count": p.count, "share": p.share}))
            .collect();
        return print_json(&json!({
            "network": info.name(), "data": data.name(), "examples": data.len(), "accuracy": confusion.accuracy(),
            "classes": confusion.classes, "confusion": confusion.matrix.rows(), "pairs": pairs, "mistakes": confusion.mistakes,
        }));
    }
    let mut text = format!(
        "{}: accuracy {:.2}%, {}\n",
        counted(data.len(), "image"),
        100.0 * confusion.accuracy(),
        counted(confusion.mistakes.len(), "mistake")
    );
    for pair in pairs.iter().take(5) {
        let (target, predicted) = (name(pair.target), name(pair.predicted));
        let (target, predicted) = (Shown(target), Shown(predicted));
        text += &format!("{target} taken for {predicted}: {} ({:.1}% of all {target})\n", pair.count, 100.0 * pair.share);
    }
    print(&format!("{text}page {}\n", Shown(folder.join(PAGE).display())))
}

/// A bundle with its network.
struct Subjects {
    bundle: Bundle,
    preprocess: Preprocess,
    network: Network,
}

impl Subjects {
    fn open(path: &Path, devices: Vec<Device>) -> Result<Self, CliError> {
        let bundle = source::bundle(path)?;
        let preprocess = preprocess_of(&bundle.info, path)?.clone();
        let network = bundle.network(path, &InitOptions { devices, ..InitOptions::default() })?;
        Ok(Self { bundle, preprocess, network })
    }
}

impl LabData {
    fn section(&self) -> Result<DataSection, CliError> {
        section(&self.name, self.dir.as_deref())
    }
}

/// Texts as files.
fn texts<const N: usize>(files: [(&str, String); N]) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}

impl LabOutput {
    /// Refuses a folder that holds something, before anything is computed.
    fn check(&self) -> Result<(), CliError> {
        self.out.as_deref().map_or(Ok(()), |folder| new_or_empty(folder, "--out"))
    }

    /// Writes the files into the folder, or into the first of `lab/NAME-1`, `lab/NAME-2`, ... that does not exist.
    fn write(&self, name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<PathBuf, CliError> {
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => new_folder("lab", name).map_err(FilesError::new("make a folder in", Path::new("lab")))?,
        };
        let filled = striate_files::fill_folder(&folder, |filled| {
            files.iter().try_for_each(|(file, bytes)| striate_files::write_new(&filled.join(file), |file| file.write_all(bytes)))
        });
        if filled.is_err() && self.out.is_none() {
            // It is empty, and nobody asked for it by name.
            let _ = std::fs::remove_dir(&folder);
        }
        filled?;
        Ok(folder)
    }
}
