//! Addresses at and behind the end of memories, and memories that want to be larger.

use super::{End, Group};
use runtime::Limits;
use types::Reason;

const BEYOND: &str = "out of bounds memory access";
/// Bytes of two pages.
const SIZE: u32 = 2 * 65_536;

fn beyond() -> End {
    End::Fails(Reason::Trap, BEYOND.to_owned())
}

/// An instruction, what it stores if it stores, and how many bytes it reaches.
type Access = (&'static str, Option<&'static str>, u32);

const SCALAR: [Access; 23] = [
    ("i32.load", None, 4),
    ("i64.load", None, 8),
    ("f32.load", None, 4),
    ("f64.load", None, 8),
    ("i32.load8_s", None, 1),
    ("i32.load8_u", None, 1),
    ("i32.load16_s", None, 2),
    ("i32.load16_u", None, 2),
    ("i64.load8_s", None, 1),
    ("i64.load8_u", None, 1),
    ("i64.load16_s", None, 2),
    ("i64.load16_u", None, 2),
    ("i64.load32_s", None, 4),
    ("i64.load32_u", None, 4),
    ("i32.store", Some("(i32.const 1)"), 4),
    ("i64.store", Some("(i64.const 1)"), 8),
    ("f32.store", Some("(f32.const 1)"), 4),
    ("f64.store", Some("(f64.const 1)"), 8),
    ("i32.store8", Some("(i32.const 1)"), 1),
    ("i32.store16", Some("(i32.const 1)"), 2),
    ("i64.store8", Some("(i64.const 1)"), 1),
    ("i64.store16", Some("(i64.const 1)"), 2),
    ("i64.store32", Some("(i64.const 1)"), 4),
];

const VECTOR: [Access; 13] = [
    ("v128.load", None, 16),
    ("v128.store", Some("(v128.const i64x2 1 2)"), 16),
    ("v128.load8x8_s", None, 8),
    ("v128.load16x4_u", None, 8),
    ("v128.load32x2_s", None, 8),
    ("v128.load8_splat", None, 1),
    ("v128.load16_splat", None, 2),
    ("v128.load32_splat", None, 4),
    ("v128.load64_splat", None, 8),
    ("v128.load32_zero", None, 4),
    ("v128.load64_zero", None, 8),
    ("v128.load64_lane", Some("(v128.const i64x2 1 2)"), 8),
    ("v128.store8_lane", Some("(v128.const i64x2 1 2)"), 1),
];

fn edges(group: &mut Group, memory: &str, accesses: &[Access]) {
    for (operator, value, width) in accesses {
        let last = SIZE - width;
        for (offset, addresses) in [
            ("0".to_owned(), vec![(last.to_string(), true), ((last + 1).to_string(), false), ("-1".to_owned(), false)]),
            (last.to_string(), vec![("0".to_owned(), true), ("1".to_owned(), false), ("-1".to_owned(), false)]),
            ("4294967295".to_owned(), vec![("0".to_owned(), false), ("1".to_owned(), false), ("-1".to_owned(), false)]),
        ] {
            let name = format!("{operator} offset={offset}");
            let lane = if operator.ends_with("_lane") { " 0" } else { "" };
            let value = value.unwrap_or_default();
            let access = format!("({operator} {memory} offset={offset}{lane} (local.get 0) {value})");
            let access = if operator.contains("load") { format!("(drop {access})") } else { access };
            group.function(&name, &format!("(param i32) (result i32) {access} (i32.const 1)"));
            for (address, fits) in addresses {
                group.case(&name, &[&address], if fits { End::Answer("1".to_owned()) } else { beyond() });
            }
        }
    }
}

/// The address is not a number that the compiler knows; here it is.
fn constants() -> Group {
    let mut group = Group::new("constant addresses", "");
    group.traps("one behind", "(drop (i32.load8_u (i32.const 131072)))", BEYOND);
    group.traps("half behind", "(drop (i64.load (i32.const 131065)))", BEYOND);
    group.traps("the last of all", "(drop (i32.load8_u offset=4294967295 (i32.const -1)))", BEYOND);
    group.traps("a sum of 4 GiB", "(drop (i32.load8_u offset=1 (i32.const -1)))", BEYOND);
    group.traps("a sum behind", "(i32.store offset=65536 (i32.const 65536) (i32.const 1))", BEYOND);
    group.answers("the last", "(result i32) (i32.load8_u offset=65535 (i32.const 65536))", "0");
    group.traps(
        "hoisted out of a loop",
        "(local i32) (loop (drop (i32.load offset=4294967292 (local.get 0)))
           (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 10))))",
        BEYOND,
    );
    group.traps(
        "walking over the end",
        "(local i32) (loop (i32.store8 (local.get 0) (i32.const 1)) (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br 0))",
        BEYOND,
    );
    group.traps(
        "walking over it in pages",
        "(local i32) (loop (i64.store (local.get 0) (i64.const 1)) (local.set 0 (i32.add (local.get 0) (i32.const 4096))) (br 0))",
        BEYOND,
    );
    group.traps("only where nothing is taken", "(local i32) (if (i32.load (i32.const -4)) (then (nop)))", BEYOND);
    group
}

