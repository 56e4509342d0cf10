#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use proptest::prelude::*;
use std::{
    fmt::Write as _,
    sync::OnceLock,
    time::{Duration, Instant},
};
use wasmer::{Engine, Extern, FunctionEnv, Instance, Store, Value, sys::NativeEngineExt};

use super::{names::all, process::Start, *};
use crate::{
    budget::{Budget, InstanceTunables},
    engine::{self, Compiler, Loaded},
    host::process::Arguments,
    mapping::Mappings,
    memory::Handles,
    watchdog::{Cpu, Until, Watchdog},
};
mod cancel;
mod driven;
mod files;
mod paths;
mod quota;

use runtime::{LogBuffer, Streams};
use types::{LogLine, SystemClock};

const PAGE: u32 = 65_536;

fn wat_type(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| if *kind == Kind::I32 { " i32" } else { " i64" }).collect()
}

/// A guest that imports every function of both versions and exports a caller of each.
fn caller() -> String {
    let (mut imports, mut functions) = (String::new(), String::new());
    for module in MODULES {
        for name in all().filter(|name| name.link_for(module).is_some()) {
            let id = format!("${module}.{}", name.name);
            let (params, results) = (wat_type(name.params), wat_type(name.results));
            let ty = format!("(param{params}) (result{results})");
            writeln!(imports, "(import \"{module}\" \"{}\" (func {id} {ty}))", name.name).unwrap();
            let gets: String = (0..name.params.len()).map(|index| format!(" (local.get {index})")).collect();
            let export = format!("{module}.{}", name.name);
            writeln!(functions, "(func (export \"{export}\") {ty} (call {id}{gets}))").unwrap();
        }
    }
    format!("(module {imports} (memory (export \"memory\") 1 2) {functions} (func (export \"_start\")))")
}

fn loaded() -> Arc<Loaded> {
    static LOADED: OnceLock<Arc<Loaded>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let wasm = wat::parse_str(caller()).unwrap();
            let facts = crate::scan(&wasm).unwrap();
            let artifact = engine::compile(&wasm, Compiler::Singlepass).unwrap();
            // SAFETY: compiled just now.
            #[expect(unsafe_code, reason = "loads what was compiled a line before")]
            Arc::new(unsafe { Loaded::new(artifact.into(), Compiler::Singlepass, facts) }.unwrap())
        })
        .clone()
}

