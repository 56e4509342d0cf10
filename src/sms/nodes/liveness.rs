//! Who lives: heartbeats in memory on the monotonic clock, and what a sweep decides from them.
//!
//! ```text
//!             heard within the timeout                remove_after offline
//!   register ─► online ── silent ──► offline ───────────────────────────► removed
//!                 ▲                    │                       ▲
//!                 └──── heartbeat ─────┘            not while the brake holds
//! ```
//! * Nothing here is written: a sweep's verdict is, by the service.
//! * A start of the registry, or a pause of its own (a tick more than [`LATE`] behind), says nothing about the
//!   nodes: each gets the full timeout and [`GRACE`] again, and time offline does not count on.
//! * **Brake.** When more than [`BRAKE_PERCENT`] % of the live nodes, and at least [`BRAKE_NODES`], fall silent
//!   within [`BRAKE_WINDOW`], the fault is more likely ours or the network's than theirs. They are still shown
//!   as offline, because operators must see what is, and they get no new work; but nothing is removed and nobody's
//!   work is taken away until so many are back, or have been deleted by hand, that the rest is under the share.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use types::{Liveness, NodeId, Timestamp};

/// How often the registry looks at its own clock.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// A tick later than this means that the registry itself was stopped.
const LATE: Duration = Duration::from_secs(5);
/// On top of the timeout, after a start or a pause: agents need time to find us again.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// Share of the live nodes that engages the brake when exceeded.
const BRAKE_PERCENT: usize = 55;
/// Fewer nodes than this never engage it.
const BRAKE_NODES: usize = 3;
/// Within this time.
const BRAKE_WINDOW: Duration = Duration::from_secs(60);
/// Heartbeats per second that the registry wants at most.
const MOST_BEATS_PER_SECOND: f64 = 2000.0;
/// Agents are never told to be faster than this.
const FASTEST: Duration = Duration::from_millis(100);

/// The settings that decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Silence after which a node is offline.
    pub timeout: Duration,
    /// Period of sweeps.
    pub sweep_every: Duration,
    /// Time offline after which a node is removed.
    pub remove_after: Duration,
    /// Pace of heartbeats.
    pub interval: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Pulse {
    /// Last sign of life; in the future while a grace lasts.
    heard: Duration,
    /// The same for people.
    wall: Timestamp,
    offline_since: Option<Duration>,
    /// Last sign of life that this process saw itself.
    seen: Option<Duration>,
}

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Shown as online, silent for too long.
    pub silent: Vec<NodeId>,
    /// Offline for so long that they go.
    pub expired: Vec<NodeId>,
    /// The brake took hold (true) or let go (false) in this sweep.
    pub brake: Option<bool>,
}

/// All pulses.
#[derive(Debug)]
pub(super) struct Pulses {
    rules: Rules,
    pulses: HashMap<NodeId, Pulse>,
    last_tick: Duration,
    next_sweep: Duration,
    /// Who fell silent when, within the window.
    fallen: HashMap<NodeId, Duration>,
    /// Whom the brake holds; empty: it is off.
    held: HashSet<NodeId>,
}

impl Pulses {
    pub fn new(rules: Rules, now: Duration) -> Self {
        Self {
            rules,
            pulses: HashMap::new(),
            last_tick: now,
            next_sweep: now + rules.sweep_every,
            fallen: HashMap::new(),
            held: HashSet::new(),
        }
    }

    /// Judges by other rules from now on.
    pub fn obey(&mut self, rules: Rules, now: Duration) {
        self.rules = rules;
        self.next_sweep = self.next_sweep.min(now + rules.sweep_every);
    }

    /// A node found in the store at the start: a full timeout and the grace.
    pub fn adopt(&mut self, id: NodeId, now: Duration, wall: Timestamp) {
        self.pulses.insert(id, Pulse { heard: now + GRACE, wall, offline_since: None, seen: None });
    }

    /// A node has registered.
    pub fn register(&mut self, id: NodeId, now: Duration, wall: Timestamp) {
        self.pulses.insert(id, Pulse { heard: now, wall, offline_since: None, seen: Some(now) });
    }

    /// A node was heard of. A node that is not known is not made known by this.
    pub fn beat(&mut self, id: NodeId, now: Duration, wall: Timestamp) {
        if let Some(pulse) = self.pulses.get_mut(&id) {
            pulse.heard = pulse.heard.max(now);
            pulse.wall = wall;
            pulse.seen = Some(now);
        }
    }

    /// When a node was heard of last, for people.
    pub fn heard_at(&self, id: NodeId) -> Option<Timestamp> {
        self.pulses.get(&id).map(|pulse| pulse.wall).filter(|wall| *wall != Timestamp::default())
    }