fn growing() -> Group {
    let mut group = Group::new("growing", "");
    group.answers("to its maximum", "(result i32) (drop (memory.grow (i32.const 6))) (memory.size)", "8");
    group.answers("one over it", "(result i32) (memory.grow (i32.const 7))", "-1");
    group.answers("by all there is", "(result i32) (memory.grow (i32.const -1))", "-1");
    group.answers("by half of all", "(result i32) (memory.grow (i32.const 32768))", "-1");
    group.answers("by 65536", "(result i32) (memory.grow (i32.const 65536))", "-1");
    group.answers("by nothing", "(result i32) (memory.grow (i32.const 0))", "2");
    group.answers("twice", "(result i32) (drop (memory.grow (i32.const 3))) (memory.grow (i32.const 3))", "5");
    group.answers("what is new is zero",
        "(result i64) (drop (memory.grow (i32.const 6))) (i64.or (i64.load (i32.const 131072)) (i64.load (i32.const 524280)))", "0");
    group.answers("what is new can be used",
        "(result i32) (drop (memory.grow (i32.const 6))) (i32.store (i32.const 524284) (i32.const 9)) (i32.load (i32.const 524284))", "9");
    group.traps(
        "behind what is new",
        "(drop (memory.grow (i32.const 6))) (drop (i32.load (i32.const 524285)))",
        BEYOND,
    );
    group.traps(
        "refused growth is none",
        "(drop (memory.grow (i32.const 7))) (drop (i32.load (i32.const 131072)))",
        BEYOND,
    );
    group.answers(
        "until refused",
        "(result i32) (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (memory.size)",
        "8",
    );
    group
}

/// A memory without a maximum of its own, under a limit of 10 pages.
fn limited() -> Group {
    let mut group = Group::new("limited", "").memory("(memory (export \"memory\") 2)");
    group.limits = Limits { memory_bytes: 10 * 65_536, ..group.limits };
    group.answers("to the limit", "(result i32) (drop (memory.grow (i32.const 8))) (memory.size)", "10");
    group.answers("one over it, and it copes", "(result i32) (memory.grow (i32.const 9))", "-1");
    group.answers(
        "little by little",
        "(result i32) (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (memory.size)",
        "10",
    );
    let starved = "it asked for more memory than its limit of 655360 bytes, then";
    group.ends(
        "one over it, and it traps",
        "(if (i32.eq (memory.grow (i32.const 9)) (i32.const -1)) (then (unreachable)))",
        End::Fails(Reason::Memory, format!("{starved} trapped")),
    );
    group.ends(
        "one over it, and it exits",
        "(if (i32.eq (memory.grow (i32.const 9)) (i32.const -1)) (then (call $proc_exit (i32.const 3))))",
        End::Fails(Reason::Memory, format!("{starved} ended with exit code 3")),
    );
    group.ends(
        "and it exits well",
        "(if (i32.eq (memory.grow (i32.const 9)) (i32.const -1)) (then (call $proc_exit (i32.const 0))))",
        End::Exit(0),
    );
    group.ends(
        "by all there is",
        "(if (i32.eq (memory.grow (i32.const -1)) (i32.const -1)) (then (unreachable)))",
        // No memory could have that much: it is not the limit that refuses.
        End::Fails(Reason::Trap, "unreachable".to_owned()),
    );
    group.ends(
        "it uses what it did not get",
        "(drop (memory.grow (i32.const 9))) (i32.store (i32.const 131072) (i32.const 1))",
        End::Fails(Reason::Memory, starved.to_owned()),
    );
    group
}