/// A process whose functions a test calls one by one.
struct Bench {
    store: Store,
    env: FunctionEnv<Env>,
    instance: Instance,
    control: Arc<Control>,
    buffer: LogBuffer,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Start)) -> Self {
        let loaded = loaded();
        let control = Arc::new(Control::default());
        let clock = Arc::new(SystemClock::new());
        let (logs, buffer) = LogBuffer::new(clock.clone(), 1 << 20, 1);
        let mut start = Start {
            arguments: Arc::new(Arguments::new(["name", "one"], [("KEY", "value")]).unwrap()),
            stdout_bytes: 1000,
            stderr_bytes: 1000,
            streams: Streams::logged(logs),
            holds_logs: false,
            clock,
            grants: Vec::new(),
            descriptors: 64,
        };
        change(&mut start);
        let mut engine: Engine = loaded.engine().clone();
        let budget = Budget::new(10 << 20, telemetry::Gauge::default());
        engine.set_tunables(InstanceTunables::new(budget, Handles::new(Mappings::new(None), false), 1 << 20));
        let mut store = Store::new(engine);
        let process = Process::new(start, control.clone()).unwrap();
        let env = FunctionEnv::new(&mut store, Env { process: Some(process), memory: None });
        let imports: Vec<Extern> = loaded.links.iter().map(|link| Extern::Function(link(&mut store, &env))).collect();
        let instance = Instance::new_by_index(&mut store, loaded.module(), &imports).unwrap();
        env.as_mut(&mut store).memory = instance.exports.get_memory("memory").ok().cloned();
        Self { store, env, instance, control, buffer }
    }

    /// Calls a function with numbers cut to its parameters; its errno, or how it ended.
    fn call_in(&mut self, module: &str, name: &str, args: &[u64]) -> Result<u32, End> {
        let found = find(module, name).unwrap();
        let values: Vec<Value> = found
            .params
            .iter()
            .zip(args.iter().chain(std::iter::repeat(&0)))
            .map(|(kind, value)| match kind {
                Kind::I32 => Value::I32((*value as u32).cast_signed()),
                Kind::I64 => Value::I64(value.cast_signed()),
            })
            .collect();
        let function = self.instance.exports.get_function(&format!("{module}.{name}")).unwrap();
        match function.call(&mut self.store, &values) {
            Ok(results) => Ok(results.first().map_or(0, |value| value.unwrap_i32().cast_unsigned())),
            Err(error) => Err(error.downcast::<End>().unwrap_or_else(|error| panic!("{name}{args:?}: {error}"))),
        }
    }

    fn call(&mut self, name: &str, args: &[u64]) -> Result<u32, End> {
        self.call_in(MODULES[0], name, args)
    }

    fn write(&self, at: u32, bytes: &[u8]) {
        let memory = self.instance.exports.get_memory("memory").unwrap();
        memory.view(&self.store).write(u64::from(at), bytes).unwrap();
    }

    fn read<const N: usize>(&self, at: u32) -> [u8; N] {
        let mut bytes = [0; N];
        let memory = self.instance.exports.get_memory("memory").unwrap();
        memory.view(&self.store).read(u64::from(at), &mut bytes).unwrap();
        bytes
    }

    fn u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.read(at))
    }

    fn u64(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.read(at))
    }

    fn vector(&self, at: u32, address: u32, length: u32) {
        self.write(at, &address.to_le_bytes());
        self.write(at + 4, &length.to_le_bytes());
    }

    fn process(&mut self) -> &mut Process {
        self.env.as_mut(&mut self.store).process.as_mut().unwrap()
    }

    /// Ends it: what it wrote to stdout, and its log.
    fn finish(mut self) -> (Vec<u8>, Vec<LogLine>) {
        let left = self.env.as_mut(&mut self.store).process.take().unwrap().finish(false);
        (left.stdout, self.buffer.drain())
    }
}

const FAULT: u32 = Errno::Fault as u32;
const BADF: u32 = Errno::Badf as u32;
const INVAL: u32 = Errno::Inval as u32;

#[test]
fn every_function_of_the_interface_is_there_once() {
    let names: Vec<_> = all().map(|name| name.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 46);
    assert_eq!(names.len(), 46);
    assert!(find("wasi_snapshot_preview1", "sock_accept").is_some());
    assert!(find("wasi_unstable", "sock_accept").is_none(), "the older version does not have it");
    assert!(find("wasi_snapshot_preview2", "fd_read").is_none());
}

#[test]
fn arguments_and_environment_arrive_with_their_zero_bytes() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.call("args_sizes_get", &[0, 4]), Ok(0));
    assert_eq!((bench.u32(0), bench.u32(4)), (2, 9));
    assert_eq!(bench.call("args_get", &[100, 200]), Ok(0));
    assert_eq!((bench.u32(100), bench.u32(104)), (200, 205));
    assert_eq!(&bench.read::<9>(200), b"name\0one\0");
    assert_eq!(bench.call("environ_sizes_get", &[0, 4]), Ok(0));
    assert_eq!((bench.u32(0), bench.u32(4)), (1, 10));
    assert_eq!(bench.call("environ_get", &[100, 200]), Ok(0));
    assert_eq!(&bench.read::<10>(200), b"KEY=value\0");
}

