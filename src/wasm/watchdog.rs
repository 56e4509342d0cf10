//! One thread that stops every call at its deadline, by the clock or by the processor time that it took.
//!
//! It touches only [`Control`]s, which know whether there is still an instance to stop. While short calls come and go
//! it looks around at a steady pace, so that nobody has to wake it for a call that is over in a moment; else it sleeps
//! until the next deadline.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use types::Reason;

use crate::control::Control;

/// Pace while deadlines are near.
const TICK: Duration = Duration::from_millis(1);
/// Rounds at that pace after the last near deadline.
const ROUNDS: u32 = 32;
/// A deadline that is near.
const NEAR: Duration = Duration::from_millis(20);

/// A moment and a number that tells calls of the same moment apart.
type Key = (Instant, u64);

/// When a call is to be stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// By the clock.
    pub(crate) deadline: Instant,
    /// How long it had by then, for the message.
    pub(crate) limit: Duration,
    /// By processor time; none: whoever is short is only tried (see [`Control::overrun`]).
    pub(crate) cpu: Option<Cpu>,
}

/// A limit of processor time of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// The system's number of the thread.
    pub(crate) thread: i32,
    /// What it had used before the call.
    pub(crate) before: Duration,
    /// What the call may use.
    pub(crate) limit: Duration,
}

struct Due {
    control: Arc<Control>,
    until: Until,
}

struct State {
    due: BTreeMap<Key, Due>,
    next: u64,
    /// The call that is being looked at, while nobody finds it in `due`.
    looking: Option<u64>,
    /// It ended meanwhile.
    gone: bool,
    /// When the thread looks next.
    wakes_at: Instant,
    closing: bool,
}

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
        let mut rounds = 0;
        while !state.closing {
            let now = Instant::now();
            let first = state.due.first_key_value().map(|(key, _)| *key);
            if let Some(key) = first.filter(|key| key.0 <= now) {
                if let Some(due) = state.due.remove(&key) {
                    (state.looking, state.gone) = (Some(key.1), false);
                    drop(state);
                    let again = due.ended(now);
                    state = self.lock();
                    state.looking = None;
                    if let Some(at) = again.filter(|_| !state.gone) {
                        state.due.insert((at, key.1), due);
                    }
                }
                continue;
            }
            let left = first.map_or(Duration::from_secs(3600), |key| key.0.saturating_duration_since(now));
            if left <= NEAR {
                rounds = ROUNDS;
            }
            let pause = if rounds > 0 { TICK.min(left) } else { left };
            rounds = rounds.saturating_sub(1);
            state.wakes_at = now + pause;
            state = match self.wake.wait_timeout(state, pause) {
                Ok((state, _)) => state,
                Err(broken) => broken.into_inner().0,
            };
        }
    }
}

impl Due {
    /// Stops the call if its time is over; else tells when to look again.
    fn ended(&self, now: Instant) -> Option<Instant> {
        let Until { deadline, limit, cpu } = self.until;
        let Some(cpu) = cpu else {
            self.control.overrun();
            return None;
        };
        if now >= deadline {
            self.control.stop(Reason::Deadline, format!("still running at its deadline of {limit:?}"));
            return None;
        }
        let Some(used) = processor_time(cpu.thread).map(|used| used.saturating_sub(cpu.before)) else {
            return Some(deadline);
        };
        if used >= cpu.limit {
            let limit = cpu.limit;
            self.control.stop(Reason::Deadline, format!("it used its {limit:?} of processor time"));
            return None;
        }
        Some(deadline.min(now + (cpu.limit - used).max(TICK)))
    }
}

/// What a thread has used; the first number of its `schedstat` is nanoseconds.
fn processor_time(thread: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The watchdog; its thread ends when this is dropped.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let state = State {
            due: BTreeMap::new(),
            next: 0,
            looking: None,
            gone: false,
            wakes_at: Instant::now(),
            closing: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let runner = shared.clone();
        let thread = std::thread::Builder::new().name("wasm-watchdog".to_owned()).spawn(move || runner.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops `control` when its time is over, unless the guard is dropped before.
    pub(crate) fn watch(&self, until: Until, control: Arc<Control>) -> Watch<'_> {
        let at = match until.cpu {
            // Processor time passes no faster than the clock.
            Some(cpu) => until.deadline.min(Instant::now() + cpu.limit),
            None => until.deadline,
        };
        let mut state = self.shared.lock();
        let key = (at, state.next);
        state.next = state.next.wrapping_add(1);
        state.due.insert(key, Due { control, until });
        let late = at < state.wakes_at;
        if late {
            state.wakes_at = at;
        }
        drop(state);
        if late {
            self.shared.wake.notify_one();
        }
        Watch { shared: &self.shared, key }
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
pub(crate) struct Watch<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.looking == Some(self.key.1) {
            state.gone = true;
        } else if state.due.remove(&self.key).is_none() {
            // It was put off to a later look; the number is what stays.
            let again = state.due.keys().find(|key| key.1 == self.key.1).copied();
            if let Some(key) = again {
                state.due.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A control holds the end of a streamed answer: one that is kept keeps the caller waiting.
    #[test]
    fn a_call_that_ends_while_it_is_looked_at_is_forgotten() {
        let watchdog = Watchdog::start().unwrap();
        let limit = Duration::from_secs(60);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..3_000u64 {
                        // No thread has this number: nothing is known of its processor time, so it is put off.
                        let cpu = Cpu { thread: -1, before: Duration::ZERO, limit: Duration::from_nanos(1) };
                        let until = Until { deadline: Instant::now() + limit, limit, cpu: Some(cpu) };
                        let control: Arc<Control> = Arc::default();
                        let watch = watchdog.watch(until, control.clone());
                        for _ in 0..(round % 50) * 20 {
                            std::hint::spin_loop();
                        }
                        drop(watch);
                        drop(control);
                    }
                });
            }
        });
        while watchdog.shared.lock().looking.is_some() {
            std::thread::yield_now();
        }
        assert_eq!(watchdog.shared.lock().due.len(), 0, "calls that are over");
    }
}
