//! Guests that write a secret everywhere a guest can write, and guests that look at everything a guest can see. What a
//! spy sees is one number, made of all its state: it is the same as in the first call of an instance, or something of
//! an earlier call is left.

use futures_util::{StreamExt, stream};
use runtime::{Directory, Grants, InstanceSpec, Limits, Reuse, Scratch};
use std::time::Duration;

use super::{Random, count};
use crate::bench::{Bench, Function, call, wasm};
use api::{Body, Invocation};

/// Ways to leave something behind. Each takes the secret.
const SCRIBBLES: [&str; 14] = [
    "fill",
    "bytes",
    "few",
    "bulk",
    "copy",
    "init",
    "read",
    "random",
    "grown",
    "args",
    "deep",
    "descriptors",
    "files",
    "exit",
];

fn module(vectors: bool) -> Vec<u8> {
    let yes = |text: &'static str| if vectors { text } else { "" };
    let imports: String = [
        ("args_get", "i32 i32"),
        ("args_sizes_get", "i32 i32"),
        ("environ_get", "i32 i32"),
        ("environ_sizes_get", "i32 i32"),
        ("fd_read", "i32 i32 i32 i32"),
        ("fd_write", "i32 i32 i32 i32"),
        ("fd_close", "i32"),
        ("fd_renumber", "i32 i32"),
        ("fd_fdstat_get", "i32 i32"),
        ("fd_fdstat_set_flags", "i32 i32"),
        ("fd_fdstat_set_rights", "i32 i64 i64"),
        ("random_get", "i32 i32"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("path_create_directory", "i32 i32 i32"),
        ("fd_readdir", "i32 i32 i32 i64 i32"),
    ]
    .iter()
    .map(|(name, params)| {
        format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {params}) (result i32)))\n")
    })
    .collect();
    let hash = |name: &str, memory: &str| {
        format!(
            "(func ${name} (param $h i64) (param $at i32) (param $end i32) (result i64)
               (loop
                 (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $h))))
                 (local.set $h (i64.mul (i64.xor (local.get $h) (i64.load {memory} (local.get $at))) (i64.const 1099511628211)))
                 (local.set $at (i32.add (local.get $at) (i32.const 8)))
                 (br 0))
               (unreachable))"
        )
    };
    let store = |name: &str, memory: &str, step: u32| {
        format!(
            "(func ${name} (param $secret i64) (param $at i32) (param $end i32)
               (loop
                 (if (i32.ge_u (local.get $at) (local.get $end)) (then (return)))
                 (i64.store {memory} (local.get $at) (local.get $secret))
                 (local.set $at (i32.add (local.get $at) (i32.const {step})))
                 (br 0)))"
        )
    };
    wasm(&format!(
        r#"(module {imports}
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") 4 20) (memory $second 1 4)
          (data (i32.const 1000) "what a module begins with") (data (memory $second) (i32.const 65518) "the edge of a page")
          (data $passive "0123456789abcdef")
          (table $t 4 funcref) (elem (table $t) (i32.const 1) func $one) (elem declare func $two)
          (global $i32 (mut i32) (i32.const 11)) (global $i64 (mut i64) (i64.const 22))
          (global $f32 (mut f32) (f32.const 3.5)) (global $f64 (mut f64) (f64.const 4.5))
          (global $function (mut funcref) (ref.func $one)) (global $none (mut funcref) (ref.null func))
          (global $extern (mut externref) (ref.null extern))
          {vector_global}
          (func $one (result i64) (i64.const 1)) (func $two (result i64) (i64.const 2))
          {hash} {hash_second} {store} {store_second} {touch}
          (func $globals (param $secret i64)
            (global.set $i32 (i32.wrap_i64 (local.get $secret))) (global.set $i64 (local.get $secret))
            (global.set $f32 (f32.reinterpret_i32 (i32.wrap_i64 (local.get $secret))))
            (global.set $f64 (f64.reinterpret_i64 (local.get $secret)))
            (global.set $function (ref.func $two)) (global.set $none (ref.func $two))
            {vector_set})
          (func $grow
            (drop (memory.grow (i32.const 16))) (drop (memory.grow $second (i32.const 3))))
          (func (export "fill") (param $secret i64)
            (call $globals (local.get 0)) (call $grow)
            (call $store (local.get 0) (i32.const 0) (i32.const 1310720))
            (call $store_second (local.get 0) (i32.const 0) (i32.const 262144)))
          (func (export "bytes") (param $secret i64)
            (call $globals (local.get 0)) (call $touch (local.get 0) (i32.const 40) (i32.const 262144)))
          (func (export "few") (param $secret i64)
            (call $globals (local.get 0))
            (i64.store (i32.const 8) (local.get 0)) (i64.store (i32.const 1000) (local.get 0))
            (i64.store (i32.const 70000) (local.get 0)) (i64.store (i32.const 262136) (local.get 0))
            (i64.store $second (i32.const 65528) (local.get 0)))
          (func (export "bulk") (param $secret i64)
            (call $grow)
            (memory.fill (i32.const 0) (i32.wrap_i64 (local.get 0)) (i32.const 1310720))
            (memory.fill $second (i32.const 1) (i32.wrap_i64 (local.get 0)) (i32.const 262143)))
          (func (export "copy") (param $secret i64)
            (call $grow) (i64.store (i32.const 0) (local.get 0))
            (memory.copy (i32.const 8) (i32.const 0) (i32.const 1310712))
            (memory.copy $second 0 (i32.const 0) (i32.const 65536) (i32.const 262144)))
          (func (export "init") (param $secret i64)
            (memory.init $passive (i32.const 1000) (i32.const 0) (i32.const 16))
            (memory.init $second $passive (i32.const 65520) (i32.const 0) (i32.const 16))
            (i64.store (i32.const 200000) (local.get 0)))
          (func (export "read") (param $secret i64)
            ;; The host writes to pages that no code has touched; half of the input is left.
            (call $grow)
            (i32.store (i32.const 0) (i32.const 900000)) (i32.store (i32.const 4) (i32.const 5000))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func (export "random") (param $secret i64)
            (drop (call $random_get (i32.const 100000) (i32.const 100000))))
          (func (export "grown") (param $secret i64)
            (call $grow)
            (call $store (local.get 0) (i32.const 262144) (i32.const 1310720)))
          (func (export "args") (param $secret i64)
            (drop (call $args_get (i32.const 0) (i32.const 131072)))
            (drop (call $environ_get (i32.const 4096) (i32.const 140000)))
            (i64.store (i32.const 150000) (local.get 0)))
          (func $deep (export "deep") (param $secret i64) (local i64 i64 i64)
            (local.set 1 (local.get 0)) (local.set 2 (local.get 0)) (local.set 3 (local.get 0))
            (if (i64.ne (global.get $i64) (i64.const 900)) (then
              (global.set $i64 (i64.add (global.get $i64) (i64.const 1)))
              (call $deep (i64.xor (local.get 1) (i64.add (local.get 2) (local.get 3)))))))
          (func (export "descriptors") (param $secret i64)
            (drop (call $fd_fdstat_set_flags (i32.const 0) (i32.const 4)))
            (drop (call $fd_fdstat_set_rights (i32.const 1) (i64.const 64) (i64.const 0)))
            (drop (call $fd_renumber (i32.const 1) (i32.const 2)))
            (drop (call $fd_close (i32.const 0)))
            (drop (call $fd_close (i32.const 3))))
          (func (export "files") (param $secret i64)
            ;; A directory and a file named after the secret, the file written to and left open.
            (i64.store (i32.const 0) (i64.or (i64.const 7016996765293437281) (i64.and (local.get 0) (i64.const 1085102592571150095))))
            (i64.store (i32.const 8) (local.get 0))
            (drop (call $path_create_directory (i32.const 3) (i32.const 0) (i32.const 7)))
            (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 1) (i64.const 536870911) (i64.const 0) (i32.const 0) (i32.const 16)))
            (i32.store (i32.const 20) (i32.const 8)) (i32.store (i32.const 24) (i32.const 8))
            (drop (call $fd_write (i32.load (i32.const 16)) (i32.const 20) (i32.const 1) (i32.const 32))))
          (func (export "exit") (param $secret i64)
            (call $globals (local.get 0)) (call $grow) (call $store (local.get 0) (i32.const 0) (i32.const 500000))
            (call $proc_exit (i32.wrap_i64 (i64.and (local.get 0) (i64.const 3)))))
          (func (export "trap") (param $secret i64)
            (call $globals (local.get 0)) (call $grow) (call $store (local.get 0) (i32.const 0) (i32.const 1310720))
            (unreachable))
          (func (export "endless") (param $secret i64)
            (call $globals (local.get 0)) (call $grow)
            (loop (call $store (local.get 0) (i32.const 0) (i32.const 1310720)) (br 0)))
          (func $state (result i64) (local $h i64)
            (local.set $h (i64.const -3750763034362895579))
            (local.set $h (call $hash (local.get $h) (i32.const 0) (i32.mul (memory.size) (i32.const 65536))))
            (local.set $h (call $hash_second (local.get $h) (i32.const 0) (i32.mul (memory.size $second) (i32.const 65536))))
            (local.set $h (i64.xor (local.get $h) (i64.extend_i32_u (global.get $i32))))
            (local.set $h (i64.add (local.get $h) (global.get $i64)))
            (local.set $h (i64.xor (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (i32.reinterpret_f32 (global.get $f32)))))
            (local.set $h (i64.xor (i64.mul (local.get $h) (i64.const 31)) (i64.reinterpret_f64 (global.get $f64))))
            {vector_look}
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (ref.is_null (global.get $none)))))
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (ref.is_null (global.get $function)))))
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (ref.is_null (global.get $extern)))))
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (ref.is_null (table.get $t (i32.const 0))))))
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (call_indirect $t (result i64) (i32.const 1))))
            (local.set $h (i64.add (i64.mul (local.get $h) (i64.const 31)) (i64.extend_i32_u (table.size $t))))
            (local.get $h))
          (func $outside (result i64) (local $h i64) (local $fd i32)
            ;; What is left of the input, the arguments, the variables, every descriptor, the directory.
            (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 60000))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
            (drop (call $environ_sizes_get (i32.const 24) (i32.const 28)))
            (drop (call $environ_get (i32.const 70000) (i32.const 80000)))
            (loop
              (i32.store (i32.add (i32.const 120000) (i32.mul (local.get $fd) (i32.const 4)))
                (call $fd_fdstat_get (local.get $fd) (i32.add (i32.const 121000) (i32.mul (local.get $fd) (i32.const 24)))))
              (br_if 0 (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 40))))
            (if (i32.eqz (call $fd_readdir (i32.const 3) (i32.const 130000) (i32.const 4000) (i64.const 2) (i32.const 129996)))
              ;; The numbers of files differ from call to call: only how much there is counts.
              (then (memory.fill (i32.const 130000) (i32.const 0) (i32.const 4000))))
            (call $state))
          (func (export "spy") (result i64 i64) (call $state) (call $outside))
          (func (export "spyall") (result i64 i64) (call $grow) (call $state) (call $outside)))"#,
        vector_global = yes("(global $v (mut v128) (v128.const i64x2 5 6))"),
        vector_set = yes("(global.set $v (i64x2.splat (local.get $secret)))"),
        vector_look = yes(
            "(local.set $h (i64.xor (i64.mul (local.get $h) (i64.const 31)) (i64x2.extract_lane 0 (global.get $v))))
             (local.set $h (i64.xor (i64.mul (local.get $h) (i64.const 31)) (i64x2.extract_lane 1 (global.get $v))))"
        ),
        hash = hash("hash", ""),
        hash_second = hash("hash_second", "$second"),
        store = store("store", "", 8),
        store_second = store("store_second", "$second", 8),
        touch = store("touch", "", 4096),
    ))
}

