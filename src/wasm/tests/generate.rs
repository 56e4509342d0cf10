//! Random modules of what guests may use, the same for the same seed.

use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

/// How many cases a property test has, unless a variable says otherwise.
#[allow(dead_code, clippy::disallowed_methods, reason = "not for all who have this file")]
pub fn cases(usual: u32) -> u32 {
    std::env::var("SPEAR_TEST_CASES").map_or(usual, |text| text.parse().unwrap_or(usual))
}

/// A valid module, and names of its functions that take and return numbers, with how many they take.
pub struct Generated {
    pub wasm: Vec<u8>,
    pub functions: Vec<(String, usize)>,
}

/// `tame`: without traps, so that calls end well more often.
pub fn generate(seed: u64, tame: bool) -> Option<Generated> {
    let mut config = Config {
        // What is off.
        threads_enabled: false,
        exceptions_enabled: false,
        memory64_enabled: false,
        tail_call_enabled: false,
        gc_enabled: false,
        custom_page_sizes_enabled: false,
        wide_arithmetic_enabled: false,
        compact_imports_enabled: false,
        // What is on.
        bulk_memory_enabled: true,
        multi_value_enabled: true,
        reference_types_enabled: true,
        extended_const_enabled: true,
        saturating_float_to_int_enabled: true,
        sign_extension_ops_enabled: true,
        export_everything: true,
        generate_custom_sections: seed.is_multiple_of(5),
        min_funcs: 2,
        max_funcs: 12,
        min_types: 1,
        max_imports: 0,
        min_memories: u32::from(!seed.is_multiple_of(4)),
        max_memories: 3,
        max_tables: 3,
        max_instructions: 300,
        disallow_traps: tame,
        // Otherwise two compilers may rightly differ.
        canonicalize_nans: true,
        ..Config::default()
    };
    // A third has vectors, which one compiler does not know.
    config.simd_enabled = seed.is_multiple_of(3);
    config.relaxed_simd_enabled = config.simd_enabled;
    if !seed.is_multiple_of(7) {
        config.max_memory32_bytes = 1 << 22;
        config.max_table_elements = 1000;
    }
    let mut state = seed;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)).to_le_bytes()
    })
    .take(512)
    .flatten()
    .collect();
    let wasm = Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes();
    let functions = numeric(&wasm);
    Some(Generated { wasm, functions })
}

/// Exported functions of numbers.
fn numeric(wasm: &[u8]) -> Vec<(String, usize)> {
    use wasmparser::{ExternalKind, Parser, Payload, ValType};
    let (mut types, mut functions, mut exports) = (Vec::new(), Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(wasm).flatten() {
        match payload {
            Payload::TypeSection(section) => types.extend(section.into_iter_err_on_gc_types().flatten()),
            Payload::FunctionSection(section) => functions.extend(section.into_iter().flatten()),
            Payload::ExportSection(section) => exports.extend(section.into_iter().flatten()),
            _ => {}
        }
    }
    let number = |ty: &ValType| matches!(ty, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64);
    let function = |export: &wasmparser::Export<'_>| {
        let ty = types.get(*functions.get(export.index as usize)? as usize)?;
        let callable = export.kind == ExternalKind::Func && ty.params().iter().chain(ty.results()).all(number);
        let name = export.name.to_owned();
        (callable && !name.contains('\0') && name != "_start").then(|| (name, ty.params().len()))
    };
    exports.iter().filter_map(function).collect()
}
