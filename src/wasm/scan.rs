//! What is looked at before a module is compiled: is it a core module, is it valid, is it of a size that real
//! programs have, and can this runtime give it what it imports?
//!
//! The limits turn away absurd modules in milliseconds; they are wide enough for the largest real programs
//! that were tried (a JavaScript engine in C, a bundler of 14 MB in Go). Bombs that stay below them meet the
//! limits of the compiling process.

use runtime::InvokeError;
use types::Reason;
use wasmparser::{
    CompositeInnerType, Encoding, ExternalKind, FuncType, FuncValidator, FuncValidatorAllocations, Operator, Parser,
    Payload, TypeRef, ValType, Validator, ValidatorResources,
};

use crate::{engine, host, stop};

const MOST_TYPES: u32 = 50_000;
/// Parameters and results of all types together: a few bytes of a module each, and more in memory.
const MOST_TYPE_PARTS: u32 = 1_000_000;
const MOST_FUNCTIONS: u32 = 300_000;
const MOST_IMPORTS: u32 = 1_000;
const MOST_EXPORTS: u32 = 50_000;
const MOST_GLOBALS: u32 = 100_000;
const MOST_TABLES: u32 = 64;
const MOST_MEMORIES: u32 = 16;
const MOST_SEGMENTS: u32 = 100_000;
const MOST_CUSTOM_SECTIONS: u32 = 1_000;
const MOST_LOCALS: u32 = 10_000;
const MOST_BODY_BYTES: usize = 4 << 20;
const MOST_NESTING: u32 = 50_000;
/// Values that a function has on its stack at once: see `stack.rs`.
const MOST_OPERANDS: u32 = 10_000;
const MOST_BRANCHES: u32 = 200_000;

/// The function of a reactor that is called before any other.
pub(crate) const INITIALIZE: &str = "_initialize";

/// How a message begins where the validator has the word.
const NOT_VALID: &str = "not a valid module";
/// Unmet imports named in a message.
const MOST_NAMED: usize = 5;
/// Characters of a foreign name in a message.
const MOST_NAME: usize = 60;

fn refuse(message: impl Into<String>) -> InvokeError {
    InvokeError::new(Reason::InvalidModule, message)
}

/// A name from a module for a message: clipped and without control characters.
pub(crate) fn clip(name: &str) -> String {
    let mut text: String = name.chars().take(MOST_NAME).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if name.chars().nth(MOST_NAME).is_some() {
        text.push('…');
    }
    text
}

/// What a scan finds that matters later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Can an instance be put back to its beginning after a call? Not when its code changes tables or drops segments.
    pub puts_back: bool,
}

impl Facts {
    const PUTS_BACK: u8 = 1;

    /// As a byte of an artifact's header.
    pub(crate) fn to_byte(self) -> u8 {
        u8::from(self.puts_back) * Self::PUTS_BACK
    }

    /// Back from one.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        (byte & !Self::PUTS_BACK == 0).then_some(Self { puts_back: byte & Self::PUTS_BACK != 0 })
    }
}

/// Looks at a module.
///
/// # Errors
/// [`Reason::InvalidModule`] with what is wrong, in one line.
pub fn scan(wasm: &[u8]) -> Result<Facts, InvokeError> {
    header(wasm)?;
    let mut scan = Scan::default();
    let mut validator = Validator::new_with_features(engine::validator_features());
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(invalid)?;
        scan.before(&payload)?;
        match validator.payload(&payload).map_err(invalid)? {
            wasmparser::ValidPayload::Func(function, body) => {
                scan.body(&body)?;
                let mut function = function.into_validator(allocations);
                operators(&mut function, &body)?;
                allocations = function.into_allocations();
            }
            wasmparser::ValidPayload::Ok | wasmparser::ValidPayload::Parser(_) | wasmparser::ValidPayload::End(_) => {}
        }
        scan.after(payload)?;
    }
    let facts = Facts { puts_back: !scan.changes_tables };
    scan.verdict()?;
    Ok(facts)
}

/// Validates a body and counts its operands.
fn operators(
    validator: &mut FuncValidator<ValidatorResources>,
    body: &wasmparser::FunctionBody<'_>,
) -> Result<(), InvokeError> {
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader).map_err(invalid)?;
    reader.set_features(engine::validator_features());
    while !reader.eof() {
        let offset = reader.original_position();
        reader.visit_operator(&mut validator.visitor(offset)).map_err(invalid)?.map_err(invalid)?;
        at_most("operands on the stack of a function", validator.operand_stack_height(), MOST_OPERANDS)?;
    }
    reader.finish_expression(&validator.visitor(reader.original_position())).map_err(invalid)
}