#[test]
fn strings_a_guest_could_not_read_are_refused_by_name() {
    let refused = |args: &[&str], env: &[(&str, &str)]| {
        Arguments::new(args.iter().copied(), env.iter().copied()).unwrap_err().message
    };
    assert_eq!(refused(&["a", "b\0c"], &[]), "args[1]: has a zero byte");
    assert!(refused(&[], &[("A=B", "")]).starts_with("env: \"A=B\""));
    assert!(refused(&[], &[("", "")]).starts_with("env: \"\""));
    assert!(refused(&[&"x".repeat(3 << 20)], &[]).contains("the limits are"));
}

#[test]
fn clocks_run_and_unknown_ones_are_refused() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.call("clock_time_get", &[0, 0, 0]), Ok(0));
    assert!(bench.u64(0) > 1_700_000_000_000_000_000, "nanoseconds since 1970");
    assert_eq!(bench.call("clock_time_get", &[1, 0, 8]), Ok(0));
    assert_eq!(bench.call("clock_time_get", &[1, 0, 16]), Ok(0));
    assert!(bench.u64(16) >= bench.u64(8), "monotonic time does not go backwards");
    assert_eq!(bench.call("clock_res_get", &[0, 0]), Ok(0));
    assert_eq!(bench.u64(0), 1_000_000);
    assert_eq!(bench.call("clock_res_get", &[1, 0]), Ok(0));
    assert_eq!(bench.u64(0), 1);
    for name in ["clock_time_get", "clock_res_get"] {
        assert_eq!(bench.call(name, &[4, 0, 0]), Ok(INVAL));
    }
}

#[test]
fn processor_time_is_that_of_the_guest_alone_and_stands_still_while_it_sleeps() {
    let mut bench = Bench::new(|_| {});
    let cpu = |bench: &mut Bench, id: u64| {
        assert_eq!(bench.call("clock_time_get", &[id, 0, 0]), Ok(0));
        bench.u64(0)
    };
    let first = cpu(&mut bench, 2);
    assert_eq!(first, 0, "what the thread did before is not the guest's");
    bench.write(100, &clock(false, 1, 50_000_000, 0));
    assert_eq!(bench.call("poll_oneoff", &[100, 200, 1, 300]), Ok(0));
    let slept = cpu(&mut bench, 3);
    assert!(slept > 0 && slept < 50_000_000, "{slept}");
}

#[test]
fn random_bytes_fill_exactly_what_was_asked_for() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.call("random_get", &[100, 64]), Ok(0));
    assert_ne!(bench.read::<64>(100), [0; 64]);
    assert_eq!(bench.read::<16>(164), [0; 16]);
    assert_eq!(bench.read::<16>(84), [0; 16]);
    assert_eq!(bench.call("random_get", &[0, u64::from(PAGE)]), Ok(0));
    assert_eq!(bench.call("random_get", &[1, u64::from(PAGE)]), Ok(FAULT));
}

#[test]
fn output_is_gathered_in_order_and_over_its_limit_ends_the_guest() {
    let mut bench = Bench::new(|start| start.stdout_bytes = 10);
    bench.write(100, b"hello\n");
    bench.write(200, b"oops\n");
    bench.vector(0, 100, 6);
    bench.vector(8, 100, 3);
    assert_eq!(bench.call("fd_write", &[1, 0, 2, 16]), Ok(0));
    assert_eq!(bench.u32(16), 9);
    bench.vector(0, 200, 5);
    assert_eq!(bench.call("fd_write", &[2, 0, 1, 16]), Ok(0));
    assert_eq!(bench.call("fd_write", &[1, 0, 1, 16]), Err(End::Stopped));
    let stopped = bench.control.stopped().unwrap();
    assert_eq!(stopped.message, "standard output is over its limit of 10 bytes");
    let (stdout, lines) = bench.finish();
    assert_eq!(stdout, b"hello\nhelo", "what fits is kept");
    let lines: Vec<_> = lines.iter().map(|line| (line.stream.as_str(), line.message.as_str())).collect();
    assert_eq!(lines, [("stdout", "hello"), ("stderr", "oops"), ("stdout", "helo")]);
}

