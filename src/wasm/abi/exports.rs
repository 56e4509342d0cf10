//! Plain exports: one of the module's functions is called with numbers, and answers numbers.
//!
//! Which one: the first argument, or the only one there is. Its parameters: the arguments after that, or else the
//! input, a JSON array. The answer is JSON: nothing, a number, or an array of them. Numbers that JSON does not have
//! (NaN, the infinities) are strings in both directions, and so may be 64-bit integers on the way in. A reactor's
//! `_initialize` is called before, like a start function.

use serde_json::{Number, Value as Json};
use wasmer::{ExternType, Function, FunctionType, Module, Type, Value};

use super::{Abi, Entry, Guest, How};
use crate::scan::{INITIALIZE, clip};

/// Longest input that is read for parameters, bytes.
const MOST_INPUT: usize = 64 * 1024;
/// Functions named in a message.
const MOST_NAMED: usize = 8;

/// The convention.
#[derive(Debug)]
pub(super) struct Exports;

impl Abi for Exports {
    fn name(&self) -> &'static str {
        "plain exports"
    }

    fn fits(&self, module: &Module) -> bool {
        module.exports().any(|export| matches!(export.ty(), ExternType::Function(ty) if numeric(ty)))
    }

    fn bind(&self, guest: &mut Guest<'_>) -> Result<Box<dyn Entry>, String> {
        let functions = guest.instance.exports.iter().functions();
        let functions = functions.map(|(name, function)| (name.clone(), function.ty(guest.store), function.clone()));
        let own = |name: &str| name != crate::stop::START && name != INITIALIZE;
        let all: Vec<_> = functions.filter(|(name, ty, _)| numeric(ty) && own(name)).collect();
        Ok(Box::new(Named { all }))
    }
}

/// Does a function take and return numbers only?
pub(super) fn numeric(ty: &FunctionType) -> bool {
    let number = |ty: &Type| matches!(ty, Type::I32 | Type::I64 | Type::F32 | Type::F64);
    ty.params().iter().all(number) && ty.results().iter().all(number)
}

struct Named {
    all: Vec<(String, FunctionType, Function)>,
}

impl Entry for Named {
    fn call(&mut self, guest: &mut Guest<'_>) -> How {
        let (function, parameters) = match self.asked(guest) {
            Ok(asked) => asked,
            Err(message) => return How::Refused(message),
        };
        match function.call(guest.store, &parameters) {
            Ok(results) => {
                let text = render(&results).to_string();
                // A word that is too long for the limit ends the call by its control, as with every guest.
                let process = guest.env.as_mut(guest.store).process.as_mut().filter(|_| !results.is_empty());
                match process.map_or(Ok(()), |process| process.answer(text.as_bytes())) {
                    Ok(()) => How::Exited(0),
                    Err(_) => How::Trapped("stopped".to_owned()),
                }
            }
            Err(error) => How::unwound(&error),
        }
    }
}

impl Named {
    /// The function and its parameters.
    fn asked(&self, guest: &mut Guest<'_>) -> Result<(&Function, Vec<Value>), String> {
        let process = guest.env.as_mut(guest.store).process.as_mut().ok_or("no call is under way")?;
        let args: Vec<String> = process.args().skip(1).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
        let mut args = args.into_iter();
        let names = || {
            let names = self.all.iter().take(MOST_NAMED).map(|(name, ..)| clip(name)).collect::<Vec<_>>().join(", ");
            if self.all.len() > MOST_NAMED { format!("{names}, …") } else { names }
        };
        let (name, ty, function) = match (args.next(), self.all.as_slice()) {
            (Some(wanted), all) => all
                .iter()
                .find(|(name, ..)| *name == wanted)
                .ok_or_else(|| format!("no function {}: it has {}", clip(&wanted), names()))?,
            (None, [only]) => only,
            (None, _) => return Err(format!("which function? Name one as its first argument: {}", names())),
        };
        let mut given: Vec<Json> = args.map(|text| serde_json::from_str(&text).unwrap_or(Json::String(text))).collect();
        if given.is_empty() && !ty.params().is_empty() {
            let input = process.read_input(MOST_INPUT).ok_or("its input is too long or did not come")?;
            if !input.trim_ascii().is_empty() {
                let parsed = serde_json::from_slice::<Vec<Json>>(&input);
                given = parsed.map_err(|error| format!("its input is no JSON array of numbers: {error}"))?;
            }
        }
        let wanted = ty.params();
        if given.len() != wanted.len() {
            let types = wanted.iter().map(|ty| ty.to_string().to_lowercase()).collect::<Vec<_>>().join(", ");
            return Err(format!("{} takes ({types}), not {} parameters", clip(name), given.len()));
        }
        let parse = |(index, (value, ty)): (usize, (&Json, &Type))| {
            number(value, *ty).ok_or_else(|| {
                let ty = ty.to_string().to_lowercase();
                format!("parameter {index} of {}: {} is no {ty}", clip(name), clip(&value.to_string()))
            })
        };
        let parameters = given.iter().zip(wanted).enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok((function, parameters))
    }
}

/// A parameter; whole numbers may be signed or unsigned.
fn number(value: &Json, ty: Type) -> Option<Value> {
    let text = value.as_str();
    let whole = || -> Option<i128> {
        match (value.as_i64(), value.as_u64(), text) {
            (Some(number), ..) => Some(number.into()),
            (_, Some(number), _) => Some(number.into()),
            (.., Some(text)) => text.trim().parse().ok(),
            _ => None,
        }
    };
    let real = || value.as_f64().or_else(|| text?.trim().parse().ok());
    match ty {
        Type::I32 => {
            let number = whole()?;
            let signed = i32::try_from(number).ok();
            Some(Value::I32(signed.or_else(|| Some(u32::try_from(number).ok()?.cast_signed()))?))
        }
        Type::I64 => {
            let number = whole()?;
            let signed = i64::try_from(number).ok();
            Some(Value::I64(signed.or_else(|| Some(u64::try_from(number).ok()?.cast_signed()))?))
        }
        #[expect(clippy::cast_possible_truncation, reason = "the nearest number of 32 bits is what is wanted")]
        Type::F32 => Some(Value::F32(real()? as f32)),
        Type::F64 => Some(Value::F64(real()?)),
        _ => None,
    }
}

fn render(results: &[Value]) -> Json {
    match results {
        [one] => json(one),
        many => many.iter().map(json).collect(),
    }
}

fn json(value: &Value) -> Json {
    let real = |number: f64| match Number::from_f64(number) {
        Some(number) => Json::Number(number),
        None => Json::String(number.to_string()),
    };
    match value {
        Value::I32(number) => Json::from(*number),
        Value::I64(number) => Json::from(*number),
        // By way of its shortest text: 0.1 stays 0.1.
        Value::F32(number) => real(number.to_string().parse().unwrap_or_else(|_| f64::from(*number))),
        Value::F64(number) => real(*number),
        _ => Json::Null,
    }
}
