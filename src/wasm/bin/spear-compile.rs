//! The compiling child on its own, for this crate's tests: the daemon's program has the same subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != wasm::COMPILE_COMMAND) {
        return ExitCode::from(2);
    }
    wasm::CompileArgs::parse(arguments).map_or_else(|| ExitCode::from(2), |args| wasm::compile_child(&args))
}