fn spec(grants: Grants) -> InstanceSpec {
    let limits = Limits { wall: Duration::from_secs(60), ..Limits::default() };
    InstanceSpec { name: "tenant".into(), limits, grants, ..InstanceSpec::default() }
}

fn scratch() -> Grants {
    Grants { scratch: Some(Scratch { guest: "/tmp".into(), bytes: 1 << 20, entries: 64 }), ..Grants::default() }
}

/// What a call is given; as a stream it cannot be run where the caller is.
fn body(text: String, streams: bool) -> Body {
    match streams {
        false => text.into(),
        true => Body::stream(stream::iter([Ok(text.into())]).boxed()),
    }
}

async fn scribble(function: &mut Function, way: &str, secret: u64, streams: bool) {
    let text = format!("secret {secret:016x} ").repeat(600);
    let secret_text = secret.cast_signed().to_string();
    let mut invocation = Invocation { body: body(text.clone(), streams), ..call([way, &secret_text]) };
    invocation.env = [("SECRET".to_owned(), text)].into();
    let ended = function.invoke(invocation).await;
    ended.unwrap_or_else(|error| panic!("{way}: {:?}: {error}", error.reason));
}

async fn spy(function: &mut Function, way: &str, streams: bool) -> String {
    let invocation = Invocation { body: body(String::new(), streams), ..call([way]) };
    let answer = function.invoke(invocation).await.unwrap_or_else(|error| panic!("{way}: {error}"));
    String::from_utf8(answer.result.to_vec()).unwrap()
}

