//! How far an upload or a download is, on standard error, and only if that is a terminal.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{io, time::Duration};

use super::show::Show;

const KNOWN: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN: &str = "{prefix} {spinner} {bytes} {bytes_per_sec}";

/// A bar for one transfer; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// With what is transferred, and how many bytes there will be, if that is known. Nothing is drawn with
    /// `--quiet`, nor where nobody looks.
    pub(super) fn new(show: &Show, what: &str, total: Option<u64>) -> Self {
        Self::drawn(if show.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }, what, total)
    }

    /// The same for a command without `--quiet`.
    pub(super) fn on_terminal(what: &str, total: Option<u64>) -> Self {
        Self::drawn(ProgressDrawTarget::stderr(), what, total)
    }

    fn drawn(target: ProgressDrawTarget, what: &str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(super::show::cell::plain(what));
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// More bytes went by.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Counts what a stream carries.
    pub(super) fn count<S>(&self, stream: S) -> impl Stream<Item = io::Result<Bytes>> + Send + use<S>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let bar = self.bar.clone();
        stream.inspect(move |item| {
            if let Ok(bytes) = item {
                bar.inc(bytes.len() as u64);
            }
        })
    }

    /// Takes the bar away, so that other words can be written.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
