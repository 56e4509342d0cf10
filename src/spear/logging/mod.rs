//! Logs: to standard error, a file or the journal, for people or for programs, with wall-clock time in RFC 3339.
//!
//! `form` says how a line looks, `sink` where it goes and what happens when it cannot.

mod form;
mod sink;

use std::{io, os::fd::AsFd, path::Path};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::writer::BoxMakeWriter, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat, LogLevel},
    instruments::Instruments,
    stopped::Stopped,
};
use form::{Form, Journal, Wall};
use sink::{Sink, Stderr};

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
    /// Is standard error the journal of systemd? See [`is_journal`].
    pub journal: bool,
}

/// What can be done with the log of a running process. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    sink: Sink,
    rust_log: bool,
}

impl Logs {
    /// Logs so much from now on.
    ///
    /// # Errors
    /// `RUST_LOG` says how much.
    pub fn set_level(&self, level: LogLevel) -> Result<(), Stopped> {
        if self.rust_log {
            return Err(Stopped::usage("RUST_LOG is set and says how much is logged"));
        }
        self.filter.reload(filter(level, None)?).map_err(Stopped::failed)
    }

    /// Opens the file anew, for whoever moved it away.
    ///
    /// # Errors
    /// It cannot be opened; the old one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        self.sink.reopen()
    }

    /// Waits for all lines to be written, for two seconds at most.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

/// Is standard error connected to the journal? `journal_stream` is the variable of that name, `device:inode` of the
/// journal's stream; it is inherited, so it is compared with what standard error really is.
pub fn is_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|text| text.split_once(':')) else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    rustix::fs::fstat(io::stderr().as_fd()).is_ok_and(|found| (found.st_dev, found.st_ino) == (device, inode))
}

/// Starts logging for the whole process.
///
/// # Errors
/// The file cannot be opened, `RUST_LOG` is malformed, or logging was started before.
pub fn init(log: &Log, surroundings: Surroundings<'_>, instruments: &Instruments) -> Result<Logs, Stopped> {
    let (filter, changer) = reload::Layer::new(filter(log.level, surroundings.rust_log)?);
    let (target, at_stderr) = match &log.file {
        Some(path) => (sink::file(path, log).map_err(|error| unusable(path, &error))?, false),
        None => (Box::new(Stderr) as Box<dyn sink::Target>, true),
    };
    let terminal = at_stderr && surroundings.terminal;
    let format = chosen(log.format, terminal, at_stderr && surroundings.journal);
    let started = |error: io::Error| Stopped::failed(format!("logging cannot be started: {error}"));
    let sink = Sink::start(target, form(format), instruments.lost_lines()).map_err(started)?;
    let layer = layer(format, terminal && surroundings.colour, BoxMakeWriter::new(sink.clone()));
    let mut layers = instruments.layers();
    layers.push(layer.with_filter(filter).boxed());
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| Stopped::failed(format!("logging cannot be started: {error}")))?;
    let rust_log = surroundings.rust_log.is_some_and(|text| !text.trim().is_empty());
    Ok(Logs { filter: changer, sink, rust_log })
}

fn unusable(path: &Path, error: &io::Error) -> Stopped {
    Stopped::usage(format!("cannot log to {}: {error} (setting log.file, flag --log-file)", path.display()))
}

/// What `auto` means here.
fn chosen(format: LogFormat, terminal: bool, journal: bool) -> LogFormat {
    match format {
        LogFormat::Auto if terminal => LogFormat::Pretty,
        LogFormat::Auto if journal => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

fn form(format: LogFormat) -> Form {
    match format {
        LogFormat::Json => Form::Json,
        LogFormat::Journal => Form::Journal,
        LogFormat::Pretty | LogFormat::Compact | LogFormat::Auto => Form::Text,
    }
}

fn layer(format: LogFormat, colour: bool, writer: BoxMakeWriter) -> Box<dyn Layer<Registry> + Send + Sync> {
    // A log that cannot be written is the sink's business.
    let layer =
        tracing_subscriber::fmt::layer().with_timer(Wall::default()).with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Compact => layer.with_ansi(colour).compact().with_target(false).boxed(),
        LogFormat::Journal => layer.with_ansi(false).event_format(Journal::new()).boxed(),
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
    let word = level.name();
    let text = match level {
        LogLevel::Trace | LogLevel::Debug => {
            OURS.iter().fold("info".to_owned(), |text, name| format!("{text},{name}={word}"))
        }
        _ => word.to_owned(),
    };
    EnvFilter::builder().parse(&text).map_err(Stopped::failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

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
        let layer = layer(format, false, BoxMakeWriter::new(move || writer.clone()));
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(level, rust_log).unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "sms", node = "n-1", "registered");
            tracing::debug!(target: "sms", "of ours");
            tracing::debug!(target: "h2", "of others");
            tracing::error!(target: "sms", "broken");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_level_message_fields_and_the_time_as_rfc_3339() {
        let text = logged(LogFormat::Json, LogLevel::Info, None);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["node"]),
            (&"INFO".into(), &"registered".into(), &"n-1".into())
        );
        let time = line["timestamp"].as_str().unwrap();
        assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"), "{time}");
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority_and_neither_time_nor_level() {
        let text = logged(LogFormat::Journal, LogLevel::Debug, None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines, ["<6>registered node=\"n-1\"", "<7>of ours", "<3>broken"]);
    }

    #[test]
    fn auto_is_pretty_on_a_terminal_the_journals_form_at_the_journal_and_json_elsewhere() {
        assert_eq!(chosen(LogFormat::Auto, true, false), LogFormat::Pretty);
        assert_eq!(chosen(LogFormat::Auto, false, true), LogFormat::Journal);
        assert_eq!(chosen(LogFormat::Auto, false, false), LogFormat::Json);
        assert_eq!(chosen(LogFormat::Json, true, true), LogFormat::Json);
        for not in [None, Some(""), Some("1:2"), Some("x:y"), Some("12")] {
            assert!(!is_journal(not), "{not:?}");
        }
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
        let path = Path::new("/proc/nowhere/spear.log");
        let error = unusable(path, &sink::file(path, &Log::usual()).err().unwrap());
        assert_eq!(error.code, 2);
        assert!(error.message.contains("--log-file"), "{error}");
    }

    #[test]
    fn a_lost_line_is_said_in_the_form_of_the_log() {
        let json: serde_json::Value = serde_json::from_str(&Form::Json.lost(3, "full")).unwrap();
        assert_eq!((&json["lost"], &json["error"], &json["level"]), (&3.into(), &"full".into(), &"WARN".into()));
        assert!(Form::Journal.lost(3, "full").starts_with("<4>log lines were lost lost=3"));
        assert!(Form::Text.lost(3, "full").contains("WARN spear::logging: log lines were lost lost=3 error=\"full\""));
    }
}
