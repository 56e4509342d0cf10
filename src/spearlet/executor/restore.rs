//! Takes up what the last process left: however it ended, the store says where every execution stood.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};
use store::{Batch, Store, decode, encode};
use types::{ErrorKind, ExecutionId, ExecutionStatus, Fault, Keyed, LogId, Reason, TaskId, TaskPriority};

use super::{
    Deps,
    book::{About, Book, State},
    logs::LogFile,
    records::{Accepted, Done, Ending, RESULTS, result_key},
};

const RESTARTED: &str = "the node restarted while it ran";

/// The book as the store has it. Executions that had begun and have no result are over: they are not run again.
///
/// # Errors
/// When the store or the log directory cannot be read.
pub(crate) async fn restore(deps: &Deps, logs: &Path) -> Result<Book, Fault> {
    let unusable = |error: io::Error| {
        let message = format!("cannot use the log directory {}: {error}", logs.display());
        Fault::new(ErrorKind::Internal, "STORAGE_FAILED", message)
    };
    tokio::fs::create_dir_all(logs).await.map_err(unusable)?;
    let config = deps.config.get();
    let mut book = Book::new(config.concurrency, config.queue);
    for done in all::<Done>(&deps.store).await? {
        if let Some(old) = book.mark_done(done.execution_id, done.attempt) {
            deps.store.commit(Batch::new().delete(format!("{}{old}", Done::PREFIX))).await?;
        }
    }
    let mut kept = BTreeSet::new();
    for ending in all::<Ending>(&deps.store).await? {
        // What has ended is never queued again: only its id counts.
        let about = About { task: TaskId::default(), priority: TaskPriority::Normal, log_id: LogId::default() };
        book.insert(ending.execution_id, ending.attempt, about, State::Unreported);
        kept.insert(ending.execution_id);
    }
    for accepted in all::<Accepted>(&deps.store).await? {
        let id = accepted.execution_id;
        kept.insert(id);
        let state = match accepted.started_at {
            None => State::Queued,
            Some(_) => {
                bury(deps, logs, &accepted).await?;
                State::Unreported
            }
        };
        let about = About { task: accepted.task_id, priority: accepted.priority, log_id: accepted.log_id };
        book.insert(id, accepted.attempt, about, state);
    }
    sweep_results(&deps.store, &kept).await?;
    sweep_logs(logs, &kept).await.map_err(unusable)?;
    if !kept.is_empty() {
        tracing::info!(executions = kept.len(), waiting = book.waiting(), "took up what was left");
    }
    Ok(book)
}

async fn all<R: Keyed>(store: &Store) -> Result<Vec<R>, Fault> {
    let mut found = Vec::new();
    store.scan(R::PREFIX, |record| found.push(decode::<R>(&record.key, &record.value))).await?;
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}

/// One commit: an execution that ran when the process ended is over without a result.
async fn bury(deps: &Deps, logs: &Path, accepted: &Accepted) -> Result<(), Fault> {
    let (id, now) = (accepted.execution_id, deps.clock.wall());
    tracing::warn!(execution = %id, attempt = accepted.attempt, "it ran when the node stopped; reported as lost");
    // A missing file begins with line 1: an earlier attempt elsewhere may have written more, then the registry
    // skips these lines.
    let mut log = LogFile::open(logs, id, 1).await;
    log.finish(&*deps.clock, "error", format!("ended: {RESTARTED}")).await;
    let of = (id, accepted.attempt);
    let mut ending = Ending::new(of, ExecutionStatus::Failed, Reason::NodeLost, RESTARTED, now);
    ending.started_at = accepted.started_at;
    deps.store.commit(Batch::new().delete(accepted.key()).put(ending.key(), encode(&ending)?)).await?;
    Ok(())
}

/// Results whose execution is over: none are left by a commit of ours, but a result is never worth a leak.
async fn sweep_results(store: &Store, kept: &BTreeSet<ExecutionId>) -> Result<(), Fault> {
    let mut orphans = Vec::new();
    let mut after: Option<String> = None;
    loop {
        // Few at a time: results may be large.
        let page = store.list(RESULTS, after.as_deref(), 8).await?;
        for record in &page.records {
            let id = record.key.strip_prefix(RESULTS).and_then(|id| id.parse::<ExecutionId>().ok());
            match id {
                Some(id) if kept.contains(&id) => {}
                Some(id) => orphans.push(result_key(id)),
                None => {}
            }
        }
        match page.records.last() {
            Some(last) => after = Some(last.key.clone()),
            None => break,
        }
    }
    if !orphans.is_empty() {
        let batch = orphans.into_iter().fold(Batch::new(), Batch::delete);
        store.commit(batch).await?;
    }
    Ok(())
}

/// Removes logs of executions that are over: a crash came between their last commit and this.
async fn sweep_logs(logs: &Path, kept: &BTreeSet<ExecutionId>) -> io::Result<()> {
    let mut files = tokio::fs::read_dir(logs).await?;
    while let Some(file) = files.next_entry().await? {
        let path: PathBuf = file.path();
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<ExecutionId>().ok());
        if path.extension().is_some_and(|extension| extension == "ndjson") && id.is_some_and(|id| !kept.contains(&id)) {
            tokio::fs::remove_file(&path).await?;
        }
    }
    Ok(())
}
