//! One thread that stops every call at its deadline. It sleeps until the next deadline, precisely; it touches
//! only [`Control`]s, which know whether there is still an instance to stop.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use types::Reason;

use crate::control::Control;

/// A moment and a number that tells calls of the same moment apart.
type Key = (Instant, u64);

struct Due {
    control: Arc<Control>,
    limit: Duration,
}

#[derive(Default)]
struct State {
    due: BTreeMap<Key, Due>,
    next: u64,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closing {
            let now = Instant::now();
            let first = state.due.first_key_value().map(|(key, _)| *key);
            match first {
                Some(key) if key.0 <= now => {
                    if let Some(due) = state.due.remove(&key) {
                        drop(state);
                        let limit = due.limit;
                        due.control.stop(Reason::Deadline, format!("still running at its deadline of {limit:?}"));
                        state = self.lock();
                    }
                }
                first => {
                    let left = first.map_or(Duration::from_secs(3600), |key| key.0.saturating_duration_since(now));
                    state = match self.wake.wait_timeout(state, left) {
                        Ok((state, _)) => state,
                        Err(broken) => broken.into_inner().0,
                    };
                }
            }
        }
    }
}

/// The watchdog; its thread ends when this is dropped.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let runner = shared.clone();
        let thread = std::thread::Builder::new().name("wasm-watchdog".to_owned()).spawn(move || runner.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops `control` at a moment, unless the guard is dropped before.
    pub(crate) fn watch(&self, at: Instant, limit: Duration, control: Arc<Control>) -> Watch {
        let mut state = self.shared.lock();
        let key = (at, state.next);
        state.next = state.next.wrapping_add(1);
        let earlier = state.due.first_key_value().is_none_or(|(first, _)| key < *first);
        state.due.insert(key, Due { control, limit });
        drop(state);
        if earlier {
            self.shared.wake.notify_one();
        }
        Watch { shared: self.shared.clone(), key }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watchdog of the wasm runtime panicked");
        }
    }
}

/// A call that is watched.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().due.remove(&self.key);
    }
}
