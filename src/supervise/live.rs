//! Settings that may change while the process runs.

use std::sync::Arc;
use tokio::sync::watch;

/// The settings of a part, as they are now. Cheap to clone; all clones follow the same [`Changer`].
#[derive(Clone, Debug)]
pub struct Live<T> {
    current: watch::Receiver<Arc<T>>,
}

/// Replaces the settings of a [`Live`].
#[derive(Debug)]
pub struct Changer<T> {
    current: watch::Sender<Arc<T>>,
}

impl<T> Live<T> {
    /// Settings, and what replaces them. Without the [`Changer`] they stay as they are.
    pub fn new(settings: T) -> (Changer<T>, Self) {
        let (current, reader) = watch::channel(Arc::new(settings));
        (Changer { current }, Self { current: reader })
    }

    /// The settings as they are now: asked for at each use, and kept for the length of one piece of work only.
    pub fn get(&self) -> Arc<T> {
        self.current.borrow().clone()
    }

    /// Waits until they are replaced; for ever when nothing can replace them.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl<T> Changer<T> {
    /// Replaces the settings as a whole.
    pub fn set(&self, settings: T) {
        self.current.send_replace(Arc::new(settings));
    }
}

/// Settings that stay as they are.
impl<T> From<T> for Live<T> {
    fn from(settings: T) -> Self {
        Self::new(settings).1
    }
}
