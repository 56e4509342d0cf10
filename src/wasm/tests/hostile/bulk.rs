//! Fills, copies and initialisations of ranges that do not fit.

use super::Group;

const MEMORY: &str = "out of bounds memory access";

fn memories() -> Group {
    let mut group = Group::new("ranges of memory", r#"(data $passive "0123456789") (data (i32.const 0) "active")"#);
    for (name, at, count) in [
        ("one over the end", "131072", "1"),
        ("over the end", "131070", "3"),
        ("all of 4 GiB", "0", "-1"),
        ("from the last address", "-1", "1"),
        ("around the corner", "-1", "-1"),
        ("half of all", "65536", "-2147483648"),
        ("nothing behind the end", "131073", "0"),
        ("nothing at the last address", "-1", "0"),
    ] {
        group.traps(
            &format!("fill {name}"),
            &format!("(memory.fill (i32.const {at}) (i32.const 7) (i32.const {count}))"),
            MEMORY,
        );
        group.traps(
            &format!("copy to {name}"),
            &format!("(memory.copy (i32.const {at}) (i32.const 0) (i32.const {count}))"),
            MEMORY,
        );
        group.traps(
            &format!("copy from {name}"),
            &format!("(memory.copy (i32.const 0) (i32.const {at}) (i32.const {count}))"),
            MEMORY,
        );
        group.traps(
            &format!("init {name}"),
            &format!("(memory.init $passive (i32.const {at}) (i32.const 0) (i32.const {count}))"),
            MEMORY,
        );
    }
    for (from, count) in [("0", "11"), ("10", "1"), ("11", "0"), ("-1", "1"), ("1", "-1"), ("-1", "0")] {
        group.traps(
            &format!("init from {from} {count}"),
            &format!("(memory.init $passive (i32.const 0) (i32.const {from}) (i32.const {count}))"),
            MEMORY,
        );
    }
    group.traps("init of what is active", "(memory.init 1 (i32.const 0) (i32.const 0) (i32.const 1))", MEMORY);
    group.answers(
        "nothing of what is active",
        "(result i32) (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 1)",
        "1",
    );
    group.answers(
        "all of it",
        "(result i32) (memory.fill (i32.const 0) (i32.const 3) (i32.const 131072)) (i32.load8_u (i32.const 131071))",
        "3",
    );
    group.answers(
        "nothing at the end",
        "(result i32) (memory.fill (i32.const 131072) (i32.const 3) (i32.const 0)) (i32.const 1)",
        "1",
    );
    group.answers("over itself, upwards",
        "(result i32) (i32.store (i32.const 0) (i32.const 67305985)) (memory.copy (i32.const 1) (i32.const 0) (i32.const 4)) (i32.load (i32.const 1))", "67305985");
    group.answers("over itself, downwards",
        "(result i32) (i32.store (i32.const 1) (i32.const 67305985)) (memory.copy (i32.const 0) (i32.const 1) (i32.const 4)) (i32.load (i32.const 0))", "67305985");
    // What does not fit is not begun.
    group.traps(
        "a fill that does not fit and then is looked at",
        "(memory.fill (i32.const 131071) (i32.const 1) (i32.const 2))",
        MEMORY,
    );
    group
}

fn dropped() -> Group {
    let mut group = Group::new("dropped ranges", r#"(data $passive "0123456789")"#).fresh();
    group.traps(
        "init of what was dropped",
        "(data.drop $passive) (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 1))",
        MEMORY,
    );
    group.answers("nothing of it", "(result i32) (data.drop $passive) (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 1)", "1");
    group.answers("dropped twice", "(result i32) (data.drop $passive) (data.drop $passive) (i32.const 1)", "1");
    group.answers("it is there in the next call",
        "(result i32) (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 10)) (data.drop $passive) (i32.load8_u (i32.const 9))", "57");
    group
}

pub fn groups() -> Vec<Group> {
    vec![memories(), dropped()]
}

#[tokio::test]
async fn ranges_that_do_not_fit_end_the_call_and_nothing_else() {
    super::run(groups()).await;
}
