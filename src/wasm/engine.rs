//! How wasmer is set up: the features guests may use, the compiling engine of the child, and one headless
//! engine per loaded module.
//!
//! An engine never gives code memory back before it is dropped, so a module owns its engine: forgetting the
//! module frees its code.

use bytes::Bytes;
use wasmer::{
    Engine, Module,
    sys::{
        CompilerConfig, CpuFeature, Cranelift, CraneliftOptLevel, EngineBuilder, Features, NativeEngineExt, Singlepass,
    },
};
use wasmer_compiler::{
    ArtifactBuild,
    serialize::{MetadataHeader, SerializableCompilation, SerializableModule},
};
use wasmparser::{Parser, Payload, WasmFeatures};

use crate::{
    abi::{self, Abi},
    budget::CompileTunables,
    host::{self, Link},
    pace::Pace,
    scan::{Facts, clip},
    stop,
};

/// What guests may use of WebAssembly. Off are: threads (an endless `memory.atomic.wait` cannot be stopped),
/// exceptions (each throw keeps a backtrace that no limit counts), memory64 and tail calls (not supported).
pub(crate) fn features() -> Features {
    let mut features = Features::none();
    features.reference_types(true).bulk_memory(true).multi_value(true).simd(true).relaxed_simd(true);
    features.multi_memory(true).extended_const(true);
    features
}

/// The same as [`features`] for the validator.
pub(crate) fn validator_features() -> WasmFeatures {
    WasmFeatures::FLOATS
        | WasmFeatures::GC_TYPES
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::SIMD
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
}

/// What makes machine code of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compiler {
    /// In one pass: about ten times faster to compile, slower to run; knows no SIMD.
    Singlepass,
    /// Optimised.
    Cranelift,
}

impl Compiler {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Singlepass => "singlepass",
            Self::Cranelift => "cranelift",
        }
    }

    /// The one of a name.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Singlepass, Self::Cranelift].into_iter().find(|compiler| compiler.as_str() == word)
    }
}

/// Everything a compiled artifact depends on besides the module; part of every artifact's header.
pub(crate) fn settings(compiler: Compiler) -> String {
    let cpu: Vec<String> = CpuFeature::for_host().iter().map(|feature| format!("{feature:?}")).collect();
    format!(
        "wasmer={};compiler={};opt=speed;places=none;os={};arch={};cpu={};stop={};features=2;memory=exact",
        version(),
        compiler.as_str(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        cpu.join("+"),
        stop::VERSION,
    )
}

/// Version of wasmer.
pub fn version() -> &'static str {
    wasmer::sys::vm::VERSION
}

/// Compiles a module with the stop flag in it. Takes as much memory and time as it takes: only the limited
/// child and the self-test (with its own tiny module) call this.
pub(crate) fn compile(wasm: &[u8], compiler: Compiler) -> Result<Vec<u8>, String> {
    if compiler == Compiler::Singlepass && has_empty_memory(wasm) {
        return Err("a memory that begins without a page needs the compiler cranelift".to_owned());
    }
    let stop = std::sync::Arc::new(stop::StopFlag::default());
    // The same everywhere: the limits of memory and processor time mean the same on every machine.
    let one = std::num::NonZero::<usize>::MIN;
    let builder = match compiler {
        Compiler::Cranelift => {
            let mut compiler = Cranelift::new();
            compiler.opt_level(CraneliftOptLevel::Speed).num_threads(one);
            compiler.push_middleware(stop);
            EngineBuilder::new(compiler)
        }
        Compiler::Singlepass => {
            let mut compiler = Singlepass::new();
            // Somebody waits for it.
            compiler.num_threads(one.saturating_add(1)).push_middleware(stop);
            EngineBuilder::new(compiler)
        }
    };
    let mut engine: Engine = builder.set_features(Some(features())).engine().into();
    engine.set_tunables(CompileTunables::new());
    let module = Module::new(&engine, wasm).map_err(|error| error.to_string())?;
    let artifact = module.serialize().map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())?;
    match compiler {
        Compiler::Cranelift => lean(&artifact),
        // It has few of them, and its code serves until the better one is there.
        Compiler::Singlepass => Ok(artifact),
    }
}

