//! Pages of lists: the seed's `limit` and `offset`, and beside them an opaque `cursor` that stays right while
//! records come and go.
//!
//! A cursor is the key of the last item shown, behind the name of its list, in base64url: one list's cursor is
//! refused by another.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::Bound,
    str::FromStr,
};
use types::Fault;

/// Items of one page at most, and without a limit.
pub(crate) const MOST: usize = 1000;

/// Which way a list runs over its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// From the first key.
    Rising,
    /// From the last key.
    Falling,
}

/// Which items are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    list: &'static str,
    limit: usize,
    from: Start,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    Offset(usize),
    After(String),
}

/// Where a page begins and ends in a map.
type Bounds<K> = (Bound<K>, Bound<K>);

/// The items of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut<T> {
    /// In order.
    pub items: Vec<T>,
    /// Items of the whole filtered list.
    pub total: usize,
    /// Where the next page begins; none when this was the last.
    pub next: Option<String>,
}

impl<T> Cut<T> {
    /// With something made of each item.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Cut<U> {
        Cut { items: self.items.into_iter().map(make).collect(), total: self.total, next: self.next }
    }
}

impl Page {
    /// Reads what a caller asked of a list; `default` is the limit when none is given.
    ///
    /// # Errors
    /// Names the parameter that makes no sense.
    pub fn parse(
        list: &'static str,
        (limit, offset, cursor): (Option<i64>, Option<i64>, Option<&str>),
        default: usize,
    ) -> Result<Self, Fault> {
        let limit = limit_of(limit, default)?;
        let from = match (offset, cursor) {
            (Some(_), Some(_)) => {
                return Err(Fault::invalid_field("cursor", "has a place of its own: leave out offset"));
            }
            (None, Some(cursor)) => Start::After(key_of(list, cursor)?),
            (offset, None) => {
                let offset = offset.unwrap_or_default();
                let skipped = usize::try_from(offset)
                    .map_err(|_| Fault::invalid_field("offset", format!("{offset} is negative; use 0 or more")))?;
                Start::Offset(skipped)
            }
        };
        Ok(Self { list, limit, from })
    }

    /// Takes this page out of a whole map: nothing else of it is walked, except for what an offset leaves out.
    ///
    /// # Errors
    /// The cursor's key is not one of this map.
    pub fn of<'a, K, T>(&self, order: Order, map: &'a BTreeMap<K, T>) -> Result<Cut<(&'a K, &'a T)>, Fault>
    where
        K: Ord + FromStr + Display,
    {
        let (skipped, bounds) = self.bounds::<K>(order)?;
        let items = map.range(bounds);
        Ok(match order {
            Order::Rising => self.take(items.skip(skipped), map.len()),
            Order::Falling => self.take(items.rev().skip(skipped), map.len()),
        })
    }

    /// The same of a group of ids in rising order, each of which `find` turns into an item. What it does not find
    /// has just gone, and is left out.
    ///
    /// # Errors
    /// The cursor's key is not one of this list.
    pub fn among<I, T>(&self, ids: &BTreeSet<I>, find: impl Fn(&I) -> Option<T>) -> Result<Cut<T>, Fault>
    where
        I: Ord + FromStr + Display,
    {
        let (skipped, bounds) = self.bounds::<I>(Order::Rising)?;
        let items = ids.range(bounds).skip(skipped).filter_map(|id| Some((id, find(id)?)));
        Ok(self.take(items, ids.len()).map(|(_, item)| item))
    }

    /// How many are left out, and where the page begins.
    fn bounds<K: FromStr>(&self, order: Order) -> Result<(usize, Bounds<K>), Fault> {
        Ok(match &self.from {
            Start::Offset(skipped) => (*skipped, (Bound::Unbounded, Bound::Unbounded)),
            Start::After(after) => {
                let key = Bound::Excluded(after.parse::<K>().map_err(|_| foreign())?);
                match order {
                    Order::Rising => (0, (key, Bound::Unbounded)),
                    Order::Falling => (0, (Bound::Unbounded, key)),
                }
            }
        })
    }

    fn take<K: Display, T>(&self, mut items: impl Iterator<Item = (K, T)>, total: usize) -> Cut<(K, T)> {
        let page: Vec<_> = items.by_ref().take(self.limit).collect();
        let last = page.last().filter(|_| items.next().is_some());
        let next = last.map(|(key, _)| cursor_of(self.list, &key.to_string()));
        Cut { items: page, total, next }
    }

    /// Takes this page out of a list that runs in `order` and is filtered already; all of it is walked, to count.
    pub fn cut<K: AsRef<str>, T>(&self, order: Order, items: impl Iterator<Item = (K, T)>) -> Cut<T> {
        let mut cut = Cut { items: Vec::new(), total: 0, next: None };
        let mut last = None;
        for (key, item) in items {
            let position = cut.total;
            cut.total += 1;
            let wanted = match (&self.from, order) {
                (Start::Offset(skipped), _) => position >= *skipped,
                (Start::After(after), Order::Rising) => key.as_ref() > after.as_str(),
                (Start::After(after), Order::Falling) => key.as_ref() < after.as_str(),
            };
            if !wanted {
                continue;
            }
            if cut.items.len() < self.limit {
                cut.items.push(item);
                last = Some(key);
            } else if cut.next.is_none() {
                cut.next = last.as_ref().map(|key| cursor_of(self.list, key.as_ref()));
            }
        }
        cut
    }
}

