//! A memory as it was after instantiation, and how it is put back: only pages that were touched are copied.

use rustix::mm::{Advice, madvise};
use std::ops::Range;

use crate::touched::{PAGE, Pages};

/// What a memory held. Pages that are not here were zero.
#[derive(Debug)]
pub(crate) struct Image {
    /// Bytes that the memory had.
    length: usize,
    /// Numbers of pages, rising, each with its bytes in `bytes`.
    pages: Vec<usize>,
    bytes: Vec<u8>,
}

impl Image {
    /// Takes the image of a memory of `length` bytes at `base`.
    ///
    /// # Safety
    /// The range is mapped and readable, and nothing writes to it meanwhile.
    ///
    /// # Errors
    /// Those of the system.
    #[expect(unsafe_code, reason = "reads the memory of a guest")]
    pub(crate) unsafe fn take(pages: &Pages, base: *const u8, length: usize) -> std::io::Result<Self> {
        let start = base as usize;
        let mut touched = Vec::new();
        pages.touched(start..start + length, &mut touched)?;
        let mut image = Self { length, pages: Vec::new(), bytes: Vec::new() };
        for page in numbers(&touched, start) {
            // SAFETY: within the range, by the caller's promise.
            let bytes = unsafe { std::slice::from_raw_parts(base.add(page * PAGE), PAGE) };
            if bytes.iter().any(|byte| *byte != 0) {
                image.pages.push(page);
                image.bytes.extend_from_slice(bytes);
            }
        }
        Ok(image)
    }

    /// Bytes that the memory had.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Puts a memory back that has grown to `now` bytes since.
    ///
    /// # Safety
    /// The range is mapped, readable and writable, and nothing else uses it meanwhile. `base` is where the image was
    /// taken.
    ///
    /// # Errors
    /// Those of the system; the memory must not be used then.
    #[expect(unsafe_code, reason = "writes the memory of a guest")]
    pub(crate) unsafe fn put_back(&self, pages: &Pages, base: *mut u8, now: usize) -> std::io::Result<()> {
        let start = base as usize;
        let mut touched = Vec::new();
        pages.touched(start..start + now, &mut touched)?;
        let count: usize = touched.iter().map(|range| range.len() / PAGE).sum();
        let mut known = self.pages.iter().zip(self.bytes.chunks_exact(PAGE)).peekable();
        for range in touched {
            let (mut page, end) = ((range.start - start) / PAGE, (range.end - start) / PAGE);
            while page < end {
                while known.next_if(|(known, _)| **known < page).is_some() {}
                if let Some((_, bytes)) = known.next_if(|(known, _)| **known == page) {
                    // SAFETY: within the range, by the caller's promise.
                    unsafe { std::slice::from_raw_parts_mut(base.add(page * PAGE), PAGE) }.copy_from_slice(bytes);
                    page += 1;
                    continue;
                }
                // Pages that were zero, up to the next one that was not.
                let next = known.peek().map_or(end, |(known, _)| (**known).min(end));
                // SAFETY: as above.
                unsafe { clear(base.add(page * PAGE), next - page, count) }?;
                page = next;
            }
        }
        Ok(())
    }
}

/// Pages that a call may touch without their being given back to the system: writing zeros is cheaper for a few, and
/// would make every later call pay for one that touched many.
const KEPT: usize = 64;
/// Pages in a row for which giving back is worth a call of the system.
const RUN: usize = 8;

/// Makes `pages` pages zero.
///
/// # Safety
/// They are mapped, private, writable and nobody else uses them.
#[expect(unsafe_code, reason = "writes the memory of a guest")]
unsafe fn clear(at: *mut u8, pages: usize, touched: usize) -> std::io::Result<()> {
    if touched > KEPT && pages >= RUN {
        // SAFETY: the caller's promise; private anonymous pages come back as zeros.
        return Ok(unsafe { madvise(at.cast(), pages * PAGE, Advice::LinuxDontNeed) }?);
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(at, pages * PAGE) }.fill(0);
    Ok(())
}

/// Numbers of the pages in ranges, counted from `start`.
fn numbers(ranges: &[Range<usize>], start: usize) -> impl Iterator<Item = usize> {
    ranges.iter().flat_map(move |range| (range.start - start) / PAGE..(range.end - start) / PAGE)
}