    /// Is the node silent for longer than it may?
    pub fn is_silent(&self, id: NodeId, now: Duration) -> bool {
        self.pulses.get(&id).is_none_or(|pulse| now.saturating_sub(pulse.heard) > self.timeout())
    }

    /// The longest silence of these nodes.
    pub fn longest_silence(&self, of: &[NodeId], now: Duration) -> Duration {
        let silence = |id: &NodeId| Some(now.saturating_sub(self.pulses.get(id)?.heard));
        of.iter().filter_map(silence).max().unwrap_or_default()
    }

    /// How long ago a node was heard of, if that is within the timeout and this process heard it: nobody is taken for
    /// alive because of a grace.
    pub fn alive(&self, id: NodeId, now: Duration) -> Option<Duration> {
        let silence = now.saturating_sub(self.pulses.get(&id)?.seen?);
        (silence <= self.timeout()).then_some(silence)
    }

    /// A node is gone.
    pub fn forget(&mut self, id: NodeId) {
        self.pulses.remove(&id);
        self.held.remove(&id);
    }

    /// Does the brake hold?
    pub fn braked(&self) -> bool {
        !self.held.is_empty()
    }

    /// The pace of heartbeats for so many nodes, without jitter.
    pub fn pace(&self) -> Duration {
        let base = self.rules.interval.min(self.rules.timeout / 3).max(FASTEST);
        base.max(Duration::from_secs_f64(self.pulses.len() as f64 / MOST_BEATS_PER_SECOND))
    }

    /// Silence that is too long. Stretched with the pace, or a slowed crowd would be called dead.
    fn timeout(&self) -> Duration {
        let stretched = Duration::from_secs_f64(self.pulses.len() as f64 / MOST_BEATS_PER_SECOND);
        self.rules.timeout.max(stretched * 4)
    }

    /// Looks at the own clock; the length of a pause if there was one.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        if since <= TICK + LATE {
            return None;
        }
        for pulse in self.pulses.values_mut() {
            pulse.heard = pulse.heard.max(now + GRACE);
            pulse.offline_since = pulse.offline_since.map(|offline| offline + since);
        }
        self.fallen.clear();
        Some(since)
    }

    /// Is it time for a sweep? Sets the time of the next.
    pub fn sweep_due(&mut self, now: Duration) -> bool {
        let due = now >= self.next_sweep;
        if due {
            self.next_sweep = now + self.rules.sweep_every;
        }
        due
    }

    /// Judges all nodes.
    pub fn sweep(&mut self, now: Duration, nodes: &[(NodeId, Liveness)]) -> Verdict {
        let timeout = self.timeout();
        let (mut verdict, mut online, mut offline) = (Verdict::default(), 0, HashSet::new());
        for (id, liveness) in nodes {
            let unheard = || Pulse { heard: now + GRACE, wall: Timestamp::default(), offline_since: None, seen: None };
            let pulse = self.pulses.entry(*id).or_insert_with(unheard);
            match liveness {
                Liveness::Online if now.saturating_sub(pulse.heard) > timeout => verdict.silent.push(*id),
                Liveness::Online => {
                    pulse.offline_since = None;
                    online += 1;
                }
                Liveness::Offline => {
                    let since = *pulse.offline_since.get_or_insert(now);
                    offline.insert(*id);
                    if now.saturating_sub(since) >= self.rules.remove_after {
                        verdict.expired.push(*id);
                    }
                }
            }
        }
        if self.pulses.len() > nodes.len() {
            let known: HashSet<_> = nodes.iter().map(|(id, _)| *id).collect();
            self.pulses.retain(|id, _| known.contains(id));
        }
        verdict.brake = self.brake(now, &verdict.silent, &offline, online);
        if self.braked() {
            verdict.expired.clear();
        }
        verdict
    }

    /// Engages, keeps or lets go of the brake; tells a change.
    fn brake(&mut self, now: Duration, silent: &[NodeId], offline: &HashSet<NodeId>, online: usize) -> Option<bool> {
        let before = self.braked();
        let still: HashSet<_> = silent.iter().copied().collect();
        let down = |id: &NodeId| still.contains(id) || offline.contains(id);
        self.fallen.retain(|id, at| now.saturating_sub(*at) < BRAKE_WINDOW && down(id));
        for id in silent {
            self.fallen.entry(*id).or_insert(now);
        }
        self.held.retain(down);
        if before {
            self.held.extend(silent);
            if !too_many(self.held.len(), online) {
                self.held.clear();
            }
        } else if too_many(self.fallen.len(), online) {
            self.held.extend(self.fallen.keys());
        }
        (self.braked() != before).then(|| self.braked())
    }
}

/// Are `down` too many beside `online`?
fn too_many(down: usize, online: usize) -> bool {
    down >= BRAKE_NODES && down * 100 > (down + online) * BRAKE_PERCENT
}
