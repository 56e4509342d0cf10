//! What is used to watch the process: its figures, its traces, and the count of what it logs.
//!
//! Made before logging starts, because traces and the count are layers of it; started with the process.

use net::readiness::Readiness;
use std::sync::Arc;
use supervise::{Phase, Supervisor, TaskState};
use telemetry::{Counter, Metrics};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterFn, LevelFilter},
    layer::Context,
};
use types::Clock;

use crate::{
    config::{Resolved, Watching},
    logging::OURS,
    stopped::Stopped,
};

/// Spans around every request and every call: in traces always, in the log from the level debug on.
#[cfg(feature = "otel")]
const EVERY_CALL: [&str; 2] = ["request", "invoke"];

/// A layer of the process's logging.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The instruments of a process.
#[derive(Default)]
pub struct Instruments {
    /// All figures.
    pub metrics: Metrics,
    role: &'static str,
    #[cfg(feature = "otel")]
    otel: Option<(telemetry::otel::Settings, telemetry::otel::Traces)>,
}

impl Instruments {
    /// As the settings want them. Nothing is sent yet.
    ///
    /// # Errors
    /// The certificate of the collector cannot be read.
    pub fn new(settings: &Resolved) -> Result<Self, Stopped> {
        let metrics = Metrics::new();
        let role = settings.roles.name();
        #[cfg(feature = "otel")]
        let otel = otel(&settings.watching)?.map(|settings| {
            let traces = telemetry::otel::Traces::new(&settings);
            (settings, traces)
        });
        Ok(Self {
            metrics,
            role,
            #[cfg(feature = "otel")]
            otel,
        })
    }

    /// The layers of logging that feed them.
    pub fn layers(&self) -> Vec<LogLayer> {
        let events = self.metrics.counters(
            "spear_log_events_total",
            "Events of the log that somebody should look at, by level.",
            ["level"],
        );
        let counting = Counting { warnings: events.with(["warn"]), errors: events.with(["error"]) };
        let mut layers: Vec<LogLayer> = vec![counting.with_filter(LevelFilter::WARN).boxed()];
        layers.extend(self.traces());
        layers
    }

    /// Counts lines of the log that could not be written.
    pub fn lost_lines(&self) -> Counter {
        self.metrics.counter("spear_log_lines_lost_total", "Lines of the log that could not be written.")
    }

    #[cfg(feature = "otel")]
    fn traces(&self) -> Option<LogLayer> {
        let (_, traces) = self.otel.as_ref()?;
        // Our spans, and of the events what went wrong.
        let wanted = |meta: &tracing::Metadata<'_>| {
            let crate_name = meta.target().split("::").next().unwrap_or_default();
            let most = match meta.name() {
                name if meta.is_span() && EVERY_CALL.contains(&name) => Level::DEBUG,
                _ if meta.is_span() => Level::INFO,
                _ => Level::WARN,
            };
            OURS.contains(&crate_name) && *meta.level() <= most
        };
        let filter = FilterFn::new(wanted).with_max_level_hint(LevelFilter::DEBUG);
        Some(traces.layer::<Registry>().with_filter(filter).boxed())
    }

    #[cfg(not(feature = "otel"))]
    fn traces(&self) -> Option<LogLayer> {
        None
    }

    /// Adds what is known of the process as a whole, and begins to send to the collector, if there is one. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When the settings of the collector cannot work.
    pub fn start(
        self,
        supervisor: &Supervisor,
        readiness: &Readiness,
        clock: Arc<dyn Clock>,
    ) -> Result<Metrics, Stopped> {
        let Self { metrics, role, .. } = &self;
        metrics.process();
        metrics
            .gauges("spear_build_info", "1; the labels say what runs.", ["version", "role", "otel"])
            .with([env!("CARGO_PKG_VERSION"), role, if cfg!(feature = "otel") { "true" } else { "false" }])
            .set(1);
        supervised(metrics, supervisor, readiness);
        self.send(supervisor, clock)
    }

    #[cfg(feature = "otel")]
    fn send(self, supervisor: &Supervisor, clock: Arc<dyn Clock>) -> Result<Metrics, Stopped> {
        if let Some((settings, traces)) = self.otel {
            // After everything that makes spans worth having, before the store.
            let scope = supervisor.scope(Phase::Bus, "otel");
            let last = supervisor.budget().share(Phase::Bus).mul_f64(0.8);
            telemetry::otel::start(&settings, traces, &self.metrics, clock, &scope, last).map_err(Stopped::usage)?;
        }
        Ok(self.metrics)
    }

    #[cfg(not(feature = "otel"))]
    fn send(self, _supervisor: &Supervisor, _clock: Arc<dyn Clock>) -> Result<Metrics, Stopped> {
        Ok(self.metrics)
    }
}

fn supervised(metrics: &Metrics, supervisor: &Supervisor, readiness: &Readiness) {
    let ready = readiness.clone();
    metrics.read("spear_ready", "1 when the process can do its work, as /readyz says.", move || {
        Some(f64::from(u8::from(ready.is_ready())))
    });
    let tasks = supervisor.clone();
    metrics.sampled("spear_supervised_tasks", "Tasks of the process, by state.", ["state"], move || {
        let all = tasks.tasks();
        let states = [TaskState::Running, TaskState::BackingOff, TaskState::Ended];
        let names = ["running", "backing_off", "ended"];
        let count = |state| all.iter().filter(|task| task.state == state).count() as f64;
        states.into_iter().zip(names).map(|(state, name)| ([name.to_owned()], count(state))).collect()
    });
    let counted = supervisor.clone();
    metrics.read("spear_supervised_task_restarts_total", "Tasks that failed and were started again.", move || {
        Some(counted.counts().restarts as f64)
    });
    let counted = supervisor.clone();
    metrics.read("spear_supervised_task_failures_total", "Tasks that failed or panicked.", move || {
        Some(counted.counts().failures as f64)
    });
}

#[cfg(feature = "otel")]
fn otel(watching: &Watching) -> Result<Option<telemetry::otel::Settings>, Stopped> {
    let Some(collector) = &watching.collector else { return Ok(None) };
    let authority_pem = match &collector.certificate {
        None => None,
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|error| Stopped::usage(format!("{}: {error} (otel.certificate)", path.display())))?,
        ),
    };
    let system = rustix::system::uname();
    Ok(Some(telemetry::otel::Settings {
        endpoint: collector.endpoint.clone(),
        headers: collector.headers.clone(),
        authority_pem,
        timeout: collector.timeout,
        interval: collector.interval,
        service: collector.service.clone(),
        version: env!("CARGO_PKG_VERSION"),
        instance: format!("{}:{}", system.nodename().to_string_lossy(), std::process::id()),
    }))
}

/// Counts what is logged as a warning or an error.
struct Counting {
    warnings: Counter,
    errors: Counter,
}

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        match *event.metadata().level() {
            Level::WARN => self.warnings.inc(),
            Level::ERROR => self.errors.inc(),
            _ => {}
        }
    }
}
