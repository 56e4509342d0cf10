//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A compiling child: limited by itself before anything else is started in it.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == wasm::COMPILE_COMMAND) {
        return wasm::CompileArgs::parse(arguments)
            .map_or_else(|| ExitCode::from(2), |args| wasm::compile_child(&args));
    }
    net::install_crypto();
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    spear::cli::run(std::env::args_os(), environment)
}
