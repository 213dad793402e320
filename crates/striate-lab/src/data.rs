//! What is wrong with data, as a page with the pictures.
use crate::LabError;
use crate::inspect::picture;
use crate::page::{document, escape, figure, percent, table};
use image::{Rgb, RgbImage, imageops};
use std::fmt::Write;
use striate::check::Checked;
use striate::datasets::{Finding, Pixels, Seen};

/// The longer side of a picture on the page, in pixels.
const SIDE: u32 = 128;
/// Pictures of a finding, and of a group in it, that are shown at most.
const SHOWN: usize = 24;
const OF_GROUP: usize = 6;

/// The page: how many pictures each class has, then each finding with its first pictures. It is one file.
///
/// # Errors
///
/// A picture that cannot be encoded.
pub fn data_page(checked: &Checked) -> Result<String, LabError> {
    let survey = &checked.survey;
    let (name, pictures) = (escape(&checked.name), survey.len());
    let mut body = format!("<header>\n<h1>What is in {name}</h1>\n<p>{pictures} pictures in {} classes.", survey.classes.len());
    if let Some(sizes) = &survey.sizes {
        let [smallest, median, largest] =
            [sizes.smallest, sizes.median, sizes.largest].map(|[width, height]| format!("{width}x{height}"));
        let _ = write!(body, " From {smallest} to {largest} pixels, median {median}.");
    }
    for counts in [&survey.colours, &survey.formats] {
        let list: Vec<String> = counts.iter().map(|count| format!("{} {}", count.pictures, escape(&count.what))).collect();
        if !list.is_empty() {
            let _ = write!(body, " {}.", list.join(", "));
        }
    }
    body += "</p>\n</header>\n<main>\n";
    for finding in &survey.findings {
        body += &section(checked, finding)?;
    }
    if survey.findings.is_empty() {
        body += "<p>Nothing was found.</p>\n";
    }
    body += "<section aria-labelledby=\"classes\">\n<h2 id=\"classes\">Classes</h2>\n";
    let mut columns = vec![("Class", false)];
    columns.extend(survey.parts.iter().map(|part| (part.part.as_str(), true)));
    columns.push(("Share", true));
    let row = |(class, name): (usize, &String)| {
        let counts: Vec<usize> = survey.parts.iter().map(|part| part.pictures[class]).collect();
        let share = percent(counts.iter().sum::<usize>() as f64 / pictures.max(1) as f64);
        [escape(name)].into_iter().chain(counts.iter().map(usize::to_string)).chain([share]).collect()
    };
    let rows: Vec<Vec<String>> = survey.classes.iter().enumerate().map(row).collect();
    body += &table("Pictures of each class", &columns, &rows);
    Ok(document(&format!("What is in {}", checked.name), &(body + "</section>\n</main>\n")))
}

fn section(checked: &Checked, finding: &Finding) -> Result<String, LabError> {
    let (class, kind) = if finding.error { ("refuted", "error") } else { ("undecided", "note") };
    let (first, rest) = finding.advice.split_at(1);
    let mut text = format!(
        "<section>\n<h2><span class=\"verdict {class}\">{kind}</span> {}</h2>\n<p>{}{}.</p>\n",
        escape(&finding.message),
        first.to_uppercase(),
        escape(rest)
    );
    let (mut shown, mut groups) = (0, finding.groups.iter());
    // Pictures of their own stand side by side, and each group in a row.
    let single = finding.groups.iter().all(|group| group.len() == 1);
    if single {
        text += "<div class=\"tiles\">\n";
    }
    for group in groups.by_ref() {
        if !single {
            text += "<div class=\"tiles\">\n";
        }
        for seen in group.iter().take(OF_GROUP) {
            text += &tile(checked, seen)?;
            shown += 1;
        }
        if group.len() > OF_GROUP {
            let _ = writeln!(text, "<p>and {} more like these</p>", group.len() - OF_GROUP);
        }
        if !single {
            text += "</div>\n";
        }
        if shown >= SHOWN {
            break;
        }
    }
    if single {
        text += "</div>\n";
    }
    match groups.len() {
        0 => {}
        more => {
            let _ = writeln!(text, "<p>and {more} more, which are in the JSON report</p>");
        }
    }
    Ok(text + "</section>\n")
}

/// A picture with what is known of it; of what cannot be read, only the text.
fn tile(checked: &Checked, seen: &Seen) -> Result<String, LabError> {
    let place = checked.place(seen);
    let [class, note] = [seen.class.as_deref().unwrap_or_default(), &seen.note].map(escape);
    let caption = format!("<strong>{class}</strong> <code>{}</code> {note}", escape(&place));
    match checked.picture(seen) {
        Some(pixels) => Ok(figure(&picture::png(&thumbnail(&pixels))?, &place, &caption)),
        None => Ok(format!("<figure><figcaption>{caption}</figcaption></figure>\n")),
    }
}

/// A picture whose longer side has `SIDE` pixels at most; small ones are enlarged pixel by pixel.
fn thumbnail(pixels: &Pixels<'_>) -> RgbImage {
    let [width, height] = [pixels.width, pixels.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let at = |x: u32, y: u32| (y as usize * pixels.width + x as usize) * pixels.channels;
    let image = RgbImage::from_fn(width, height, |x, y| match pixels.data.get(at(x, y)..) {
        Some([red, green, blue, ..]) if pixels.channels == 3 => Rgb([*red, *green, *blue]),
        Some([grey, ..]) => Rgb([*grey; 3]),
        _ => Rgb([0; 3]),
    });
    match width.max(height) {
        longer if longer <= SIDE => picture::enlarge(&image, SIDE / longer.max(1)),
        longer => {
            let side = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(longer)).max(1) as u32;
            imageops::thumbnail(&image, side(width), side(height))
        }
    }
}
