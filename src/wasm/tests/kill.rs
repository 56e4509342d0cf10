//! Many kills at once, of every kind: the process survives each of them, and all of them come in time.

use runtime::{InstanceSpec, InvokeError, Limits, Streams, reply};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use types::Reason;

use crate::{
    bench::{Bench, Function, block_on, wasm},
    hostile::{COMPILERS, endless},
    isolation::{Random, count},
    programs::command,
};
use api::Invocation;

/// How a guest is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Deadline,
    Cancel,
    /// Nobody waits for it any more.
    Drop,
    Processor,
    Output,
    /// Whoever read its answer went away.
    Reader,
}

/// Mostly deadlines.
const MIX: [How; 10] = [
    How::Deadline,
    How::Cancel,
    How::Deadline,
    How::Drop,
    How::Deadline,
    How::Processor,
    How::Deadline,
    How::Output,
    How::Deadline,
    How::Reader,
];

/// A guest that never ends by itself.
struct Guest {
    name: &'static str,
    module: Vec<u8>,
    /// Does it work all the time?
    busy: bool,
}

/// How late ends were, by kind and guest.
type Late = Mutex<BTreeMap<(How, &'static str), Vec<Duration>>>;

fn guests() -> Vec<Guest> {
    let all = endless().into_iter();
    all.map(|(name, wat)| Guest { name, module: wasm(&wat), busy: name != "poll that sleeps for ever" }).collect()
}

fn flood() -> Vec<u8> {
    wasm(&command(
        "(i32.store (i32.const 4) (i32.const 1000))
         (loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
    ))
}

/// One guest, ended one way; how late, where that can be said.
async fn kill(
    bench: &Bench,
    guest: &Guest,
    flood: &[u8],
    how: How,
    compiler: &str,
    after: Duration,
) -> Option<Duration> {
    let mut limits = Limits { wall: Duration::from_secs(60), stdout_bytes: 100_000, ..Limits::default() };
    match how {
        How::Deadline => limits.wall = after,
        How::Processor => limits.cpu = after,
        How::Reader => limits.stdout_bytes = usize::MAX,
        _ => {}
    }
    let module = if matches!(how, How::Output | How::Reader) { flood } else { &guest.module };
    let spec = InstanceSpec { limits, ..InstanceSpec::default() };
    let mut function = bench.function(module, compiler, spec).await.unwrap();
    let name = guest.name;
    match how {
        How::Deadline => {
            let began = Instant::now();
            expect(name, &mut function, Reason::Deadline, "still running at its deadline").await;
            Some(began.elapsed().saturating_sub(after))
        }
        How::Processor => {
            expect(name, &mut function, Reason::Deadline, "of processor time").await;
            None
        }
        How::Output => {
            expect(name, &mut function, Reason::Output, "standard output is over its limit").await;
            None
        }
        How::Cancel => {
            let call = Invocation::default();
            let cancel = call.cancel.clone();
            let stop = async {
                tokio::time::sleep(after).await;
                cancel.cancel();
                Instant::now()
            };
            let (ended, cancelled) = tokio::join!(function.invoke(call), stop);
            check(name, ended, Reason::Cancelled, "cancelled");
            Some(cancelled.elapsed())
        }
        How::Drop => {
            let dropped = tokio::time::timeout(after, function.invoke(Invocation::default())).await;
            assert!(dropped.is_err(), "{name}");
            None
        }
        How::Reader => {
            let (writer, mut reader) = reply();
            let streams = Streams { logs: function.logs(), logs_stdout: false, reply: Some(writer) };
            let pieces = after.subsec_micros() % 5;
            let read = async move {
                for _ in 0..pieces {
                    assert!(reader.next().await.is_some());
                }
                drop(reader);
                Instant::now()
            };
            let (ended, gone) = tokio::join!(function.invoke_with(Invocation::default(), streams), read);
            check(name, ended, Reason::Cancelled, "nobody reads its answer any more");
            Some(gone.elapsed())
        }
    }
}

async fn expect(name: &str, function: &mut Function, reason: Reason, message: &str) {
    check(name, function.invoke(Invocation::default()).await, reason, message);
}

fn check(name: &str, ended: Result<runtime::Answer, InvokeError>, reason: Reason, message: &str) {
    let error = ended.expect_err(name);
    assert_eq!(error.reason, reason, "{name}: {error}");
    assert!(error.message.contains(message), "{name}: {error}");
}

/// How late calls of one kind ended.
struct Lateness {
    times: usize,
    p50: Duration,
    p99: Duration,
    p999: Duration,
    most: Duration,
}

impl Lateness {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        Self { times: times.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), most: at(1.0) }
    }
}

