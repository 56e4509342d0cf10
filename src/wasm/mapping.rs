//! Address space for memories of guests, and what is kept of it for the next guest: threads of one process queue for
//! every change of its mappings.
//!
//! ```text
//!   take ─► kept one of this capacity, else a new one ─► guest ─► dropped ─► few pages touched? made zero, kept
//!                                                                              └ many, or enough are kept: unmapped
//! ```

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};
use std::{
    io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use crate::touched::{PAGE, Pages};

/// Behind all memories, in case a check is wrong.
const GUARD: usize = 64 << 10;
/// Mappings that are kept.
const MOST: usize = 32;
/// Pages that one may have in memory to be kept.
const MOST_PAGES: usize = 32;

/// Mappings without a guest; all of their bytes are zero.
#[derive(Debug)]
pub(crate) struct Mappings {
    kept: Mutex<Vec<Mapping>>,
    /// Tells what has to be made zero; none: nothing is kept.
    pages: Option<Arc<Pages>>,
}

/// Address space of one memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    capacity: usize,
    home: Weak<Mappings>,
}

// SAFETY: an address range; who reads and writes it says why it may.
#[expect(unsafe_code, reason = "an address range")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "an address range")]
unsafe impl Sync for Mapping {}

impl Mappings {
    /// None yet.
    pub(crate) fn new(pages: Option<Arc<Pages>>) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), pages })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mapping>> {
        self.kept.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// So many bytes of zeros; `untouched`: none of them takes memory yet.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn take(self: &Arc<Self>, capacity: usize, untouched: bool) -> io::Result<Mapping> {
        let mut kept = self.lock();
        let found = kept.iter().rposition(|mapping| mapping.capacity == capacity);
        let found = found.map(|index| kept.swap_remove(index));
        drop(kept);
        match found {
            // What is kept has no home, so that it is not given back when the list goes.
            Some(mapping) if !untouched || mapping.forget() => Ok(mapping.at_home(self)),
            _ => Ok(Mapping::new(capacity)?.at_home(self)),
        }
    }

    /// Keeps a mapping, if that is cheap; else hands it back.
    fn keep(&self, mapping: Mapping) -> Option<Mapping> {
        let Some(pages) = &self.pages else { return Some(mapping) };
        if self.lock().len() >= MOST || !mapping.clear(pages) {
            return Some(mapping);
        }
        let mut kept = self.lock();
        if kept.len() >= MOST {
            return Some(mapping);
        }
        kept.push(mapping);
        None
    }
}

impl Mapping {
    #[expect(unsafe_code, reason = "maps memory")]
    fn new(capacity: usize) -> io::Result<Self> {
        let length = capacity.checked_add(GUARD).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses; its end is made inaccessible before anybody knows
        // of it. Huge pages would make one touched byte a copy of two megabytes.
        unsafe {
            let base = mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?;
            let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
            let mapping = Self { base, capacity, home: Weak::new() };
            mprotect(base.as_ptr().add(capacity).cast(), GUARD, MprotectFlags::empty())?;
            // A kernel without huge pages refuses, and is right.
            let _no_huge_pages = madvise(base.as_ptr().cast(), capacity, Advice::LinuxNoHugepage);
            Ok(mapping)
        }
    }

    /// Where it begins.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    fn at_home(mut self, home: &Arc<Mappings>) -> Self {
        self.home = Arc::downgrade(home);
        self
    }

    /// Makes all of it zero, if few pages were touched; false: it was left as it is.
    #[expect(unsafe_code, reason = "writes memory that nobody has any more")]
    fn clear(&self, pages: &Pages) -> bool {
        let (start, mut touched) = (self.base.as_ptr() as usize, Vec::new());
        if pages.touched(start..start + self.capacity, &mut touched).is_err() {
            return false;
        }
        if touched.iter().map(|range| range.len() / PAGE).sum::<usize>() > MOST_PAGES {
            return false;
        }
        for range in touched {
            // SAFETY: within the mapping, whose guest is gone.
            unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(range.start - start), range.len()) }.fill(0);
        }
        true
    }

    /// Gives its pages back to the system.
    #[expect(unsafe_code, reason = "gives memory back that nobody uses")]
    fn forget(&self) -> bool {
        // SAFETY: private anonymous pages come back as zeros, which is what they are.
        unsafe { madvise(self.base.as_ptr().cast(), self.capacity, Advice::LinuxDontNeed) }.is_ok()
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "unmaps what it mapped")]
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            let this = Self { base: self.base, capacity: self.capacity, home: Weak::new() };
            // What is handed back is dropped without a home.
            drop(home.keep(this));
            return;
        }
        // SAFETY: the very range that was mapped; nobody has it any more.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.capacity + GUARD) } {
            tracing::error!(%error, "the memory of a guest cannot be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const CAPACITY: usize = 1 << 20;

    #[expect(unsafe_code, reason = "a mapping of its own")]
    fn bytes(mapping: &mut Mapping) -> &mut [u8] {
        // SAFETY: nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(mapping.base(), CAPACITY) }
    }

    #[test]
    fn what_a_guest_left_is_gone_for_the_next_one() {
        let mappings = Mappings::new(Some(Arc::new(Pages::open().unwrap())));
        let mut first = mappings.take(CAPACITY, false).unwrap();
        let place = first.base();
        for at in [0, 1, 70_000, CAPACITY - 1] {
            bytes(&mut first)[at] = 7;
        }
        drop(first);
        let mut again = mappings.take(CAPACITY, false).unwrap();
        assert_eq!(again.base(), place, "it is the same one");
        assert!(bytes(&mut again).iter().all(|byte| *byte == 0));
        let other = mappings.take(CAPACITY, false).unwrap();
        assert_ne!(other.base(), place, "two guests have two");
    }

    #[test]
    fn one_that_was_used_much_is_not_kept_and_one_for_putting_back_has_no_page() {
        let pages = Arc::new(Pages::open().unwrap());
        let mappings = Mappings::new(Some(pages.clone()));
        let mut much = mappings.take(CAPACITY, false).unwrap();
        bytes(&mut much).fill(1);
        drop(much);
        assert_eq!(mappings.lock().len(), 0);
        let mut little = mappings.take(CAPACITY, false).unwrap();
        bytes(&mut little)[5000] = 1;
        drop(little);
        assert_eq!(mappings.lock().len(), 1);
        let untouched = mappings.take(CAPACITY, true).unwrap();
        let start = untouched.base() as usize;
        let mut touched = Vec::new();
        pages.touched(start..start + CAPACITY, &mut touched).unwrap();
        assert!(touched.is_empty(), "{touched:?}");
    }
}
