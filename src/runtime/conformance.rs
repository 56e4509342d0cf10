//! What every runtime must do, as a suite that each one runs.
//!
//! A runtime says by [`Programs`] which of its artifacts behaves how; the suite calls them and looks.

use futures_util::{StreamExt, stream};
use std::{path::Path, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use types::{Reason, SystemClock};

use api::{Invocation, Outcome, invocation};

use crate::{Artifact, InstanceSpec, InvokeError, Limits, LogBuffer, Runtime};

/// Artifacts that behave in known ways.
pub trait Programs: Send + Sync {
    /// Copies its standard input to its standard output.
    fn echo(&self) -> Vec<u8>;
    /// Ends with exit code 7.
    fn fail_7(&self) -> Vec<u8>;
    /// Traps.
    fn trap(&self) -> Vec<u8>;
    /// Never ends by itself.
    fn endless(&self) -> Vec<u8>;
    /// Writes more to standard output than [`LIMIT_STDOUT`].
    fn flood(&self) -> Vec<u8>;
    /// Is nothing the runtime can run.
    fn garbage(&self) -> Vec<u8>;
}

/// The limit of standard output that the suite sets.
pub const LIMIT_STDOUT: usize = 64 * 1024;

struct Bench<'a> {
    runtime: &'a dyn Runtime,
    dir: &'a Path,
}

impl Bench<'_> {
    async fn call(
        &self,
        name: &str,
        program: &[u8],
        change: impl FnOnce(&mut Invocation),
    ) -> Result<Outcome, InvokeError> {
        let path = self.dir.join(name);
        std::fs::write(&path, program).expect("the suite can write its directory");
        let limits = Limits { stdout_bytes: LIMIT_STDOUT, ..Limits::default() };
        let artifact = Artifact { digest: format!("suite-{name}"), path, size: program.len() as u64 };
        let prepared = self.runtime.prepare(&artifact, &limits).await?;
        let (sink, _buffer) = LogBuffer::new(Arc::new(SystemClock::new()), LIMIT_STDOUT, 1);
        let spec = InstanceSpec { name: name.to_owned(), limits };
        let mut instance = self.runtime.start(&prepared, &spec, sink).await?;
        let mut call = Invocation {
            args: Vec::new(),
            env: Default::default(),
            body: invocation::full(""),
            deadline: Duration::from_secs(20),
            cancel: CancellationToken::new(),
        };
        change(&mut call);
        let outcome = instance.invoke(call).await;
        instance.stop(Duration::from_secs(1)).await;
        outcome
    }
}

/// Runs the whole suite; panics where the runtime does not conform.
///
/// # Panics
/// That is its purpose.
pub async fn run(runtime: &dyn Runtime, programs: &dyn Programs, dir: &Path) {
    let bench = Bench { runtime, dir };

    let echoed = bench.call("echo", &programs.echo(), |call| call.body = invocation::full("hello")).await;
    assert_eq!(echoed.expect("echo ends").result, "hello", "echo returns its input");

    let pieces = || stream::iter(["a", "b", "c"].map(|piece| Ok(piece.into()))).boxed();
    let streamed = bench.call("echo", &programs.echo(), |call| call.body = pieces()).await;
    assert_eq!(streamed.expect("echo ends").result, "abc", "input arrives in order");

    let failed = bench.call("fail", &programs.fail_7(), |_| {}).await.expect("a failing guest ends by itself");
    assert_eq!(failed.exit_code, 7);

    let trap = bench.call("trap", &programs.trap(), |_| {}).await.expect_err("a trap is an error");
    assert_eq!(trap.reason, Reason::Trap, "{trap}");

    let short = |call: &mut Invocation| call.deadline = Duration::from_millis(200);
    let late = bench.call("endless", &programs.endless(), short).await.expect_err("an endless guest is stopped");
    assert_eq!(late.reason, Reason::Deadline, "{late}");

    let cancelled = bench
        .call("endless", &programs.endless(), |call| {
            let cancel = call.cancel.clone();
            std::thread::spawn(move || {
                std::thread::park_timeout(Duration::from_millis(100));
                cancel.cancel();
            });
        })
        .await
        .expect_err("a cancelled guest is stopped");
    assert_eq!(cancelled.reason, Reason::Cancelled, "{cancelled}");

    // A body that never ends must not keep a guest that is over its deadline.
    let silent = bench
        .call("echo", &programs.echo(), |call| {
            call.body = stream::pending().boxed();
            call.deadline = Duration::from_millis(200);
        })
        .await
        .expect_err("a guest that reads for ever is stopped");
    assert_eq!(silent.reason, Reason::Deadline, "{silent}");

    let flood = bench.call("flood", &programs.flood(), |_| {}).await.expect_err("a flood is stopped");
    assert_eq!(flood.reason, Reason::Output, "{flood}");

    let garbage = bench.call("garbage", &programs.garbage(), |_| {}).await.expect_err("garbage is refused");
    assert_eq!(garbage.reason, Reason::InvalidModule, "{garbage}");

    let echo = programs.echo();
    let many = (0..8).map(|index| {
        let (bench, echo) = (&bench, &echo);
        async move {
            let text = format!("call {index}");
            let body = invocation::full(text.clone());
            let done = bench.call(&format!("echo-{index}"), echo, |call| call.body = body).await;
            assert_eq!(done.expect("parallel calls end").result, text, "calls do not mix");
        }
    });
    futures_util::future::join_all(many).await;
}
