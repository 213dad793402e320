//! Results as a page of Markdown.
use crate::Spread;
use crate::case::Mode;
use crate::record::{OURS, Results, Row};
use std::fmt::Write;

/// A page: where it was measured, our cases, and each case that others took part in.
pub fn table(results: &Results) -> String {
    let run = &results.run;
    let versions: Vec<String> = run.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let mut page = format!(
        "{}, {} threads, {}; {}; {}; seed {}.\nTimes are medians with quartiles in brackets. GFLOP/s count the operations by their \
         definition, so that an algorithm that needs fewer may pass the limit, which is this machine's best matrix product with as \
         many threads. Memory is the peak of resident memory in MiB: above what the \
         process had before the first pass, and of the whole process.\n",
        run.processor,
        run.cores,
        run.system,
        day(run.time),
        versions.join(", "),
        run.seed
    );
    let with_peers = |row: &Row| results.rows.iter().any(|other| other.id == row.id && other.side != OURS);
    let alone: Vec<&Row> = results.rows.iter().filter(|row| row.side == OURS && !with_peers(row)).collect();
    if !alone.is_empty() {
        page.push_str("\n| case | ms | images/s | GFLOP/s | of the limit | memory | process |\n|---|---|---|---|---|---|---|\n");
        for row in alone {
            let memory = [number(row.rise_mib), number(row.peak_mib)].join(" | ");
            let cells = [time(&row.spread), rate(row), flops(row), limit(row), memory];
            let _ = writeln!(page, "| {} | {} |", row.id, cells.join(" | "));
        }
    }
    for ours in results.rows.iter().filter(|row| row.side == OURS && with_peers(row)) {
        let _ = writeln!(page, "\n**{}**\n", ours.id);
        page.push_str(
            "| | ms | its time over ours, pair by pair | GFLOP/s | of the limit | memory | process | logits differ by |\n",
        );
        page.push_str("|---|---|---|---|---|---|---|---|\n");
        for row in results.rows.iter().filter(|row| row.id == ours.id) {
            let ratio = row.ratio.map_or_else(|| "1".to_owned(), |ratio| factor(&ratio));
            let distance = row.distance.map(|distance| format!("{distance:.0e}")).unwrap_or_default();
            let memory = [number(row.rise_mib), number(row.peak_mib)].join(" | ");
            let cells = [time(&row.spread), ratio, flops(row), limit(row), memory, distance];
            let _ = writeln!(page, "| {} | {} |", row.side, cells.join(" | "));
        }
    }
    if !results.absent.is_empty() {
        page.push_str("\nNot measured:\n\n");
        for absent in &results.absent {
            let _ = writeln!(page, "- {}, {}: {}", absent.id, absent.side, absent.reason);
        }
    }
    page
}

/// The day of a time in seconds since 1970, as `2026-01-31`.
fn day(time: u64) -> String {
    let moment = i64::try_from(time).ok().and_then(|time| time::UtcDateTime::from_unix_timestamp(time).ok());
    moment.map_or_else(|| format!("{time} s since 1970"), |moment| moment.date().to_string())
}

/// Three digits that count.
pub(crate) fn digits(value: f64) -> String {
    let decimals = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

fn time(spread: &Spread) -> String {
    format!("{} ({} to {})", digits(spread.median), digits(spread.q1), digits(spread.q3))
}

pub(crate) fn factor(ratio: &Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.q1, ratio.q3)
}

fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.0}")).unwrap_or_default()
}

fn rate(row: &Row) -> String {
    row.images_per_second.map(digits).unwrap_or_default()
}

fn flops(row: &Row) -> String {
    number(row.gflops)
}

fn limit(row: &Row) -> String {
    row.of_limit.filter(|_| row.case.mode != Mode::Product).map(|share| format!("{:.0}%", 100.0 * share)).unwrap_or_default()
}
