//! Random modules: none crashes, hangs or leaks, and an instance that was put back is like a new one. They are
//! compiled in this process; `tests/generated.rs` sends some through the compiling child.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use api::Invocation;
use runtime::{Artifact, Instance, InstanceSpec, InvokeError, Limits, LogBuffer, LogSink, Prepared, Runtime, Streams};
use types::Reason;

use crate::{
    Config, Wasm,
    engine::{self, Compiler, Loaded},
    generate::{Generated, generate},
    modules::Module,
    scan,
};

/// Time of a call.
const DEADLINE: Duration = Duration::from_millis(50);

fn count(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

struct Bench {
    wasm: Wasm,
    spec: Arc<InstanceSpec>,
    logs: LogSink,
    _buffer: LogBuffer,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wasm = Wasm::new(Config::new("/nonexistent", dir.path().join("cache"))).unwrap();
        let limits = Limits { wall: DEADLINE, memory_bytes: 16 << 20, ..Limits::default() };
        let (logs, _buffer) = LogBuffer::new(Arc::new(types::SystemClock::new()), 0, 1);
        let spec = Arc::new(InstanceSpec { limits, ..InstanceSpec::default() });
        Self { wasm, spec, logs, _buffer, _dir: dir }
    }

    async fn start(&self, module: &Arc<Module>) -> Result<Box<dyn Instance>, InvokeError> {
        let artifact = Artifact { digest: String::new(), path: "/nonexistent".into(), size: 0 };
        self.wasm.start(&Prepared { artifact, inner: module.clone() }, &self.spec).await
    }

    /// How a call ended, in words that are the same for the same end.
    async fn call(&self, instance: &mut Box<dyn Instance>, args: Vec<String>) -> String {
        let streams = Streams { logs: self.logs.clone(), logs_stdout: false, reply: None };
        match instance.invoke(Invocation { args, ..Invocation::default() }, streams).await {
            Ok(answer) => format!("exit {} {}", answer.ended.exit_code, String::from_utf8_lossy(&answer.result)),
            Err(error) => {
                assert_ne!(error.reason, Reason::Internal, "{error}");
                format!("{:?}: {error}", error.reason)
            }
        }
    }
}

/// What the child does, without the child; none: it does not compile.
#[expect(unsafe_code, reason = "loads code that was compiled a line before")]
fn compile(wasm: &[u8], compiler: Compiler) -> Option<Arc<Module>> {
    let facts = scan::scan(wasm).ok()?;
    // A panic would end the child, and it is the compilation that failed.
    let compiled = catch_unwind(AssertUnwindSafe(|| engine::compile(wasm, compiler)));
    let artifact = compiled.ok()?.ok()?;
    // SAFETY: compiled by this process just now.
    let loaded = unsafe { Loaded::new(artifact.into(), compiler, facts) }.unwrap();
    Some(Arc::new(Module::new(loaded)))
}

fn numbers(seed: u64, many: usize) -> impl Iterator<Item = String> {
    const NUMBERS: [&str; 9] = ["0", "1", "-1", "2", "255", "65535", "65536", "2147483647", "-2147483648"];
    (0..many).map(move |index| NUMBERS[(seed.wrapping_mul(31).wrapping_add(index as u64 * 7) % 9) as usize].to_owned())
}

fn lines(path: &str) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Threads, descriptors, mappings, kilobytes of memory.
fn held() -> [usize; 4] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes = resident.split_whitespace().next().unwrap().parse().unwrap();
    [entries("/proc/self/task"), entries("/proc/self/fd"), lines("/proc/self/maps"), kilobytes]
}

/// How many there are of each end.
type Ends = BTreeMap<String, u64>;

async fn every_function(bench: &Bench, seed: u64, generated: &Generated, ends: &mut Ends) {
    let compiler = if seed.is_multiple_of(8) { Compiler::Cranelift } else { Compiler::Singlepass };
    let Some(module) = compile(&generated.wasm, compiler).or_else(|| compile(&generated.wasm, Compiler::Cranelift))
    else {
        *ends.entry("not compiled".to_owned()).or_default() += 1;
        return;
    };
    let mut instance = None;
    for (name, many) in &generated.functions {
        let mut this = match instance.take() {
            Some(instance) => instance,
            None => match bench.start(&module).await {
                Ok(instance) => instance,
                Err(error) => {
                    assert_eq!(error.reason, Reason::Memory, "seed {seed}: {error}");
                    *ends.entry("larger than its limit".to_owned()).or_default() += 1;
                    return;
                }
            },
        };
        let began = Instant::now();
        let args = [name.clone()].into_iter().chain(numbers(seed, *many)).collect();
        let ended = bench.call(&mut this, args).await;
        let late = began.elapsed().saturating_sub(DEADLINE);
        assert!(late < Duration::from_secs(10), "seed {seed}, {name}: {ended} after {late:?}");
        let key = ended.split([' ', '(', '[']).take(4).collect::<Vec<_>>().join(" ");
        let key = if key.starts_with("exit") { "answered".to_owned() } else { key };
        let endless = key.starts_with("Deadline");
        *ends.entry(key).or_default() += 1;
        // One that does not end is enough of a module.
        if endless {
            return;
        }
        instance = Some(this).filter(|instance| instance.reusable());
    }
}