#[test]
fn standard_error_over_its_limit_is_cut_and_counted() {
    let mut bench = Bench::new(|start| start.stderr_bytes = 3);
    bench.write(100, b"abcdef\n");
    bench.vector(0, 100, 7);
    assert_eq!(bench.call("fd_write", &[2, 0, 1, 16]), Ok(0));
    assert_eq!(bench.u32(16), 7, "the guest does not notice");
    let (_, lines) = bench.finish();
    let lines: Vec<_> = lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines, ["stderr: 4 more bytes were not kept (limit 3)", "abc"]);
}

#[tokio::test]
async fn input_is_scattered_into_the_vectors_and_ends() {
    let mut bench = Bench::new(|_| {});
    bench.control.input.push("abcdef".into()).await;
    bench.vector(0, 100, 2);
    bench.vector(8, 200, 0);
    bench.vector(16, 300, 3);
    assert_eq!(bench.call("fd_read", &[0, 0, 3, 400]), Ok(0));
    assert_eq!(bench.u32(400), 5);
    assert_eq!((&bench.read::<2>(100), &bench.read::<3>(300)), (b"ab", b"cde"));
    bench.control.input.end();
    assert_eq!(bench.call("fd_read", &[0, 0, 3, 400]), Ok(0));
    assert_eq!((bench.u32(400), &bench.read::<1>(100)), (1, b"f"));
    assert_eq!(bench.call("fd_read", &[0, 0, 3, 400]), Ok(0));
    assert_eq!(bench.u32(400), 0, "the end is 0 bytes, again and again");
}

#[test]
fn a_nonblocking_read_says_try_again() {
    let mut bench = Bench::new(|_| {});
    bench.vector(0, 100, 2);
    assert_eq!(bench.call("fd_fdstat_set_flags", &[0, 4]), Ok(0));
    assert_eq!(bench.call("fd_read", &[0, 0, 1, 400]), Ok(Errno::Again as u32));
    assert_eq!(bench.call("fd_fdstat_get", &[0, 8]), Ok(0));
    let stat = bench.read::<24>(8);
    assert_eq!((stat[0], stat[2]), (0, 4), "neither file nor terminal; its flags");
    assert_eq!(bench.call("fd_fdstat_set_flags", &[0, 1 << 20]), Ok(INVAL));
}

#[test]
fn descriptors_close_move_and_are_checked() {
    let mut bench = Bench::new(|_| {});
    bench.vector(0, 100, 1);
    assert_eq!(bench.call("fd_write", &[0, 0, 1, 16]), Ok(BADF), "stdin is not written to");
    assert_eq!(bench.call("fd_read", &[1, 0, 1, 16]), Ok(BADF), "stdout is not read from");
    assert_eq!(bench.call("fd_renumber", &[2, 1]), Ok(0));
    assert_eq!(bench.call("fd_write", &[2, 0, 1, 16]), Ok(BADF), "it was moved away");
    assert_eq!(bench.call("fd_write", &[1, 0, 1, 16]), Ok(0));
    assert_eq!(bench.call("fd_renumber", &[1, 2]), Ok(BADF), "only open ones are replaced");
    assert_eq!(bench.call("fd_close", &[1]), Ok(0));
    assert_eq!(bench.call("fd_close", &[1]), Ok(BADF));
    assert_eq!(bench.call("fd_close", &[3]), Ok(BADF));
    assert_eq!(bench.call("fd_close", &[u64::from(u32::MAX)]), Ok(BADF));
    let (stdout, lines) = bench.finish();
    assert!(stdout.is_empty(), "it went to standard error: {lines:?}");
}

#[test]
fn rights_can_only_be_given_up() {
    let mut bench = Bench::new(|_| {});
    bench.vector(0, 100, 1);
    assert_eq!(bench.call("fd_fdstat_set_rights", &[1, 0, 0]), Ok(0));
    assert_eq!(bench.call("fd_write", &[1, 0, 1, 16]), Ok(BADF));
    assert_eq!(bench.call("fd_fdstat_set_rights", &[1, 64, 0]), Ok(Errno::Notcapable as u32));
}

