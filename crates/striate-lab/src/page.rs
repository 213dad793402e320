//! Pages that are one file: plain HTML and CSS, with every picture in them.
use crate::inspect::picture::data_uri;
use std::fmt::Write;
use striate_torch::Shown;

/// Light and dark as the reader's system is; one column on a phone.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8885;--soft:#8882;--bar:#0072b2}\
*{box-sizing:border-box}\
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}\
h1,h2,h3{line-height:1.25}h1{font-size:1.7rem}h2{margin-top:2.5rem;padding-top:1rem;border-top:1px solid var(--line)}\
img,figure svg{display:block;max-width:100%;height:auto}figure svg{background:#fff}img.pixels{image-rendering:pixelated}\
figure{margin:0}figcaption{font-size:.85rem;margin-top:.3rem}\
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:1rem;margin:1rem 0}\
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(8rem,1fr));gap:1rem;margin:1rem 0}\
.tiles img,.cards img{width:100%}.wide{margin:1rem 0}\
table{border-collapse:collapse;font-size:.9rem}caption{text-align:left;font-weight:600;padding:.4rem 0}\
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
thead th{border-bottom-width:2px}.scroll{overflow-x:auto}.scroll th,.scroll td{overflow-wrap:normal}\
.evidence{width:100%;table-layout:fixed}.evidence img{width:100%;max-width:14rem}\
progress{width:100%;height:.6rem;accent-color:var(--bar)}\
code{background:var(--soft);padding:.1rem .3rem;border-radius:.2rem}\
.verdict{color:#fff;border-radius:.3rem;padding:.1rem .5rem;font-size:.85em;white-space:nowrap}\
.supported{background:#0a7d4f}.refuted{background:#c2410c}.undecided{background:#6b7280}\
nav a{margin-right:1rem}dt{font-weight:600}dd{margin:0 0 .8rem}";

/// A whole page; `body` is HTML.
pub(crate) fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n<body>\n\
         {body}</body>\n</html>\n"
    )
}

/// A PNG file as an element; `alt` says what it shows. Its pixels stay sharp.
pub(crate) fn picture(png: &[u8], alt: &str) -> String {
    format!("<img class=\"pixels\" src=\"{}\" alt=\"{}\">", data_uri(png), escape(alt))
}

/// A PNG file with a caption, which is HTML.
pub(crate) fn figure(png: &[u8], alt: &str, caption: &str) -> String {
    format!("<figure>{}<figcaption>{caption}</figcaption></figure>\n", picture(png, alt))
}

/// A table that scrolls sideways where it is too wide. Of `columns` those marked `true` hold numbers; cells are HTML.
pub(crate) fn table(caption: &str, columns: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let class = |number: bool| if number { " class=\"number\"" } else { "" };
    let mut text = format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\"><table>\n<caption>{0}</caption>\n<thead><tr>",
        escape(caption)
    );
    for (name, number) in columns {
        let _ = write!(text, "<th scope=\"col\"{}>{}</th>", class(*number), escape(name));
    }
    text += "</tr></thead>\n<tbody>\n";
    for row in rows {
        text += "<tr>";
        for (index, (cell, (_, number))) in row.iter().zip(columns).enumerate() {
            let class = class(*number);
            let _ = match index {
                0 => write!(text, "<th scope=\"row\"{class}>{cell}</th>"),
                _ => write!(text, "<td{class}>{cell}</td>"),
            };
        }
        text += "</tr>\n";
    }
    text + "</tbody>\n</table></div>\n"
}

/// Text as HTML and SVG have it, in attributes too. Control characters may not be in them at all.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in Shown(text).to_string().chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            other => escaped.push(other),
        }
    }
    escaped
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// A figure in four significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e5).contains(&size) => format!("{value:.2e}"),
        size => format!("{value:.*}", (3.0 - size.log10().floor()).max(0.0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_a_page() {
        assert_eq!(escape("<b>\"a\" & b"), "&lt;b&gt;&quot;a&quot; &amp; b");
        assert!(picture(b"x", "a \"b\"").ends_with("src=\"data:image/png;base64,eA==\" alt=\"a &quot;b&quot;\">"));
        assert!(document("<x>", "").contains("<title>&lt;x&gt;</title>"));
        let table = table("a<b", &[("x", false), ("y", true)], &[vec!["1".to_owned(), "2".to_owned()]]);
        assert!(table.contains("<caption>a&lt;b</caption>") && table.contains("<td class=\"number\">2</td>"), "{table}");
    }

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0"), (1.23456, "1.235"), (12.3456, "12.35"), (1234.56, "1235"), (0.0123456, "0.01235"), (1.5e-7, "1.50e-7")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            (percent(0.12345), number(-20.0), number(123456.0)),
            ("12.3%".to_owned(), "-20.00".to_owned(), "1.23e5".to_owned())
        );
    }
}