/// `calls` calls, half of them spies, over three functions of two modules.
async fn alternate(compiler: &str, grants: Grants, calls: usize) {
    let bench = Bench::with(|config| config.concurrency = 4);
    let (module, other) = (module(compiler == "cranelift"), {
        // The same, and yet another: a section of its own at the end.
        let mut bytes = module(compiler == "cranelift");
        bytes.extend_from_slice(b"\0\x03\x02x\0");
        bytes
    });
    let mut functions = [
        bench.function(&module, compiler, spec(grants.clone())).await.unwrap(),
        bench.function(&module, compiler, spec(grants.clone())).await.unwrap(),
        bench.function(&other, compiler, spec(grants.clone())).await.unwrap(),
    ];
    let mut clean = Vec::new();
    for way in ["spy", "spyall"] {
        clean.push(spy(&mut bench.function(&module, compiler, spec(grants.clone())).await.unwrap(), way, true).await);
    }
    let random = Random::new(calls as u64);
    for round in 0..calls / 2 {
        let function = random.below(functions.len());
        let way = SCRIBBLES[random.below(SCRIBBLES.len())];
        let secret = random.next();
        scribble(&mut functions[function], way, secret, random.below(4) == 0).await;
        // Mostly the same instance, now and then another function's.
        let function = if random.below(4) > 0 { function } else { random.below(functions.len()) };
        let which = usize::from(random.below(8) == 0);
        let seen = spy(&mut functions[function], ["spy", "spyall"][which], random.below(4) == 0).await;
        assert_eq!(seen, clean[which], "round {round}: after {way} with {secret:016x} something is left ({compiler})");
    }
    let made: usize = functions.iter().map(|function| function.made).sum();
    assert_eq!(made, functions.len(), "instances are put back, not made anew");
    println!("{compiler}: {calls} calls, half of them spies, on {made} instances");
}

