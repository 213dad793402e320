//! Tables for people.

/// How the cells of a column stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Columns side by side, two spaces apart. A row of one cell is a line of its own.
pub(crate) fn table<const N: usize>(columns: [Align; N], rows: &[Vec<String>]) -> String {
    let whole = || rows.iter().filter(|row| row.len() == N);
    let width = |column: usize| whole().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match (row.len() == N, columns[column]) {
            (false, _) => cell.clone(),
            (_, Align::Left) => format!("{cell:<width$}", width = widths[column]),
            (_, Align::Right) => format!("{cell:>width$}", width = widths[column]),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
