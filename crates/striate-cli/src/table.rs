//! Tables for people.

/// How the cells of a column stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// The widest that a column is made. A file can hold names of any length; longer ones stand out of their column.
const WIDEST: usize = 200;

/// The width of a column with these cells.
pub(crate) fn width<'a>(cells: impl IntoIterator<Item = &'a str>) -> usize {
    cells.into_iter().map(|cell| cell.chars().count()).max().unwrap_or(0).min(WIDEST)
}

/// Columns side by side, two spaces apart. A row of one cell is a line of its own.
pub(crate) fn table(columns: impl AsRef<[Align]>, rows: &[Vec<String>]) -> String {
    let columns = columns.as_ref();
    let whole = || rows.iter().filter(|row| row.len() == columns.len());
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(whole().map(|row| row[column].as_str()))).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match (row.len() == columns.len(), columns[column]) {
            (false, _) => cell.clone(),
            (_, Align::Left) => format!("{cell:<width$}", width = widths[column]),
            (_, Align::Right) => format!("{cell:>width$}", width = widths[column]),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formatting to a width beyond 65,535 panics.
    #[test]
    fn no_cell_makes_a_column_wider_than_a_page() {
        let long = "x".repeat(100_000);
        let rows = [[long.as_str(), "1"], ["a", "2"]].map(|row| row.map(str::to_owned).to_vec());
        let text = table([Align::Left, Align::Right], &rows);
        assert_eq!(text, format!("{long}  1\na{}  2\n", " ".repeat(199)));
    }
}
