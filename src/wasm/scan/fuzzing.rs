//! The scan beside those whose word counts later, for fuzz targets and property tests: what it accepts is valid to the
//! validator and to the engine, and what it calls not valid is not.

use std::sync::OnceLock;
use types::Reason;
use wasmer::{
    Engine, Module,
    sys::{EngineBuilder, Singlepass},
};
use wasmparser::Validator;

use super::{Facts, NOT_VALID, scan};
use crate::engine;

/// Longest message.
const MOST_MESSAGE: usize = 1000;

/// Looks at a module, whatever it is, and at what was said of it.
///
/// # Errors
/// What should never be, in a sentence.
pub fn judge(wasm: &[u8]) -> Result<(), String> {
    let valid = Validator::new_with_features(engine::validator_features()).validate_all(wasm);
    let facts = match (scan(wasm), valid) {
        (Ok(facts), Ok(_)) => facts,
        (Ok(_), Err(error)) => return Err(format!("it is accepted and not valid: {error}")),
        (Err(error), valid) => {
            let message = &error.message;
            if error.reason != Reason::InvalidModule {
                return Err(format!("it is refused for another reason: {:?}", error.reason));
            }
            if message.len() > MOST_MESSAGE || message.chars().any(char::is_control) {
                return Err(format!("not one short line: {message:?}"));
            }
            return match valid {
                Ok(_) if message.starts_with(NOT_VALID) => Err(format!("it is valid: {message}")),
                _ => Ok(()),
            };
        }
    };
    if Facts::from_byte(facts.to_byte()) != Some(facts) {
        return Err(format!("{facts:?} cannot be kept"));
    }
    let valid = Module::validate(compiling(), wasm);
    valid.map_err(|error| format!("it is accepted and not valid to the engine: {error}"))
}

/// An engine that may use what guests may.
fn compiling() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let make = || EngineBuilder::new(Singlepass::new()).set_features(Some(engine::features())).engine().into();
    ENGINE.get_or_init(make)
}
