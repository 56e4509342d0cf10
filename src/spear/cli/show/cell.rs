//! What stands in a cell: words, ages, sizes.

use serde_json::Value;
use std::time::Duration;
use types::Timestamp;

/// The content of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Cell {
    /// Without control characters.
    pub(in crate::cli) text: String,
    pub(super) tone: Tone,
    /// Changes by itself as time goes by.
    pub(super) passing: bool,
}

/// What a word tells, and so its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    /// No colour
    #[default]
    Plain,
    /// As it should be
    Good,
    /// On its way, or held back
    Waiting,
    /// Needs a look
    Bad,
}

impl Cell {
    /// With a tone.
    pub(in crate::cli) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// Is the other one a change?
    pub(in crate::cli) fn differs(&self, other: &Self) -> bool {
        !(self.passing && other.passing) && self.text != other.text
    }

    /// Not counted as a change when it changes.
    pub(in crate::cli) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }
}

/// A text.
pub(in crate::cli) fn text(text: impl AsRef<str>) -> Cell {
    Cell { text: plain(text.as_ref()), tone: Tone::Plain, passing: false }
}

/// A member of a thing as it is; a dash when there is none.
pub(in crate::cli) fn of(row: &Value, member: &str) -> Cell {
    match row.get(member) {
        None | Some(Value::Null) => text("-"),
        Some(Value::String(word)) if word.is_empty() => text("-"),
        Some(Value::String(word)) => text(word),
        Some(other) => text(other.to_string()),
    }
}

/// A word that tells a state of a node, a task, an execution or a part of the program.
pub(in crate::cli) fn state(row: &Value, member: &str) -> Cell {
    let cell = of(row, member);
    let tone = match &*cell.text {
        "online" | "active" | "completed" | "running" | "ready" => Tone::Good,
        "pending" | "draining" | "maintenance" | "registered" | "restarting" | "stopping" | "cancelled" => {
            Tone::Waiting
        }
        "offline" | "failed" | "timeout" | "lost" | "inactive" | "unhealthy" => Tone::Bad,
        _ => Tone::Plain,
    };
    cell.tone(tone)
}

/// How long ago a moment in whole seconds since 1970 was; a dash for 0 and none.
pub(in crate::cli) fn age_of_seconds(row: &Value, member: &str, now: Timestamp) -> Cell {
    age(row.get(member).and_then(Value::as_i64).and_then(|seconds| seconds.checked_mul(1000)), now)
}

/// How long ago a moment in milliseconds since 1970 was; a dash for 0 and none.
pub(in crate::cli) fn age_of_millis(row: &Value, member: &str, now: Timestamp) -> Cell {
    age(row.get(member).and_then(Value::as_i64), now)
}

fn age(millis: Option<i64>, now: Timestamp) -> Cell {
    match millis.filter(|millis| *millis > 0) {
        // A clock that goes after the server's sees things from the future.
        Some(millis) => {
            let since = u64::try_from(now.millis().saturating_sub(millis)).unwrap_or_default();
            text(duration(Duration::from_millis(since))).passing()
        }
        None => text("-"),
    }
}

/// A size in bytes, a member of a thing.
pub(in crate::cli) fn size(row: &Value, member: &str) -> Cell {
    match row.get(member).and_then(Value::as_u64) {
        Some(count) => text(bytes(count)),
        None => text("-"),
    }
}

/// A time in milliseconds that goes on, a member of a thing.
pub(in crate::cli) fn millis(row: &Value, member: &str) -> Cell {
    match row.get(member).and_then(Value::as_u64) {
        Some(millis) => text(duration(Duration::from_millis(millis))).passing(),
        None => text("-"),
    }
}

/// A percentage, a member of a thing.
pub(in crate::cli) fn percent(row: &Value, member: &str) -> Cell {
    match row.get(member).and_then(Value::as_f64) {
        Some(share) => text(format!("{share:.0}%")).passing(),
        None => text("-"),
    }
}

/// Two units at most: `740ms`, `12s`, `3m12s`, `5h3m`, `2d4h`, `41d`.
pub(in crate::cli) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        0 => format!("{}ms", duration.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86_400 => two(hours, "h", minutes % 60, "m"),
        86_400..864_000 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// `512B`, `1.5KiB`, `64MiB`, as sizes are written in settings.
pub(in crate::cli) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    let text = format!("{value:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A text that can do nothing to a terminal: control characters, and those that have no width but an effect, are
/// written out.
pub(in crate::cli) fn plain(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    match text.contains(acts) {
        false => text.to_owned(),
        true => text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect(),
    }
}
