//! The threads guests run on: named, at most as many as allowed, kept for the next call.
//!
//! A guest's own stack is a separate mapping that wasmer makes (its size is the guest's limit); the thread's
//! stack carries our host functions.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};
use tokio::sync::OwnedSemaphorePermit;

/// Stack for host functions and for instantiation.
const STACK_BYTES: usize = 2 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// A job and its place among those that may run at once; the place is given up after the thread has become
/// idle again, so there are never more threads than places.
struct Job {
    work: Work,
    place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Shared {
    idle: Mutex<Vec<mpsc::SyncSender<Job>>>,
    made: AtomicU64,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<mpsc::SyncSender<Job>>> {
        self.idle.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// The threads; idle ones end when this is dropped.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<Shared>);

impl Threads {
    /// Runs `work` on an idle thread, or on a new one; `place` bounds how many there are.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn run(&self, place: OwnedSemaphorePermit, work: Work) -> io::Result<()> {
        let mut job = Job { work, place };
        loop {
            let Some(thread) = self.0.idle().pop() else { break };
            match thread.try_send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::TrySendError::Full(back) | mpsc::TrySendError::Disconnected(back)) => job = back,
            }
        }
        let number = self.0.made.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name(format!("wasm-{number}")).stack_size(STACK_BYTES);
        thread.spawn(move || serve(&shared, job)).map(drop)
    }
}

fn serve(shared: &Weak<Shared>, mut job: Job) {
    loop {
        let Job { work, place } = job;
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!("a job of the wasm runtime panicked");
        }
        // The list holds the only sender: when the runtime is gone, so is the sender, and `recv` ends.
        let (sender, receiver) = mpsc::sync_channel(1);
        match shared.upgrade() {
            Some(shared) => shared.idle().push(sender),
            None => return,
        }
        drop(place);
        match receiver.recv() {
            Ok(next) => job = next,
            Err(_) => return,
        }
    }
}

/// The system's number of this thread.
pub(crate) fn number() -> i32 {
    thread_local! {
        static NUMBER: i32 = rustix::thread::gettid().as_raw_nonzero().get();
    }
    NUMBER.with(|number| *number)
}
