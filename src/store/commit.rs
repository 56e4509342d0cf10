//! Group commit: one queue, one committer, one engine transaction for all batches that wait.

use std::{io, path::Path, sync::Arc, time::Instant};
use supervise::{OnError, Scope};
use telemetry::Slot;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use types::{LogId, Timestamp};

use crate::{
    Batch, Change, Conflict, Engine, Error, Op, Page, Record, Rev, Snapshot,
    batch::{MOST_KEY, MOST_VALUE},
    figures::Figures,
};

/// Batches that may wait; a full queue makes the writers wait, nothing is dropped.
const QUEUE: usize = 4096;
/// Batches in one engine transaction.
const MOST_TOGETHER: usize = 256;
/// Bytes of values in one engine transaction, beyond which the rest waits for the next.
const MOST_BYTES_TOGETHER: usize = 32 << 20;

type Waiting = (Batch, oneshot::Sender<Result<Result<Rev, Conflict>, Error>>);

/// The front of an engine. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) queue: mpsc::Sender<Waiting>,
    /// Set once somebody wants to know.
    pub(crate) figures: Slot<Figures>,
    /// Set when a write failed in a way that leaves its outcome unknown.
    failed: Arc<watch::Sender<Option<Error>>>,
}

impl Store {
    /// Starts the committer in `scope`, which should be of the last phase to stop. A failed disk ends the
    /// process through that scope.
    pub fn start(engine: Arc<dyn Engine>, scope: &Scope) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let failed = Arc::new(watch::Sender::new(None));
        let waiting = Arc::new(Mutex::new(waiting));
        let figures = Slot::default();
        let store = Self { engine: engine.clone(), queue, figures: figures.clone(), failed: failed.clone() };
        scope.spawn("commit", OnError::StopProcess, move |stop| {
            let (engine, waiting, failed) = (engine.clone(), waiting.clone(), failed.clone());
            let measured = Measured { engine: engine.clone(), figures: figures.clone() };
            async move {
                let mut waiting = waiting.lock().await;
                let mut told = failed.subscribe();
                let ended = run(&measured, &mut waiting, &stop, &mut told).await;
                if let Err(error) = &ended {
                    failed.send_replace(Some(error.clone()));
                }
                waiting.close();
                let closed = engine.close().await;
                ended?;
                Ok(closed?)
            }
        });
        store
    }

    /// Applies a batch; when it returns, the changes are on disk.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a guard did not hold; otherwise see [`Error`].
    pub async fn commit(&self, batch: Batch) -> Result<Rev, Error> {
        check(&batch)?;
        let (answer, wait) = oneshot::channel();
        if self.queue.send((batch, answer)).await.is_err() {
            return Err(self.closed());
        }
        match wait.await {
            Ok(done) => Ok(done??),
            Err(_) => Err(self.closed()),
        }
    }

    fn closed(&self) -> Error {
        self.failed.borrow().clone().unwrap_or(Error::Closed)
    }

    /// The record of a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.engine.get(key).await
    }

    /// The records of several keys; see [`Engine::get_many`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Record>>, Error> {
        self.engine.get_many(keys).await
    }

    /// A page of records; see [`Engine::list`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.engine.list(prefix, after, limit).await
    }

    /// Every record under a prefix, in pages, so that no call is unbounded; `rev` is that of the first page:
    /// follow the changes from there and the result converges.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn scan(&self, prefix: &str, mut each: impl FnMut(Record)) -> Result<Rev, Error> {
        const PAGE: usize = 1000;
        let mut page = self.engine.list(prefix, None, PAGE).await?;
        let rev = page.rev;
        loop {
            let full = page.records.len() == PAGE;
            let last = page.records.last().map(|record| record.key.clone());
            page.records.into_iter().for_each(&mut each);
            match last {
                Some(last) if full => page = self.engine.list(prefix, Some(&last), PAGE).await?,
                _ => return Ok(rev),
            }
        }
    }

    /// Holds this moment; see [`Engine::snapshot`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        self.engine.snapshot().await
    }

    /// Whole revisions after `after`; see [`Engine::changes`].
    ///
    /// # Errors
    /// [`Error::Trimmed`] when the log begins later.
    pub async fn changes(&self, after: Rev, limit: usize) -> Result<Vec<Change>, Error> {
        self.engine.changes(after, limit).await
    }

    /// Forgets changes; see [`Engine::trim`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn trim(&self, upto: Rev) -> Result<(), Error> {
        self.engine.trim(upto).await
    }

    /// See [`Engine::floor`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn floor(&self) -> Result<Rev, Error> {
        self.engine.floor().await
    }

    /// See [`Engine::aged`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn aged(&self, upto: Rev, moment: Timestamp) -> Result<Rev, Error> {
        self.engine.aged(upto, moment).await
    }

    /// The last committed revision.
    pub fn head(&self) -> watch::Receiver<Rev> {
        self.engine.head()
    }

    /// The identity of the change log.
    pub fn log_id(&self) -> LogId {
        self.engine.log_id()
    }

    /// An fsync of a file beside the store failed: what the disk holds is unknown, so nothing more is acknowledged
    /// and the process ends, as after a failed fsync of the store itself. Only a full disk is merely told. Answers
    /// what to tell the caller.
    pub fn unsynced(&self, path: &Path, error: &io::Error) -> Error {
        let (path, detail) = (path.to_owned(), format!("fsync: {error}"));
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Error::Full { path, detail };
        }
        let error = Error::Failed { path, detail };
        self.failed.send_if_modified(|first| {
            let new = first.is_none();
            if new {
                *first = Some(error.clone());
            }
            new
        });
        error
    }

    /// The failure that ended writing, if any; for readiness.
    pub fn failure(&self) -> Option<Error> {
        self.failed.borrow().clone()
    }
}

