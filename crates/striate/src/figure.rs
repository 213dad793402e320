//! Figures as SVG text: lines, and bars with intervals.
use crate::Error;
use crate::verdict::{Interval, short};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

/// Width and height in pixels.
const SIZE: (u32, u32) = (800, 400);
/// The width of what is kept free beside lines for their legend.
const LEGEND: u32 = 210;
/// Where text stands: to the right of its point, and to the left.
const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };
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

/// A line of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Whether it is dashed, as what another is held against is.
    pub dashed: bool,
}

impl Series {
    /// A line through the mean, over several runs, of the values at 1, 2, 3, ...; runs have equally many.
    pub fn mean(name: impl Into<String>, runs: &[Vec<f64>]) -> Self {
        let length = runs.iter().map(Vec::len).min().unwrap_or(0);
        let mean = |at: usize| runs.iter().map(|run| run[at]).sum::<f64>() / runs.len() as f64;
        Self { name: name.into(), points: (0..length).map(|at| (at as f64 + 1.0, mean(at))).collect(), dashed: false }
    }

    /// The same, dashed.
    pub fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

/// A bar of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What stands below it.
    pub name: String,
    /// Its height, with whiskers if the interval has ends.
    pub value: Interval,
}

impl Bar {
    /// A bar over the mean of some measurements.
    pub fn of(name: impl Into<String>, samples: &[f64]) -> Self {
        Self { name: name.into(), value: Interval::of(samples) }
    }

    /// A bar of one exact value.
    pub fn exact(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value: Interval { mean: value, low: value, high: value, n: 1 } }
    }
}

/// Whether an axis is logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal ratios; what is not above 0 is left out.
    Log,
}

/// What stands on a figure: its title, and what its axes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels<'a> {
    /// Above the figure.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// Beside it; for bars nothing.
    pub y: &'a str,
}

/// Lines, with a legend; `axis` is the vertical one.
///
/// # Errors
///
/// No point to draw.
pub fn lines(labels: Labels, axis: Axis, series: &[Series]) -> Result<String, Error> {
    let on_axis = |(x, y): (f64, f64)| match axis {
        Axis::Linear => Some((x, y)),
        Axis::Log => (y > 0.0).then(|| (x, y.log10())),
    };
    let series: Vec<(&Series, Vec<(f64, f64)>)> =
        (series.iter()).map(|line| (line, line.points.iter().copied().filter_map(on_axis).collect())).collect();
    let points = || series.iter().flat_map(|(_, points)| points);
    let (Some(xs), Some(ys)) = (range(points().map(|point| point.0), 0.0), range(points().map(|point| point.1), 0.05)) else {
        return Err(Error::Figure(format!("{} has no point", labels.title)));
    };
    let mut svg = String::new();
    let draw = || -> Result<(), DrawingError> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(labels.title, ("sans-serif", 18))
            .margin(10)
            .margin_right(LEGEND + 10)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(xs, ys)?;
        let tick = |y: &f64| number(if axis == Axis::Log { 10f64.powf(*y) } else { *y });
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.1)).x_desc(labels.x).y_desc(labels.y);
        mesh.x_label_formatter(&|x| number(*x)).y_label_formatter(&tick).axis_desc_style(("sans-serif", 14)).draw()?;
        for (index, (line, points)) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let style = colour.stroke_width(2);
            match line.dashed {
                true => chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?,
                false => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
            };
            let (left, y) = ((SIZE.0 - LEGEND) as i32, 50 + 20 * index as i32);
            area.draw(&PathElement::new([(left, y), (left + 18, y)], style))?;
            area.draw(&Text::new(line.name.clone(), (left + 24, y), TextStyle::from(("sans-serif", 13)).pos(LEFT)))?;
            if points.len() <= MARKED {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
        }
        area.present()
    };
    draw().map_err(|error| Error::Figure(error.to_string()))?;
    Ok(svg)
}

