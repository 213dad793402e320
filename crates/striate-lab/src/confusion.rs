//! Which classes a network takes for which, and its worst mistakes.
use crate::LabError;
use crate::chart::{colour, head, ink, legend, text};
use crate::inspect::picture;
use crate::page::{document, escape, figure, percent, table};
use serde::{Serialize, Serializer};
use std::fmt::Write;
use std::path::PathBuf;
use striate_datasets::{Loader, Task};
use striate_files::path::Exact;
use striate_train::metrics::{ClassCounts, ConfusionMatrix};
use tch::{Kind, Tensor};

/// Of more classes than this the matrix has no numbers in its cells.
const NUMBERED: usize = 20;
/// Confused pairs on the page.
const PAIRS: usize = 20;
/// Pixels of a cell with a number, and of the whole matrix without.
const CELL: f64 = 40.0;
const SIDE: f64 = 760.0;

/// What a network took for what.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The counts: a row for each class of the targets, and in it a column for each predicted class.
    pub matrix: ConfusionMatrix,
    /// The wrongly classified examples, that with the least probability of its own class first.
    pub mistakes: Vec<Mistake>,
}

/// A wrongly classified example.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    /// Its place in the dataset.
    pub example: i64,
    /// Its file, if it does not lie in memory.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exact")]
    pub file: Option<PathBuf>,
    /// Its class.
    pub target: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// The softmax probability of its class.
    pub target_probability: f64,
    /// The probability of what it was taken for.
    pub predicted_probability: f64,
}

impl Mistake {
    /// What the picture is called on a page: the ends of its file's path, which with folders of classes are class and name, or its
    /// number.
    pub(crate) fn name(&self) -> String {
        let Some(file) = &self.file else { return format!("number {}", self.example) };
        let parts: Vec<_> = file.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        parts.into_iter().rev().collect::<Vec<_>>().join("/")
    }
}

fn exact<S: Serializer>(file: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    file.as_deref().map(Exact).serialize(serializer)
}

/// A class that was taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConfusedPair {
    /// The class.
    pub target: usize,
    /// What it was taken for.
    pub predicted: usize,
    /// How often.
    pub count: u64,
    /// The share of the class's examples.
    pub share: f64,
}

/// Classifies all examples of a loader in their order, where `forward` gives the network's logits, `[N, classes]` on
/// the CPU. The loader is one for evaluation.
///
/// # Errors
///
/// A network with another number of classes than the dataset, or a loader that leaves examples out.
pub fn confusion(loader: &Loader, forward: impl Fn(&Tensor) -> Result<Tensor, LabError>) -> Result<Confusion, LabError> {
    if loader.dataset().task() == Task::MultiLabel {
        let data = loader.dataset().name();
        return Err(LabError::Usage(format!("{data} has pictures with several classes, which are not taken for one another")));
    }
    let _no_grad = striate_torch::no_grad();
    let classes = loader.dataset().classes().to_vec();
    let examples = loader.dataset().examples()?;
    let mut matrix = ConfusionMatrix::new(classes.len());
    let mut mistakes = Vec::new();
    let mut example = 0;
    for batch in loader.epoch(0)? {
        let batch = batch?;
        let logits = forward(&batch.images)?;
        if logits.size2()?.1 != classes.len() as i64 {
            let (network, data) = (logits.size2()?.1, loader.dataset().name());
            return Err(LabError::Usage(format!("the network gives {network} classes, but {data} has {}", classes.len())));
        }
        matrix.add(&logits, &batch.labels)?;
        let probabilities = logits.f_softmax(1, Kind::Double)?;
        let predicted = Vec::<i64>::try_from(logits.f_argmax(1, false)?)?;
        for (row, (predicted, target)) in (0..).zip(predicted.into_iter().zip(Vec::<i64>::try_from(&batch.labels)?)) {
            if predicted != target {
                let [target_probability, predicted_probability] =
                    [target, predicted].map(|class| probabilities.f_double_value(&[row, class]));
                mistakes.push(Mistake {
                    example: example + row,
                    file: usize::try_from(example + row)
                        .ok()
                        .and_then(|place| examples.file(place))
                        .map(|file| file.path().into()),
                    target: target.unsigned_abs() as usize,
                    predicted: predicted.unsigned_abs() as usize,
                    target_probability: target_probability?,
                    predicted_probability: predicted_probability?,
                });
            }
        }
        example += batch.labels.numel() as i64;
    }
    if example != loader.dataset().len() as i64 {
        return Err(LabError::Usage("the loader leaves examples out: use LoaderOptions::eval".to_owned()));
    }
    mistakes.sort_by(|a, b| a.target_probability.total_cmp(&b.target_probability));
    Ok(Confusion { classes, matrix, mistakes })
}