/// An artifact without the places in the module that its instructions come from: half of the file, for a number in a
/// backtrace that nobody sees.
fn lean(artifact: &[u8]) -> Result<Vec<u8>, String> {
    const BEFORE: usize = ArtifactBuild::MAGIC_HEADER.len() + MetadataHeader::LEN;
    let metadata = artifact.get(BEFORE..).ok_or("the compiler made half an artifact")?;
    let archived = SerializableModule::archive_from_slice_checked(metadata).map_err(|error| error.to_string())?;
    let mut module = SerializableModule::deserialize_from_archive(archived).map_err(|error| error.to_string())?;
    if let SerializableCompilation::Rkyv(compilation) = &mut module.compilation {
        for info in compilation.function_frame_info.values_mut() {
            info.address_map.instructions.clear();
        }
    }
    let metadata = module.serialize().map_err(|error| error.to_string())?;
    let header = MetadataHeader::new(metadata.len()).into_bytes();
    Ok([ArtifactBuild::MAGIC_HEADER.as_slice(), &header, &metadata].concat())
}

/// Does it have a memory that begins without a page? The code of singlepass compares addresses with the length less the
/// bytes of the access, and below zero that is more than any address: all of the process would lie open.
fn has_empty_memory(wasm: &[u8]) -> bool {
    let mut memories = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload {
        Ok(Payload::MemorySection(section)) => Some(section),
        _ => None,
    });
    memories.any(|section| section.into_iter().any(|memory| memory.is_ok_and(|memory| memory.initial == 0)))
}

/// A compiled module in memory, ready to be instantiated.
pub(crate) struct Loaded {
    // Dropped before its engine, which owns the code.
    module: Module,
    engine: Engine,
    /// How it is called.
    pub(crate) abi: &'static dyn Abi,
    /// What makes the functions that it imports, in the order of its imports.
    pub(crate) links: Vec<Link>,
    /// Bytes of the artifact: what it counts in the cache.
    pub(crate) size: usize,
    /// What made it.
    pub(crate) compiler: Compiler,
    /// What the scan found.
    pub(crate) facts: Facts,
    /// How long its calls take.
    pub(crate) pace: Pace,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Loads what [`compile`] made.
    ///
    /// # Safety
    /// The bytes are machine code: they must be exactly what [`compile`] returned on a machine with the same
    /// [`settings`]. The cache proves that by checksum before it calls this.
    #[expect(unsafe_code, reason = "loads machine code; the contract is handed on to the caller")]
    pub(crate) unsafe fn new(artifact: Bytes, compiler: Compiler, facts: Facts) -> Result<Self, String> {
        let engine = Engine::headless();
        let size = artifact.len();
        // SAFETY: the caller's promise. To look at the bytes once more would take longer than all the rest.
        let module = unsafe { Module::deserialize_unchecked(&engine, artifact) }.map_err(|error| error.to_string())?;
        let abi = abi::of(&module).ok_or("the module has nothing that can be called")?;
        let links = module.imports().map(|import| {
            let (from, name) = (import.module(), import.name());
            let found = host::find(from, name).and_then(|found| found.link_for(from));
            found.ok_or_else(|| format!("no host function {}.{}", clip(from), clip(name)))
        });
        let links = links.collect::<Result<_, _>>()?;
        Ok(Self { module, engine, abi, links, size, compiler, facts, pace: Pace::default() })
    }

    /// The module.
    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    /// Its engine: a clone shares the code and may have tunables of its own.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Bytes of memory and tables that an instance has from the first moment.
    pub(crate) fn initial_bytes(&self) -> u64 {
        let info = self.module.info();
        let memories = info.memories.values().map(|memory| memory.minimum.bytes().0 as u64);
        let tables = info.tables.values().map(|table| u64::from(table.minimum) * crate::budget::TABLE_ELEMENT_BYTES);
        memories.chain(tables).fold(0, u64::saturating_add)
    }
}
