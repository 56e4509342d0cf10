//! Guests that do not want to end, to fit, or to leave this process alone: several hundred small programs, each with
//! the end it must come to.
//!
//! ```text
//!   group: one module, one export a case ─► singlepass, cranelift ─► fresh │ pooled │ inline ─► end? ─► echo right?
//! ```
//! After every single case another guest must answer rightly.

mod arithmetic;
mod bombs;
mod bulk;
mod features;
mod host;
mod indirect;
mod loops;
mod memory;
mod output;
mod segments;
mod stack;

pub use loops::endless;

use runtime::{Grants, InstanceSpec, Limits};
use std::{
    sync::{Arc, Mutex},
    thread::ThreadId,
    time::{Duration, Instant},
};
use types::{Clock, Reason, SystemClock, Timestamp};

use crate::{
    bench::{Bench, Function, call, wasm},
    programs::ECHO,
};
use api::Invocation;

pub const COMPILERS: [&str; 2] = ["singlepass", "cranelift"];

/// How a case ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Well, with this answer.
    Answer(String),
    /// With this exit code.
    Exit(i32),
    /// Well, with one of these answers.
    OneOf(Vec<String>),
    /// Well, with the number of an error.
    Errno,
    /// For a reason, with one of these in its message (`|` between them).
    Fails(Reason, String),
}

/// One call of the module of a group.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    args: Vec<String>,
    body: bytes::Bytes,
    end: End,
}

/// Cases that share a module, each with an export of its own.
pub struct Group {
    name: &'static str,
    imports: String,
    /// Other fields of the module.
    fields: String,
    functions: String,
    memory: &'static str,
    pub limits: Limits,
    pub grants: Grants,
    pub cases: Vec<Case>,
    /// What can compile it.
    compilers: &'static [&'static str],
    /// Are its cases short enough to be run where the caller is?
    short: bool,
    /// Are its instances put back for the next call?
    kept: bool,
}

const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
"#;

impl Group {
    pub fn new(name: &'static str, fields: impl Into<String>) -> Self {
        let limits = Limits { wall: Duration::from_secs(60), ..Limits::default() };
        let memory = "(memory (export \"memory\") 2 8)";
        let (fields, functions, cases) = (fields.into(), String::new(), Vec::new());
        Self {
            name,
            imports: IMPORTS.to_owned(),
            fields,
            functions,
            memory,
            limits,
            grants: Grants::default(),
            cases,
            compilers: &COMPILERS,
            short: true,
            kept: true,
        }
    }

    /// With other memories than one of two pages that may have eight.
    pub fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// With more functions of the host.
    pub fn imports(mut self, imports: &str) -> Self {
        self.imports.push_str(imports);
        self
    }

    /// With instructions that only the optimising compiler knows.
    pub fn simd(mut self) -> Self {
        self.compilers = &["cranelift"];
        self
    }

    /// With cases that take longer than a try may.
    pub fn long(mut self) -> Self {
        self.short = false;
        self
    }

    /// With code that changes what is not put back.
    pub fn fresh(mut self) -> Self {
        (self.short, self.kept) = (false, false);
        self
    }

    /// A function `(func (export NAME) …text…)` and nothing that calls it.
    pub fn function(&mut self, name: &str, text: &str) {
        self.functions.push_str(&format!("(func (export \"{name}\") {text})\n"));
    }

    /// Calls a function that is there.
    pub fn case(&mut self, name: &str, args: &[&str], end: End) {
        let args = [name].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        let name = format!("{}: {name} {args:?}", self.name);
        self.cases.push(Case { name, args, body: bytes::Bytes::new(), end });
    }

    /// A function without parameters that ends so.
    pub fn ends(&mut self, name: &str, text: &str, end: End) {
        self.function(name, text);
        self.case(name, &[], end);
    }

    /// A function without parameters that traps so.
    pub fn traps(&mut self, name: &str, text: &str, message: &str) {
        self.ends(name, text, End::Fails(Reason::Trap, message.to_owned()));
    }

    /// A function without parameters that answers so.
    pub fn answers(&mut self, name: &str, text: &str, answer: &str) {
        self.ends(name, text, End::Answer(answer.to_owned()));
    }

    pub fn text(&self) -> String {
        let Self { imports, fields, functions, memory, .. } = self;
        format!(
            r#"(module {imports} {memory} {fields} {functions}
              (func (export "fine") (result i32)
                (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0))) (i32.const 7)))"#
        )
    }
}

/// Tells on which thread a guest asked for the time.
#[derive(Default)]
struct Whose {
    clock: SystemClock,
    last: Mutex<Option<ThreadId>>,
}

