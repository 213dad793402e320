//! A look inside a trained network: what it computes of some images, and what its answers rest on.
//!
//! [`inspect`] does all of it and gives one page; each part is a function of its own: [`feature_layers`], [`class_maps`] (Grad-CAM
//! and Grad-CAM++), [`occlusion`], [`receptive_field`], [`statistics`] and [`dead_units`]. They read the network's graph and its
//! taps, so that they work for every network that is one.
//!
//! ```
//! use striate_datasets::{Fit, Normalise, Preprocess};
//! use striate_graph::{InitOptions, Network};
//! use striate_lab::inspect::{InspectOptions, Subject, inspect};
//! use tch::{Device, Kind, Tensor};
//!
//! let network = Network::new(striate_models::find("lenet5")?.model(&[])?.graph()?, &InitOptions::default())?;
//! let preprocess = Preprocess::new([1, 8, 8], [1, 32, 32], Fit::Resize, Normalise::identity())?;
//! let classes: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
//! let normalise = &preprocess.normalise;
//! let subject = Subject { name: "lenet5", network: &network, normalise, classes: &classes, temperature: 1.0 };
//! let image = Tensor::rand([1, 1, 32, 32], (Kind::Float, Device::Cpu));
//! let inspection = inspect(&subject, &[("noise".to_owned(), image)], &InspectOptions::default())?;
//! assert_eq!(inspection.report.images[0].top.len(), 5);
//! assert!(inspection.files.contains_key("index.html"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod occlusion;
pub(crate) mod picture;
mod receptive;
mod statistics;
mod view;

pub use occlusion::{Occluder, occlusion};
pub use receptive::{Region, Unit, receptive_field};
pub use statistics::{LayerStatistics, dead_units, statistics};
pub use striate::cam::{ClassMap, class_maps, feature_layers, last_maps};

use crate::LabError;
use image::RgbImage;
use serde::Serialize;
use std::collections::BTreeMap;
use striate::cam::{image_shape, over_the_picture};
use striate_datasets::Normalise;
use striate_graph::Network;
use striate_layers::Mode;
use striate_train::picture::{first_filters, grid_of_filters};
use tch::{Kind, Tensor};

/// The page among the files.
pub const PAGE: &str = "index.html";
/// What is on it, for machines.
pub const REPORT: &str = "report.json";
/// Of layers that nobody asked for, so many channels are shown.
const CHANNELS: i64 = 36;

/// A network to look into, with what makes its answers readable.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What the page calls it.
    pub name: &'a str,
    /// The network.
    pub network: &'a Network,
    /// How pixels became its inputs.
    pub normalise: &'a Normalise,
    /// The names of its classes, in the order of the logits.
    pub classes: &'a [String],
    /// What divides its logits before they become probabilities; 1 leaves them as they are.
    pub temperature: f64,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectOptions {
    /// The layers whose feature maps are shown, with all their channels; if there is none, the [`feature_layers`] with some.
    pub layers: Vec<String>,
    /// The layer of Grad-CAM and Grad-CAM++; [`last_maps`] if it is none.
    pub cam_layer: Option<String>,
    /// The units whose receptive field is drawn.
    pub units: Vec<Unit>,
    /// How many of the likeliest classes are shown with their evidence.
    pub top: usize,
    /// How many of the images are shown; statistics are of all.
    pub show: usize,
}

impl Default for InspectOptions {
    /// Five classes of four images, and what the network itself suggests.
    fn default() -> Self {
        Self { layers: Vec::new(), cam_layer: None, units: Vec::new(), top: 5, show: 4 }
    }
}

/// What was seen: figures, and files by their names in a folder.
#[derive(Debug)]
pub struct Inspection {
    /// The figures, and the names of the pictures.
    pub report: Report,
    /// PNG files, the report as JSON, and a page with all of it that needs none of the others.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The figures of an [`Inspection`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the network is called.
    pub network: String,
    /// How many images were looked at.
    pub image_count: usize,
    /// The layer of Grad-CAM and Grad-CAM++.
    pub cam_layer: Option<String>,
    /// What could not be done, and why.
    pub notes: Vec<String>,
    /// The filters of the first convolution.
    pub filters: Option<LayerPicture>,
    /// Each image that is shown.
    pub images: Vec<ImageReport>,
    /// Each layer, over all images.
    pub layers: Vec<LayerStatistics>,
}

/// A picture of a layer's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerPicture {
    /// The layer's full name.
    pub layer: String,
    /// The shape of what is shown: `[K, C, H, W]` of filters, `[C, H, W]` or `[F]` of values.
    pub shape: Vec<i64>,
    /// How many of its filters or channels are shown.
    pub shown: i64,
    /// The PNG file.
    pub file: String,
}

/// What the network says of an image, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageReport {
    /// Its name.
    pub image: String,
    /// The picture as the network sees it.
    pub file: String,
    /// The likeliest classes, the likeliest first.
    pub top: Vec<Evidence>,
    /// What hiding parts of the picture does to the likeliest class.
    pub occlusion: OcclusionReport,
    /// Feature maps.
    pub feature_maps: Vec<LayerPicture>,
    /// Receptive fields.
    pub units: Vec<UnitReport>,
}