/// Calls of each of the four; the full run has 100,000 of them in all.
fn calls() -> usize {
    count("SPEAR_TEST_CANARIES", 1_000)
}

#[tokio::test]
async fn no_secret_is_left_by_code_of_one_pass() {
    alternate("singlepass", Grants::default(), calls()).await;
}

#[tokio::test]
async fn no_secret_is_left_by_optimised_code() {
    alternate("cranelift", Grants::default(), calls()).await;
}

#[tokio::test]
async fn no_secret_is_left_in_a_scratch_directory() {
    alternate("singlepass", scratch(), calls() / 4).await;
    alternate("cranelift", scratch(), calls() / 4).await;
}

/// The spies are worth something: where state is kept on purpose they see it.
#[tokio::test]
async fn spies_see_what_is_left_where_it_is_left_on_purpose() {
    let bench = Bench::new();
    for compiler in ["singlepass", "cranelift"] {
        let module = module(compiler == "cranelift");
        let clean = spy(&mut bench.function(&module, compiler, spec(scratch())).await.unwrap(), "spy", true).await;
        // Descriptors belong to a call, not to an instance.
        for way in SCRIBBLES.into_iter().filter(|way| *way != "descriptors") {
            let keeping = InstanceSpec { reuse: Reuse::Kept, ..spec(scratch()) };
            let mut function = bench.function(&module, compiler, keeping).await.unwrap();
            scribble(&mut function, way, 0x5ec2_e75e_c2e7, true).await;
            assert_ne!(spy(&mut function, "spy", true).await, clean, "{way} ({compiler})");
        }
    }
}

