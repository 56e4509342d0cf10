//! The guests.

/// A WASI command that does nothing.
pub const NOTHING: &str = r#"(module (memory (export "memory") 2) (func (export "_start")))"#;

/// A WASI command with so many pages of memory that copies its input to its output.
pub fn echo(pages: u32) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") {pages})
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 1024))
            (loop
              (i32.store (i32.const 4) (i32.const 65536))
              (br_if 1 (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
              (if (i32.eqz (i32.load (i32.const 8))) (then return))
              (i32.store (i32.const 4) (i32.load (i32.const 8)))
              (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
              (br 0))))"#
    )
}

/// A WASI command of about so many bytes, most of which is code; another one for each `seed`.
pub fn large(bytes: usize, seed: usize) -> String {
    // What one function takes in the binary.
    const EACH: usize = 305;
    let mut text = String::from("(module (memory (export \"memory\") 2) (global $sum (mut i32) (i32.const 0))\n");
    let count = bytes / EACH;
    for function in 0..count {
        text.push_str(&format!("(func $f{function} (param i32) (result i32) (local i32)\n"));
        for step in 0..16 {
            let number = (function * 16 + step + seed * 7919) % 8000 + 64;
            text.push_str(&format!(
                "(local.set 1 (i32.xor (i32.mul (local.get 0) (i32.const {number})) (i32.load (i32.and (local.get 1) (i32.const 8191)))))\n"
            ));
        }
        text.push_str("(local.get 1))\n");
    }
    text.push_str(
        "(func (export \"_start\") (global.set $sum (i32.add (call $f0 (i32.const 7)) (call $f1 (i32.const 8))))))\n",
    );
    text
}
