//! Which functions are short: their calls may run where the caller is, without a thread of their own.
//!
//! A function earns it by short calls in a row, and loses it by one that takes long. One that was short for a long time
//! earns it again soon: on a busy machine the one long call may not be its fault.

use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

/// A call that counts as short.
const SHORT: Duration = Duration::from_micros(500);
/// Short calls in a row that it takes.
const EARNED: i32 = 16;
/// And how many after a try that took too long, unless there were as many before it.
const FORGIVEN: i32 = 1_000;

/// The calls of one module.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicI32);

impl Pace {
    /// May a call be tried where the caller is?
    pub(crate) fn quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= EARNED
    }

    /// A call took that long.
    pub(crate) fn took(&self, time: Duration) {
        let now = self.0.load(Ordering::Relaxed);
        if time > SHORT {
            self.0.store(now.min(0), Ordering::Relaxed);
        } else if now < EARNED + FORGIVEN {
            // Calls that are counted at once may be counted as one: it only takes longer then.
            self.0.store(now + 1, Ordering::Relaxed);
        }
    }

    /// A try took too long.
    pub(crate) fn overran(&self) {
        let faultless = self.0.load(Ordering::Relaxed) >= EARNED + FORGIVEN;
        self.0.store(if faultless { 0 } else { EARNED - FORGIVEN }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_quick_after_short_calls_in_a_row_and_slow_after_a_long_one() {
        let pace = Pace::default();
        for _ in 0..EARNED {
            assert!(!pace.quick());
            pace.took(Duration::from_micros(3));
        }
        assert!(pace.quick());
        pace.took(Duration::from_millis(1));
        assert!(!pace.quick());
        for _ in 0..EARNED {
            pace.took(SHORT);
        }
        assert!(pace.quick());
        pace.overran();
        for _ in 1..FORGIVEN {
            pace.took(SHORT);
        }
        assert!(!pace.quick());
        pace.took(SHORT);
        assert!(pace.quick());
        for _ in 0..FORGIVEN {
            pace.took(SHORT);
        }
        pace.overran();
        for _ in 0..EARNED {
            assert!(!pace.quick());
            pace.took(SHORT);
        }
        assert!(pace.quick(), "one long call in so many");
    }
}
