//! What an instance was right after it was made, and how it becomes that again after a call.
//!
//! ```text
//!   made ─► take: globals, images of the memories ─► call ─► put back: lengths, touched pages, globals ─► call …
//! ```
//! The globals are all of them, the stop flag too, so a call that was stopped late leaves no raised flag behind.
//! Modules that change tables or drop segments are not put back: the scan finds them (`scan.rs`).

use std::{io, ptr::NonNull};
use wasmer::{AsStoreMut, Store, sys::vm::VMGlobalDefinition};

use crate::{image::Image, memory::Handle, touched::Pages};

/// The state of an instance at its beginning.
#[derive(Debug)]
pub(crate) struct Snapshot {
    globals: Vec<(NonNull<VMGlobalDefinition>, u128)>,
    images: Vec<Image>,
}

// SAFETY: kept beside the store that has the instance, and moves with it.
#[expect(unsafe_code, reason = "pointers into an instance")]
unsafe impl Send for Snapshot {}

impl Snapshot {
    /// Of the one instance in a store, before any of its code has run.
    ///
    /// # Errors
    /// The kernel does not tell which pages are touched.
    pub(crate) fn take(store: &mut Store, memories: &[Handle], pages: &Pages) -> io::Result<Self> {
        let objects = store.objects_mut().as_sys();
        let globals = objects.iter_globals().map(wasmer::sys::vm::VMGlobal::vmglobal);
        let globals = globals.zip(objects.as_u128_globals()).collect();
        let take = |memory: &Handle| {
            // SAFETY: the instance is in the store, and nothing of it runs.
            #[expect(unsafe_code, reason = "reads the memory of a guest that does not run")]
            unsafe {
                Image::take(pages, memory.base(), memory.length())
            }
        };
        let images = memories.iter().map(take).collect::<io::Result<_>>()?;
        Ok(Self { globals, images })
    }

    /// Puts everything back.
    ///
    /// # Safety
    /// The instance that it was taken of exists, `memories` are its memories, and nothing of it runs.
    ///
    /// # Errors
    /// Those of the system; the instance must not be used then.
    #[expect(unsafe_code, reason = "writes into an instance that does not run")]
    pub(crate) unsafe fn put_back(&self, memories: &mut [Handle], pages: &Pages) -> io::Result<()> {
        for (image, memory) in self.images.iter().zip(memories) {
            // SAFETY: the caller's promise. The mapping reaches at least as far as the memory ever grew.
            unsafe {
                image.put_back(pages, memory.base(), memory.length())?;
                memory.set_length(image.length());
            }
        }
        for (global, value) in &self.globals {
            // SAFETY: the caller's promise; these are the bits that this very global had.
            unsafe { (*global.as_ptr()).val.u128 = *value };
        }
        Ok(())
    }
}
