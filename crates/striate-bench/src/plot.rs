//! Results as SVG.
use crate::case::{Case, Mode, short_name, word};
use crate::record::{OURS, Results, Row};
use crate::{BenchError, Spread};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::collections::{BTreeMap, BTreeSet};

const WIDTH: u32 = 760;
const HEIGHT: u32 = 440;
/// Colours that the colour-blind tell apart (Okabe and Ito 2008), without yellow, which white paper swallows.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];

/// The figures that these results have rows for, by file name: `ratios.svg`, bars of the peers' times over ours; `batch.svg`,
/// `size.svg` and `depth.svg`, lines of our time against each of these, both axes logarithmic.
///
/// # Errors
///
/// Only if drawing fails.
pub fn plots(results: &Results) -> Result<BTreeMap<&'static str, String>, BenchError> {
    let mut figures = BTreeMap::new();
    let bars: Vec<(String, Spread)> =
        results.rows.iter().filter_map(|row| Some((format!("{} {}", short(&row.case), row.side), row.ratio?))).collect();
    if !bars.is_empty() {
        figures.insert("ratios.svg", ratios(&bars).map_err(|error| failed(&error))?);
    }
    let growths: [(&str, &str, Against); 3] = [
        ("batch.svg", "batch", |case| Some((Case { batch: 0, ..case.clone() }, case.batch))),
        ("size.svg", "image size", |case| Some((Case { size: 0, ..case.clone() }, case.size))),
        ("depth.svg", "layers", by_depth),
    ];
    for (file, what, against) in growths {
        let lines = growth(&results.rows, against);
        if !lines.is_empty() {
            figures.insert(file, curves(what, &lines).map_err(|error| failed(&error))?);
        }
    }
    Ok(figures)
}

/// What cases of one line have in common, and where on the line a case is.
type Against = fn(&Case) -> Option<(Case, i64)>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

fn failed(error: &DrawingAreaErrorKind<std::io::Error>) -> BenchError {
    BenchError::Failed(format!("cannot draw a figure: {error}"))
}

/// Networks of one name but for the first number in it, which is the number of layers.
fn by_depth(case: &Case) -> Option<(Case, i64)> {
    let start = case.model.find(|letter: char| letter.is_ascii_digit())?;
    let number: String = case.model[start..].chars().take_while(char::is_ascii_digit).collect();
    let model = format!("{}{}", &case.model[..start], &case.model[start + number.len()..]);
    Some((Case { model, ..case.clone() }, number.parse().ok()?))
}

/// Our rows that differ in one thing only, at two places or more: the line's name, and its points.
fn growth(rows: &[Row], against: Against) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: BTreeMap<Case, BTreeMap<i64, f64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.side == OURS && row.case.mode <= Mode::Train) {
        if let Some((line, at)) = against(&row.case) {
            lines.entry(line).or_default().insert(at, row.spread.median);
        }
    }
    lines.retain(|_, points| points.len() > 1);
    let points = |points: BTreeMap<i64, f64>| points.into_iter().map(|(at, ms)| (at as f64, ms)).collect();
    lines.into_iter().map(|(line, places)| (short(&line), points(places))).collect()
}

/// A name for a legend.
fn short(case: &Case) -> String {
    let Case { model, mode, batch, size, precision, memory_format, threads, .. } = case;
    let mut name = format!("{model} {} {}", word(mode), short_name(*precision));
    if *batch > 0 {
        name += &format!(" b{batch}");
    }
    if *size > 0 {
        name += &format!(" {size}px");
    }
    if *mode != Mode::Plan {
        name += &format!(" {}", word(memory_format));
    }
    format!("{name} t{threads}")
}

fn ratios(bars: &[(String, Spread)]) -> Drawn<String> {
    let most = bars.iter().map(|(_, ratio)| ratio.q3).fold(1.0, f64::max) * 1.05;
    let longest = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as u32;
    let count = bars.len() as u32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH + 7 * longest, 90 + 22 * count)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("time of others over Striate's: above 1, Striate is faster", ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(20 + 7 * longest)
            .build_cartesian_2d(0.0..most, f64::from(count)..0.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_y_mesh().y_labels(0).light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.1)).draw()?;
        for (index, (name, ratio)) in bars.iter().enumerate() {
            let (top, middle, bottom) = (index as f64 + 0.15, index as f64 + 0.5, index as f64 + 0.85);
            let colour = if ratio.median >= 1.0 { COLOURS[0] } else { COLOURS[1] };
            chart.draw_series([Rectangle::new([(0.0, top), (ratio.median, bottom)], colour.mix(0.7).filled())])?;
            chart.draw_series([PathElement::new([(ratio.q1, middle), (ratio.q3, middle)], BLACK.stroke_width(2))])?;
            let (x, y) = chart.backend_coord(&(0.0, middle));
            let right = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name.clone(), (x - 6, y), right))?;
        }
        chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, f64::from(count))], BLACK.stroke_width(1))])?;
        area.present()?;
    }
    Ok(svg)
}

/// 1, 2 and 5 times every power of ten that a time in ms may be near.
fn round_numbers() -> Vec<f64> {
    (-3..7)
        .flat_map(|power| {
            [1.0, 2.0, 5.0].map(|digit| if power < 0 { digit / 10f64.powi(-power) } else { digit * 10f64.powi(power) })
        })
        .collect()
}

fn curves(what: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Drawn<String> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let range = |values: Vec<f64>| {
        let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)));
        low / 1.1..high * 1.1
    };
    let (xs, ys) = (range(points().map(|point| point.0).collect()), range(points().map(|point| point.1).collect()));
    let ticks: BTreeSet<i64> = points().map(|point| point.0 as i64).collect();
    let mut svg = String::new();
    {
        let legend = 26 + 18 * lines.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT + legend)).into_drawing_area();
        area.fill(&WHITE)?;
        let (above, below) = area.split_vertically(HEIGHT);
        let mut chart = ChartBuilder::on(&above)
            .caption(format!("time against {what}"), ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(
                xs.log_scale().with_key_points(ticks.iter().map(|tick| *tick as f64).collect()),
                ys.log_scale().with_key_points(round_numbers()),
            )?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.1)).x_desc(what).y_desc("ms");
        mesh.x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| y.to_string())
            .axis_desc_style(("sans-serif", 13))
            .draw()?;
        for (index, (name, points)) in lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            let y = 12 + 18 * index as i32;
            below.draw(&PathElement::new([(70, y), (92, y)], colour.stroke_width(2)))?;
            let left = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Left, VPos::Center));
            below.draw(&Text::new(name.clone(), (100, y), left))?;
        }
        area.present()?;
    }
    Ok(svg)
}
