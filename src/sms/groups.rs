//! Ids grouped by what their records show, so that a filtered page costs what it shows and not what there is.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// Every id is in one group at most; an empty group is none.
#[derive(Debug)]
pub(crate) struct Groups<W, I> {
    words: HashMap<I, W>,
    groups: HashMap<W, BTreeSet<I>>,
}

impl<W, I> Default for Groups<W, I> {
    fn default() -> Self {
        Self { words: HashMap::new(), groups: HashMap::new() }
    }
}

impl<W: Clone + Eq + Hash, I: Copy + Ord + Hash> Groups<W, I> {
    /// Puts an id where it belongs now; none: nowhere.
    pub(crate) fn set(&mut self, id: I, word: Option<W>) {
        // Thousands of ids share a word: where it is shared memory, it is the same.
        let word = word.map(|word| self.groups.get_key_value(&word).map_or(word, |(known, _)| known.clone()));
        let before = match &word {
            Some(word) => self.words.insert(id, word.clone()),
            None => self.words.remove(&id),
        };
        if before == word {
            return;
        }
        if let Some(before) = before
            && let Some(group) = self.groups.get_mut(&before)
        {
            group.remove(&id);
            if group.is_empty() {
                self.groups.remove(&before);
            }
        }
        if let Some(word) = word {
            self.groups.entry(word).or_default().insert(id);
        }
    }

    /// Where an id is.
    pub(crate) fn word(&self, id: I) -> Option<&W> {
        self.words.get(&id)
    }

    /// A group, in the order of its ids.
    pub(crate) fn get<Q>(&self, word: &Q) -> Option<&BTreeSet<I>>
    where
        W: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.groups.get(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn an_id_is_in_the_group_of_its_last_word_and_in_no_other(
            steps in proptest::collection::vec((0u8..6, proptest::option::of(0u8..4)), 0..60),
        ) {
            let (mut groups, mut model) = (Groups::default(), BTreeMap::new());
            for (id, word) in steps {
                groups.set(id, word);
                match word {
                    Some(word) => drop(model.insert(id, word)),
                    None => drop(model.remove(&id)),
                }
                for word in 0u8..4 {
                    let expected: Vec<u8> = model.iter().filter(|(_, its)| **its == word).map(|(id, _)| *id).collect();
                    let found = groups.get(&word).map(|group| group.iter().copied().collect::<Vec<_>>());
                    prop_assert_eq!(found, (!expected.is_empty()).then_some(expected));
                }
                prop_assert_eq!(groups.word(id).copied(), model.get(&id).copied());
            }
        }
    }
}
