//! A short list that fills up once and is read without a lock: for what busy paths look up again and again.

use std::sync::OnceLock;

/// The first `M` things that were asked for here, found again without a lock and without allocating.
#[derive(Debug)]
pub(crate) struct Kept<K, V, const M: usize> {
    slots: [OnceLock<(K, V)>; M],
}

impl<K, V, const M: usize> Default for Kept<K, V, M> {
    fn default() -> Self {
        Self { slots: [const { OnceLock::new() }; M] }
    }
}

impl<K, V: Clone, const M: usize> Kept<K, V, M> {
    /// The value that fits, if it is here.
    pub(crate) fn find(&self, fits: impl Fn(&K) -> bool) -> Option<V> {
        let mut known = self.slots.iter().map_while(OnceLock::get);
        known.find(|(key, _)| fits(key)).map(|(_, value)| value.clone())
    }

    /// The same, made when it is not; what does not fit in any more is made each time.
    pub(crate) fn get(&self, fits: impl Fn(&K) -> bool, make: impl Fn() -> (K, V)) -> V {
        for slot in &self.slots {
            let (key, value) = slot.get_or_init(&make);
            if fits(key) {
                return value.clone();
            }
        }
        make().1
    }
}
