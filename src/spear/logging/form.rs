//! The form of a log line.

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Compact, Format, Writer},
        time::FormatTime,
    },
    registry::LookupSpan,
};
use types::{Clock, SystemClock};

/// The form that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object.
    Json,
    /// For people.
    Text,
    /// For the journal of systemd, which knows the time itself.
    Journal,
}

impl Form {
    /// The line that says that others were lost.
    pub(super) fn lost(self, lost: u64, why: &str) -> String {
        const TEXT: &str = "log lines were lost";
        let now = SystemClock::new().wall().to_string();
        match self {
            Self::Json => {
                let line = serde_json::json!({
                    "timestamp": now, "level": "WARN", "message": TEXT, "lost": lost, "error": why,
                    "target": "spear::logging",
                });
                format!("{line}\n")
            }
            Self::Text => format!("{now}  WARN spear::logging: {TEXT} lost={lost} error={why:?}\n"),
            Self::Journal => format!("{}{TEXT} lost={lost} error={why:?}\n", priority(Level::WARN)),
        }
    }
}

/// The priority of a line as sd-daemon(3) wants it before the text.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Compact lines behind their priority, without time and level: the journal has both.
pub(super) struct Journal {
    inner: Format<Compact, ()>,
}

impl Journal {
    pub(super) fn new() -> Self {
        let inner = tracing_subscriber::fmt::format().compact().without_time();
        Self { inner: inner.with_level(false).with_target(false).with_ansi(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.inner.format_event(context, writer, event)
    }
}

/// The time of a log line: UTC, RFC 3339, milliseconds.
#[derive(Default)]
pub(super) struct Wall(SystemClock);

impl FormatTime for Wall {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.wall())
    }
}
