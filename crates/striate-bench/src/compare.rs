//! Two runs beside each other.
use crate::record::{OURS, Results};

/// A case whose time changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The case's id.
    pub id: String,
    /// The medians before and after, in ms.
    pub ms: [f64; 2],
    /// The latter over the former.
    pub ratio: f64,
}

/// Our cases that both runs measured, the one that slowed down most first, and how many of them are slower than `1 + percent / 100`
/// times the baseline's.
pub fn slower(baseline: &Results, now: &Results, percent: f64) -> (Vec<Change>, usize) {
    let ours = |results: &Results| -> std::collections::BTreeMap<String, f64> {
        results.rows.iter().filter(|row| row.side == OURS).map(|row| (row.id.clone(), row.spread.median)).collect()
    };
    let before = ours(baseline);
    let mut changes: Vec<Change> = ours(now)
        .into_iter()
        .filter_map(|(id, after)| before.get(&id).map(|before| Change { id, ms: [*before, after], ratio: after / before }))
        .collect();
    changes.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    let count = changes.iter().filter(|change| change.ratio > 1.0 + percent / 100.0).count();
    (changes, count)
}