fn none() -> Group {
    let mut group = Group::new("no pages", "").simd().memory("(memory (export \"memory\") 0)");
    group.answers("its size", "(result i32) (memory.size)", "0");
    group.traps("its first byte", "(drop (i32.load8_u (i32.const 0)))", BEYOND);
    group.traps("a byte to it", "(i32.store8 (i32.const 0) (i32.const 1))", BEYOND);
    group.traps("an offset", "(drop (i64.load offset=4294967295 (i32.const 0)))", BEYOND);
    group.traps("filled", "(memory.fill (i32.const 0) (i32.const 1) (i32.const 1))", BEYOND);
    group.answers(
        "nothing of it",
        "(result i32) (memory.fill (i32.const 0) (i32.const 1) (i32.const 0)) (i32.const 1)",
        "1",
    );
    group.traps("nothing behind it", "(memory.fill (i32.const 1) (i32.const 1) (i32.const 0))", BEYOND);
    group.answers("it grows", "(result i32) (drop (memory.grow (i32.const 1))) (i32.load (i32.const 65532))", "0");
    group.answers(
        "for a host function",
        "(result i32) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0))",
        "21",
    );
    group
}

fn none_ever() -> Group {
    let mut group = Group::new("no pages ever", "").simd().memory("(memory (export \"memory\") 0 0)");
    group.answers("it does not grow", "(result i32) (memory.grow (i32.const 1))", "-1");
    group.answers("it grows by nothing", "(result i32) (memory.grow (i32.const 0))", "0");
    group.traps("a byte", "(drop (i32.load8_s (i32.const -1)))", BEYOND);
    group
}

/// A memory, a small one, one that begins with `$none` pages, a large one.
fn many(name: &'static str, memories: &'static str, none: u32) -> Group {
    let mut group = Group::new(name, "").memory(memories);
    group.limits = Limits { memory_bytes: u64::from(12 + none) * 65_536, ..group.limits };
    let access = "(i32.const 65536) (i32.const 1)";
    group.traps("behind the small one", &format!("(i32.store8 $small {access})"), BEYOND);
    group.answers("not behind the large one", &format!("(result i32) (i32.store8 $large {access}) (i32.const 1)"), "1");
    group.traps("behind the third", &format!("(drop (i32.load8_u $none (i32.const {})))", none * 65_536), BEYOND);
    group.answers("each has its own bytes",
        "(result i32) (i32.store $large (i32.const 0) (i32.const 5)) (i32.add (i32.load (i32.const 0)) (i32.load $small (i32.const 0)))", "0");
    group.traps(
        "copied into a shorter one",
        "(memory.copy $small 0 (i32.const 0) (i32.const 0) (i32.const 65537))",
        BEYOND,
    );
    group.traps(
        "copied out of a shorter one",
        "(memory.copy 0 $small (i32.const 0) (i32.const 0) (i32.const 65537))",
        BEYOND,
    );
    group.answers(
        "copied whole",
        "(result i32) (memory.copy $small 0 (i32.const 0) (i32.const 0) (i32.const 65536)) (i32.const 1)",
        "1",
    );
    group.traps("filled over its end", "(memory.fill $small (i32.const 1) (i32.const 1) (i32.const 65536))", BEYOND);
    group.answers("the small one does not grow", "(result i32) (memory.grow $small (i32.const 1))", "-1");
    // 2 + 1 + 0 + 2 pages at the beginning, 12 in all.
    group.answers("all together to the limit",
        "(result i32) (drop (memory.grow $none (i32.const 4))) (drop (memory.grow $large (i32.const 3))) (memory.size $large)", "5");
    group.answers(
        "all together one over it",
        "(result i32) (drop (memory.grow $none (i32.const 4))) (memory.grow $large (i32.const 4))",
        "-1",
    );
    group.answers(
        "all together until refused",
        "(result i32) (loop (br_if 0 (i32.ne (memory.grow $none (i32.const 1)) (i32.const -1))))
         (loop (br_if 0 (i32.ne (memory.grow $large (i32.const 1)) (i32.const -1))))
         (i32.add (memory.size 0) (i32.add (memory.size $none) (memory.size $large)))",
        &(11 + none).to_string(),
    );
    edges(&mut group, "$large", &SCALAR);
    group
}

pub fn groups() -> Vec<Group> {
    let mut scalar = Group::new("edges", "");
    edges(&mut scalar, "", &SCALAR);
    let mut vector = Group::new("edges of vectors", "").simd();
    edges(&mut vector, "", &VECTOR);
    let some = many(
        "many memories",
        "(memory (export \"memory\") 2 4) (memory $small 1 1) (memory $none 1) (memory $large 2)",
        1,
    );
    let many_empty = many(
        "many memories and an empty one",
        "(memory (export \"memory\") 2 4) (memory $small 1 1) (memory $none 0) (memory $large 2)",
        0,
    )
    .simd();
    vec![scalar, vector, constants(), growing(), limited(), none(), none_ever(), some, many_empty]
}

#[tokio::test]
async fn no_address_reaches_beyond_a_memory_and_no_memory_beyond_its_limit() {
    super::run(groups()).await;
}
