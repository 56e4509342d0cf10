//! How often an address presented a wrong token lately.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::Instant;

/// Wrong tokens that an address may present within [`WINDOW`].
pub(crate) const MOST_WRONG: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; the oldest is forgotten for a new one.
const MOST_ADDRESSES: usize = 4096;

/// Wrong tokens per address, within windows of a minute. Bounded.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    wrong: Mutex<HashMap<IpAddr, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    wrong: u32,
}

impl Attempts {
    /// How long an address has to wait, if it has used up its attempts.
    pub(crate) fn wait(&self, address: IpAddr) -> Option<Duration> {
        let now = Instant::now();
        let wrong = self.lock();
        let window = wrong.get(&neighbourhood(address)).filter(|window| window.wrong >= MOST_WRONG)?;
        WINDOW.checked_sub(now.saturating_duration_since(window.since)).filter(|left| !left.is_zero())
    }

    /// Counts a wrong token.
    pub(crate) fn count(&self, address: IpAddr) {
        let now = Instant::now();
        let mut wrong = self.lock();
        let key = neighbourhood(address);
        if !wrong.contains_key(&key) && wrong.len() >= MOST_ADDRESSES {
            wrong.retain(|_, window| now.saturating_duration_since(window.since) < WINDOW);
            if wrong.len() >= MOST_ADDRESSES
                && let Some(oldest) = wrong.iter().min_by_key(|(_, window)| window.since).map(|(key, _)| *key)
            {
                wrong.remove(&oldest);
            }
        }
        let window = wrong.entry(key).or_insert(Window { since: now, wrong: 0 });
        if now.saturating_duration_since(window.since) >= WINDOW {
            *window = Window { since: now, wrong: 0 };
        }
        window.wrong = window.wrong.saturating_add(1);
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Window>> {
        self.wrong.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// What counts as one address: of IPv6, everybody has a whole /64.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
    }
}
