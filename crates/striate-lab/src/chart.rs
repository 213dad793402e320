//! What charts share: colours for shares, and the bar that explains them.
use crate::inspect::picture::viridis;
use crate::page::{escape, number};
use std::fmt::Write;

/// Steps of a colour bar.
const STEPS: i32 = 32;

/// A colour as SVG has it.
pub(crate) fn colour(share: f64) -> String {
    let [red, green, blue] = viridis(share).0;
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A text colour that stands out from that colour.
pub(crate) fn ink(share: f64) -> &'static str {
    if share < 0.6 { "#fff" } else { "#000" }
}

/// The head of a drawing of so many pixels; `title` is what it is for those who do not see it.
pub(crate) fn head(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"12\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

/// A text; `anchor` is `start`, `middle` or `end`.
pub(crate) fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" dominant-baseline=\"middle\">{}</text>",
        escape(text)
    );
}

/// An upright bar of all colours, with what its bottom, ends and marks stand for: `(share, value)`.
pub(crate) fn legend(svg: &mut String, [x, y]: [f64; 2], height: f64, marks: &[(f64, f64)], unit: &str) {
    let step = height / f64::from(STEPS);
    for index in 0..STEPS {
        let share = (f64::from(index) + 0.5) / f64::from(STEPS);
        let top = y + height - f64::from(index + 1) * step;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top:.2}\" width=\"14\" height=\"{:.2}\" fill=\"{}\"/>",
            step + 0.3,
            colour(share)
        );
    }
    for (share, value) in marks {
        text(svg, [x + 20.0, y + height * (1.0 - share)], "start", &format!("{}{unit}", number(*value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_hexadecimal_and_titles_escaped() {
        assert_eq!((colour(0.0).as_str(), colour(1.0).as_str(), ink(0.0), ink(1.0)), ("#440154", "#fde725", "#fff", "#000"));
        assert!(head(1.0, 2.0, "a<b").contains("aria-label=\"a&lt;b\""));
        let mut svg = String::new();
        legend(&mut svg, [0.0, 0.0], 100.0, &[(1.0, 50.0)], "%");
        assert!(svg.contains(">50.00%</text>") && svg.matches("<rect").count() == 32);
    }
}
