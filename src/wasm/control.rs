//! One running call as others see it: who may stop it, and why it was stopped.
//!
//! ```text
//!   deadline (watchdog) ─┐
//!   caller's cancel      ├─► stop(why) ──► first reason kept ─► flag raised, sleeping host calls woken
//!   future dropped       │                                      (at once, or when the flag is armed)
//!   output over limit   ─┘
//! ```
//! The flag is written under the same lock under which it is disarmed, and it is disarmed before its store is
//! dropped: nobody ever writes to an instance that is gone.

use runtime::ReplyWriter;
use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use types::Reason;

use crate::{input::Input, stop::Flag};

/// Why a call was stopped from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Which wall.
    pub(crate) reason: Reason,
    /// In a sentence.
    pub(crate) message: String,
}

#[derive(Debug, Default)]
struct Gate {
    stopped: Option<Stopped>,
    /// It has ended: whoever wants it stopped comes too late.
    ended: bool,
    flag: Option<Flag>,
}

/// The handle of one call.
#[derive(Debug, Default)]
pub(crate) struct Control {
    gate: Mutex<Gate>,
    fast: AtomicBool,
    overran: AtomicBool,
    sleep: Condvar,
    /// Standard input; woken with everything else.
    pub(crate) input: Input,
    /// Where the answer goes as it comes; woken with everything else.
    reply: Option<ReplyWriter>,
}

impl Control {
    /// Of a call whose answer is handed out as it comes.
    pub(crate) fn replying(reply: ReplyWriter) -> Self {
        Self { reply: Some(reply), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Stops the call. The first reason counts.
    pub(crate) fn stop(&self, reason: Reason, message: impl Into<String>) {
        self.stop_as(reason, message.into(), false);
    }

    #[expect(unsafe_code, reason = "raises the flag inside the instance")]
    fn stop_as(&self, reason: Reason, message: String, overran: bool) {
        let mut gate = self.lock();
        if gate.ended {
            return;
        }
        if gate.stopped.is_none() {
            gate.stopped = Some(Stopped { reason, message });
            self.overran.store(overran, Ordering::Release);
        }
        self.fast.store(true, Ordering::Release);
        if let Some(flag) = &gate.flag {
            // SAFETY: an armed flag belongs to a living store: `Armed` takes it away, under this lock, first.
            unsafe { flag.raise() }
        }
        drop(gate);
        self.sleep.notify_all();
        self.input.wake();
        if let Some(reply) = &self.reply {
            reply.wake();
        }
    }

    /// Stops a try that took too long where it is: the call begins anew elsewhere.
    pub(crate) fn overrun(&self) {
        self.stop_as(Reason::Internal, "it takes longer than a try may".to_owned(), true);
    }

    /// Was it a try that took too long?
    pub(crate) fn overran(&self) -> bool {
        self.overran.load(Ordering::Acquire)
    }

    /// Has somebody stopped it?
    pub(crate) fn is_stopped(&self) -> bool {
        self.fast.load(Ordering::Acquire)
    }

    /// Why it was stopped.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.lock().stopped.clone()
    }

    /// It has ended. Tells why it was stopped, if it was; from now on nobody can.
    pub(crate) fn end(&self) -> Option<Stopped> {
        let mut gate = self.lock();
        gate.ended = true;
        gate.stopped.clone()
    }

    /// Arms the flag of the call's instance; disarmed when the guard is dropped, which must be before the store.
    #[expect(unsafe_code, reason = "raises the flag inside the instance")]
    pub(crate) fn arm(&self, flag: Flag) -> Armed<'_> {
        let mut gate = self.lock();
        if gate.stopped.is_some() {
            // SAFETY: the caller has just found it in its store.
            unsafe { flag.raise() }
        }
        gate.flag = Some(flag);
        Armed(self)
    }

    /// Sleeps until a moment, or until the call is stopped.
    pub(crate) fn sleep_until(&self, until: Option<Instant>) {
        let mut gate = self.lock();
        while gate.stopped.is_none() {
            let left = until.map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            gate = match self.sleep.wait_timeout(gate, left) {
                Ok((gate, _)) => gate,
                Err(broken) => broken.into_inner().0,
            };
        }
    }
}

/// While this lives the flag can be raised.
#[derive(Debug)]
pub(crate) struct Armed<'a>(&'a Control);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.lock().flag = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_none_after_the_end() {
        let control = Control::default();
        control.stop(Reason::Output, "too much");
        control.overrun();
        assert_eq!(control.end().map(|stopped| stopped.reason), Some(Reason::Output));
        assert!(!control.overran(), "it was stopped for another reason");

        let control = Control::default();
        assert_eq!(control.end(), None);
        control.overrun();
        control.stop(Reason::Deadline, "late");
        assert_eq!((control.stopped(), control.overran(), control.is_stopped()), (None, false, false));

        let control = Control::default();
        control.overrun();
        assert!(control.overran() && control.end().is_some());
    }
}
