//! Pointers, lengths and numbers that a host function must not believe.

use super::{End, Group};
use runtime::{Grants, Scratch};

/// Functions with what their parameters are: `p` a pointer to what is read or written, `l` a length, `n` a count of
/// structures, `f` an open stream, `d` an open directory, `i` and `w` other numbers of 32 and 64 bits.
const FUNCTIONS: [(&str, &str); 43] = [
    ("args_get", "pp"),
    ("args_sizes_get", "pp"),
    ("clock_res_get", "ip"),
    ("clock_time_get", "iwp"),
    ("environ_get", "pp"),
    ("environ_sizes_get", "pp"),
    ("fd_advise", "fwwi"),
    ("fd_allocate", "fww"),
    ("fd_datasync", "f"),
    ("fd_fdstat_get", "fp"),
    ("fd_fdstat_set_flags", "fi"),
    ("fd_fdstat_set_rights", "fww"),
    ("fd_filestat_get", "fp"),
    ("fd_filestat_set_size", "fw"),
    ("fd_filestat_set_times", "fwwi"),
    ("fd_pread", "fpnwp"),
    ("fd_prestat_dir_name", "dpl"),
    ("fd_prestat_get", "dp"),
    ("fd_pwrite", "fpnwp"),
    ("fd_read", "fpnp"),
    ("fd_readdir", "dplwp"),
    ("fd_renumber", "fi"),
    ("fd_seek", "fwip"),
    ("fd_sync", "f"),
    ("fd_tell", "fp"),
    ("fd_write", "fpnp"),
    ("path_create_directory", "dpl"),
    ("path_filestat_get", "diplp"),
    ("path_filestat_set_times", "diplwwi"),
    ("path_link", "dipldpl"),
    ("path_open", "diplIwwip"),
    ("path_readlink", "dplplp"),
    ("path_remove_directory", "dpl"),
    ("path_rename", "dpldpl"),
    ("path_symlink", "pldpl"),
    ("path_unlink_file", "dpl"),
    ("poll_oneoff", "ppnp"),
    ("proc_raise", "i"),
    ("random_get", "pl"),
    ("sock_accept", "fip"),
    ("sock_recv", "fpnipp"),
    ("sock_send", "fpnip"),
    ("sock_shutdown", "fi"),
];

/// What stands for a parameter when another one is the wrong one.
fn usual(kind: char) -> &'static str {
    match kind {
        'd' => "3",
        'l' => "8",
        'n' | 'f' => "1",
        // Pointers point to zeros.
        'p' => "1024",
        _ => "0",
    }
}

fn pointers() -> Group {
    let mut imports = String::new();
    let mut group = Group::new("pointers", "").long();
    for (name, kinds) in FUNCTIONS {
        let types: String = kinds.chars().map(|kind| if kind == 'w' { " i64" } else { " i32" }).collect();
        imports.push_str(&format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func $h_{name} (param{types}) (result i32)))\n"
        ));
        let gets: String = (0..kinds.len()).map(|index| format!("(local.get {index})")).collect();
        group.function(name, &format!("(param{types}) (result i32) (call $h_{name} {gets})"));
        for (place, kind) in kinds.chars().enumerate() {
            let wrong: &[&str] = match kind {
                // At the last byte, just behind it, and so that a sum wraps.
                'p' => &["131071", "131072", "-1", "-8"],
                'l' | 'n' => &["-1", "2147483647"],
                'f' | 'd' => &["-1", "4", "255", "2147483647"],
                _ => continue,
            };
            for wrong in wrong {
                let mut args: Vec<&str> = kinds.chars().map(usual).collect();
                args[place] = wrong;
                // One byte is enough for the last one, and two strings may overlap.
                let harmless = match (name, kind, *wrong) {
                    // There is no variable, and but one argument, the name.
                    ("environ_get", ..) => true,
                    ("args_get", _, "131071") => false,
                    // As many bytes as there are, if there are fewer.
                    ("fd_prestat_dir_name", 'l', _) => true,
                    _ => false,
                };
                let end = if harmless { End::OneOf(vec!["0".into(), "21".into()]) } else { End::Errno };
                group.case(name, &args, end);
            }
        }
    }
    let mut group = group.imports(&imports);
    group.grants =
        Grants { scratch: Some(Scratch { guest: "/tmp".into(), bytes: 1 << 20, entries: 16 }), ..Grants::default() };
    group
}