/// Limits of keys and values.
pub(crate) fn check(batch: &Batch) -> Result<(), Error> {
    for op in &batch.ops {
        let (key, value) = match op {
            Op::Put(key, value) => (key, value.len()),
            Op::Delete(key) => (key, 0),
        };
        if key.is_empty() || key.len() > MOST_KEY {
            return Err(Error::TooLarge(format!("a key of {} bytes; 1 to {MOST_KEY} are allowed", key.len())));
        }
        if value > MOST_VALUE {
            return Err(Error::TooLarge(format!("{key}: a value of {value} bytes; {MOST_VALUE} are allowed")));
        }
    }
    Ok(())
}

/// The engine's commits, measured.
struct Measured {
    engine: Arc<dyn Engine>,
    figures: Slot<Figures>,
}

impl Measured {
    async fn commit_many(&self, batches: Vec<Batch>) -> Result<Vec<Result<Rev, Conflict>>, Error> {
        let (started, count) = (Instant::now(), batches.len());
        let done = self.engine.commit_many(batches).await;
        self.figures.see(|figures| figures.committed(started, count, &done));
        done
    }
}

async fn run(
    engine: &Measured,
    waiting: &mut mpsc::Receiver<Waiting>,
    stop: &supervise::Stop,
    failed: &mut watch::Receiver<Option<Error>>,
) -> Result<(), Error> {
    let mut next = Vec::with_capacity(MOST_TOGETHER);
    loop {
        tokio::select! {
            biased;
            error = failure(failed) => return Err(error),
            got = waiting.recv() => match got {
                Some(first) => next.push(first),
                None => return Ok(()),
            },
            // What was queued before the stop is still written: the queue is looked at first.
            () = stop.cancelled() => return Ok(()),
        }
        let mut bytes = size(&next);
        while next.len() < MOST_TOGETHER && bytes < MOST_BYTES_TOGETHER {
            let Ok(more) = waiting.try_recv() else { break };
            bytes += size(std::slice::from_ref(&more));
            next.push(more);
        }
        commit(engine, &mut next).await?;
    }
}

/// Ends when somebody else has found that the disk failed.
async fn failure(failed: &mut watch::Receiver<Option<Error>>) -> Error {
    match failed.wait_for(Option::is_some).await.map(|error| error.clone()) {
        Ok(Some(error)) => error,
        // The sender outlives the committer.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn size(waiting: &[Waiting]) -> usize {
    let ops = waiting.iter().flat_map(|(batch, _)| &batch.ops);
    ops.map(|op| if let Op::Put(_, value) = op { value.len() } else { 0 }).sum()
}

/// Commits what is in `next`, leaves it empty, and tells every waiter. Only an unknown outcome is an error.
async fn commit(engine: &Measured, next: &mut Vec<Waiting>) -> Result<(), Error> {
    let (batches, answers): (Vec<_>, Vec<_>) = next.drain(..).unzip();
    let mut removals = Vec::new();
    if batches.iter().any(|batch| !removes_only(batch)) {
        removals.extend(batches.iter().filter(|batch| removes_only(batch)).cloned());
    }
    let place: Vec<bool> = batches.iter().map(removes_only).collect();
    let mut done = engine.commit_many(batches).await;
    let mut answers: Vec<_> = answers.into_iter().zip(place).collect();
    if let Err(error @ Error::Full { .. }) = &done
        && !removals.is_empty()
    {
        // What makes room is not refused because it came together with what takes room.
        let error = error.clone();
        let (those, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, removes)| *removes);
        answers = those;
        for (answer, _) in others {
            drop(answer.send(Err(error.clone())));
        }
        done = engine.commit_many(removals).await;
    }
    // A waiter that has gone away does not want to know.
    match done {
        Ok(done) => {
            for ((answer, _), result) in answers.into_iter().zip(done) {
                drop(answer.send(Ok(result)));
            }
            Ok(())
        }
        Err(error) => {
            for (answer, _) in answers {
                drop(answer.send(Err(error.clone())));
            }
            match error {
                Error::Full { .. } | Error::TooLarge(_) => Ok(()),
                error => Err(error),
            }
        }
    }
}

fn removes_only(batch: &Batch) -> bool {
    batch.ops.iter().all(|op| matches!(op, Op::Delete(_)))
}
