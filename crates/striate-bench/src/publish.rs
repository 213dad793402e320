//! Results in a document that people write too.
use crate::BenchError;
use std::path::Path;

/// The lines that the tables stand between.
const BEGIN: &str = "<!-- bench -->";
const END: &str = "<!-- /bench -->";

/// Puts a page of tables, as [`table`](crate::table) gives it, in place of what stands between a document's lines `<!-- bench -->` and
/// `<!-- /bench -->`, and leaves all else as it is. With no page it only looks whether that can be done.
///
/// # Errors
///
/// The document cannot be read or written, or it has not each of these lines once, in this order.
pub fn publish(document: &Path, page: Option<&str>) -> Result<(), BenchError> {
    let text = striate_files::read_to_string(document)?;
    let [before, after] = around(&text).ok_or_else(|| {
        let name = document.display();
        BenchError::Usage(format!(
            "{name}: the tables go between two lines `{BEGIN}` and `{END}`: write each once, in this order"
        ))
    })?;
    let Some(page) = page else { return Ok(()) };
    let text = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", page.trim());
    Ok(striate_files::write_bytes(document, text)?)
}

/// What stands before the first line and after the last.
fn around(text: &str) -> Option<[&str; 2]> {
    let place = |wanted: &str| {
        let mut start = 0;
        let mut places = text.split_inclusive('\n').filter_map(|line| {
            start += line.len();
            (line.trim_end() == wanted).then(|| start - line.len())
        });
        places.next().filter(|_| places.next().is_none())
    };
    let (begin, end) = (place(BEGIN)?, place(END)?);
    (begin < end).then(|| [&text[..begin], &text[end + END.len()..]])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_stands_between_the_lines_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.md");
        fs::write(&path, "# Results\n\nOurs, see <!-- bench --> below.\n<!-- bench -->\nold\n<!-- /bench -->\n\n## More\n")
            .unwrap();
        let expected = "# Results\n\nOurs, see <!-- bench --> below.\n<!-- bench -->\n\n| a |\n\n<!-- /bench -->\n\n## More\n";
        // Again and again, the same.
        for page in [None, Some("\n| a |\n\n"), Some("| a |"), None] {
            publish(&path, page).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_document_without_the_two_lines_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.md");
        for text in ["# Results\n", "<!-- /bench -->\n<!-- bench -->\n", "<!-- bench -->\n<!-- bench -->\n<!-- /bench -->\n"] {
            fs::write(&path, text).unwrap();
            let error = publish(&path, Some("page")).unwrap_err().to_string();
            assert!(error.contains("between two lines") && !error.contains('\n'), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
