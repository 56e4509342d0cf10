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
