//! Calls through tables: of nothing, of something else, of what is not there.

use super::{End, Group};
use std::fmt::Write as _;
use types::Reason;

const NULL: &str = "uninitialized element";
const TYPE: &str = "indirect call type mismatch";
const BEYOND: &str = "undefined element: out of bounds table access|out of bounds table access";

fn calls() -> Group {
    let mut group = Group::new(
        "indirect calls",
        r#"(type $none (func)) (type $same (func)) (type $one (func (param i32))) (type $gives (func (result i32)))
           (type $float (func (param f32))) (type $long (func (param i64)))
           (table $t 8 16 funcref) (table $empty 0 funcref) (table $second 4 funcref)
           (elem (table $t) (i32.const 1) func $nothing $takes $answers)
           (elem (table $second) (i32.const 3) func $answers)
           (func $nothing) (func $takes (param i32)) (func $answers (result i32) (i32.const 42))"#,
    );
    for (name, index) in [("the first", "0"), ("one behind the last that is set", "4"), ("the last", "7")] {
        group.traps(&format!("{name} is null"), &format!("(call_indirect $t (type $none) (i32.const {index}))"), NULL);
    }
    for index in ["8", "16", "255", "65536", "2147483647", "-2147483648", "-1"] {
        group.traps(
            &format!("element {index}"),
            &format!("(call_indirect $t (type $none) (i32.const {index}))"),
            BEYOND,
        );
        group.function(&format!("asked element {index}"), "(param i32) (call_indirect $t (type $none) (local.get 0))");
        group.case(&format!("asked element {index}"), &[index], End::Fails(Reason::Trap, BEYOND.to_owned()));
    }
    group.traps("an empty table", "(call_indirect $empty (type $none) (i32.const 0))", BEYOND);
    group.traps("another table's end", "(call_indirect $second (type $none) (i32.const 4))", BEYOND);
    for (name, ty, arguments, index) in [
        ("a parameter too many", "$none", "", 2),
        ("a parameter too few", "$one", "(i32.const 1)", 1),
        ("another parameter", "$float", "(f32.const 1)", 2),
        ("a wider parameter", "$long", "(i64.const 1)", 2),
        ("a result that nobody wants", "$none", "", 3),
        ("no result where one is wanted", "$gives", "", 1),
        ("parameters for results", "$gives", "", 2),
    ] {
        let drop = if ty == "$gives" { "(drop" } else { "(block" };
        group.traps(name, &format!("{drop} (call_indirect $t (type {ty}) {arguments} (i32.const {index})))"), TYPE);
    }
    group.answers("the right one", "(result i32) (call_indirect $t (type $gives) (i32.const 3))", "42");
    group.answers("in the second table", "(result i32) (call_indirect $second (type $gives) (i32.const 3))", "42");
    group.answers(
        "a type of the same shape",
        "(result i32) (call_indirect $t (type $same) (i32.const 1)) (i32.const 1)",
        "1",
    );
    group
}

fn tables() -> Group {
    let mut group = Group::new(
        "tables",
        r#"(table $t 4 8 funcref) (table $e 4 8 externref) (table $none 0 0 funcref)
           (elem $segment func $f $f) (elem (table $t) (i32.const 0) func $f) (elem declare func $f)
           (func $f)"#,
    )
    .fresh();
    let beyond = "out of bounds table access";
    for (table, kind) in [("$t", "func"), ("$e", "extern")] {
        for index in ["4", "-1", "2147483648"] {
            group.traps(
                &format!("get {table} {index}"),
                &format!("(drop (table.get {table} (i32.const {index})))"),
                beyond,
            );
            group.traps(
                &format!("set {table} {index}"),
                &format!("(table.set {table} (i32.const {index}) (ref.null {kind}))"),
                beyond,
            );
        }
        for (at, count) in [("0", "5"), ("4", "1"), ("1", "-1"), ("-1", "1"), ("-1", "-1"), ("5", "0")] {
            group.traps(
                &format!("fill {table} {at} {count}"),
                &format!("(table.fill {table} (i32.const {at}) (ref.null {kind}) (i32.const {count}))"),
                beyond,
            );
            group.traps(
                &format!("copy to {table} {at} {count}"),
                &format!("(table.copy {table} {table} (i32.const {at}) (i32.const 0) (i32.const {count}))"),
                beyond,
            );
            group.traps(
                &format!("copy from {table} {at} {count}"),
                &format!("(table.copy {table} {table} (i32.const 0) (i32.const {at}) (i32.const {count}))"),
                beyond,
            );
        }
        group.answers(
            &format!("grow {table} over its maximum"),
            &format!("(result i32) (table.grow {table} (ref.null {kind}) (i32.const 5))"),
            "-1",
        );
        group.answers(
            &format!("grow {table} by all"),
            &format!("(result i32) (table.grow {table} (ref.null {kind}) (i32.const -1))"),
            "-1",
        );
        group.answers(
            &format!("grow {table} to its maximum"),
            &format!("(result i32) (drop (table.grow {table} (ref.null {kind}) (i32.const 4))) (table.size {table})"),
            "8",
        );
    }
    for (to, from, count) in [("3", "0", "2"), ("0", "1", "2"), ("0", "0", "3"), ("-1", "0", "1"), ("0", "-1", "1")] {
        group.traps(
            &format!("init {to} {from} {count}"),
            &format!("(table.init $t $segment (i32.const {to}) (i32.const {from}) (i32.const {count}))"),
            beyond,
        );
    }
    group.traps(
        "init of what was dropped",
        "(elem.drop $segment) (table.init $t $segment (i32.const 0) (i32.const 0) (i32.const 1))",
        beyond,
    );
    group.answers(
        "nothing of what was dropped",
        "(result i32) (elem.drop $segment) (table.init $t $segment (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 1)",
        "1",
    );
    group.traps(
        "a call of what was filled with null",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 4)) (call_indirect $t (i32.const 0))",
        NULL,
    );
    group.traps("get of an empty table", "(drop (table.get $none (i32.const 0)))", beyond);
    group
}

/// Functions with a thousand parameters or results, which no compiler likes.
fn wide() -> Group {
    let many = " i64".repeat(1000);
    let numbers: String = (0..1000).map(|index| format!("(i64.const {index})")).collect();
    let gets: String = (0..1000).fold(String::new(), |mut text, index| {
        write!(text, "(local.get {index}) ").unwrap();
        text
    });
    let sum = "(i64.add) ".repeat(999);
    let mut group = Group::new(
        "wide functions",
        format!(
            "(type $wide (func (param{many}) (result{many}))) (table 1 funcref) (elem (i32.const 0) $same)
             (func $same (type $wide) {gets})
             (func $sum (param{many}) (result i64) {gets} {sum})"
        ),
    );
    group.answers("a thousand parameters", &format!("(result i64) {numbers} (call $sum)"), "499500");
    group.answers("a thousand results", &format!("(result i64) {numbers} (call $same) {sum}"), "499500");
    group.answers(
        "through a table",
        &format!("(result i64) {numbers} (call_indirect (type $wide) (i32.const 0)) {sum}"),
        "499500",
    );
    group
}

pub fn groups() -> Vec<Group> {
    vec![calls(), tables(), wide()]
}

#[tokio::test]
async fn wrong_calls_and_wrong_elements_end_the_call_and_nothing_else() {
    super::run(groups()).await;
}
