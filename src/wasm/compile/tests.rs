#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::generate::cases;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt;

fn word() -> impl Strategy<Value = OsString> {
    let flags = [
        "--input",
        "--output",
        "--identity",
        "--compiler",
        "--memory",
        "--cpu",
        "--behind",
        "true",
        "singlepass",
        "cranelift",
        "7",
        "-1",
        "",
    ];
    prop_oneof![
        proptest::sample::select(flags.to_vec()).prop_map(OsString::from),
        any::<u64>().prop_map(|number| number.to_string().into()),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3_000), failure_persistence: None, ..ProptestConfig::default() })]

    /// Paths are any bytes, numbers any numbers: what is told is what is understood.
    #[test]
    fn a_command_line_is_read_back(
        input in proptest::collection::vec(1u8.., 0..40),
        output in proptest::collection::vec(1u8.., 0..40),
        identity in any::<[u8; 32]>(),
        fast in any::<bool>(),
        memory_bytes in any::<u64>(),
        cpu_seconds in any::<u64>(),
        behind in any::<bool>(),
    ) {
        let compiler = if fast { Compiler::Singlepass } else { Compiler::Cranelift };
        let (input, output) = (OsString::from_vec(input).into(), OsString::from_vec(output).into());
        let args = CompileArgs { input, output, identity: identity.into(), compiler, memory_bytes, cpu_seconds, behind };
        prop_assert_eq!(CompileArgs::parse(args.to_command_line().into_iter().skip(1)), Some(args));
    }

    /// Nothing makes the child panic before it has its limits, and what it accepts it has understood.
    #[test]
    fn any_words_are_refused_or_understood(words in proptest::collection::vec(word(), 0..14)) {
        if let Some(args) = CompileArgs::parse(words) {
            prop_assert_eq!(CompileArgs::parse(args.to_command_line().into_iter().skip(1)), Some(args));
        }
    }
}
