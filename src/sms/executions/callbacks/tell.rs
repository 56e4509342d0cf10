//! The tries: one POST each, and what becomes of it.

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use net::outbound::site_of;
use std::time::Duration;
use store::Batch;
use supervise::backoff;
use tokio::time::Instant;
use types::{Callback, CallbackStatus, ErrorKind, Execution, Fault, Timestamp};

use super::{super::Service, agenda::Turn};
use crate::Config;

/// Tries at a time.
const TOGETHER: usize = 16;
/// Longest try.
const TRY: Duration = Duration::from_secs(10);
/// The pause after a try whose outcome could not be written.
const UNWRITTEN: Duration = Duration::from_secs(5);
/// Longest error that is kept, characters.
const MOST_ERROR: usize = 500;

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver knows.
    Known,
    /// It does not want to, ever.
    Unwanted(String),
    /// Perhaps later.
    Later(String),
}

impl Outcome {
    fn of(answer: Result<StatusCode, Fault>) -> Self {
        match answer {
            Ok(status) if status.is_success() => Self::Known,
            Ok(StatusCode::GONE) => Self::Unwanted(format!("the receiver answers {}", StatusCode::GONE)),
            Ok(status) => Self::Later(format!("the receiver answers {status}")),
            Err(fault) => Self::Later(fault.message),
        }
    }
}

/// Changes a record as the outcome of a try has it, which took some time.
pub(super) fn judge(callback: &mut Callback, outcome: &Outcome, (took, now): (Duration, Timestamp), config: &Config) {
    callback.tries = callback.tries.saturating_add(1);
    callback.spent_ms = callback.spent_ms.saturating_add(millis(took));
    callback.next_try_at = None;
    let (wrong, ended) = match outcome {
        Outcome::Known => {
            callback.status = CallbackStatus::Delivered;
            callback.last_error = None;
            return;
        }
        Outcome::Unwanted(wrong) => (wrong, true),
        Outcome::Later(wrong) => {
            let over = callback.spent_ms >= millis(config.callback_give_up_after);
            (wrong, over || callback.tries >= config.callback_tries)
        }
    };
    callback.last_error = Some(wrong.chars().take(MOST_ERROR).collect());
    if ended {
        callback.status = CallbackStatus::Failed;
        return;
    }
    let (first, most) = (config.callback_retry_first, config.callback_retry_most);
    let left = millis(config.callback_give_up_after).saturating_sub(callback.spent_ms);
    let pause = millis(backoff(first, most, callback.tries.saturating_sub(1)).min(most)).min(left);
    callback.spent_ms = callback.spent_ms.saturating_add(pause);
    callback.next_try_at = Some(Timestamp(now.millis().saturating_add(i64::try_from(pause).unwrap_or(i64::MAX))));
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What goes with the body.
fn headers(callback: &Callback, execution: &Execution) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        // Ids and numbers always fit; somebody else's trace may not, and is left out then.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let id = execution.id.to_string();
    put(header::CONTENT_TYPE, "application/json");
    put(HeaderName::from_static("spear-execution"), &id);
    put(HeaderName::from_static("spear-delivery"), &callback.tries.saturating_add(1).to_string());
    // A late report says something else than was said first: it must not be taken for a repeat.
    let key = if callback.round > 1 { format!("{id}-{}", callback.round) } else { id };
    put(HeaderName::from_static("idempotency-key"), &key);
    if let Some(traceparent) = &execution.traceparent {
        put(HeaderName::from_static(telemetry::trace::HEADER), traceparent);
    }
    headers
}

impl Service {
    /// Tells whatever is to be told; ends with a failure only.
    pub(in crate::executions) async fn keep_telling(&self) -> Result<(), Fault> {
        let agenda = &self.callbacks.agenda;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < TOGETHER
                && let Some(turn) = agenda.take(Instant::now())
            {
                under_way.push(Box::pin(self.tell(turn)));
            }
            let next = if under_way.len() < TOGETHER { agenda.next() } else { None };
            let time = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = under_way.next() => {}
                () = agenda.moved() => {}
                () = time => {}
            }
        }
    }

    /// One try. What cannot be read or written is tried again a little later.
    async fn tell(&self, turn: Turn) {
        if let Err(fault) = self.tell_once(&turn).await {
            tracing::warn!(execution = %turn.id, error = %fault, "how a callback went could not be written");
            self.callbacks.agenda.put_off(turn.id, Instant::now() + UNWRITTEN);
        }
    }

    async fn tell_once(&self, turn: &Turn) -> Result<(), Fault> {
        let callbacks = &self.callbacks;
        let Some(found) = callbacks.table.get(&turn.id).await? else {
            // Removed, which the agenda will hear.
            callbacks.agenda.put_off(turn.id, Instant::now() + UNWRITTEN);
            return Ok(());
        };
        let (callback, seen) = (found.record, found.modified);
        if callback.status != CallbackStatus::Pending {
            // Seen by the store, and soon by the agenda.
            callbacks.seen.reached(seen).await;
            return Ok(());
        }
        let execution = match self.get(turn.id).await {
            // Nothing of ours leaves one behind, but nobody could ever be told of it.
            Err(fault) if fault.kind == ErrorKind::NotFound => {
                callbacks.table.delete(&turn.id, Batch::new()).await?;
                callbacks.agenda.put_off(turn.id, Instant::now() + UNWRITTEN);
                return Ok(());
            }
            found => found?,
        };
        let begun = Instant::now();
        let outcome = Outcome::of(self.post(&callback, &execution).await);
        let (took, now, config) = (begun.elapsed(), self.clock.wall(), self.config.get());
        let changed = callbacks
            .table
            .update(&turn.id, |current, _| {
                // A later round has begun meanwhile, of which this try says nothing.
                let same = current.round == callback.round && current.status == CallbackStatus::Pending;
                if same {
                    judge(current, &outcome, (took, now), &config);
                }
                Ok::<_, Fault>(same)
            })
            .await?;
        match changed {
            Some((after, Some(rev))) => {
                self.told(&after);
                callbacks.seen.reached(rev).await;
            }
            Some((_, None)) => callbacks.seen.reached(seen.saturating_add(1)).await,
            None => callbacks.agenda.put_off(turn.id, Instant::now() + UNWRITTEN),
        }
        Ok(())
    }

    async fn post(&self, callback: &Callback, execution: &Execution) -> Result<StatusCode, Fault> {
        let poster = self.callbacks.poster()?;
        // As it is now: a late report may have come since it was asked to be told.
        let body = serde_json::to_vec(&self.whole(execution).await?);
        let body = body.map_err(|error| Fault::internal(format!("an execution is no JSON: {error}")))?;
        poster.post(&callback.url, headers(callback, execution), Bytes::from(body), TRY).await
    }

    /// Says and counts how it went.
    fn told(&self, after: &Callback) {
        let (execution, tries, to) = (after.id, after.tries, site_of(&after.url));
        let reason = after.last_error.as_deref().unwrap_or_default();
        let outcome = match after.status {
            CallbackStatus::Delivered => {
                tracing::debug!(%execution, to, tries, "a callback was delivered");
                "delivered"
            }
            CallbackStatus::Failed => {
                tracing::warn!(%execution, to, tries, reason, "a callback was given up");
                "failed"
            }
            CallbackStatus::Pending => {
                tracing::debug!(%execution, to, tries, reason, "a callback is tried again later");
                "retried"
            }
        };
        self.figures.see(|figures| figures.callbacks.with([outcome]).inc());
    }
}
