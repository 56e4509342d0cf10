//! Arguments, environment, clocks, random bytes, signals, sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasm::fuzzing::{Group, Room};

fuzz_target!(|input: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let room = Room::new(dir.path()).expect("a tree in it");
    if let Err(wrong) = room.drive(Group::Process, input) {
        panic!("{wrong}");
    }
});