impl Confusion {
    /// The share of the examples that are classified rightly.
    pub fn accuracy(&self) -> f64 {
        let rows = self.matrix.rows();
        let right: u64 = rows.iter().enumerate().map(|(class, row)| row[class]).sum();
        right as f64 / rows.iter().flatten().sum::<u64>().max(1) as f64
    }

    /// The pairs of classes that were confused, the most frequent first.
    pub fn pairs(&self) -> Vec<ConfusedPair> {
        let mut pairs = Vec::new();
        for (target, row) in self.matrix.rows().into_iter().enumerate() {
            let all: u64 = row.iter().sum();
            for (predicted, count) in row.into_iter().enumerate() {
                if predicted != target && count > 0 {
                    pairs.push(ConfusedPair { target, predicted, count, share: count as f64 / all as f64 });
                }
            }
        }
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        pairs
    }

    /// The matrix as CSV: a line for each class, with the predicted classes as columns.
    pub fn to_csv(&self) -> String {
        let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
        let mut csv = format!("target,{}\n", self.classes.iter().map(quoted).collect::<Vec<_>>().join(","));
        for (name, row) in self.classes.iter().zip(self.matrix.rows()) {
            let _ = writeln!(csv, "{},{}", quoted(name), row.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        }
        csv
    }

    /// The matrix as a heat map: a row for each class, coloured by the share of the class, on a scale of square roots so that rare
    /// mistakes show.
    pub fn to_svg(&self) -> String {
        let count = self.classes.len();
        let cell = if count <= NUMBERED { CELL } else { SIDE / count as f64 };
        let side = cell * count as f64;
        let longest = self.classes.iter().map(|name| name.chars().count()).max().unwrap_or(1) as f64;
        let label = (longest * 7.0 + 16.0).min(220.0);
        let (left, top) = (label + 24.0, label + 34.0);
        let mut svg = head(left + side + 100.0, top + side + 20.0, "Confusion matrix");
        text(&mut svg, [left + side / 2.0, 14.0], "middle", "predicted");
        let _ = writeln!(svg, "<g transform=\"translate(12 {}) rotate(-90)\">", top + side / 2.0);
        text(&mut svg, [0.0, 0.0], "middle", "target");
        svg += "</g>\n";
        for (row, (name, counts)) in self.classes.iter().zip(self.matrix.rows()).enumerate() {
            let all = counts.iter().sum::<u64>().max(1) as f64;
            let y = top + row as f64 * cell;
            if count <= NUMBERED || row % count.div_ceil(48) == 0 {
                text(&mut svg, [left - 6.0, y + cell / 2.0], "end", name);
                let _ =
                    writeln!(svg, "<g transform=\"translate({} {}) rotate(-90)\">", left + (row as f64 + 0.5) * cell, top - 6.0);
                text(&mut svg, [0.0, 0.0], "start", name);
                svg += "</g>\n";
            }
            for (column, counted) in counts.iter().enumerate() {
                let share = (*counted as f64 / all).sqrt();
                let (x, fill) = (left + column as f64 * cell, colour(share));
                let predicted = escape(&self.classes[column]);
                let _ = write!(
                    svg,
                    "<g><title>{} taken for {predicted}: {counted}</title><rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{cell:.2}\" height=\"{cell:.2}\" \
                     fill=\"{fill}\"/>",
                    escape(name)
                );
                if count <= NUMBERED && *counted > 0 {
                    let (x, y, ink) = (x + cell / 2.0, y + cell / 2.0, ink(share));
                    let _ = write!(
                        svg,
                        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" dominant-baseline=\"central\" fill=\"{ink}\">{counted}</text>"
                    );
                }
                svg += "</g>\n";
            }
        }
        let height = side.min(300.0);
        let marks: Vec<(f64, f64)> =
            [0.0, 1.0, 5.0, 20.0, 50.0, 100.0].iter().map(|share| ((share / 100.0_f64).sqrt(), *share)).collect();
        text(&mut svg, [left + side + 20.0, top - 14.0], "start", "of the row");
        legend(&mut svg, [left + side + 20.0, top], height, &marks, "%");
        svg + "</svg>\n"
    }

    /// The matrix, the most confused pairs and the classes, as HTML.
    pub(crate) fn about(&self) -> String {
        let mut body = format!(
            "<figure class=\"wide\">\n{}<figcaption>A row for each class, a column for what was predicted. Colours show the share of the row, \
             on a scale of square roots so that rare mistakes show.</figcaption></figure>\n",
            self.to_svg()
        );
        let name = |class: usize| self.name(class);
        let pair =
            |pair: &ConfusedPair| vec![name(pair.target), name(pair.predicted), pair.count.to_string(), percent(pair.share)];
        let rows: Vec<Vec<String>> = self.pairs().iter().take(PAIRS).map(pair).collect();
        let columns = [("Target", false), ("Taken for", false), ("Times", true), ("Of the class", true)];
        body += "<section aria-labelledby=\"pairs\">\n<h2 id=\"pairs\">Most confused</h2>\n";
        body += &if rows.is_empty() {
            "<p>No mistake was made.</p>\n".to_owned()
        } else {
            table("Pairs of classes", &columns, &rows)
        };
        body += "</section>\n<section aria-labelledby=\"classes\">\n<h2 id=\"classes\">Classes</h2>\n";
        let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
        let class = |(class, counts): (usize, ClassCounts)| {
            vec![name(class), counts.examples.to_string(), share(counts.precision()), share(counts.recall())]
        };
        let rows: Vec<Vec<String>> = self.matrix.counts().into_iter().enumerate().map(class).collect();
        body += &table("Each class", &[("Class", false), ("Examples", true), ("Precision", true), ("Recall", true)], &rows);
        body + "</section>\n"
    }

    /// A class's name as HTML.
    fn name(&self, class: usize) -> String {
        self.classes.get(class).map_or_else(|| class.to_string(), |name| escape(name))
    }

    /// The page: the matrix, the classes, the most confused pairs, and the worst mistakes with their pictures, `images`
    /// (`[M, C, H, W]`, uint8) being those of the first `M` of them.
    ///
    /// # Errors
    ///
    /// libtorch's.
    pub fn to_html(&self, network: &str, data: &str, images: Option<&Tensor>) -> Result<String, LabError> {
        let name = |class: usize| self.name(class);
        let examples: u64 = self.matrix.rows().iter().flatten().sum();
        let mut body = format!(
            "<header>\n<h1>What {} confuses</h1>\n<p>{} of the {examples} test images of {} are classified rightly; {} are not.</p>\n</header>\n<main>\n{}",
            escape(network),
            percent(self.accuracy()),
            escape(data),
            self.mistakes.len(),
            self.about()
        );
        body += "<section aria-labelledby=\"mistakes\">\n<h2 id=\"mistakes\">Worst mistakes</h2>\n";
        match images {
            None => body += "<p>There is none to show.</p>\n",
            Some(images) => {
                body += "<p>The images whose own class was thought least likely.</p>\n<div class=\"tiles\">\n";
                for (index, mistake) in (0..images.size()[0]).zip(&self.mistakes) {
                    let picture = picture::rgb(&images.f_select(0, index)?)?;
                    let png = picture::png(&picture::enlarge(&picture, picture::zoom(&picture)))?;
                    let (target, predicted) = (name(mistake.target), name(mistake.predicted));
                    let caption = format!(
                        "<strong>{target}</strong> ({}), taken for <strong>{predicted}</strong> ({}); {}",
                        percent(mistake.target_probability),
                        percent(mistake.predicted_probability),
                        escape(&mistake.name())
                    );
                    let alt = format!("Test image {}, {target}, taken for {predicted}", mistake.example);
                    body += &figure(&png, &alt, &caption);
                }
                body += "</div>\n";
            }
        }
        body += "</section>\n</main>\n";
        Ok(document(&format!("What {network} confuses"), &body))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_datasets::{Dataset, Fit, InMemory, LoaderOptions, Normalise, Preprocess};
    use tch::Device;

    /// Five images; the first pixel of each is what its network says.
    fn confused() -> (InMemory, Confusion) {
        let images = Tensor::from_slice(&[0_u8, 1, 1, 2, 1]).view([5, 1, 1, 1]);
        let classes = ["cat", "<dog>", "owl"].map(str::to_owned).to_vec();
        let data = InMemory::new("animals", images, &Tensor::from_slice(&[0_i64, 0, 1, 1, 2]), classes).unwrap();
        let preprocess = Preprocess::new([1, 1, 1], [1, 1, 1], Fit::Resize, Normalise::identity()).unwrap();
        let loader = Loader::new(&data, preprocess, LoaderOptions::eval(2)).unwrap();
        // The last is the surest of its mistakes.
        let confusion = confusion(&loader, |images| {
            let said = (images.view(-1) * 255.0).round().to_kind(Kind::Int64);
            let sure = if images.size()[0] == 1 { 9.0 } else { 3.0 };
            Ok(said.one_hot(3).to_kind(Kind::Float) * sure)
        });
        let confusion = confusion.unwrap();
        (data, confusion)
    }

    #[test]
    fn mistakes_are_counted_and_sorted() {
        let (_, confusion) = confused();
        assert_eq!(confusion.matrix.rows(), [[1, 1, 0], [0, 1, 1], [0, 1, 0]]);
        assert_eq!(confusion.accuracy(), 0.4);
        let mistakes: Vec<(i64, usize, usize)> = confusion.mistakes.iter().map(|m| (m.example, m.target, m.predicted)).collect();
        // The other two are equally sure of theirs, but for rounding.
        assert_eq!(mistakes[0], (4, 2, 1));
        assert!(mistakes.len() == 3 && mistakes.contains(&(1, 0, 1)) && mistakes.contains(&(3, 1, 2)));
        let sure = 9f64.exp();
        assert!((confusion.mistakes[0].target_probability - 1.0 / (sure + 2.0)).abs() < 1e-9);
        assert!((confusion.mistakes[0].predicted_probability - sure / (sure + 2.0)).abs() < 1e-6);
        let pairs = confusion.pairs();
        assert_eq!((pairs.len(), pairs[0].share, pairs[2].share), (3, 0.5, 1.0));
        assert_eq!(confusion.to_csv(), "target,\"cat\",\"<dog>\",\"owl\"\n\"cat\",1,1,0\n\"<dog>\",0,1,1\n\"owl\",0,1,0\n");
    }

    #[test]
    fn the_page_shows_the_matrix_and_the_mistakes() {
        let (data, confusion) = confused();
        let examples: Vec<i64> = confusion.mistakes.iter().map(|mistake| mistake.example).collect();
        let images = data.batch(&Tensor::from_slice(&examples)).unwrap().images;
        let page = confusion.to_html("net", "animals", Some(&images)).unwrap();
        assert_eq!(page.matches("<img ").count(), 3);
        assert!(page.contains("; number 4</figcaption>"), "{page}");
        let mut in_files = confusion.clone();
        in_files.mistakes[0].file = Some("data/val/owl/<1>.png".into());
        assert!(in_files.to_html("net", "animals", Some(&images)).unwrap().contains("; owl/&lt;1&gt;.png</figcaption>"));
        assert!(!page.contains("<dog>") && page.contains("&lt;dog&gt;") && page.contains("of the row"), "{page}");
        assert!(page.contains("<title>cat taken for &lt;dog&gt;: 1</title>"));
        assert!(confusion.to_html("net", "animals", None).unwrap().contains("There is none to show"));
    }

    #[test]
    fn many_classes_have_no_numbers() {
        let names: Vec<String> = (0..60).map(|class| class.to_string()).collect();
        let mut matrix = ConfusionMatrix::new(60);
        matrix.add(&Tensor::eye(60, (Kind::Float, Device::Cpu)), &Tensor::arange(60, (Kind::Int64, Device::Cpu))).unwrap();
        let svg = Confusion { classes: names, matrix, mistakes: Vec::new() }.to_svg();
        assert!(!svg.contains("dominant-baseline=\"central\"") && svg.matches("<title>").count() == 3601);
    }
}
