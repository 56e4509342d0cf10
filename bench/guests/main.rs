//! Measures guests beside wasmtime, as it comes and tuned in the same way, and beside a bare handler.
//!
//!     cargo run --release -p bench-guests -- call ../target/release/spear ../samples/build/hello.wasm
//!     cargo run --release -p bench-guests -- http ../target/release/spear [5]
//!     cargo run --release -p bench-guests -- cold ../target/release/spear
//!
//!     cargo run --release -p bench-guests -- draw ../docs
//!
//! Each prints its figures and keeps them; `draw` makes `docs/performance-functions.md` of what is kept.

mod call;
mod cold;
mod draw;
mod http;
mod module;
mod ours;
mod peer;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    if what == "serve" {
        let (how, guest) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
        return tokio::runtime::Runtime::new()?.block_on(http::serve(&how, &guest));
    }
    if what == "draw" {
        return draw::run(&PathBuf::from(args.next().context("the directory of the documents is missing")?));
    }
    let program = PathBuf::from(args.next().context("the path of the spear binary is missing")?);
    let program = program.canonicalize().with_context(|| format!("{}: build it first", program.display()))?;
    match what.as_str() {
        "call" => call::run(&program, args.next().map(std::fs::read).transpose()?),
        "http" => tokio::runtime::Runtime::new()?
            .block_on(http::run(&program, args.next().map_or(Ok(5), |rounds| rounds.parse())?)),
        "cold" => cold::run(&program),
        other => bail!("unknown measurement {other:?}: call, http, cold or draw"),
    }
}
