//! The page of an inspection.
use super::picture::have_one_value;
use super::{Evidence, ImageReport, LayerPicture, Report};
use crate::page::{document, escape, figure, number, percent, picture, table};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Of so many dead units the numbers are told; of more, how many there are.
const NAMED: usize = 12;

/// The files by name.
type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn page(report: &Report, files: &Files) -> String {
    let name = escape(&report.network);
    let mut body = format!("<header>\n<h1>Inside {name}</h1>\n<p>{}</p>\n", counted(report));
    for note in &report.notes {
        let _ = writeln!(body, "<p><strong>Note:</strong> {}.</p>", escape(note));
    }
    body += "<nav aria-label=\"Contents\">";
    for (index, image) in report.images.iter().enumerate() {
        let _ = write!(body, "<a href=\"#image-{}\">{}</a> ", index + 1, escape(&image.image));
    }
    body += "<a href=\"#filters\">Filters</a> <a href=\"#layers\">Layers</a> <a href=\"#method\">How to read it</a></nav>\n</header>\n<main>\n";
    for (index, image) in report.images.iter().enumerate() {
        body += &image_section(index + 1, image, files);
    }
    body += &filters(report.filters.as_ref(), files);
    body += &layers(report);
    body += &method(report);
    body += "</main>\n";
    document(&format!("Inside {}", report.network), &body)
}

fn counted(report: &Report) -> String {
    match (report.image_count, report.images.len()) {
        (1, _) => "What it computes of one image, and what its answer rests on.".to_owned(),
        (all, shown) if all == shown => format!("What it computes of {all} images, and what its answers rest on."),
        (all, shown) => format!("Statistics of {all} images; the first {shown} of them are shown."),
    }
}

fn bytes<'f>(files: &'f Files, file: &str) -> &'f [u8] {
    files.get(file).map_or(&[], Vec::as_slice)
}

fn image_section(number: usize, image: &ImageReport, files: &Files) -> String {
    let name = escape(&image.image);
    let mut text =
        format!("<section aria-labelledby=\"image-{number}\">\n<h2 id=\"image-{number}\">{name}</h2>\n<div class=\"cards\">\n");
    text += &figure(
        bytes(files, &image.file),
        &format!("{} as the network sees it", image.image),
        "The picture as the network sees it.",
    );
    let occlusion = &image.occlusion;
    let best = image.top.first().map_or("", |evidence| evidence.class.as_str());
    let caption = format!(
        "Hiding squares of {0}x{0} pixels: red where <em>{1}</em> becomes less likely (by up to {2}), blue where likelier.",
        occlusion.side,
        escape(best),
        percent(occlusion.largest_fall.max(0.0))
    );
    text += &figure(bytes(files, &occlusion.file), &format!("Occlusion map of {best} over {}", image.image), &caption);
    for unit in &image.units {
        let (rows, columns) = (&unit.sees.rows, &unit.sees.columns);
        let caption = format!(
            "<code>{}</code> sees {}x{} pixels: rows {} to {}, columns {} to {}.",
            escape(&unit.unit.to_string()),
            rows.end - rows.start,
            columns.end - columns.start,
            rows.start,
            rows.end - 1,
            columns.start,
            columns.end - 1
        );
        text += &figure(bytes(files, &unit.file), &format!("Receptive field of {} on {}", unit.unit, image.image), &caption);
    }
    text += "</div>\n";
    text += &evidence(&image.top, &image.image, files);
    for maps in &image.feature_maps {
        let alt = format!("Feature maps of {} for {}", maps.layer, image.image);
        let _ = writeln!(text, "<div class=\"wide\">{}</div>", figure(bytes(files, &maps.file), &alt, &about_maps(maps)));
    }
    text + "</section>\n"
}

fn about_maps(maps: &LayerPicture) -> String {
    let all = maps.shape.first().copied().unwrap_or_default();
    let shown =
        if maps.shown < all { format!("the first {} of {all} channels", maps.shown) } else { format!("all {all} channels") };
    let shape = maps.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let colours = if have_one_value(&maps.shape) {
        "from their least value (dark) to their largest"
    } else {
        "each from its least value (dark) to its largest"
    };
    format!("<code>{}</code> ({shape}): {shown}, {colours} (light).", escape(&maps.layer))
}

