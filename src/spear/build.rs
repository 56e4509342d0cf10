//! Tells the program which compiler built it, and for which machine.

use std::{env, error::Error, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    println!("cargo:rerun-if-env-changed=SPEAR_COMMIT");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("-V").output()?;
    println!("cargo:rustc-env=SPEAR_RUSTC={}", String::from_utf8(told.stdout)?.trim().trim_start_matches("rustc "));
    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script its target this way")]
    let target = env::var("TARGET")?;
    println!("cargo:rustc-env=SPEAR_TARGET={target}");
    Ok(())
}
