//! A chart of the loss while the learning rate grows.
use crate::LabError;
use plotters::prelude::*;
use striate_train::{LrPoint, LrRange};

/// Width and height of the chart.
const SIZE: (u32, u32) = (720, 420);

/// The loss, as it is and smoothed, against the learning rate, with the suggestion marked.
///
/// # Errors
///
/// No step was done.
pub fn lr_range_svg(range: &LrRange, title: &str) -> Result<String, LabError> {
    let (Some(first), Some(last)) = (range.points.first(), range.points.last()) else {
        return Err(LabError::Figure("the test made no step".to_owned()));
    };
    let least = range.points.iter().map(|point| point.loss.min(point.smoothed)).fold(f64::INFINITY, f64::min);
    // Where the loss blows up, it would press the rest flat.
    let most = range.points.iter().map(|point| point.smoothed).fold(f64::NEG_INFINITY, f64::max);
    let most = most.min(2.0 * first.smoothed.max(least));
    let (bottom, top) = (least - 0.05 * (most - least), most + 0.05 * (most - least).max(1e-9));
    let (left, right) = (first.lr.log10(), last.lr.log10().max(first.lr.log10() + 1e-9));
    let mut svg = String::new();
    let mut draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(60)
            .build_cartesian_2d(left..right, bottom..top)?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.1)).x_desc("learning rate").y_desc("training loss");
        mesh.x_label_formatter(&|x| format!("{:.1e}", 10f64.powf(*x))).axis_desc_style(("sans-serif", 14)).draw()?;
        let line = |value: fn(&LrPoint) -> f64| range.points.iter().map(move |point| (point.lr.log10(), value(point).min(top)));
        let (raw, smooth) = (RGBColor(86, 180, 233), RGBColor(0, 114, 178).stroke_width(2));
        let key = |style: ShapeStyle| move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style);
        chart.draw_series(LineSeries::new(line(|point| point.loss), raw))?.label("each step").legend(key(raw.into()));
        chart.draw_series(LineSeries::new(line(|point| point.smoothed), smooth))?.label("smoothed").legend(key(smooth));
        if let Some(lr) = range.suggestion {
            let style = RGBColor(213, 94, 0).stroke_width(2);
            let at = lr.log10();
            let label = format!("steepest fall: {lr:.2e}");
            chart.draw_series([PathElement::new([(at, bottom), (at, top)], style)])?.label(label).legend(key(style));
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.2));
        legend.label_font(("sans-serif", 13)).draw()?;
        area.present()
    };
    draw().map_err(|error| LabError::Figure(error.to_string()))?;
    Ok(svg)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_title_and_no_figure_that_is_none() {
        let point =
            |step: u64| LrPoint { step, lr: 10f64.powi(step as i32 - 5), loss: 2.0 / step as f64, smoothed: 1.9 / step as f64 };
        let range = LrRange { points: (1..4).map(point).collect(), blew_up: false, lowest: Some(1e-2), suggestion: Some(1e-3) };
        let svg = lr_range_svg(&range, "a < b").unwrap();
        assert!(svg.contains("a &lt; b") && svg.contains("steepest fall: 1.00e-3") && !svg.contains("NaN"), "{svg}");
        let none = LrRange { points: Vec::new(), ..range };
        assert!(lr_range_svg(&none, "none").is_err());
    }
}