fn invalid(error: wasmparser::BinaryReaderError) -> InvokeError {
    refuse(format!("{NOT_VALID}: {} (at byte {})", clip(error.message()), error.offset()))
}

/// The first eight bytes tell a core module from a component and from everything else.
fn header(wasm: &[u8]) -> Result<(), InvokeError> {
    let Some((magic, rest)) = wasm.split_first_chunk::<4>() else {
        return Err(refuse(format!("not a WebAssembly module: only {} bytes", wasm.len())));
    };
    if magic != b"\0asm" {
        let hint = if wasm.trim_ascii_start().starts_with(b"(") {
            "; it looks like the text format, which `spear` translates when a file is uploaded"
        } else {
            ""
        };
        return Err(refuse(format!("not a WebAssembly module: it does not begin with \\0asm{hint}")));
    }
    match rest.first_chunk::<4>() {
        Some([1, 0, 0, 0]) => Ok(()),
        Some([_, _, 1, 0]) => Err(refuse("a component; this build runs core modules")),
        Some(version) => {
            Err(refuse(format!("version {} of the format; this build knows 1", u32::from_le_bytes(*version))))
        }
        None => Err(refuse("not a WebAssembly module: it ends within its header")),
    }
}

fn at_most(what: &str, count: u32, most: u32) -> Result<(), InvokeError> {
    if count > most {
        return Err(refuse(format!("{count} {what}; the limit is {most}")));
    }
    Ok(())
}

#[derive(Default)]
struct Scan {
    types: Vec<Option<FuncType>>,
    /// Type of every function, imported ones first.
    functions: Vec<u32>,
    custom_sections: u32,
    imports_host: bool,
    unmet: Vec<String>,
    unmet_more: usize,
    wasix: Option<String>,
    start_export: Option<u32>,
    memory_export: bool,
    saw_start_of_other_kind: bool,
    function_exports: Vec<u32>,
    changes_tables: bool,
    reserved: bool,
}

