//! A memory as it was after instantiation, and how it is put back: only pages that were touched are copied.

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

    /// Puts a memory back that has grown to `now` bytes since. Answers how many pages were copied; none: more than
    /// `most` were touched, and nothing was done.
    ///
    /// # Safety
    /// The range is mapped, readable and writable, and nothing else uses it meanwhile. `base` is where the image was
    /// taken.
    ///
    /// # Errors
    /// Those of the system; the memory must not be used then.
    #[expect(unsafe_code, reason = "writes the memory of a guest")]
    pub(crate) unsafe fn put_back(
        &self,
        pages: &Pages,
        base: *mut u8,
        now: usize,
        most: usize,
    ) -> std::io::Result<Option<usize>> {
        let start = base as usize;
        let mut touched = Vec::new();
        pages.touched(start..start + now, &mut touched)?;
        let count = touched.iter().map(|range| range.len() / PAGE).sum();
        if count > most {
            return Ok(None);
        }
        let mut known = self.pages.iter().zip(self.bytes.chunks_exact(PAGE)).peekable();
        for page in numbers(&touched, start) {
            while known.next_if(|(known, _)| **known < page).is_some() {}
            // SAFETY: within the range, by the caller's promise.
            let place = unsafe { std::slice::from_raw_parts_mut(base.add(page * PAGE), PAGE) };
            match known.next_if(|(known, _)| **known == page) {
                Some((_, bytes)) => place.copy_from_slice(bytes),
                None => place.fill(0),
            }
        }
        Ok(Some(count))
    }
}

/// Numbers of the pages in ranges, counted from `start`.
fn numbers(ranges: &[Range<usize>], start: usize) -> impl Iterator<Item = usize> {
    ranges.iter().flat_map(move |range| (range.start - start) / PAGE..(range.end - start) / PAGE)
}