/// Lists of buffers.
fn vectors() -> Group {
    let mut group = Group::new("buffers", "");
    for (name, call) in [
        ("read", "(call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64))"),
        ("write", "(call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64))"),
        ("log", "(call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 64))"),
    ] {
        for (at, length) in [("-1", "1"), ("131072", "1"), ("131071", "2"), ("0", "-1"), ("-1", "-1"), ("131073", "8")]
        {
            let text = format!(
                "(result i32) (i32.store (i32.const 0) (i32.const {at})) (i32.store (i32.const 4) (i32.const {length})) {call}"
            );
            // Nothing is read where nothing is there to be read.
            let end = if name == "read" { End::OneOf(vec!["0".into(), "21".into()]) } else { End::Answer("21".into()) };
            group.ends(&format!("{name} {at} {length}"), &text, end);
        }
    }
    group
}

/// Guests that end by themselves.
fn ends() -> Group {
    let mut group = Group::new("ends", "");
    for (name, code) in [("0", 0), ("1", 1), ("75", 75), ("255", 255), ("70000", 70_000), ("-1", -1)] {
        group.ends(&format!("exit {name}"), &format!("(call $proc_exit (i32.const {code}))"), End::Exit(code));
    }
    for signal in [1, 6, 9, 11, 15, 30] {
        group.ends(
            &format!("signal {signal}"),
            &format!("(drop (call $proc_raise (i32.const {signal})))"),
            End::Exit(128 + signal),
        );
    }
    for signal in ["0", "16", "17", "22", "27"] {
        group.answers(
            &format!("signal {signal}, ignored"),
            &format!("(result i32) (call $proc_raise (i32.const {signal}))"),
            "0",
        );
    }
    for signal in ["31", "-1", "255", "2147483647"] {
        group.ends(
            &format!("signal {signal}, which is none"),
            &format!("(result i32) (call $proc_raise (i32.const {signal}))"),
            End::Errno,
        );
    }
    group.ends("after what was to be done", "(call $proc_exit (i32.const 3)) (unreachable)", End::Exit(3));
    group.ends("deep inside", "(block (block (loop (call $proc_exit (i32.const 4)) (br 0))))", End::Exit(4));
    group
}

fn sizes() -> Group {
    let mut group = Group::new("sizes", "").memory("(memory (export \"memory\") 1000)").long();
    group.answers(
        "random bytes for all memory",
        "(result i32) (call $random_get (i32.const 0) (i32.const 65536000))",
        "0",
    );
    group.answers("and one more", "(result i32) (call $random_get (i32.const 0) (i32.const 65536001))", "21");
    group.ends(
        "more subscriptions than there may be",
        "(result i32) (call $poll_oneoff (i32.const 0) (i32.const 1000000) (i32.const 1025) (i32.const 8))",
        End::Errno,
    );
    group.ends(
        "a million subscriptions",
        "(result i32) (call $poll_oneoff (i32.const 0) (i32.const 1000000) (i32.const 1000000) (i32.const 8))",
        End::Errno,
    );
    group.ends(
        "a thousand buffers, all of them all of memory",
        "(result i32) (local i32)
         (loop (i32.store (i32.mul (local.get 0) (i32.const 8)) (i32.const 0))
           (i32.store offset=4 (i32.mul (local.get 0) (i32.const 8)) (i32.const 65536000))
           (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))
         (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1000) (i32.const 65535996))",
        // More than a number of 32 bits in all.
        End::Answer("28".to_owned()),
    );
    group
}

pub fn groups() -> Vec<Group> {
    vec![pointers(), vectors(), ends(), sizes()]
}

#[tokio::test]
async fn no_pointer_length_or_number_is_believed() {
    super::run(groups()).await;
}
