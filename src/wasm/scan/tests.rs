#![allow(clippy::unwrap_used, reason = "tests")]

use super::{fuzzing::judge, *};
use crate::generate::{cases, generate};
use proptest::prelude::*;

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        include_str!("../../../samples/wat/echo.wat"),
        include_str!("../../../samples/wat/count.wat"),
        r#"(module (type (func (param i64 f32 v128) (result i32 f64))) (table 3 10 funcref) (memory 1 2) (memory 3)
             (global (mut i64) (i64.const -1)) (elem (i32.const 1) $f $f) (data "passive") (data (i32.const 5) "active")
             (func $f (export "_start") (local i32 i64 externref)
               (block (loop (br_table 0 1 0 (local.get 0)))) (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))"#,
    ];
    texts.iter().map(|text| wat::parse_str(text).unwrap()).collect()
}

#[test]
fn the_seeds_are_accepted() {
    for seed in seeds() {
        scan(&seed).unwrap();
    }
}

#[test]
fn names_in_messages_are_short_and_printable() {
    assert_eq!(clip("fd_write"), "fd_write");
    assert_eq!(clip("a\nb\x1b[31m"), "a\u{fffd}b\u{fffd}[31m");
    assert_eq!(clip(&"ü".repeat(61)), "ü".repeat(60) + "…");
    assert_eq!(clip(&"ü".repeat(60)), "ü".repeat(60));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3_000), failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make the scan panic, what it says is one short line, and what it accepts is valid.
    #[test]
    fn edited_modules_are_judged_without_a_panic(
        seed in 0usize..3,
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut module = seeds().swap_remove(seed);
        for (place, byte, kind) in edits {
            let place = place.index(module.len());
            match kind {
                0 => module[place] = byte,
                1 => module.insert(place, byte),
                _ => drop(module.remove(place)),
            }
        }
        judge(&module).map_err(TestCaseError::fail)?;
    }

    /// The same for bytes that only begin like a module.
    #[test]
    fn any_bytes_after_the_header_are_judged_without_a_panic(rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let module = [b"\0asm\x01\0\0\0".as_slice(), &rest].concat();
        judge(&module).map_err(TestCaseError::fail)?;
    }

}

proptest! {
    // To make such a module takes longer than to judge it.
    #![proptest_config(ProptestConfig { cases: cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    /// And for random modules, whole and edited.
    #[test]
    fn random_modules_are_judged_without_a_panic(
        seed in any::<u64>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..3), 0..4),
    ) {
        let Some(generated) = generate(seed, false) else { return Ok(()) };
        let (mut module, whole) = (generated.wasm, edits.is_empty());
        for (place, byte, kind) in edits {
            let place = place.index(module.len());
            match kind {
                0 => module[place] = byte,
                1 => module.insert(place, byte),
                _ => drop(module.remove(place)),
            }
        }
        judge(&module).map_err(TestCaseError::fail)?;
        if whole && let Err(error) = scan(&module) {
            prop_assert!(error.message.contains("nothing to call"), "{}", error.message);
        }
    }
}
