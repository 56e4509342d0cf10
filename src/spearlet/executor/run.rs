//! One run: ask for the work ► fetch ► prepare ► mark as started ► invoke ► one commit of how it ended.
//!
//! Beside it, for as long as it lasts: output goes to the log file, the file to the registry, and the registry
//! hears how far it is. None of that can hold the run up; an outage of the registry only delays what it hears.

use api::{
    Ended, Invocation, InvokeError,
    control::{LogBatch, WorkItem},
};
use bytes::Bytes;
use futures_util::FutureExt;
use runtime::{Answer, Lease, LogBuffer, LogSink, Streams};
use std::{convert::Infallible, future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use store::{Batch, encode};
use supervise::{Stop, TaskResult, backoff};
use telemetry::trace;
use tokio::sync::watch;
use tracing::Instrument;
use types::{ErrorKind, ExecutionStatus, Fault, Keyed, Progress, Reason, Timestamp, Usage};

use super::{
    Executor,
    book::{Halt, Job, State},
    logs::LogFile,
    records::{Accepted, Done, Ending, result_key, unwanted},
};
use crate::{
    agent::connect::{LONG_ANSWER, within},
    artifacts::Held,
    functions::{Function, manifest::Manifest},
};

/// Tries of a fetch that fails for a passing reason.
const FETCH_TRIES: u32 = 5;
/// What a runtime may take beyond the deadline before it is given up.
const OVERSHOOT: Duration = Duration::from_secs(30);
/// How far a run came.
enum Performed {
    /// It is over.
    Ended(Box<Ending>, Bytes),
    /// The node stops and the guest had not begun: the next process runs it.
    NotBegun,
}

/// What the registry says about an execution that is to run.
enum Asked {
    /// Run it.
    Run(Box<WorkItem>, u64),
    /// Nobody wants it any more, and why.
    Forget(String),
    /// It is over before it began.
    Over(Performed),
}

/// A run and what it writes to.
struct Run<'a> {
    executor: &'a Executor,
    job: &'a Job,
    work: &'a WorkItem,
    sink: &'a LogSink,
    progress: &'a watch::Sender<Option<Progress>>,
    begun: Timestamp,
    stop: &'a Stop,
}

/// Runs one execution to its end on disk. `stop`: running executions get the drain time and then end.
pub(crate) async fn run(executor: Arc<Executor>, job: Job, stop: Stop) -> TaskResult {
    let begun = executor.clock.wall();
    let performed = match executor.ask(&job).await {
        Asked::Run(work, first_seq) => {
            let span = tracing::info_span!("execution", execution = %job.id, attempt = job.attempt);
            trace::adopt(&span, work.execution.traceparent.as_deref());
            let performing = executor.perform_logged(&job, &work, first_seq, begun, &stop);
            Box::pin(performing.instrument(span)).await
        }
        Asked::Over(performed) => performed,
        Asked::Forget(why) => {
            tracing::info!(execution = %job.id, attempt = job.attempt, why, "not run");
            return executor.forget(&job).await;
        }
    };
    match performed {
        Performed::Ended(ending, result) => executor.end(*ending, result).await,
        Performed::NotBegun => {
            executor.alter(|book| book.set(job.id, State::Queued));
            Ok(())
        }
    }
}

impl Executor {
    /// Learns what to run, waiting for the registry as long as it takes.
    async fn ask(&self, job: &Job) -> Asked {
        let Ok(registry) = self.registry() else { return Asked::Over(Performed::NotBegun) };
        let mut tries = 0;
        let asking = async {
            loop {
                let asked = async {
                    let work = within(LONG_ANSWER, "work", registry.get_work(job.id)).await?;
                    let mut first_seq = 1;
                    if job.attempt > 1 {
                        // An earlier attempt, perhaps elsewhere, has written lines.
                        let nothing =
                            LogBatch { execution_id: job.id, attempt: job.attempt, lines: Vec::new(), finished: false };
                        first_seq = within(LONG_ANSWER, "log", registry.append_logs(nothing)).await?.next_seq;
                    }
                    Ok((work, first_seq))
                };
                match asked.await {
                    Ok((work, first_seq)) => return self.judge(job, work, first_seq),
                    Err(fault) if unwanted(&fault) => return Asked::Forget(fault.message),
                    Err(fault) => {
                        let fault: Fault = fault;
                        tracing::debug!(execution = %job.id, error = %fault, tries, "cannot get the work yet");
                    }
                }
                self.pause(tries).await;
                tries += 1;
            }
        };
        match self.unless_halted(job, asking).await {
            Ok(asked) => asked,
            Err(_) if self.book().halted(job.id) == Some(Halt::Withdrawn) => {
                Asked::Forget("taken back before it began".to_owned())
            }
            Err(performed) => Asked::Over(performed),
        }
    }