/// A guest that failed is not put back: the next call has another instance, and that one knows nothing.
#[tokio::test]
async fn no_secret_is_left_by_guests_that_fail() {
    let bench = Bench::with(|config| config.concurrency = 4);
    for compiler in ["singlepass", "cranelift"] {
        let mut function =
            bench.function(&module(compiler == "cranelift"), compiler, spec(Grants::default())).await.unwrap();
        let clean = spy(&mut function, "spyall", true).await;
        for round in 0..calls() / 20 {
            let secret = (round as i64).to_string();
            let before = function.made;
            match round % 4 {
                0 => drop(function.invoke(call(["trap", &secret])).await.unwrap_err()),
                1 => {
                    let deadline = Some(Duration::from_millis(3));
                    drop(function.invoke(Invocation { deadline, ..call(["endless", &secret]) }).await.unwrap_err());
                }
                2 => {
                    let invocation = call(["endless", &secret]);
                    let cancel = invocation.cancel.clone();
                    let stop = async {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        cancel.cancel();
                    };
                    let (ended, ()) = tokio::join!(function.invoke(invocation), stop);
                    drop(ended.unwrap_err());
                }
                _ => {
                    let call = function.invoke(call(["endless", &secret]));
                    let dropped = tokio::time::timeout(Duration::from_millis(2), call).await;
                    assert!(dropped.is_err());
                }
            }
            assert!(!function.keeps_one());
            assert_eq!(spy(&mut function, "spyall", round % 2 == 0).await, clean, "round {round} ({compiler})");
            assert_eq!(function.made, before + 1, "round {round}: a new one, and only one");
        }
    }
}

/// A directory of the host is shared on purpose; a spy sees what is in it and nothing else.
#[tokio::test]
async fn a_granted_directory_is_all_that_two_functions_share() {
    let bench = Bench::with(|config| config.concurrency = 4);
    let host = bench.dir.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    let directory = Directory { host, guest: "/data".into(), writable: true };
    let grants = Grants { directories: vec![directory], ..Grants::default() };
    let module = module(false);
    let mut function = bench.function(&module, "singlepass", spec(grants.clone())).await.unwrap();
    let clean = spy(&mut function, "spy", false).await;
    scribble(&mut function, "fill", 7, false).await;
    assert_eq!(spy(&mut function, "spy", false).await, clean);
    scribble(&mut function, "files", 7, false).await;
    assert_ne!(spy(&mut function, "spy", false).await, clean, "the spy sees a file that is there");
}
