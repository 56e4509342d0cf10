//! From a source to the cache: bytes are counted, timed and hashed as they come, and nothing stays of a failure.

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use types::{ErrorKind, Fault};

use super::{
    Config, Held, Want,
    cache::Cache,
    disk,
    flight::Steps,
    hex,
    source::{self, Source},
};

/// Downloads a source into the cache.
pub(super) async fn run(
    config: &Config,
    cache: &Cache,
    want: &Want,
    mut source: Source,
    steps: &Steps,
) -> Result<Held, Fault> {
    if let Some(total) = source.total_bytes
        && total > want.limit
    {
        return Err(want.too_large(total));
    }
    let (temporary, mut file) = cache.temporary()?;
    let mut pace = Pace::new(config);
    let (mut hash, mut done) = (Sha256::new(), 0u64);
    let name = source::shown(&want.uri);
    steps.send_replace((0, source.total_bytes));
    loop {
        let Ok(next) = timeout(config.idle_timeout, source.bytes.next()).await else {
            let idle = config.idle_timeout.as_secs_f32();
            return Err(away(format!("{name}: no byte for {idle} s after {done} bytes")));
        };
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|error| source::named(&want.uri, net::client::fault_of(&error)))?;
        done += chunk.len() as u64;
        if done > want.limit {
            return Err(want.too_large(done));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(|error| disk(temporary.path(), &error))?;
        steps.send_replace((done, source.total_bytes));
        if let Some(slow) = pace.too_slow(done) {
            return Err(away(format!("{name}: {slow}")));
        }
    }
    if let Some(total) = source.total_bytes
        && total != done
    {
        return Err(away(format!("{name}: broke off after {done} of {total} bytes")));
    }
    let digest = hex(hash);
    if let Some(pin) = &want.pin
        && *pin != digest
    {
        return Err(want.checksum("the pinned checksum", pin, &digest));
    }
    if let Some(claim) = &source.sha256
        && *claim != digest
    {
        return Err(want.checksum("the source's checksum", claim, &digest));
    }
    file.sync_all().await.map_err(|error| disk(temporary.path(), &error))?;
    drop(file);
    cache.insert(temporary, &digest, done)
}

fn away(text: String) -> Fault {
    Fault::new(ErrorKind::Unavailable, "ARTIFACT_UNAVAILABLE", text)
}

/// A source that trickles is as bad as one that is silent.
struct Pace {
    minimum: u64,
    window: std::time::Duration,
    since: Instant,
    before: u64,
}

impl Pace {
    fn new(config: &Config) -> Self {
        Self { minimum: config.minimum_rate, window: config.rate_window, since: Instant::now(), before: 0 }
    }

    fn too_slow(&mut self, done: u64) -> Option<String> {
        let passed = self.since.elapsed();
        if passed < self.window {
            return None;
        }
        let came = done - self.before;
        let rate = came as f64 / passed.as_secs_f64();
        (self.since, self.before) = (Instant::now(), done);
        (rate < self.minimum as f64).then(|| {
            format!("too slow: {came} bytes in {:.1} s, at least {}/s are wanted", passed.as_secs_f32(), self.minimum)
        })
    }
}
