//! Which pages of a range of memory have been touched: present in memory or swapped out.
//!
//! The kernel knows. `PAGEMAP_SCAN` (Linux 6.7 and later) lists the ranges in one call; before that
//! `/proc/self/pagemap` has eight bytes for every page. `mincore` would not do: a page that was swapped out looks
//! untouched to it.
//!
//! Source: Linux, `Documentation/admin-guide/mm/pagemap.rst` and `include/uapi/linux/fs.h`.

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::{ffi::c_void, fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Bytes of a page; the runtime refuses to start where it is another number.
pub(crate) const PAGE: usize = 4096;

const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;

/// Ranges of one call.
const RANGES: usize = 24;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    ranges_length: u64,
    most_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

struct Scan<'a>(&'a mut ScanArgument);

// SAFETY: the opcode is that of PAGEMAP_SCAN, whose argument is a `pm_scan_arg` that is read and written; it points
// to a place for regions of the length it names, which outlives the call.
#[expect(unsafe_code, reason = "a system call that no crate wraps")]
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ScanArgument>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        Ok(usize::try_from(out).unwrap_or(0))
    }
}

/// Asks the kernel.
#[derive(Debug)]
pub(crate) struct Pages {
    pagemap: File,
    scans: bool,
}

impl Pages {
    /// Opens the way that this kernel has.
    ///
    /// # Errors
    /// It has neither; memories are made anew for each call then.
    pub(crate) fn open() -> io::Result<Self> {
        let mut pages = Self { pagemap: File::open("/proc/self/pagemap")?, scans: true };
        let probe = vec![1u8; 4 * PAGE];
        let start = (probe.as_ptr() as usize).next_multiple_of(PAGE);
        let mut found = Vec::new();
        pages.scans = pages.scan(start..start + PAGE, &mut found).is_ok();
        found.clear();
        pages.touched(start..start + PAGE, &mut found)?;
        // In a sandbox the file may be there and empty.
        let wanted = start..start + PAGE;
        if found == std::slice::from_ref(&wanted) {
            Ok(pages)
        } else {
            Err(io::Error::other("the kernel hides page tables"))
        }
    }

    /// Adds the touched ranges of a range, in rising order; both ends are those of pages.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn touched(&self, range: Range<usize>, into: &mut Vec<Range<usize>>) -> io::Result<()> {
        if self.scans { self.scan(range, into) } else { self.read(range, into) }
    }

    fn scan(&self, range: Range<usize>, into: &mut Vec<Range<usize>>) -> io::Result<()> {
        let mut regions = [Region::default(); RANGES];
        let mut from = range.start as u64;
        while from < range.end as u64 {
            let mut argument = ScanArgument {
                size: size_of::<ScanArgument>() as u64,
                start: from,
                end: range.end as u64,
                ranges: regions.as_mut_ptr() as u64,
                ranges_length: RANGES as u64,
                category_any_of: PRESENT | SWAPPED,
                return_mask: PRESENT | SWAPPED,
                ..ScanArgument::default()
            };
            // SAFETY: see the implementation of `Scan`; the regions live as long as this function.
            #[expect(unsafe_code, reason = "a system call that no crate wraps")]
            let count = unsafe { ioctl(&self.pagemap, Scan(&mut argument)) }?;
            for region in regions.iter().take(count) {
                add(into, region.start as usize..region.end as usize);
            }
            if argument.walk_end <= from {
                return Err(io::Error::other("the scan of pages does not advance"));
            }
            from = argument.walk_end;
        }
        Ok(())
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<Range<usize>>) -> io::Result<()> {
        const ENTRY: usize = 8;
        let mut entries = [0; 512 * ENTRY];
        let mut from = range.start;
        while from < range.end {
            let pages = ((range.end - from) / PAGE).min(entries.len() / ENTRY);
            let part = entries.get_mut(..pages * ENTRY).unwrap_or_default();
            self.pagemap.read_exact_at(part, (from / PAGE * ENTRY) as u64)?;
            for (at, entry) in (from..).step_by(PAGE).zip(part.chunks_exact(ENTRY)) {
                let entry = entry.first_chunk().copied().map_or(0, u64::from_ne_bytes);
                // Bit 63: present, bit 62: swapped.
                if entry >> 62 != 0 {
                    add(into, at..at + PAGE);
                }
            }
            from += pages * PAGE;
        }
        Ok(())
    }
}

/// Adds a range, as part of the last one where they touch.
fn add(ranges: &mut Vec<Range<usize>>, range: Range<usize>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    #[test]
    #[expect(unsafe_code, reason = "a mapping of its own to touch")]
    fn both_ways_find_exactly_the_pages_that_were_written() {
        const COUNT: usize = 300;
        // SAFETY: a fresh mapping that nothing else knows; unmapped at the end.
        unsafe {
            let map = mmap_anonymous(
                std::ptr::null_mut(),
                COUNT * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
            .unwrap();
            let start = map as usize;
            let mut expected = Vec::new();
            for page in (0..COUNT).filter(|page| page % 3 == 0 || (100..150).contains(page)) {
                map.cast::<u8>().add(page * PAGE + 7).write(1);
                add(&mut expected, start + page * PAGE..start + (page + 1) * PAGE);
            }
            let mut pages = Pages::open().unwrap();
            for scans in [pages.scans, false] {
                pages.scans = scans;
                let mut found = Vec::new();
                pages.touched(start..start + COUNT * PAGE, &mut found).unwrap();
                assert_eq!(found, expected, "scans: {scans}");
            }
            munmap(map, COUNT * PAGE).unwrap();
        }
    }
}
