//! The table of all settings. Parsing, the flags of `spear serve`, suggestions for unknown keys,
//! `spear config print` and `config.example.toml` are all made from it.

mod agent;
mod process;
mod registry;

use std::sync::LazyLock;

pub use super::value::Kind;

/// Kinds that the log settings of both parts share.
mod log {
    use super::Kind;

    pub(super) const LEVEL: Kind = Kind::Choice(&["trace", "debug", "info", "warn", "error", "off"]);
    pub(super) const FORMAT: Kind = Kind::Choice(&["auto", "pretty", "compact", "json", "journal"]);
    pub(super) const ROTATION: Kind = Kind::Choice(&["never", "hourly", "daily"]);
    pub(super) const FORMAT_DOC: &str =
        "auto is pretty on a terminal, journal where standard error is systemd's journal, and json elsewhere.";
    pub(super) const FILE_DOC: &str =
        "Log to this file, appended to, instead of standard error. It is opened anew on SIGHUP.";
    pub(super) const ROTATION_DOC: &str =
        "Begin a new log file, with the date in its name, every hour or day (UTC); the file named is a link to it.";
    pub(super) const KEEP_DOC: &str = "Rotated log files that are kept, the current one included.";
}

/// Which part a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The registry.
    Registry,
    /// The agent.
    Agent,
    /// The process, whatever it runs.
    Process,
}

/// What a set value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its text says.
    Works,
    /// Accepted, because files of the original set it; another value than the default is answered with a
    /// warning that says why it changes nothing.
    Nothing(&'static str),
    /// As the default only; anything else is refused with the reason.
    Refused(&'static str),
}

/// A flag of `spear serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its long name without dashes.
    pub name: &'static str,
    /// Another name of the same flag.
    pub alias: Option<&'static str>,
    /// A second flag that turns a switch off.
    pub off: Option<&'static str>,
    /// The name of the flag when the agent runs alone and so needs no prefix.
    pub alone: Option<&'static str>,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with the sections before it: `grpc.addr`.
    pub name: &'static str,
    /// Other names that files may use.
    pub aliases: &'static [&'static str],
    /// What it may be.
    pub kind: Kind,
    /// Built-in value, as text; none: not set.
    pub default: Option<&'static str>,
    /// Environment variables, the first that is set counts.
    pub variables: &'static [&'static str],
    /// Its flag.
    pub flag: Option<Flag>,
    /// For whom.
    pub side: Side,
    /// What a value does.
    pub effect: Effect,
    /// Does a change take effect on SIGHUP, without a restart?
    pub live: bool,
    /// What it is for, in one or two sentences.
    pub doc: &'static str,
}

/// A setting without variable and flag, that works.
const fn key(side: Side, name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    let default = if default.is_empty() { None } else { Some(default) };
    let (aliases, variables, effect) = (&[], &[], Effect::Works);
    Key { name, aliases, kind, default, variables, flag: None, side, effect, live: false, doc }
}

impl Key {
    const fn variable(self, names: &'static [&'static str]) -> Self {
        Self { variables: names, ..self }
    }

    const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn flag(self, name: &'static str) -> Self {
        Self { flag: Some(Flag { name, alias: None, off: None, alone: None }), ..self }
    }

    const fn switch(self, name: &'static str, off: &'static str) -> Self {
        Self { flag: Some(Flag { name, alias: None, off: Some(off), alone: None }), ..self }
    }

    const fn also(self, alias: &'static str) -> Self {
        match self.flag {
            Some(flag) => Self { flag: Some(Flag { alias: Some(alias), ..flag }), ..self },
            None => self,
        }
    }

    const fn alone(self, alone: &'static str) -> Self {
        match self.flag {
            Some(flag) => Self { flag: Some(Flag { alone: Some(alone), ..flag }), ..self },
            None => self,
        }
    }

    const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    const fn nothing(self, why: &'static str) -> Self {
        Self { effect: Effect::Nothing(why), ..self }
    }

    const fn refused(self, why: &'static str) -> Self {
        Self { effect: Effect::Refused(why), ..self }
    }

    /// Its section: `grpc` of `grpc.addr`, empty at the top level.
    pub fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its own name: `addr` of `grpc.addr`.
    pub fn own_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, own)| own)
    }

    /// All names that files may use.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// All settings, the registry's first.
pub fn all() -> &'static [Key] {
    static ALL: LazyLock<Vec<Key>> = LazyLock::new(|| {
        [process::KEYS, registry::KEYS].into_iter().chain(agent::KEYS.iter().copied()).flatten().copied().collect()
    });
    &ALL
}

/// The setting that a name in a file means.
pub fn find(name: &str) -> Option<&'static Key> {
    all().iter().find(|key| key.names().any(|known| known == name))
}

/// Is it a section with settings in it?
pub fn is_section(name: &str) -> bool {
    let inside = |known: &str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    all().iter().any(|key| key.names().any(inside))
}

/// The setting that somebody may have meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let given = name.to_ascii_lowercase().replace('-', "_");
    let own = |name: &str| name.rsplit_once('.').map_or(name, |(_, own)| own).to_owned();
    let candidates = all().iter().flat_map(Key::names);
    let score = |known: &'static str| {
        let whole = strsim::osa_distance(&given, known);
        // The right word in the wrong section.
        let moved = 1 + 2 * strsim::osa_distance(&own(&given), &own(known));
        (whole.min(moved), whole, known)
    };
    let (distance, _, best) = candidates.map(score).min()?;
    (distance <= 2.max(given.len() / 4)).then_some(best)
}

/// The variable that somebody may have meant; none when `name` is one, or like none of them.
pub fn nearest_variable(name: &str) -> Option<&'static str> {
    let known = || all().iter().flat_map(|key| key.variables.iter().copied());
    if known().any(|variable| variable == name) {
        return None;
    }
    let near = |variable: &&str| strsim::osa_distance(name, variable) <= 2;
    known().filter(near).min_by_key(|variable| strsim::osa_distance(name, variable))
}
