//! Numbers that no instruction can give.

use super::{End, Group};
use types::Reason;

fn trap(message: &str) -> End {
    End::Fails(Reason::Trap, message.to_owned())
}

fn whole_numbers() -> Group {
    let mut group = Group::new("whole numbers", "");
    for (ty, least) in [("i32", "-2147483648"), ("i64", "-9223372036854775808")] {
        for operator in ["div_s", "div_u", "rem_s", "rem_u"] {
            let name = format!("{ty}.{operator}");
            group.function(&name, &format!("(param {ty} {ty}) (result {ty}) ({name} (local.get 0) (local.get 1))"));
            group.case(&name, &["1", "0"], trap("integer divide by zero"));
            group.case(&name, &[least, "0"], trap("integer divide by zero"));
            let by_minus_one = match operator {
                "div_s" => trap("integer overflow"),
                "rem_s" => End::Answer("0".to_owned()),
                // As unsigned numbers the one is half of the other.
                "div_u" => End::Answer("0".to_owned()),
                _ => End::Answer(least.to_owned()),
            };
            group.case(&name, &[least, "-1"], by_minus_one);
            let constant = format!("{name} of constants");
            group.traps(
                &constant,
                &format!("(result {ty}) ({name} ({ty}.const 7) ({ty}.const 0))"),
                "integer divide by zero",
            );
        }
        group.answers(
            &format!("{ty} shifts by more than it has"),
            &format!("(result {ty}) ({ty}.shl ({ty}.const 1) ({ty}.const -1))"),
            least,
        );
    }
    group
}

fn conversions() -> Group {
    let mut group = Group::new("conversions", "");
    for (to, from, sign, values) in [
        ("i32", "f32", "s", ["2147483648", "-2147483904"]),
        ("i32", "f32", "u", ["4294967296", "-1"]),
        ("i32", "f64", "s", ["2147483648", "-2147483649"]),
        ("i32", "f64", "u", ["4294967296", "-1"]),
        ("i64", "f32", "s", ["9223372036854775808", "-9223373136366403584"]),
        ("i64", "f32", "u", ["18446744073709551616", "-1"]),
        ("i64", "f64", "s", ["9223372036854775808", "-9223372036854777856"]),
        ("i64", "f64", "u", ["18446744073709551616", "-1"]),
    ] {
        let name = format!("{to}.trunc_{from}_{sign}");
        group.function(&name, &format!("(param {from}) (result {to}) ({name} (local.get 0))"));
        group.case(&name, &["NaN"], trap("invalid conversion to integer"));
        for value in ["inf", "-inf"].into_iter().chain(values) {
            group.case(&name, &[value], trap("integer overflow|invalid conversion to integer"));
        }
        let saturating = format!("{to}.trunc_sat_{from}_{sign}");
        group.function(&saturating, &format!("(param {from}) (result {to}) ({saturating} (local.get 0))"));
        let (most, least) = match (to, sign) {
            ("i32", "s") => ("2147483647", "-2147483648"),
            ("i64", "s") => ("9223372036854775807", "-9223372036854775808"),
            // All bits, shown as a signed number.
            _ => ("-1", "0"),
        };
        group.case(&saturating, &["NaN"], End::Answer("0".to_owned()));
        group.case(&saturating, &["inf"], End::Answer(most.to_owned()));
        group.case(&saturating, &["-inf"], End::Answer(least.to_owned()));
    }
    group
}

fn plain() -> Group {
    let mut group = Group::new("unreachable", "(func $deep (param i32) (unreachable))");
    group.traps("at once", "(unreachable)", "unreachable");
    group.traps("in a block", "(block (block (loop (unreachable))))", "unreachable");
    group.traps("behind a branch", "(block (br_if 0 (i32.const 0)) (unreachable))", "unreachable");
    group.traps("as a value", "(result i32) (i32.add (i32.const 1) (unreachable))", "unreachable");
    group.traps("in what it calls", "(call $deep (i32.const 1))", "unreachable");
    group.traps("as an argument", "(call $deep (unreachable))", "unreachable");
    group.traps("in a table of branches", "(block (br_table 0 0 (unreachable)))", "unreachable");
    group.traps("after a loop", "(local i32) (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100)))) (unreachable)", "unreachable");
    group.traps("as a result of many", "(result i32 i64 f32 f64) (unreachable)", "unreachable");
    group
}

pub fn groups() -> Vec<Group> {
    vec![whole_numbers(), conversions(), plain()]
}

#[tokio::test]
async fn impossible_numbers_end_the_call_and_nothing_else() {
    super::run(groups()).await;
}