/// A class and where its evidence lies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Its name.
    pub class: String,
    /// Its softmax probability.
    pub probability: f64,
    /// Grad-CAM over the picture; none if the network has no feature maps.
    pub grad_cam: Option<String>,
    /// Grad-CAM++ over the picture.
    pub grad_cam_plus_plus: Option<String>,
}

/// Where hiding changes the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OcclusionReport {
    /// The side of the square that hides.
    pub side: i64,
    /// How far it is moved.
    pub stride: i64,
    /// The most that the probability falls, in the mean over the squares that hide a pixel.
    pub largest_fall: f64,
    /// The map over the picture.
    pub file: String,
}

/// A unit and what it sees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitReport {
    /// The unit.
    pub unit: Unit,
    /// The pixels that it depends on.
    pub sees: Region,
    /// The picture with a frame around them.
    pub file: String,
}

/// Looks into a network with some images, each with its name: `[1, C, H, W]`, normalised as the network takes them.
///
/// # Errors
///
/// No image; a layer that the network has not (the nearest name is told), or that has no feature maps where they are needed; a unit
/// outside of its layer's maps.
pub fn inspect(subject: &Subject, images: &[(String, Tensor)], options: &InspectOptions) -> Result<Inspection, LabError> {
    let graph = subject.network.graph();
    let mut notes = Vec::new();
    for layer in &options.layers {
        let _ = graph.node(layer)?;
    }
    let cam_layer = match &options.cam_layer {
        Some(layer) => {
            let _ = image_shape(graph.node(layer)?)?;
            Some(layer.clone())
        }
        None => last_maps(graph).map(|node| node.name.clone()),
    };
    if cam_layer.is_none() {
        notes.push("the network has no convolution with several places: there are no feature maps and no Grad-CAM".to_owned());
    }
    let fields = options.units.iter().map(|unit| Ok((unit, receptive_field(graph, unit)?)));
    let fields: Vec<(&Unit, Region)> = fields.collect::<Result<_, LabError>>()?;

    let mut files = BTreeMap::new();
    let images =
        images.iter().map(|(name, image)| Ok((name, image.f_to(subject.network.device())?.f_to_kind(subject.network.kind())?)));
    let images: Vec<(&String, Tensor)> = images.collect::<Result<_, LabError>>()?;
    let batch: Vec<&Tensor> = images.iter().map(|(_, image)| image).collect();
    if batch.is_empty() {
        return Err(LabError::Usage("there is no image to look at".to_owned()));
    }
    let layers = statistics(subject.network, &Tensor::f_cat(&batch, 0)?)?;
    let shown = images.iter().take(options.show).enumerate();
    let look = shown.map(|(number, (name, image))| {
        let mut look = Look { subject, options, prefix: format!("image-{}", number + 1), files: &mut files };
        look.at(name, image, cam_layer.as_deref(), &fields)
    });
    let looked = look.collect::<Result<_, _>>()?;
    let filters = filters(subject.network, &mut files)?;
    if filters.is_none() {
        notes.push("no convolution reads the picture: there are no first-layer filters".to_owned());
    }
    let network = subject.name.to_owned();
    let report = Report { network, image_count: images.len(), cam_layer, notes, filters, images: looked, layers };
    let page = view::page(&report, &files);
    let json = serde_json::to_string_pretty(&report).map_err(|error| LabError::Figure(error.to_string()))?;
    files.insert(PAGE.to_owned(), page.into_bytes());
    files.insert(REPORT.to_owned(), json.into_bytes());
    Ok(Inspection { report, files })
}

/// One image at a time, and the pictures that it gives.
struct Look<'a, 'f> {
    subject: &'a Subject<'a>,
    options: &'a InspectOptions,
    prefix: String,
    files: &'f mut BTreeMap<String, Vec<u8>>,
}

impl Look<'_, '_> {
    fn at(
        &mut self,
        name: &str,
        image: &Tensor,
        cam_layer: Option<&str>,
        fields: &[(&Unit, Region)],
    ) -> Result<ImageReport, LabError> {
        let picture = picture::of_input(image, self.subject.normalise)?;
        let (classes, probabilities) = self.likeliest(image)?;
        let evidence = self.evidence(image, &picture, cam_layer, &classes, &probabilities)?;
        let occlusion = self.occlusion(image, &picture, classes[0])?;
        let units = fields.iter().enumerate().map(|(number, (unit, sees))| {
            let file = self.save(&format!("unit-{}", number + 1), &picture::framed(&picture, sees))?;
            Ok(UnitReport { unit: (*unit).clone(), sees: sees.clone(), file })
        });
        let units = units.collect::<Result<_, LabError>>()?;
        let file = self.save("picture", &picture::enlarge(&picture, picture::zoom(&picture)))?;
        let feature_maps = self.feature_maps(image)?;
        Ok(ImageReport { image: name.to_owned(), file, top: evidence, occlusion, feature_maps, units })
    }

