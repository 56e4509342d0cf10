//! Figures that a part gets after it was built.

use std::sync::{Arc, OnceLock};

/// Empty until somebody wants the part to be measured; then it stays as it is. Cheap to clone; clones are one.
#[derive(Debug)]
pub struct Slot<T>(Arc<OnceLock<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Slot<T> {
    /// Fills it; false when it was full, and stays as it was.
    pub fn fill(&self, figures: T) -> bool {
        self.0.set(figures).is_ok()
    }

    /// Does something with the figures, if they are wanted.
    pub fn see(&self, measure: impl FnOnce(&T)) {
        if let Some(figures) = self.0.get() {
            measure(figures);
        }
    }
}
