//! What is looked at before a module is compiled: any bytes, and valid modules made of those that do not begin as one.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use std::sync::OnceLock;
use wasm_smith::{Config, Module};

/// Longest input of which a module is made: to make a larger one takes longer than to look at it.
const MOST_ENTROPY: usize = 4096;

/// Some of what guests may import, with the right types and with a wrong one.
const IMPORTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (import "wasi_unstable" "sched_yield" (func (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i64)))
    (import "env" "memory" (memory 1)))"#;

fuzz_target!(|input: &[u8]| {
    look_at(input);
    if !input.starts_with(b"\0asm")
        && let Some(module) = made_of(input)
    {
        look_at(&module);
    }
});

fn look_at(module: &[u8]) {
    if let Err(wrong) = wasm::fuzzing::judge(module) {
        panic!("{wrong}");
    }
}

/// A valid module of what guests may use.
fn made_of(input: &[u8]) -> Option<Vec<u8>> {
    static IMPORTED: OnceLock<Vec<u8>> = OnceLock::new();
    let (first, rest) = input.split_first()?;
    let imported = || wat::parse_str(IMPORTS).expect("a module");
    let config = Config {
        available_imports: (first & 1 == 1).then(|| IMPORTED.get_or_init(imported).clone()),
        max_imports: if first & 1 == 1 { 6 } else { 0 },
        export_everything: first & 2 == 2,
        simd_enabled: first & 4 == 4,
        relaxed_simd_enabled: first & 4 == 4,
        max_memories: 3,
        max_tables: 3,
        threads_enabled: false,
        exceptions_enabled: false,
        memory64_enabled: false,
        tail_call_enabled: false,
        gc_enabled: false,
        custom_page_sizes_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        bulk_memory_enabled: true,
        multi_value_enabled: true,
        reference_types_enabled: true,
        extended_const_enabled: true,
        saturating_float_to_int_enabled: true,
        sign_extension_ops_enabled: true,
        ..Config::default()
    };
    let entropy = rest.get(..MOST_ENTROPY).unwrap_or(rest);
    Some(Module::new(config, &mut Unstructured::new(entropy)).ok()?.to_bytes())
}