    fn judge(&self, job: &Job, work: WorkItem, first_seq: u64) -> Asked {
        let now = &work.execution;
        if now.attempt != job.attempt {
            return Asked::Forget(format!("the registry is at attempt {}", now.attempt));
        }
        if now.node_uuid.is_some_and(|node| node != self.node) {
            return Asked::Forget("the registry gave it to another node".to_owned());
        }
        if now.status.terminal() {
            return Asked::Forget(format!("the registry holds it for {}", now.status));
        }
        if now.cancel_requested {
            self.halt(job.id, Halt::Asked);
            return Asked::Over(self.halted(job));
        }
        Asked::Run(Box::new(work), first_seq)
    }

    /// Runs with the log and the reports beside it.
    async fn perform_logged(
        &self,
        job: &Job,
        work: &WorkItem,
        first_seq: u64,
        begun: Timestamp,
        stop: &Stop,
    ) -> Performed {
        // The wall clock may jump meanwhile.
        let since = self.clock.monotonic();
        let mut file = LogFile::open(&self.logs, job.id, first_seq).await;
        let limits = &self.config.get().limits;
        let most = limits.stdout_bytes.max(limits.stderr_bytes);
        let (sink, buffer) = LogBuffer::new(self.clock.clone(), most, file.next_seq());
        let (progress, told) = watch::channel(None);
        let (written, unsent) = watch::channel(());
        let run = Run { executor: self, job, work, sink: &sink, progress: &progress, begun, stop };
        let performing = async {
            let performed = AssertUnwindSafe(run.perform()).catch_unwind().await;
            sink.close();
            performed.unwrap_or_else(|_| {
                tracing::error!(execution = %job.id, "a run panicked");
                run.failed(Reason::Internal, "the node failed while it ran this; its log has the cause")
            })
        };
        let writing = async {
            loop {
                let lines = buffer.next().await;
                if lines.is_empty() {
                    return;
                }
                file.append(lines).await;
                written.send_replace(());
            }
        };
        let beside = futures_util::future::join(self.ship(job, first_seq, unsent), self.tell(job, begun, &sink, told));
        let performed = tokio::select! {
            (performed, ()) = futures_util::future::join(performing, writing) => performed,
            (never, _) = beside => match never {},
        };
        if let Performed::Ended(ending, _) = &performed {
            let span = tracing::Span::current();
            trace::mark(&span, "spear.status", ending.status.as_str());
            if ending.status != ExecutionStatus::Completed {
                trace::failed(&span, &ending.message);
            }
            let level = if ending.status == ExecutionStatus::Completed { "info" } else { "error" };
            let took = self.clock.monotonic().saturating_sub(since).as_millis();
            let mut message = format!("ended: {} after {took} ms", ending.status);
            if !ending.message.is_empty() {
                message = format!("{message}: {}", ending.message);
            }
            file.finish(&*self.clock, level, message).await;
        }
        performed
    }

    /// Does `work` unless the execution is halted or the node stops before it is done.
    async fn unless_halted<T>(&self, job: &Job, work: impl Future<Output = T>) -> Result<T, Performed> {
        tokio::select! {
            biased;
            () = job.halt.cancelled() => Err(self.halted(job)),
            () = self.stopping.cancelled() => Err(Performed::NotBegun),
            done = work => Ok(done),
        }
    }

    /// The end of an execution that was asked to end.
    fn halted(&self, job: &Job) -> Performed {
        let (status, reason, message) = match self.book().halted(job.id) {
            Some(Halt::Stopped) => (ExecutionStatus::Failed, Reason::NodeLost, "the node stopped"),
            Some(Halt::Withdrawn) => (ExecutionStatus::Cancelled, Reason::Cancelled, "the registry took it back"),
            Some(Halt::Asked) | None => (ExecutionStatus::Cancelled, Reason::Cancelled, "cancelled"),
        };
        let ending = Ending::new((job.id, job.attempt), status, reason, message, self.clock.wall());
        Performed::Ended(Box::new(ending), Bytes::new())
    }

    /// One commit: out of the inbox, into the outbox. A full disk is waited out, for the result is worth it.
    async fn end(&self, ending: Ending, result: Bytes) -> TaskResult {
        let id = ending.execution_id;
        tracing::info!(execution = %id, attempt = ending.attempt, status = %ending.status, message = ending.message, "execution ended");
        let mut batch = Batch::new().delete(format!("{}{id}", Accepted::PREFIX)).put(ending.key(), encode(&ending)?);
        if !result.is_empty() {
            batch = batch.put(result_key(id), result);
        }
        self.commit_patiently(batch).await?;
        self.figures.see(|figures| figures.ended(&ending));
        self.alter(|book| book.set(id, State::Unreported));
        Ok(())
    }