/// Reads a limit; `default` when none is given.
pub(crate) fn limit_of(limit: Option<i64>, default: usize) -> Result<usize, Fault> {
    let Some(limit) = limit else { return Ok(default) };
    usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=MOST).contains(limit))
        .ok_or_else(|| Fault::invalid_field("limit", format!("{limit} is not a page; use 1 to {MOST}")))
}

/// The cursor after the item of a key.
pub(crate) fn cursor_of(list: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}/{key}"))
}

/// The key a cursor of `list` stands for.
pub(crate) fn key_of(list: &str, cursor: &str) -> Result<String, Fault> {
    const LONGEST: usize = 256;
    let text = (cursor.len() <= LONGEST).then(|| URL_SAFE_NO_PAD.decode(cursor).ok()).flatten();
    text.and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| Some(text.strip_prefix(list)?.strip_prefix('/')?.to_owned()))
        .ok_or_else(foreign)
}

fn foreign() -> Fault {
    Fault::invalid_field("cursor", "is not one of this list; use a next_cursor as it was given")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(keys: &[String], limit: i64, order: Order) -> Vec<String> {
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        let map: BTreeMap<String, String> = keys.iter().map(|key| (key.clone(), key.clone())).collect();
        loop {
            let page = Page::parse("list", (Some(limit), None, cursor.as_deref()), MOST).unwrap();
            let cut = match order {
                Order::Rising => page.cut(order, keys.iter().map(|key| (key, key.clone()))),
                Order::Falling => page.cut(order, keys.iter().rev().map(|key| (key, key.clone()))),
            };
            assert_eq!(
                page.of(order, &map).unwrap().map(|(_, value)| value.clone()),
                cut,
                "walked or looked up, it is the same"
            );
            if order == Order::Rising {
                let group = keys.iter().cloned().collect();
                assert_eq!(page.among(&group, |key| Some(key.clone())).unwrap(), cut, "a group pages as a list does");
            }
            assert_eq!(cut.total, keys.len());
            assert!(cut.items.len() <= usize::try_from(limit).unwrap());
            seen.extend(cut.items);
            match cut.next {
                Some(next) => cursor = Some(next),
                None => return seen,
            }
        }
    }

    proptest! {
        #[test]
        fn following_the_cursor_shows_every_item_once_and_in_order(
            keys in proptest::collection::btree_set("[a-z0-9-]{1,12}", 0..60),
            limit in 1i64..20,
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            prop_assert_eq!(&pages(&keys, limit, Order::Rising), &keys);
            let mut falling = pages(&keys, limit, Order::Falling);
            falling.reverse();
            prop_assert_eq!(&falling, &keys);
        }

        #[test]
        fn an_offset_into_a_map_leaves_out_what_it_leaves_out_of_a_list(
            keys in proptest::collection::btree_set("[a-z]{1,6}", 0..40),
            (limit, offset) in (1i64..20, 0i64..60),
        ) {
            let map: BTreeMap<String, ()> = keys.into_iter().map(|key| (key, ())).collect();
            let page = Page::parse("list", (Some(limit), Some(offset), None), MOST).unwrap();
            let same = |(key, _)| key;
            let walk = || map.keys().map(|key| (key, key));
            prop_assert_eq!(page.of(Order::Rising, &map).unwrap().map(same), page.cut(Order::Rising, walk()));
            prop_assert_eq!(page.of(Order::Falling, &map).unwrap().map(same), page.cut(Order::Falling, walk().rev()));
        }

        #[test]
        fn any_text_as_cursor_is_a_page_or_a_named_fault(cursor in ".{0,300}", limit: i64, offset: i64) {
            for asked in [(None, None, Some(cursor.as_str())), (Some(limit), Some(offset), None)] {
                if let Err(fault) = Page::parse("list", asked, 10) {
                    prop_assert_eq!(fault.errors.len(), 1);
                }
            }
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let foreign = cursor_of("files", "x");
        assert_eq!(Page::parse("nodes", (None, None, Some(&foreign)), 10).unwrap_err().errors[0].field, "cursor");
        assert!(Page::parse("files", (None, None, Some(&foreign)), 10).is_ok());
    }
}
