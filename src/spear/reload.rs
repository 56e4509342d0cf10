//! New settings while the process runs.
//!
//! ```text
//!   SIGHUP ─► read all sources ─► anything wrong? said, and nothing changes
//!                 │
//!                 ├─► live settings: in force from now on, one line of log for each
//!                 └─► the others: named, in force after a restart
//!             ─► the log file is opened anew
//! ```

use std::{collections::BTreeMap, sync::Arc};
use supervise::{Changer, Stop, Supervisor, TaskResult};
use tokio::sync::mpsc;

use crate::{
    config::{Effective, LogLevel, Problems, Resolved, keys},
    doors::Doors,
    logging::Logs,
};

/// Where new settings come from, and the log of the process.
pub struct Reloads {
    /// Somebody asks for it: one at a time, further ones meanwhile are one.
    pub asked: mpsc::Receiver<()>,
    /// Reads all sources anew.
    pub load: Arc<dyn Fn() -> Result<Resolved, Problems> + Send + Sync>,
    /// The log, where it can be changed.
    pub logs: Option<Logs>,
}

impl Reloads {
    /// Settings stay as they are.
    pub fn never() -> Self {
        let (_, asked) = mpsc::channel(1);
        Self { asked, load: Arc::new(|| Err(Problems(Vec::new()))), logs: None }
    }
}

/// What follows the settings.
pub(crate) struct Followers {
    pub(crate) doors: Doors,
    pub(crate) sms: Option<Changer<sms::Config>>,
    pub(crate) spearlet: Option<(Changer<spearlet::Config>, spearlet::Config)>,
    pub(crate) supervisor: Supervisor,
}

/// The settings in force, and what follows them.
pub(crate) struct Reload {
    followers: Followers,
    reloads: Reloads,
    in_force: BTreeMap<&'static str, Effective>,
    level: LogLevel,
    warned: Vec<String>,
}

impl Reload {
    /// Of a process that started with these settings.
    pub(crate) fn new(reloads: Reloads, followers: Followers, started_with: InForce) -> Self {
        let InForce { effective, level, warned } = started_with;
        let in_force = effective.into_iter().map(|setting| (setting.name, setting)).collect();
        Self { followers, reloads, in_force, level, warned }
    }

    /// Follows until told to stop.
    pub(crate) async fn run(mut self, stop: Stop) -> TaskResult {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => None,
                asked = self.reloads.asked.recv() => asked,
            };
            if asked.is_none() {
                return Ok(());
            }
            self.followers.supervisor.reloading();
            self.reopen();
            let load = self.reloads.load.clone();
            match tokio::task::spawn_blocking(move || load()).await? {
                Ok(resolved) => self.take(resolved),
                Err(problems) => refuse(&problems),
            }
            self.followers.supervisor.reloaded();
        }
    }

    fn reopen(&self) {
        if let Some(Err(error)) = self.reloads.logs.as_ref().map(Logs::reopen) {
            tracing::error!(%error, "the log file cannot be opened anew; the old one is still used");
        }
    }

    fn take(&mut self, resolved: Resolved) {
        let prepared = match self.followers.doors.prepare(&resolved.auth) {
            Ok(prepared) => prepared,
            Err(stopped) => return refuse(&stopped),
        };
        // The lines about the changes are shown by the level that shows more.
        let level = resolved.log.level;
        if level < self.level {
            self.log_as(level);
        }
        let (mut live, mut waiting) = (0, 0);
        for setting in &resolved.effective {
            match self.compare(setting) {
                Some(true) => live += 1,
                Some(false) => waiting += 1,
                None => {}
            }
        }
        for warning in resolved.warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            tracing::warn!("{warning}");
        }
        if self.followers.doors.apply(prepared) {
            tracing::info!("the token is another one: callers need the new one from now on");
        }
        self.warned = resolved.warnings;
        if let (Some(changer), Some(settings)) = (&self.followers.sms, resolved.sms) {
            changer.set(settings.config);
        }
        if let (Some((changer, first)), Some(settings)) = (&self.followers.spearlet, resolved.spearlet) {
            changer.set(live_only(first, settings.config));
        }
        tracing::info!(live, need_restart = waiting, "configuration read again");
        self.log_as(level);
    }

    /// Says what has changed; true: takes effect now, false: after a restart, none: it has not.
    fn compare(&mut self, setting: &Effective) -> Option<bool> {
        let before = self.in_force.get(setting.name).filter(|before| !before.same_value(setting))?;
        let shown = |setting: &Effective| setting.value.clone().unwrap_or_else(|| "(not set)".to_owned());
        let (key, old, new) = (setting.name, shown(before), shown(setting));
        let live = keys::find(key).is_some_and(|key| key.live);
        if live {
            tracing::info!(key, old, new, origin = %setting.origin, "setting changed");
            self.in_force.insert(key, setting.clone());
        } else {
            tracing::warn!(key, old, new, origin = %setting.origin, "setting changed: it needs a restart");
        }
        Some(live)
    }

    fn log_as(&mut self, level: LogLevel) {
        if level == self.level {
            return;
        }
        match self.reloads.logs.as_ref().map(|logs| logs.set_level(level)) {
            Some(Err(error)) => tracing::warn!(%error, "the level of the log is not changed"),
            _ => self.level = level,
        }
    }
}

/// What a process started with.
pub(crate) struct InForce {
    pub(crate) effective: Vec<Effective>,
    pub(crate) level: LogLevel,
    pub(crate) warned: Vec<String>,
}

/// The agent's settings with those that need a restart as they were.
fn live_only(first: &spearlet::Config, new: spearlet::Config) -> spearlet::Config {
    spearlet::Config {
        auto_register: new.auto_register,
        heartbeat_interval: new.heartbeat_interval,
        sms_connect_retry: new.sms_connect_retry,
        reconnect_total_timeout: new.reconnect_total_timeout,
        reconnect_exit: new.reconnect_exit,
        queue: new.queue,
        default_timeout: new.default_timeout,
        max_timeout: new.max_timeout,
        limits: new.limits,
        ..first.clone()
    }
}

fn refuse(problems: &impl std::fmt::Display) {
    for problem in problems.to_string().lines() {
        tracing::error!(problem, "the configuration cannot be used: everything stays as it is");
    }
}