#[test]
fn what_needs_files_or_sockets_answers_as_for_a_stream() {
    let mut bench = Bench::new(|_| {});
    bench.write(0, b"xxxxxxxx");
    for (name, args, answer) in [
        ("fd_seek", &[1, 0, 1, 0][..], Errno::Spipe as u32),
        ("fd_seek", &[1, 0, 3, 0], Errno::Spipe as u32),
        ("fd_tell", &[1, 0], Errno::Spipe as u32),
        ("fd_prestat_get", &[3, 0], BADF),
        ("fd_prestat_dir_name", &[3, 0, 0], BADF),
        ("fd_prestat_dir_name", &[1, 0, 0], Errno::Notdir as u32),
        ("path_open", &[3, 0, 0, 1, 0, 0, 0, 0, 0], BADF),
        ("path_open", &[0, 0, 0, 1, 0, 0, 0, 0, 0], BADF),
        ("path_unlink_file", &[1, 0, 1], BADF),
        ("path_symlink", &[0, 1, 2, 0, 1], BADF),
        ("path_symlink", &[0, 1, 7, 0, 1], BADF),
        ("fd_readdir", &[1, 0, 10, 0, 20], BADF),
        ("sock_send", &[1, 0, 1, 0, 0], Errno::Notsock as u32),
        ("sock_accept", &[9, 0, 0], BADF),
        ("fd_sync", &[1], BADF),
        ("fd_advise", &[1, 0, 0, 0], BADF),
        ("fd_pread", &[0, 0, 0, 0, 20], Errno::Spipe as u32),
        ("fd_pread", &[1, 0, 0, 0, 20], BADF),
        ("fd_pwrite", &[1, 0, 0, 0, 20], Errno::Spipe as u32),
        ("fd_filestat_set_size", &[1, 0], BADF),
        ("fd_filestat_set_times", &[1, 0, 0, 0], BADF),
    ] {
        assert_eq!(bench.call(name, args), Ok(answer), "{name}{args:?}");
    }
}

#[test]
fn the_older_version_has_a_shorter_filestat() {
    let mut bench = Bench::new(|_| {});
    bench.write(0, &[0xff; 80]);
    assert_eq!(bench.call_in("wasi_unstable", "fd_filestat_get", &[1, 0]), Ok(0));
    assert_eq!((bench.read::<56>(0), bench.read::<8>(56)), ([0; 56], [0xff; 8]));
    assert_eq!(bench.call("fd_filestat_get", &[1, 0]), Ok(0));
    assert_eq!((bench.read::<64>(0), bench.read::<8>(64)), ([0; 64], [0xff; 8]));
}

/// A clock subscription of either layout.
fn clock(older: bool, id: u32, nanoseconds: u64, flags: u16) -> Vec<u8> {
    let mut bytes = vec![0; if older { 56 } else { 48 }];
    let at = bytes.len() - 32;
    bytes[0] = 7;
    bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&nanoseconds.to_le_bytes());
    bytes[at + 24..at + 26].copy_from_slice(&flags.to_le_bytes());
    bytes
}

#[test]
fn poll_waits_for_clocks_of_both_versions() {
    for (older, module) in [(false, MODULES[0]), (true, MODULES[1])] {
        for (id, flags) in [(0, 0), (1, 0), (1, 1)] {
            let mut bench = Bench::new(|_| {});
            bench.write(0, &clock(older, id, 3_000_000, flags));
            let begun = Instant::now();
            assert_eq!(bench.call_in(module, "poll_oneoff", &[0, 200, 1, 300]), Ok(0));
            assert_eq!(bench.u32(300), 1);
            let event = bench.read::<32>(200);
            assert_eq!((event[0], event[8], event[10]), (7, 0, 0), "userdata, errno, type");
            assert!(flags == 1 || begun.elapsed() >= Duration::from_millis(3));
        }
    }
}