    /// Drops an execution that nobody wants any more.
    async fn forget(&self, job: &Job) -> TaskResult {
        let mark = Done { execution_id: job.id, attempt: job.attempt };
        let mut batch = Batch::new().delete(job.accepted().key()).put(mark.key(), encode(&mark)?);
        if let Some(old) = self.book().mark_done(job.id, job.attempt) {
            batch = batch.delete(format!("{}{old}", Done::PREFIX));
        }
        self.commit_patiently(batch).await?;
        self.remove_log(job.id).await;
        self.alter(|book| book.remove(job.id));
        Ok(())
    }

    /// Commits, waiting for space on a full disk; every other failure is final.
    pub(super) async fn commit_patiently(&self, batch: Batch) -> Result<(), store::Error> {
        let mut tries = 0;
        loop {
            match self.store.commit(batch.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    tracing::error!(%error, "cannot note how an execution ended; waiting for space");
                    tokio::time::sleep(backoff(Duration::from_secs(1), Duration::from_secs(10), tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Run<'_> {
    async fn perform(&self) -> Performed {
        match self.try_perform().await {
            Ok(performed) | Err(performed) => performed,
        }
    }

    /// The steps; one that ends the run early returns how as its error.
    async fn try_perform(&self) -> Result<Performed, Performed> {
        let (executor, task) = (self.executor, &self.work.task);
        let config = executor.config.get();
        let manifest = Manifest::of(&config, task)
            .map_err(|fault| self.failed(Reason::Task, format!("the task's settings are wrong: {fault}")))?;
        let timeout = self.work.execution.timeout().unwrap_or(manifest.timeout).min(config.max_timeout);
        let fetching = self.fetch(&manifest, timeout).instrument(tracing::info_span!("fetch"));
        let artifact = executor.unless_halted(self.job, fetching).await??;
        let preparing = self.prepare(manifest, artifact).instrument(tracing::info_span!("compile"));
        let function = executor.unless_halted(self.job, preparing).await??;
        let lease = executor.unless_halted(self.job, function.pool.checkout_patiently()).await?;
        let lease = lease.map_err(|error| self.ended(Err(error)))?;
        // From here on a crash leaves the mark, and the execution is never begun again.
        let mark = Accepted { started_at: Some(self.begun), ..self.job.accepted() };
        let encoded = encode(&mark).map_err(|error| self.failed(Reason::Internal, error.to_string()))?;
        let marked = executor.store.commit(Batch::new().put(mark.key(), encoded)).await;
        marked
            .map_err(|error| self.failed(Reason::Internal, format!("the node cannot note that it begins: {error}")))?;
        self.phase("run");
        self.sink.system("info", "started");
        let began = executor.clock.monotonic();
        let invoked = self.invoke(lease, timeout).instrument(tracing::info_span!("run")).await;
        let took = executor.clock.monotonic().saturating_sub(began);
        executor.figures.see(|figures| figures.run.took(took));
        let completed = invoked.as_ref().is_ok_and(|answer| answer.ended.exit_code == 0);
        executor.functions.ended(&function, took, !completed);
        Ok(self.ended(invoked))
    }

    fn phase(&self, phase: &str) {
        let progress = Progress { phase: phase.to_owned(), done_bytes: 0, total_bytes: None };
        self.progress.send_replace(Some(progress));
    }

    async fn fetch(&self, manifest: &Manifest, timeout: Duration) -> Result<Held, Performed> {
        let clock = &self.executor.clock;
        let since = clock.monotonic();
        let mut tries = 0;
        self.phase("fetch");
        let tell = |progress: Progress| drop(self.progress.send_replace(Some(progress)));
        loop {
            let most = manifest.spec.limits.artifact_bytes;
            let fetched = self.executor.artifacts.fetch(&manifest.executable, most, &tell).await;
            let spent = clock.monotonic().saturating_sub(since);
            tries += 1;
            match fetched {
                Ok(artifact) => {
                    self.executor.figures.see(|figures| figures.fetch.took(spent));
                    self.sink.system("info", format!("fetched: {} bytes in {} ms", artifact.size, spent.as_millis()));
                    return Ok(artifact);
                }
                Err(fault) if fault.kind.retry() && tries < FETCH_TRIES && spent < timeout => {
                    self.sink.system("warn", format!("fetch failed, trying again: {fault}"));
                    tokio::time::sleep(backoff(Duration::from_millis(300), Duration::from_secs(5), tries - 1)).await;
                }
                Err(fault) => return Err(self.failed(Reason::Artifact, fault.message)),
            }
        }
    }

    async fn prepare(&self, manifest: Manifest, artifact: Held) -> Result<Arc<Function>, Performed> {
        let since = self.executor.clock.monotonic();
        self.phase("compile");
        let adopted = self.executor.functions.adopt(&self.work.task, manifest, artifact).await;
        let function = adopted.map_err(|error| self.ended(Err(error)))?;
        let spent = self.executor.clock.monotonic().saturating_sub(since);
        self.executor.figures.see(|figures| figures.prepare.took(spent));
        let what = self.executor.functions.describe(&function);
        let what = if what.is_empty() { what } else { format!(" ({what})") };
        self.sink.system("info", format!("compiled in {} ms{what}", spent.as_millis()));
        Ok(function)
    }

    async fn invoke(&self, mut lease: Lease, timeout: Duration) -> Result<Answer, InvokeError> {
        let mut call = Invocation {
            deadline: Some(timeout),
            cancel: self.job.halt.clone(),
            traceparent: self.work.execution.traceparent.clone(),
            ..Invocation::new(self.work.input.clone())
        };
        // What the guest asks of others belongs to the same trace.
        let traceparent = trace::of(&tracing::Span::current()).or_else(|| call.traceparent.clone());
        call.env.extend(traceparent.map(|traceparent| ("TRACEPARENT".to_owned(), traceparent)));
        let streams = Streams::logged(self.sink.clone());
        let invoked = tokio::select! {
            invoked = tokio::time::timeout(timeout + OVERSHOOT, lease.invoke(self.job.id, call, streams)) => invoked,
            never = self.drained() => match never {},
        };
        invoked.unwrap_or_else(|_| {
            let message = format!("the runtime did not end it at its deadline of {timeout:?}; given up");
            Err(InvokeError::new(Reason::Internal, message))
        })
    }

    /// Halts the run when the node has stopped for as long as running executions may still take.
    async fn drained(&self) -> Infallible {
        self.stop.cancelled().await;
        tokio::time::sleep(self.executor.drain).await;
        self.executor.halt(self.job.id, Halt::Stopped);
        pending().await
    }

    /// How it ended, and what it used if it began.
    fn ended(&self, invoked: Result<Answer, InvokeError>) -> Performed {
        let usage = match &invoked {
            Ok(answer) => answer.ended.usage,
            Err(error) => error.usage,
        };
        match self.judged(invoked) {
            Performed::Ended(mut ending, result) => {
                ending.usage = Some(usage).filter(|usage| *usage != Usage::default());
                Performed::Ended(ending, result)
            }
            not_begun @ Performed::NotBegun => not_begun,
        }
    }

    fn judged(&self, invoked: Result<Answer, InvokeError>) -> Performed {
        match invoked {
            Ok(Answer { result, ended: Ended { exit_code: 0, .. }, .. }) => {
                let mut ending = self.ending(ExecutionStatus::Completed, Reason::Exit, "");
                (ending.reason, ending.exit_code) = (None, Some(0));
                Performed::Ended(Box::new(ending), result)
            }
            Ok(Answer { result, ended: Ended { exit_code, .. }, .. }) => {
                let message = format!("the guest ended with exit code {exit_code}");
                let mut ending = self.ending(ExecutionStatus::Failed, Reason::Exit, message);
                ending.exit_code = Some(exit_code);
                Performed::Ended(Box::new(ending), result)
            }
            Err(error) if error.reason == Reason::Cancelled => {
                let Performed::Ended(mut ending, result) = self.executor.halted(self.job) else {
                    return Performed::NotBegun;
                };
                ending.started_at = Some(self.begun);
                Performed::Ended(ending, result)
            }
            Err(error) => {
                let ending = self.ending(error.status(), error.reason, error.message);
                Performed::Ended(Box::new(ending), Bytes::new())
            }
        }
    }

    fn failed(&self, reason: Reason, message: impl Into<String>) -> Performed {
        Performed::Ended(Box::new(self.ending(ExecutionStatus::Failed, reason, message)), Bytes::new())
    }

    fn ending(&self, status: ExecutionStatus, reason: Reason, message: impl Into<String>) -> Ending {
        let of = (self.job.id, self.job.attempt);
        let ending = Ending::new(of, status, reason, message, self.executor.clock.wall());
        Ending { started_at: Some(self.begun), ..ending }
    }
}