impl Scan {
    /// Counts of sections, before anything is allocated for them.
    fn before(&mut self, payload: &Payload<'_>) -> Result<(), InvokeError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                Err(refuse("a component; this build runs core modules"))
            }
            Payload::TypeSection(section) => {
                at_most("types", section.count(), MOST_TYPES)?;
                let mut parts = 0usize;
                for group in section.clone() {
                    for ty in group.map_err(invalid)?.types() {
                        if let CompositeInnerType::Func(ty) = &ty.composite_type.inner {
                            parts = parts.saturating_add(ty.params().len() + ty.results().len());
                        }
                    }
                    let parts = u32::try_from(parts).unwrap_or(u32::MAX);
                    at_most("parameters and results of all types", parts, MOST_TYPE_PARTS)?;
                }
                Ok(())
            }
            Payload::ImportSection(section) => at_most("imports", section.count(), MOST_IMPORTS),
            Payload::FunctionSection(section) => at_most("functions", section.count(), MOST_FUNCTIONS),
            Payload::TableSection(section) => at_most("tables", section.count(), MOST_TABLES),
            Payload::MemorySection(section) => at_most("memories", section.count(), MOST_MEMORIES),
            Payload::GlobalSection(section) => at_most("globals", section.count(), MOST_GLOBALS),
            Payload::ExportSection(section) => at_most("exports", section.count(), MOST_EXPORTS),
            Payload::ElementSection(section) => at_most("element segments", section.count(), MOST_SEGMENTS),
            Payload::DataSection(section) => at_most("data segments", section.count(), MOST_SEGMENTS),
            Payload::CustomSection(_) => {
                self.custom_sections = self.custom_sections.saturating_add(1);
                at_most("custom sections", self.custom_sections, MOST_CUSTOM_SECTIONS)
            }
            _ => Ok(()),
        }
    }

    /// What the module says of itself, once it is known to be valid.
    fn after(&mut self, payload: Payload<'_>) -> Result<(), InvokeError> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(invalid)?.into_types() {
                        self.types.push(match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    self.import(import.module, import.name, import.ty);
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty.map_err(invalid)?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    self.reserved |= export.name == stop::START;
                    match (export.name, export.kind) {
                        ("_start", ExternalKind::Func) => self.start_export = Some(export.index),
                        ("_start", _) => self.saw_start_of_other_kind = true,
                        ("memory", ExternalKind::Memory) => self.memory_export = true,
                        // Called first, and by nobody else.
                        (INITIALIZE, _) => {}
                        (_, ExternalKind::Func) => self.function_exports.push(export.index),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str, ty: TypeRef) {
        let function = match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                self.functions.push(index);
                self.types.get(usize::try_from(index).unwrap_or(usize::MAX)).and_then(Option::as_ref)
            }
            _ => None,
        };
        if module.starts_with("wasix_") || (module == "wasi" && name == "thread-spawn") {
            self.wasix.get_or_insert_with(|| format!("{}.{}", clip(module), clip(name)));
            return;
        }
        let known = host::find(module, name);
        let problem = match (known, function) {
            (Some(known), Some(ty)) if same(known, ty) => {
                self.imports_host = true;
                return;
            }
            (Some(known), Some(_)) => format!(" (its type must be {known})"),
            (Some(_), None) => " (it is a function)".to_owned(),
            (None, _) => String::new(),
        };
        if self.unmet.len() < MOST_NAMED {
            self.unmet.push(format!("{}.{}{problem}", clip(module), clip(name)));
        } else {
            self.unmet_more += 1;
        }
    }

    /// The type of a function.
    fn ty(&self, function: u32) -> Option<&FuncType> {
        let ty = *self.functions.get(usize::try_from(function).ok()?)?;
        self.types.get(usize::try_from(ty).ok()?)?.as_ref()
    }

    /// Size, locals, nesting and branches of a function.
    fn body(&mut self, body: &wasmparser::FunctionBody<'_>) -> Result<(), InvokeError> {
        let size = body.as_bytes().len();
        if size > MOST_BODY_BYTES {
            return Err(refuse(format!("a function of {size} bytes; the limit is {MOST_BODY_BYTES}")));
        }
        let mut locals = 0u32;
        for local in body.get_locals_reader().map_err(invalid)? {
            locals = locals.saturating_add(local.map_err(invalid)?.0);
        }
        at_most("locals in a function", locals, MOST_LOCALS)?;
        let mut depth = 0u32;
        for operator in body.get_operators_reader().map_err(invalid)? {
            match operator.map_err(invalid)? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    depth = depth.saturating_add(1);
                    at_most("blocks inside one another", depth, MOST_NESTING)?;
                }
                Operator::End => depth = depth.saturating_sub(1),
                Operator::TableSet { .. }
                | Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. }
                | Operator::ElemDrop { .. }
                | Operator::DataDrop { .. } => self.changes_tables = true,
                Operator::BrTable { targets } => at_most("targets of a br_table", targets.len(), MOST_BRANCHES)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn verdict(self) -> Result<(), InvokeError> {
        if let Some(name) = self.wasix {
            return Err(refuse(format!("it needs WASIX (it imports {name}), which this build does not have yet")));
        }
        if !self.unmet.is_empty() {
            let more = match self.unmet_more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(refuse(format!("imports that this runtime does not have: {}{more}", self.unmet.join(", "))));
        }
        if self.reserved {
            return Err(refuse("it exports a name that is reserved"));
        }
        match self.start_export {
            Some(start) => {
                if !self.ty(start).is_some_and(|ty| ty.params().is_empty() && ty.results().is_empty()) {
                    return Err(refuse("its function _start takes parameters or returns results; it must do neither"));
                }
            }
            None if self.function_exports.iter().any(|index| self.ty(*index).is_some_and(numeric)) => {}
            None => {
                let hint = if self.saw_start_of_other_kind { " (its export _start is not a function)" } else { "" };
                let message =
                    format!("nothing to call: no exported function _start{hint}, and none that takes numbers");
                return Err(refuse(message));
            }
        }
        if self.imports_host && !self.memory_export {
            return Err(refuse("no exported memory named \"memory\": WASI functions have nothing to work on"));
        }
        Ok(())
    }
}

/// Does a function take and return numbers only?
fn numeric(ty: &FuncType) -> bool {
    let number = |ty: &ValType| matches!(ty, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64);
    ty.params().iter().all(number) && ty.results().iter().all(number)
}

fn same(known: &host::Name, ty: &FuncType) -> bool {
    let wanted = |kind: &host::Kind| match kind {
        host::Kind::I32 => ValType::I32,
        host::Kind::I64 => ValType::I64,
    };
    known.params.iter().map(wanted).eq(ty.params().iter().copied())
        && known.results.iter().map(wanted).eq(ty.results().iter().copied())
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;
