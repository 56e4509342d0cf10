//! Long fills and copies are cut into pieces: what they do stays what the specification says.

use runtime::InstanceSpec;
use types::Reason;

use crate::{
    bench::{Bench, wasm},
    hostile::COMPILERS,
};
use api::Invocation;

const PAGE: usize = 1 << 16;
const SIZE: usize = 16 * PAGE;
const PIECE: u32 = 128 << 10;
/// Where the guest keeps what it reads and writes: its memory from here on is not judged.
const JUDGED: usize = SIZE - PAGE;

/// Reads four numbers: what to do, and its three operands. Fills its memory with a pattern, does it, and writes a sum
/// over all of the memory.
const GUEST: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 16)
  (memory $other 16)
  (data (i32.const 0xf0000) "\10\00\0f\00\10\00\00\00" "\40\00\0f\00\08\00\00\00")
  (func $pattern (local $at i32)
    (loop
      (i64.store (local.get $at)
        (i64.mul (i64.extend_i32_u (i32.add (local.get $at) (i32.const 1))) (i64.const 0x9E3779B97F4A7C15)))
      (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 0xf0000)))))
  (func $sum (result i64) (local $at i32) (local $sum i64)
    (loop
      (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 0x100000001B3)) (i64.load (local.get $at))))
      (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 0xf0000))))
    (local.get $sum))
  (func (export "_start") (local $a i32) (local $b i32) (local $n i32)
    (drop (call $fd_read (i32.const 0) (i32.const 0xf0000) (i32.const 1) (i32.const 0xf0030)))
    (local.set $a (i32.load (i32.const 0xf0014)))
    (local.set $b (i32.load (i32.const 0xf0018)))
    (local.set $n (i32.load (i32.const 0xf001c)))
    (call $pattern)
    (block $done (block $there_and_back (block $copy (block $fill
      (br_table $fill $copy $there_and_back (i32.load (i32.const 0xf0010))))
      (memory.fill (local.get $a) (local.get $b) (local.get $n)) (br $done))
      (memory.copy (local.get $a) (local.get $b) (local.get $n)) (br $done))
      (memory.copy $other 0 (local.get $a) (local.get $b) (local.get $n))
      (memory.copy 0 $other (local.get $b) (local.get $a) (local.get $n)))
    (i64.store (i32.const 0xf0040) (call $sum))
    (drop (call $fd_write (i32.const 1) (i32.const 0xf0008) (i32.const 1) (i32.const 0xf0030)))))"#;

#[derive(Clone, Copy, Debug)]
enum Work {
    Fill,
    Copy,
    /// To another memory, and back to where it came from.
    ThereAndBack,
}

/// The sum that is due.
fn expected(work: Work, [a, b, n]: [u32; 3]) -> u64 {
    let word = |at: u64| (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let mut memory: Vec<u8> = (0..JUDGED as u64).step_by(8).flat_map(word).collect();
    memory.resize(SIZE, 0);
    let [a, from, n] = [a, b, n].map(|number| number as usize);
    match work {
        Work::Fill => memory[a..a + n].fill(b.to_le_bytes()[0]),
        Work::Copy => memory.copy_within(from..from + n, a),
        Work::ThereAndBack => {}
    }
    memory[..JUDGED].chunks_exact(8).fold(0u64, |sum, word| {
        sum.wrapping_mul(0x100_0000_01B3).wrapping_add(u64::from_le_bytes(word.try_into().unwrap()))
    })
}

fn input(work: Work, operands: [u32; 3]) -> Invocation {
    let numbers = [work as u32].into_iter().chain(operands);
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    Invocation { body: api::Body::from(bytes), ..Invocation::default() }
}

#[tokio::test]
async fn long_fills_and_copies_do_what_short_ones_do() {
    let lengths = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7];
    let mut cases = Vec::new();
    for n in lengths {
        cases.push((Work::Fill, [12_345, 0x1234_56ab, n]));
        cases.push((Work::Fill, [JUDGED as u32 - n, 255, n]));
        // Apart, and over one another by all but one byte and by all but a piece, both ways.
        for (a, b) in [(0, 500_000), (500_000, 0), (1, 0), (0, 1), (PIECE, 0), (0, PIECE), (77, 77), (200_000, 0)] {
            cases.push((Work::Copy, [a, b, n]));
        }
        cases.push((Work::ThereAndBack, [3, 99, n]));
    }
    let bench = Bench::new();
    for compiler in COMPILERS {
        let mut function = bench.function(&wasm(GUEST), compiler, InstanceSpec::default()).await.unwrap();
        for (work, operands) in &cases {
            let answer = function.invoke(input(*work, *operands)).await.unwrap();
            let sum = u64::from_le_bytes(answer.result.as_ref().try_into().unwrap());
            assert_eq!(sum, expected(*work, *operands), "{compiler}: {work:?} {operands:?}");
        }
    }
}

#[tokio::test]
async fn long_fills_and_copies_beyond_the_memory_trap() {
    let size = SIZE as u32;
    let cases = [
        (Work::Fill, [0, 1, size + 1]),
        (Work::Fill, [size - PIECE, 1, PIECE + 1]),
        (Work::Fill, [size + 1, 1, 0]),
        (Work::Fill, [8, 1, u32::MAX]),
        (Work::Fill, [u32::MAX, 1, u32::MAX]),
        (Work::Copy, [0, size - PIECE, PIECE + 1]),
        (Work::Copy, [size - PIECE, 0, PIECE + 1]),
        (Work::Copy, [1, 0, u32::MAX]),
        (Work::Copy, [0, u32::MAX - 5, PIECE * 2]),
        (Work::ThereAndBack, [size - 5, 0, PIECE * 2]),
    ];
    let bench = Bench::new();
    for compiler in COMPILERS {
        let mut function = bench.function(&wasm(GUEST), compiler, InstanceSpec::default()).await.unwrap();
        for (work, operands) in cases {
            let error = function.invoke(input(work, operands)).await.unwrap_err();
            assert_eq!(error.reason, Reason::Trap, "{compiler}: {work:?} {operands:?}: {error}");
            assert!(error.message.contains("out of bounds memory access"), "{compiler}: {work:?}: {error}");
        }
    }
}