/// Horizontal bars from 0, each with its mean in numbers and its interval; `labels.x` is what they measure.
///
/// # Errors
///
/// No bar to draw.
pub fn bars(labels: Labels, bars: &[Bar]) -> Result<String, Error> {
    let ends = bars.iter().flat_map(|Bar { value, .. }| [value.mean, value.low, value.high, 0.0]);
    let Some(xs) = range(ends.filter(|end| end.is_finite()), 0.03) else {
        return Err(Error::Figure(format!("{} has no bar", labels.title)));
    };
    let (inside, count) = (xs.clone(), bars.len() as f64);
    let mut svg = String::new();
    let draw = || -> Result<(), DrawingError> {
        let height = 110 + 34 * bars.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        area.fill(&WHITE)?;
        // With its value: of what is tiny, the axis has no other tick than 0.
        let names: Vec<String> = bars.iter().map(|Bar { name, value }| format!("{name}: {}", short(value.mean))).collect();
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as u32;
        let mut chart = ChartBuilder::on(&area)
            .caption(labels.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(42)
            .y_label_area_size(20 + 7 * longest)
            .build_cartesian_2d(xs, count..0.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_y_mesh().y_labels(0).light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.1)).x_desc(labels.x);
        mesh.x_label_formatter(&|x| number(*x)).axis_desc_style(("sans-serif", 14)).draw()?;
        for (index, (name, Bar { value, .. })) in names.iter().zip(bars).enumerate() {
            let (top, middle, bottom) = (index as f64 + 0.2, index as f64 + 0.5, index as f64 + 0.8);
            let colour = COLOURS[index % COLOURS.len()];
            chart.draw_series([Rectangle::new([(0.0, top), (value.mean, bottom)], colour.mix(0.75).filled())])?;
            let (low, high) = (value.low.max(inside.start), value.high.min(inside.end));
            chart.draw_series([PathElement::new([(low, middle), (high, middle)], BLACK.stroke_width(2))])?;
            let (x, y) = chart.backend_coord(&(inside.start, middle));
            area.draw(&Text::new(name.clone(), (x - 8, y), TextStyle::from(("sans-serif", 13)).pos(RIGHT)))?;
        }
        area.present()
    };
    draw().map_err(|error| Error::Figure(error.to_string()))?;
    Ok(svg)
}

/// A number on an axis.
fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if !(0.001..1e5).contains(&size) => format!("{x:.0e}"),
        size => {
            let digits = (2 - size.log10().floor() as i32).max(0) as usize;
            let text = format!("{x:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
    }
}

/// Lines of up to so many points have them marked.
const MARKED: usize = 12;

/// From the least to the greatest, with a margin on either side; none if there is nothing.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Option<std::ops::Range<f64>> {
    let ends = values.fold(None, |ends: Option<(f64, f64)>, x| match ends {
        Some((low, high)) => Some((low.min(x), high.max(x))),
        None => Some((x, x)),
    });
    let (low, high) = ends?;
    // Of counts and errors, which are never negative, no axis shows what is below 0.
    let least = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let width = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
    Some((low - margin * width).max(least)..high + margin * width + if high > low { 0.0 } else { width })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LABELS: Labels = Labels { title: "a < b", x: "steps", y: "loss" };

    #[test]
    fn a_line_goes_through_the_mean_of_the_runs() {
        let line = Series::mean("both", &[vec![1.0, 2.0, 9.0], vec![3.0, 6.0]]);
        assert_eq!(line.points, [(1.0, 2.0), (2.0, 4.0)]);
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let told = [0.0, 2.0, 0.25, -31.62, 1e-6, 120_000.0, 316.0, 0.1 + 0.2].map(number);
        assert_eq!(told, ["0", "2", "0.25", "-31.6", "1e-6", "1e5", "316", "0.3"]);
    }

    #[test]
    fn an_axis_goes_below_zero_only_where_values_do() {
        assert_eq!(range([0.0, 2.0].into_iter(), 0.5), Some(0.0..3.0));
        assert_eq!(range([4.0, 8.0].into_iter(), 0.5), Some(2.0..10.0));
        assert_eq!(range([-2.0, 2.0].into_iter(), 0.5), Some(-4.0..4.0));
    }

    #[test]
    fn figures_are_whole_and_escaped() {
        let series = [Series { name: "x".to_owned(), points: vec![(1.0, 1e-3), (2.0, 1.0), (3.0, 0.0)], dashed: true }];
        let svg = lines(LABELS, Axis::Log, &series).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("a &lt; b"), "{svg}");
        let svg = bars(LABELS, &[Bar::of("one", &[1.0]), Bar::of("two", &[1.0, 3.0]), Bar::exact("three", -2.0)]).unwrap();
        assert!(
            svg.contains("two: 2.00") && svg.contains("three: -2.00") && !svg.contains("inf") && !svg.contains("NaN"),
            "{svg}"
        );
        assert!(lines(LABELS, Axis::Linear, &[]).unwrap_err().to_string().contains("no point"));
        assert!(bars(LABELS, &[]).is_err());
    }
}