#[tokio::test]
async fn poll_tells_of_input_output_and_bad_descriptors() {
    let mut bench = Bench::new(|_| {});
    let stream = |kind: u8, fd: u8| {
        let mut bytes = [0; 48];
        (bytes[8], bytes[16]) = (kind, fd);
        bytes
    };
    bench.write(0, &stream(2, 1));
    bench.write(48, &stream(1, 0));
    bench.write(96, &stream(1, 9));
    bench.write(144, &clock(false, 99, 0, 0));
    assert_eq!(bench.call("poll_oneoff", &[0, 1000, 4, 2000]), Ok(0));
    assert_eq!(bench.u32(2000), 3, "nothing can be read yet");
    assert_eq!(bench.read::<32>(1000)[8..11], [0, 0, 2], "output is always possible");
    assert_eq!(bench.read::<32>(1032)[8..11], [8, 0, 1], "no such descriptor");
    assert_eq!(bench.read::<32>(1064)[8..11], [28, 0, 0], "no such clock");
    bench.control.input.push("abc".into()).await;
    assert_eq!(bench.call("poll_oneoff", &[48, 1000, 1, 2000]), Ok(0));
    assert_eq!(bench.u64(1016), 3, "bytes that can be read");
    bench.write(300, &[0; 8]);
    bench.vector(400, 500, 9);
    assert_eq!(bench.call("fd_read", &[0, 400, 1, 300]), Ok(0));
    bench.control.input.end();
    assert_eq!(bench.call("poll_oneoff", &[48, 1000, 1, 2000]), Ok(0));
    assert_eq!(bench.read::<32>(1000)[24], 1, "the end is told as a hang-up");
}

#[test]
fn two_clocks_of_one_length_end_together() {
    let mut bench = Bench::new(|_| {});
    for (id, at) in [(0, 0), (1, 48), (1, 96)] {
        bench.write(at, &clock(false, id, 2_000_000, 0));
    }
    assert_eq!(bench.call("poll_oneoff", &[0, 200, 3, 400]), Ok(0));
    assert_eq!(bench.u32(400), 3);
}

#[test]
fn poll_refuses_none_too_many_and_unknown_subscriptions() {
    let mut bench = Bench::new(|_| {});
    for count in [0, 1025, 1_000_000, u64::from(u32::MAX)] {
        assert_eq!(bench.call("poll_oneoff", &[0, 100, count, 200]), Ok(INVAL));
    }
    bench.write(8, &[77]);
    assert_eq!(bench.call("poll_oneoff", &[0, 100, 1, 200]), Ok(INVAL));
    bench.write(0, &clock(false, 1, 0, 2));
    assert_eq!(bench.call("poll_oneoff", &[0, 100, 1, 200]), Ok(INVAL), "no such flag");
}

#[test]
fn signals_end_the_guest_as_a_shell_tells_it() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.call("proc_raise", &[0]), Ok(0));
    assert_eq!(bench.call("proc_raise", &[16]), Ok(0), "ignored by default");
    assert_eq!(bench.call("proc_raise", &[6]), Err(End::Exit(134)));
    assert_eq!(bench.call("proc_raise", &[31]), Ok(INVAL));
    assert_eq!(bench.call("proc_exit", &[7]), Err(End::Exit(7)));
    assert_eq!(bench.call("proc_exit", &[u64::from(u32::MAX)]), Err(End::Exit(-1)));
}

