//! Logs: to standard error or a file, for people or for programs, with wall-clock time in RFC 3339.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Mutex,
};
use telemetry::Counter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{format::Writer, time::FormatTime, writer::BoxMakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};
use types::{Clock, SystemClock};

use crate::{
    config::{Log, LogFormat, LogLevel},
    instruments::Instruments,
    stopped::Stopped,
};

/// Our own crates: a low level concerns them alone, or the log would be full of other people's frames and polls.
pub(crate) const OURS: [&str; 12] =
    ["spear", "sms", "spearlet", "store", "bus", "net", "api", "runtime", "wasm", "supervise", "telemetry", "types"];

/// What the process knows about where its log goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Is standard error a terminal?
    pub terminal: bool,
    /// May it be coloured?
    pub colour: bool,
    /// `RUST_LOG`, which goes before the configured level.
    pub rust_log: Option<&'a str>,
}

/// Starts logging for the whole process.
///
/// # Errors
/// The file cannot be opened, `RUST_LOG` is malformed, or logging was started before.
pub fn init(log: &Log, surroundings: Surroundings<'_>, instruments: &Instruments) -> Result<(), Stopped> {
    let filter = filter(log.level, surroundings.rust_log)?;
    let lost = instruments.lost_lines();
    let (writer, terminal) = match &log.file {
        Some(path) => (BoxMakeWriter::new(Mutex::new(Quiet(append(path)?, lost))), false),
        None => (BoxMakeWriter::new(move || Quiet(io::stderr(), lost.clone())), surroundings.terminal),
    };
    let layer = layer(log.format, terminal, terminal && surroundings.colour, writer);
    let mut layers = instruments.layers();
    layers.push(layer.with_filter(filter).boxed());
    let started = tracing_subscriber::registry().with(layers).try_init();
    started.map_err(|error| Stopped::failed(format!("logging cannot be started: {error}")))
}

fn layer(
    format: LogFormat,
    terminal: bool,
    colour: bool,
    writer: BoxMakeWriter,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let format = match format {
        LogFormat::Auto if terminal => LogFormat::Pretty,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    // Whoever reads the log may go away; that is no reason to say so on the same broken pipe.
    let layer =
        tracing_subscriber::fmt::layer().with_timer(Wall::default()).with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Compact => layer.with_ansi(colour).compact().with_target(false).boxed(),
        LogFormat::Pretty | LogFormat::Auto => layer.with_ansi(colour).boxed(),
    }
}

fn filter(level: LogLevel, rust_log: Option<&str>) -> Result<EnvFilter, Stopped> {
    if let Some(directives) = rust_log.filter(|text| !text.trim().is_empty()) {
        let parsed = EnvFilter::builder().parse(directives);
        return parsed.map_err(|error| {
            Stopped::usage(format!("environment variable RUST_LOG: {error}; expected for instance \"info,sms=debug\""))
        });
    }
    let word = match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Off => "off",
    };
    let text = match level {
        LogLevel::Trace | LogLevel::Debug => {
            OURS.iter().fold("info".to_owned(), |text, name| format!("{text},{name}={word}"))
        }
        _ => word.to_owned(),
    };
    EnvFilter::builder().parse(&text).map_err(Stopped::failed)
}

fn append(path: &Path) -> Result<File, Stopped> {
    let failed = |error: io::Error| {
        Stopped::usage(format!("cannot log to {}: {error} (setting log.file, flag --log-file)", path.display()))
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    OpenOptions::new().create(true).append(true).open(path).map_err(failed)
}

/// A stream whose reader may be gone: writing to it then does nothing. What cannot be written is counted.
struct Quiet<W>(W, Counter);

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.1.inc();
                if error.kind() == io::ErrorKind::BrokenPipe { Ok(bytes.len()) } else { Err(error) }
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// The time of a log line: UTC, RFC 3339, milliseconds.
#[derive(Default)]
struct Wall(SystemClock);

impl FormatTime for Wall {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.wall())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LogLevel, rust_log: Option<&str>) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = layer(format, false, false, BoxMakeWriter::new(move || writer.clone()));
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(level, rust_log).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "sms", node = "n-1", "registered");
            tracing::debug!(target: "sms", "of ours");
            tracing::debug!(target: "h2", "of others");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_level_message_fields_and_the_time_as_rfc_3339() {
        let line: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json, LogLevel::Info, None)).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["node"]),
            (&"INFO".into(), &"registered".into(), &"n-1".into())
        );
        let time = line["timestamp"].as_str().unwrap();
        assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"), "{time}");
    }

    #[test]
    fn the_level_concerns_our_crates_and_rust_log_goes_before_it() {
        let debug = logged(LogFormat::Compact, LogLevel::Debug, None);
        assert!(debug.contains("of ours") && !debug.contains("of others"), "{debug}");
        let other = logged(LogFormat::Compact, LogLevel::Error, Some("h2=debug"));
        assert!(other.contains("of others") && !other.contains("registered"), "{other}");
        assert!(logged(LogFormat::Compact, LogLevel::Off, None).is_empty());
    }

    #[test]
    fn a_malformed_rust_log_and_a_file_that_cannot_be_opened_are_usage_errors() {
        assert_eq!(filter(LogLevel::Info, Some("sms=loud")).unwrap_err().code, 2);
        let error = append(Path::new("/proc/nowhere/spear.log")).unwrap_err();
        assert_eq!(error.code, 2);
        assert!(error.message.contains("--log-file"), "{error}");
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let lost = Counter::default();
        assert_eq!((Quiet(writer, lost.clone()).write(b"line").unwrap(), lost.get()), (4, 1));
    }
}