impl Clock for Whose {
    fn wall(&self) -> Timestamp {
        *self.last.lock().unwrap() = Some(std::thread::current().id());
        self.clock.wall()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// How a call is made.
struct Way {
    compiler: &'static str,
    how: &'static str,
    kept: bool,
}

/// A runtime, another guest in it, and who asked for the time.
pub struct Stage {
    bench: Bench,
    echo: Function,
    whose: Arc<Whose>,
    echoes: u64,
    /// The longest that a call took after its end was due.
    overshoot: Duration,
}

impl Stage {
    pub async fn new() -> Self {
        let whose = Arc::new(Whose::default());
        let bench = Bench::with(|config| {
            config.clock = whose.clone();
            config.concurrency = 8;
        });
        let echo = bench.function(&wasm(ECHO), "cranelift", InstanceSpec::default()).await.unwrap();
        Self { bench, echo, whose, echoes: 0, overshoot: Duration::ZERO }
    }

    /// Another guest still answers rightly.
    async fn echo(&mut self, after: &str) {
        self.echoes += 1;
        let text = format!("{} after {after}", self.echoes);
        let answer = self.echo.invoke(Invocation::new(text.clone())).await.unwrap_or_else(|error| {
            panic!("after {after}: {:?}: {error}", error.reason);
        });
        assert_eq!(answer.result, text, "after {after}");
    }

    /// One call, and what must come of it.
    async fn one(&mut self, function: &mut Function, case: &Case, deadline: Option<Duration>, way: &Way) {
        let Way { how, kept, .. } = *way;
        let name = format!("{} ({}, {how})", case.name, way.compiler);
        let invocation =
            Invocation { args: case.args.clone(), body: case.body.clone().into(), deadline, ..Invocation::default() };
        let began = Instant::now();
        let ended = function.invoke(invocation).await;
        if let (Some(deadline), Err(_)) = (deadline, &ended) {
            self.overshoot = self.overshoot.max(began.elapsed().saturating_sub(deadline));
        }
        match (ended, &case.end) {
            (Ok(answer), End::Answer(expected)) => {
                assert_eq!(String::from_utf8_lossy(&answer.result), *expected, "{name}");
                assert_eq!(answer.ended.exit_code, 0, "{name}");
                assert_eq!(function.keeps_one(), kept, "{name}: is an instance that ended well kept?");
            }
            (Ok(answer), End::OneOf(all)) => {
                assert!(all.iter().any(|one| answer.result == *one), "{name}: {:?}", answer.result);
            }
            (Ok(answer), End::Errno) => {
                let errno: i32 = std::str::from_utf8(&answer.result).unwrap().parse().unwrap();
                assert!((1..=76).contains(&errno), "{name}: {errno}");
            }
            (Ok(answer), End::Exit(code)) => assert_eq!(answer.ended.exit_code, *code, "{name}"),
            (Err(error), End::Fails(reason, parts)) => {
                assert_eq!(error.reason, *reason, "{name}: {error}");
                assert!(parts.split('|').any(|part| error.message.contains(part)), "{name}: {error}");
                assert!(!error.message.contains('\n') && error.message.len() < 600, "{name}: {error}");
                assert!(!function.keeps_one(), "{name}: an instance that failed is not kept");
            }
            (ended, expected) => panic!("{name} ended as {ended:?}, not {expected:?}"),
        }
        self.echo(&name).await;
    }

    /// Calls until calls are run where the caller is.
    async fn warm(&mut self, function: &mut Function) {
        for _ in 0..5_000 {
            *self.whose.last.lock().unwrap() = None;
            assert_eq!(function.invoke(call(["fine"])).await.unwrap().result, "7");
            if *self.whose.last.lock().unwrap() == Some(std::thread::current().id()) {
                return;
            }
        }
        panic!("calls never became quick");
    }

    /// Every case of a group in every way.
    pub async fn run(&mut self, group: &Group, deadline: Option<Duration>) {
        let module = wasm(&group.text());
        for compiler in group.compilers.iter().copied() {
            let (limits, grants) = (group.limits.clone(), group.grants.clone());
            let spec = InstanceSpec { name: "guest".into(), limits, grants, ..InstanceSpec::default() };
            let mut function = self.bench.function(&module, compiler, spec).await.unwrap_or_else(|error| {
                panic!("{} ({compiler}): {error}", group.name);
            });
            let way = |how| Way { compiler, how, kept: group.kept };
            for case in &group.cases {
                function.forget();
                self.one(&mut function, case, deadline, &way("fresh")).await;
                if deadline.is_none() {
                    assert_eq!(function.invoke(call(["fine"])).await.unwrap().result, "7");
                    self.one(&mut function, case, deadline, &way("pooled")).await;
                }
                if group.short {
                    self.warm(&mut function).await;
                    self.one(&mut function, case, deadline, &way("inline")).await;
                }
            }
        }
        println!("{}: {} cases, at most {:?} late", group.name, group.cases.len(), self.overshoot);
    }
}

/// All groups.
fn groups() -> Vec<Group> {
    let themes: [fn() -> Vec<Group>; 7] = [
        arithmetic::groups,
        indirect::groups,
        memory::groups,
        bulk::groups,
        stack::groups,
        host::groups,
        output::groups,
    ];
    themes.into_iter().flat_map(|theme| theme()).collect()
}

/// Runs the groups of a theme.
pub async fn run(groups: Vec<Group>) {
    let mut stage = Stage::new().await;
    for group in &groups {
        stage.run(group, None).await;
    }
}

#[test]
fn there_are_at_least_three_hundred_cases() {
    let cases: usize = groups().iter().map(|group| group.cases.len()).sum();
    let alone = loops::endless().len() + loops::stubborn().len() + segments::cases().len() + features::off().len();
    println!("{cases} cases in groups, {alone} with modules of their own");
    assert!(cases + alone >= 300, "{cases} + {alone}");
}