/// The likeliest classes with their maps.
fn evidence(top: &[Evidence], image: &str, files: &Files) -> String {
    let mut text = "<table class=\"evidence\">\n<caption>The likeliest classes and where their evidence lies</caption>\n<thead><tr>\
                    <th scope=\"col\">Class</th><th scope=\"col\">Grad-CAM</th><th scope=\"col\">Grad-CAM++</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for Evidence { class, probability, grad_cam, grad_cam_plus_plus } in top {
        let name = escape(class);
        let _ = write!(
            text,
            "<tr><th scope=\"row\">{name}<br>{}<br><progress value=\"{probability:.6}\" max=\"1\" aria-label=\"Probability of {name}\"></progress></th>",
            percent(*probability)
        );
        for (method, file) in [("Grad-CAM", grad_cam), ("Grad-CAM++", grad_cam_plus_plus)] {
            let cell = file.as_ref().map(|file| picture(bytes(files, file), &format!("{method} of {class} over {image}")));
            let _ = write!(text, "<td>{}</td>", cell.unwrap_or_else(|| "none".to_owned()));
        }
        text += "</tr>\n";
    }
    text + "</tbody>\n</table>\n"
}

fn filters(filters: Option<&LayerPicture>, files: &Files) -> String {
    let mut text = "<section aria-labelledby=\"filters\">\n<h2 id=\"filters\">First-layer filters</h2>\n".to_owned();
    match filters {
        None => text += "<p>No convolution reads the picture.</p>\n",
        Some(filters) => {
            let [count, channels, height, width] = <[i64; 4]>::try_from(filters.shape.as_slice()).unwrap_or_default();
            let colours = if channels == 3 { "in the colours of the channels" } else { "one picture a channel" };
            let caption = format!(
                "<code>{}</code>: {count} filters of {height}x{width} on {}, {colours}; medium grey is 0.",
                escape(&filters.layer),
                if channels == 1 { "one channel".to_owned() } else { format!("{channels} channels") }
            );
            let alt = format!("The filters of {}", filters.layer);
            let _ = writeln!(text, "<div class=\"wide\">{}</div>", figure(bytes(files, &filters.file), &alt, &caption));
        }
    }
    text + "</section>\n"
}

fn layers(report: &Report) -> String {
    let rows: Vec<Vec<String>> = (report.layers.iter())
        .map(|layer| {
            let shape = layer.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
            let dead = match &layer.dead {
                None => "-".to_owned(),
                Some(dead) if dead.is_empty() => "0".to_owned(),
                Some(dead) => {
                    let all = layer.shape.first().copied().unwrap_or_default();
                    let names = dead.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let more = if dead.len() > NAMED { ", ..." } else { "" };
                    format!("{} of {all} ({names}{more})", dead.len())
                }
            };
            vec![
                format!("<code>{}</code>", escape(&layer.layer)),
                escape(layer.op),
                shape,
                number(layer.mean),
                number(layer.std),
                percent(layer.zeros),
                layer.gradient_norm.map_or_else(|| "-".to_owned(), number),
                dead,
            ]
        })
        .collect();
    let columns = [
        ("Layer", false),
        ("Kind", false),
        ("Output", false),
        ("Mean", true),
        ("Std", true),
        ("Zeros", true),
        ("Gradient norm", true),
        ("Dead units", false),
    ];
    let images = if report.image_count == 1 { "one image".to_owned() } else { format!("{} images", report.image_count) };
    let caption = format!("Values and gradients of each layer over {images}");
    format!(
        "<section aria-labelledby=\"layers\">\n<h2 id=\"layers\">Layers</h2>\n{}</section>\n",
        table(&caption, &columns, &rows)
    )
}

fn method(report: &Report) -> String {
    let cam = report
        .cam_layer
        .as_ref()
        .map_or_else(|| "the network has none".to_owned(), |layer| format!("here <code>{}</code>", escape(layer)));
    format!(
        "<section aria-labelledby=\"method\">\n<h2 id=\"method\">How to read it</h2>\n<dl>\n\
         <dt>Grad-CAM</dt><dd>The sum of a layer's feature maps ({cam}), each weighted by the mean gradient of the class score over it; what is \
         positive is enlarged and laid over the picture in red, the largest value fully (<a href=\"https://arxiv.org/abs/1610.02391\">Selvaraju \
         2017</a>). Maps of different classes are scaled apart: compare where they lie, not how red they are.</dd>\n\
         <dt>Grad-CAM++</dt><dd>The same with weights that count positive gradients so that several objects of a class are all found \
         (<a href=\"https://arxiv.org/abs/1710.11063\">Chattopadhay 2018</a>).</dd>\n\
         <dt>Hiding squares</dt><dd>Each pixel's value is how much the probability falls, in the mean over all squares that hide it. Squares are \
         filled with the mean of the training images (<a href=\"https://arxiv.org/abs/1311.2901\">Zeiler and Fergus 2014</a>).</dd>\n\
         <dt>Receptive field</dt><dd>The pixels that a unit depends on at all, without what lies in the padding.</dd>\n\
         <dt>Gradient norm</dt><dd>The norm of the gradient of the likeliest class's score with respect to the layer's output, the mean over \
         the images.</dd>\n\
         <dt>Dead units</dt><dd>Channels of a ReLU that are not above 0 anywhere in any of the images, by number. A few images prove little: \
         look at a folder of them.</dd>\n</dl>\n</section>\n"
    )
}