impl std::fmt::Display for Lateness {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { times, p50, p99, p999, most } = self;
        write!(out, "{times} times, late p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}, at most {most:?}")
    }
}

/// Kills in four threads; the full run has 25,000 in each.
#[test]
fn kills_of_every_kind_in_four_threads_all_end() {
    let kills = count("SPEAR_TEST_KILLS", 500);
    let began = Instant::now();
    let bench = Arc::new(Bench::new());
    println!("a runtime with its self-test in {:?}", began.elapsed());
    let guests = Arc::new(guests());
    let flood = Arc::new(flood());
    block_on(async {
        for guest in guests.iter() {
            bench.prepare(&guest.module).await.unwrap();
        }
    });
    let late: Arc<Late> = Arc::default();
    let began = Instant::now();
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (bench, guests, flood, late) = (bench.clone(), guests.clone(), flood.clone(), late.clone());
            std::thread::spawn(move || {
                let random = Random::new(thread);
                block_on(async {
                    for _ in 0..kills {
                        let how = MIX[random.below(MIX.len())];
                        let guest = loop {
                            let guest = &guests[random.below(guests.len())];
                            // One that sleeps uses no time of the processor.
                            if guest.busy || how != How::Processor {
                                break guest;
                            }
                        };
                        let after = Duration::from_micros(300 + random.next() % 6000);
                        let compiler = COMPILERS[random.below(2)];
                        if let Some(time) = kill(&bench, guest, &flood, how, compiler, after).await {
                            late.lock().unwrap().entry((how, guest.name)).or_default().push(time);
                        }
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    println!("{} kills in {:?}", 4 * kills, began.elapsed());
    let mut late = std::mem::take(&mut *late.lock().unwrap());
    let kinds: BTreeSet<How> = late.keys().map(|(how, _)| *how).collect();
    for how in kinds {
        let of_kind = late.extract_if((how, "")..(how, "\u{7f}"), |_, _| true).collect::<Vec<_>>();
        let all = Lateness::of(of_kind.iter().flat_map(|(_, times)| times).copied().collect());
        println!("{how:?}: {all}");
        let by_guest = of_kind.into_iter().map(|((_, name), times)| (Lateness::of(times), name));
        for (guest, name) in by_guest.filter(|(guest, _)| guest.p99 > all.p99) {
            println!("    {name}: {guest}");
        }
    }
    every_place_is_free(&bench);
}

/// As many calls as there are places run at once: nobody keeps one.
fn every_place_is_free(bench: &Bench) {
    let echo = wasm(crate::programs::ECHO);
    block_on(async {
        let calls = (0..64).map(|index| {
            let echo = &echo;
            async move {
                let input = futures_util::stream::once(std::future::ready(Ok(format!("{index}").into())));
                let body = api::Body::stream(input);
                assert_eq!(bench.call(echo, |call| call.body = body).await.text(), index.to_string());
            }
        });
        futures_util::future::join_all(calls).await;
    });
}

fn held(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_leave_no_threads_descriptors_or_mappings_behind() {
    let bench = Bench::with(|config| config.concurrency = 4);
    let modules: Vec<_> =
        ["", "(unreachable)", "(call $proc_exit (i32.const 3))", "(drop (memory.grow (i32.const 10)))"]
            .iter()
            .map(|body| wasm(&crate::programs::command(body)))
            .chain(endless().into_iter().take(3).map(|(_, wat)| wasm(&wat)))
            .collect();
    let round = async || {
        let calls = modules
            .iter()
            .map(|module| bench.call(module, |call| call.deadline = Duration::from_millis(5)))
            .collect::<Vec<_>>();
        futures_util::future::join_all(calls).await
    };
    for _ in 0..20 {
        round().await;
    }
    let before = (held("task"), held("fd"), mappings());
    for _ in 0..300 {
        round().await;
    }
    let after = (held("task"), held("fd"), mappings());
    assert!(after.0 <= before.0 + 2, "threads: {before:?} {after:?}");
    assert!(after.1 <= before.1 + 2, "descriptors: {before:?} {after:?}");
    assert!(after.2 <= before.2 + 40, "mappings: {before:?} {after:?}");
}
