//! A bounded number of values, of which the least recently used is given up.

/// Values by their keys. Reading counts as use, and time goes by reads: also those that find nothing.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: Vec<Entry<K, V>>,
    capacity: usize,
    now: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    used: u64,
}

impl<K: PartialEq, V> Recent<K, V> {
    /// Room for so many values, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), capacity: capacity.max(1), now: 0 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.now += 1;
        let entry = self.entries.iter_mut().find(|entry| entry.key == *key)?;
        entry.used = self.now;
        Some(&mut entry.value)
    }

    /// Whether a new value has room, or takes that of one which the last `patience` reads did not want.
    pub(crate) fn has_room(&self, patience: u64) -> bool {
        let oldest = self.entries.iter().map(|entry| entry.used).min().unwrap_or(0);
        self.entries.len() < self.capacity || self.now - oldest > patience
    }

    /// Adds a value as just used; if there is no room, in place of the least recently used.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.entries.retain(|entry| entry.key != key);
        if self.entries.len() == self.capacity {
            let oldest = (0..self.entries.len()).min_by_key(|index| self.entries[*index].used);
            oldest.map(|index| self.entries.swap_remove(index));
        }
        self.entries.push(Entry { key, value, used: self.now });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        assert_eq!(recent.get(&"a"), Some(&mut 1));
        recent.insert("c", 3);
        assert_eq!((recent.get(&"b").copied(), recent.len()), (None, 2));
        recent.insert("d", 4);
        assert_eq!(["a", "c", "d"].map(|key| recent.get(&key).copied()), [None, Some(3), Some(4)]);
        recent.insert("c", 5);
        assert_eq!((recent.get(&"c").copied(), recent.get(&"d").copied(), recent.len()), (Some(5), Some(4), 2));
    }

    #[test]
    fn a_full_one_has_room_once_a_value_is_not_wanted_for_long() {
        let mut recent = Recent::new(2);
        assert!(recent.has_room(3));
        for key in ["a", "b"] {
            assert!(recent.has_room(3));
            recent.insert(key, ());
        }
        for reads in 0..4 {
            assert!(!recent.has_room(3), "after {reads} reads");
            let _ = recent.get(&"b");
        }
        assert!(recent.has_room(3));
        assert!(recent.get(&"a").is_some() && !recent.has_room(3));
    }
}