    fn save(&mut self, name: &str, picture: &RgbImage) -> Result<String, LabError> {
        let file = format!("{}/{name}.png", self.prefix);
        self.files.insert(file.clone(), picture::png(picture)?);
        Ok(file)
    }

    /// The likeliest classes and their probabilities.
    fn likeliest(&self, image: &Tensor) -> Result<(Vec<i64>, Vec<f64>), LabError> {
        let _no_grad = striate_torch::no_grad();
        let outputs = self.subject.network.forward(image, Mode::Eval)?;
        let logits = outputs.logits().f_to_kind(Kind::Double)?.f_div_scalar(self.subject.temperature)?;
        let probabilities = logits.f_softmax(1, Kind::Double)?.f_select(0, 0)?;
        let count = self.options.top.clamp(1, probabilities.numel()) as i64;
        let (values, indices) = probabilities.f_topk(count, 0, true, true)?;
        Ok((Vec::try_from(indices)?, Vec::try_from(values)?))
    }

    fn evidence(
        &mut self,
        image: &Tensor,
        picture: &RgbImage,
        cam_layer: Option<&str>,
        classes: &[i64],
        probabilities: &[f64],
    ) -> Result<Vec<Evidence>, LabError> {
        let maps = match cam_layer {
            Some(layer) => class_maps(self.subject.network, image, layer, classes)?,
            None => Vec::new(),
        };
        let (height, width) = (i64::from(picture.height()), i64::from(picture.width()));
        let mut evidence = Vec::with_capacity(classes.len());
        for (rank, (class, probability)) in classes.iter().zip(probabilities).enumerate() {
            let mut over = |method: &str, map: Option<&Tensor>| -> Result<Option<String>, LabError> {
                let Some(map) = map else { return Ok(None) };
                let heated = picture::heated(picture, &over_the_picture(map, height, width)?)?;
                Ok(Some(self.save(&format!("{method}-{}", rank + 1), &heated)?))
            };
            let grad_cam = over("grad-cam", maps.get(rank).map(|map| &map.grad_cam))?;
            let grad_cam_plus_plus = over("grad-cam-plus-plus", maps.get(rank).map(|map| &map.grad_cam_plus_plus))?;
            let name = usize::try_from(*class).ok().and_then(|class| self.subject.classes.get(class).cloned());
            let class = name.unwrap_or_else(|| class.to_string());
            evidence.push(Evidence { class, probability: *probability, grad_cam, grad_cam_plus_plus });
        }
        Ok(evidence)
    }

    fn occlusion(&mut self, image: &Tensor, picture: &RgbImage, class: i64) -> Result<OcclusionReport, LabError> {
        let (height, width) = (i64::from(picture.height()), i64::from(picture.width()));
        let occluder = Occluder::for_picture(height, width);
        let falls = occlusion(self.subject.network, image, class, occluder)?;
        let largest_fall = falls.f_max()?.f_double_value(&[])?;
        let file = self.save("occlusion", &picture::heated(picture, &over_the_picture(&falls, height, width)?)?)?;
        Ok(OcclusionReport { side: occluder.side, stride: occluder.stride, largest_fall, file })
    }

    fn feature_maps(&mut self, image: &Tensor) -> Result<Vec<LayerPicture>, LabError> {
        let network = self.subject.network;
        let layers = match self.options.layers.as_slice() {
            [] => feature_layers(network.graph()).iter().map(|node| node.name.clone()).collect(),
            layers => layers.to_vec(),
        };
        let taps: Vec<&str> = layers.iter().map(String::as_str).collect();
        let _no_grad = striate_torch::no_grad();
        let outputs = network.forward_with_taps(&[image], Mode::Eval, &taps)?;
        let mut pictures = Vec::with_capacity(layers.len());
        for (layer, values) in outputs.taps() {
            let values = values.f_select(0, 0)?;
            let maps = if values.dim() == 3 { values.shallow_clone() } else { values.f_reshape([-1, 1, 1])? };
            let channels = maps.size()[0];
            let shown = if self.options.layers.is_empty() { channels.min(CHANNELS) } else { channels };
            let file = self.save(&format!("maps-{layer}"), &picture::grid_of_maps(&maps.f_narrow(0, 0, shown)?)?)?;
            pictures.push(LayerPicture { layer: layer.clone(), shape: values.size(), shown, file });
        }
        Ok(pictures)
    }
}

/// The filters of the first convolution, if it reads the picture itself.
fn filters(network: &Network, files: &mut BTreeMap<String, Vec<u8>>) -> Result<Option<LayerPicture>, LabError> {
    const FILE: &str = "filters.png";
    let Some((layer, weight)) = first_filters(network) else { return Ok(None) };
    files.insert(FILE.to_owned(), picture::png(&grid_of_filters(&weight)?)?);
    let shape = weight.size();
    Ok(Some(LayerPicture { layer: layer.to_owned(), shown: shape[0], shape, file: FILE.to_owned() }))
}