/// The full run has 100,000.
#[tokio::test]
async fn generated_modules_neither_crash_nor_hang_nor_leak() {
    let (modules, first) = (count("SPEAR_TEST_GENERATED", 240), count("SPEAR_TEST_SEED", 1));
    let bench = Bench::new();
    let mut ends = Ends::new();
    let mut before = None;
    let began = Instant::now();
    for seed in first..first + modules {
        // By then the largest of the usual ones has been: what the allocator keeps for it is no leak.
        if seed == first + modules / 2 {
            before = Some(held());
        }
        let Some(generated) = generate(seed, seed.is_multiple_of(2)) else { continue };
        every_function(&bench, seed, &generated, &mut ends).await;
        if (seed - first) % 5_000 == 4_999 {
            println!("{} modules, {:?}, held {:?}", seed - first + 1, began.elapsed(), held());
        }
    }
    let (before, after) = (before.unwrap(), held());
    println!(
        "{modules} modules from seed {first} in {:?}: {ends:#?}\nthreads, fds, mappings, kB: {before:?}, then {after:?}",
        began.elapsed()
    );
    assert!(after[0] <= before[0] + 2, "threads: {before:?} {after:?}");
    assert!(after[1] <= before[1] + 2, "descriptors: {before:?} {after:?}");
    assert!(after[2] <= before[2] + 60, "mappings: {before:?} {after:?}");
    assert!(after[3] <= before[3] + (64 << 10), "memory: {before:?} {after:?}");
    assert!(ends.get("answered").is_some_and(|times| *times > modules / 4), "most of them do something: {ends:?}");
}

/// What says whether an instance can be put back (`Facts::puts_back`) is right.
#[tokio::test]
async fn an_instance_that_was_put_back_is_like_a_new_one() {
    let (modules, first) = (count("SPEAR_TEST_COMPARED", 150), count("SPEAR_TEST_SEED", 1));
    let bench = Bench::new();
    let (mut compared, mut kept) = (0u64, 0u64);
    for seed in first..first + modules {
        let Some(generated) = generate(seed, !seed.is_multiple_of(4)) else { continue };
        let compiler = if seed.is_multiple_of(2) { Compiler::Cranelift } else { Compiler::Singlepass };
        let Some(module) = compile(&generated.wasm, compiler) else { continue };
        let Ok(mut pooled) = bench.start(&module).await else { continue };
        // Every function after every other one, twice around.
        let functions = &generated.functions;
        let order = (0..2).flat_map(|round| (0..functions.len()).map(move |index| (round, index)));
        let mut answers = BTreeMap::new();
        for (round, index) in order {
            let (name, many) = &functions[index];
            let args: Vec<_> = [name.clone()].into_iter().chain(numbers(seed + round, *many)).collect();
            let again = bench.call(&mut pooled, args.clone()).await;
            if !pooled.reusable() {
                let Ok(next) = bench.start(&module).await else { break };
                pooled = next;
            } else {
                kept += 1;
            }
            let new = match answers.get(&args) {
                Some(new) => String::clone(new),
                None => {
                    let Ok(mut fresh) = bench.start(&module).await else { break };
                    let new = bench.call(&mut fresh, args.clone()).await;
                    answers.insert(args.clone(), new.clone());
                    new
                }
            };
            if again.starts_with("Deadline") || new.starts_with("Deadline") {
                break;
            }
            assert_eq!(again, new, "seed {seed}, {args:?} ({})", compiler.as_str());
            compared += 1;
        }
    }
    println!("{modules} modules from seed {first}: {compared} calls compared, {kept} left an instance that was kept");
    assert!(compared > modules / 2 && kept > modules / 4, "{compared} compared, {kept} kept");
}

/// What both compilers understand differently is a defect of one of them, and may be a way out.
#[tokio::test]
async fn both_compilers_give_the_same_answers() {
    let (modules, first) = (count("SPEAR_TEST_BOTH", 100), count("SPEAR_TEST_SEED", 1));
    let bench = Bench::new();
    let mut compared = 0u64;
    for seed in first..first + modules {
        let Some(generated) = generate(seed, seed.is_multiple_of(2)) else { continue };
        let both = (compile(&generated.wasm, Compiler::Singlepass), compile(&generated.wasm, Compiler::Cranelift));
        let (Some(one), Some(other)) = both else { continue };
        for (name, many) in &generated.functions {
            let args: Vec<_> = [name.clone()].into_iter().chain(numbers(seed, *many)).collect();
            let mut ended = Vec::new();
            for module in [&one, &other] {
                let Ok(mut instance) = bench.start(module).await else { break };
                ended.push(bench.call(&mut instance, args.clone()).await);
            }
            let [one, other] = ended.as_slice() else { break };
            // How deep a stack is, and how long a loop takes, is the compiler's.
            let differs = |end: &str| end.starts_with("Deadline") || end.contains("call stack exhausted");
            if differs(one) || differs(other) {
                break;
            }
            assert_eq!(one, other, "seed {seed}, {args:?}");
            compared += 1;
        }
    }
    println!("{modules} modules from seed {first}: {compared} calls compared");
    assert!(compared > modules / 4, "{compared} compared");
}
