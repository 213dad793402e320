//! Names of tensors in files of other people, and what wrappers make of them.
use std::collections::{BTreeMap, HashMap};

/// What data parallel training, `torch.compile`, FSDP and checkpointing put into names.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Counters that profilers and averages leave among the weights: networks compute nothing from them.
const LITTER: [&str; 6] = ["num_batches_tracked", "total_ops", "total_params", "n_averaged", "num_updates", "initted"];

/// The tensors without the parts of their names that wrappers add, unless two names would become one.
pub(super) fn unwrapped<T>(tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let mut count: HashMap<String, usize> = HashMap::new();
    for name in tensors.keys() {
        *count.entry(bare(name)).or_default() += 1;
    }
    let rename = |name: String| Some(bare(&name)).filter(|bare| count[bare] == 1).unwrap_or(name);
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

/// A name without the parts that wrappers add.
pub(super) fn bare(name: &str) -> String {
    let kept: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    kept.join(".")
}

/// Whether a tensor is none that a network computes with.
pub(super) fn is_litter(name: &str) -> bool {
    LITTER.contains(&name.rsplit('.').next().unwrap_or(name))
}

/// A longer name is no network's: looking for all its ends would take too long.
const LONGEST: usize = 1000;

/// The ends of a name at its dots, with what comes before each: `a.b.c` gives (``, `a.b.c`), (`a.`, `b.c`), (`a.b.`, `c`).
pub(super) fn ends(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let dots = if name.len() <= LONGEST { name } else { "" };
    std::iter::once(0).chain(dots.match_indices('.').map(|(place, _)| place + 1)).map(|place| name.split_at(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_ends_unless_they_are_too_long() {
        assert_eq!(ends("a.b.c").collect::<Vec<_>>(), [("", "a.b.c"), ("a.", "b.c"), ("a.b.", "c")]);
        assert_eq!(ends(&"a.".repeat(500)).count(), 501);
        assert_eq!(ends(&"a.".repeat(501)).count(), 1);
    }
}