#[test]
fn every_pointer_out_of_range_is_a_fault() {
    let mut bench = Bench::new(|start| {
        start.arguments = Arc::new(Arguments::new(["name", "one", "two"], [("KEY", "value")]).unwrap())
    });
    bench.control.input.end();
    let end = u64::from(PAGE);
    let outside = [end, end - 1, end - 3, u64::from(u32::MAX), u64::from(u32::MAX) - 3, 1 << 31];
    bench.vector(0, 100, 4);
    bench.vector(8, 60_000, 6_000);
    bench.vector(16, u32::MAX, u32::MAX);
    for bad in outside {
        for (name, args) in [
            ("args_get", &[bad, 0][..]),
            ("args_get", &[100, bad]),
            ("args_sizes_get", &[bad, 0]),
            ("args_sizes_get", &[0x100, bad]),
            ("environ_get", &[bad, 0x100]),
            ("environ_get", &[0x100, bad]),
            ("environ_sizes_get", &[bad, 0x100]),
            ("clock_res_get", &[0, bad]),
            ("clock_time_get", &[0, 0, bad]),
            ("random_get", &[bad, 8]),
            ("random_get", &[0x100, bad]),
            ("fd_fdstat_get", &[0, bad]),
            ("fd_filestat_get", &[0, bad]),
            ("fd_read", &[0, bad, 1, 0x100]),
            ("fd_read", &[0, 0, 1, bad]),
            ("fd_read", &[0, 8, 1, 0x100]),
            ("fd_write", &[1, bad, 1, 0x100]),
            ("fd_write", &[1, 0, 1, bad]),
            ("fd_write", &[1, 8, 1, 0x100]),
            ("fd_write", &[1, 16, 1, 0x100]),
            ("poll_oneoff", &[bad, 0x100, 1, 0x200]),
            ("poll_oneoff", &[0x1000, bad, 1, 0x200]),
            ("poll_oneoff", &[0x1000, 0x100, 1, bad]),
        ] {
            assert_eq!(bench.call(name, args), Ok(FAULT), "{name}{args:?}");
        }
    }
    // Lengths that overflow together, and more vectors than allowed.
    bench.vector(0, 0, u32::MAX);
    bench.vector(8, 0, 8);
    assert_eq!(bench.call("fd_write", &[1, 8, 1025, 0x100]), Ok(INVAL));
    assert_eq!(bench.call("fd_write", &[1, 0, 2, 0x100]), Ok(FAULT));
}

#[test]
fn a_stopped_guest_gets_no_answer_from_any_function() {
    let mut bench = Bench::new(|_| {});
    bench.control.stop(types::Reason::Cancelled, "cancelled");
    for name in all().filter(|name| name.name != "proc_exit") {
        assert_eq!(bench.call(name.name, &[0; 9]), Err(End::Stopped), "{}", name.name);
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..5,
        3 => 0u64..2048,
        3 => (u64::from(PAGE) - 64)..(u64::from(PAGE) + 64),
        2 => (u64::from(u32::MAX) - 64)..=u64::from(u32::MAX),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a guest passes, it gets an errno or ends; the host never panics and memory stays in bounds.
    #[test]
    fn no_argument_of_any_function_does_harm(
        calls in proptest::collection::vec((0usize..91, proptest::collection::vec(number(), 9)), 40),
        noise in proptest::collection::vec(prop_oneof![4 => 0u8..4, 1 => any::<u8>()], 2048),
    ) {
        let mut bench = Bench::new(|start| start.stdout_bytes = 100_000);
        bench.write(0, &noise);
        bench.control.input.end();
        let watchdog = Watchdog::start().unwrap();
        let limit = Duration::from_millis(100);
        let cpu = Cpu { thread: 0, before: Duration::ZERO, limit: limit * 2 };
        let until = Until { deadline: Instant::now() + limit, limit, cpu: Some(cpu) };
        let _watch = watchdog.watch(until, bench.control.clone());
        let table: Vec<_> = MODULES
            .iter()
            .flat_map(|module| all().filter(|name| name.link_for(module).is_some()).map(|name| (*module, name.name)))
            .collect();
        prop_assert_eq!(table.len(), 91);
        for (index, args) in calls {
            let (module, name) = table[index];
            match bench.call_in(module, name, &args) {
                Ok(errno) => prop_assert!(errno <= 76, "{name}{args:?} answered {errno}"),
                Err(End::Exit(_)) => prop_assert!(name.starts_with("proc_")),
                Err(End::Stopped) => {}
            }
        }
    }
}
