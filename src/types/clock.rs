//! Time is passed in, so that tests can turn it.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A moment of wall-clock time for display and records: milliseconds since 1970-01-01 UTC.
/// Never used to decide anything; see [`Clock::monotonic`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Where parts get the time from.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time; may jump.
    fn wall(&self) -> Timestamp;
    /// Time since some fixed moment; never goes backwards. All timeouts are decided by this.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that tests turn by hand.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock that shows `wall` and stands still.
    pub fn new(wall: Timestamp) -> Self {
        Self { now: Mutex::new((wall, Duration::ZERO)) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(|broken| broken.into_inner());
        now.0.0 += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        now.1 += by;
    }

    /// Sets the wall clock alone, as an administrator or a time server does.
    pub fn jump_wall(&self, to: Timestamp) {
        self.now.lock().unwrap_or_else(|broken| broken.into_inner()).0 = to;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.now.lock().unwrap_or_else(|broken| broken.into_inner()).0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().unwrap_or_else(|broken| broken.into_inner()).1
    }
}
