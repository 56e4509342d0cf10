//! What a task says of itself as a function: any settings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spearlet::functions::fuzzing::Node;
use std::sync::OnceLock;

fuzz_target!(|input: &[u8]| {
    // Nothing changes it, so one does for all; it is left behind.
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = NODE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        Node::new(&dir).expect("a tree in it")
    });
    if let Err(wrong) = node.drive(input) {
        panic!("{wrong}");
    }
});
