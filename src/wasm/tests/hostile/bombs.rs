//! Modules that are meant for whoever looks at them: the scan, the compiler, the loader. Those that take long are in
//! `compile.rs`.

use super::Stage;
use std::fmt::Write as _;
use types::Reason;

use crate::bench::wasm;

fn plain(fields: &str, body: &str) -> Vec<u8> {
    wasm(&format!("(module {fields} (func $f (export \"_start\") {body}))"))
}

/// A number as the format writes it.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(body.len()), body].concat()
}

/// A module of these sections.
fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// `count` types with a thousand parameters and a thousand results each.
fn wide_types(count: usize) -> Vec<u8> {
    let mut one = vec![0x60];
    for _ in 0..2 {
        one.extend(leb(1000));
        one.extend([0x7e; 1000]);
    }
    let mut body = leb(count);
    for _ in 0..count {
        body.extend(&one);
    }
    module(&[section(1, &body)])
}

/// A function that begins with locals of these counts.
fn locals(counts: &[usize]) -> Vec<u8> {
    let mut body = leb(counts.len());
    for count in counts {
        body.extend(leb(*count));
        body.push(0x7e);
    }
    body.push(0x0b);
    let code = [leb(1), leb(body.len()), body].concat();
    module(&[
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(7, b"\x01\x06_start\x00\x00"),
        section(10, &code),
    ])
}

#[tokio::test]
async fn bombs_that_the_scan_sees_are_refused_at_once() {
    let mut stage = Stage::new().await;
    let numbers = "(i64.const 1)".repeat(10_001);
    let drops = "(drop)".repeat(10_001);
    let operands = format!("{numbers} {drops}");
    let exports: String = (0..50_001).fold(String::new(), |mut text, index| {
        write!(text, "(export \"{index}\" (func $f))").unwrap();
        text
    });
    let imports = "(import \"a\" \"b\" (func))".repeat(1_001);
    for (name, bytes, expected) in [
        ("operands", plain("", &operands), "10001 operands on the stack of a function; the limit is 10000"),
        ("wide types", wide_types(3_000), "parameters and results of all types"),
        ("exports", plain(&exports, ""), "50002 exports; the limit is 50000"),
        ("imports", wasm(&format!("(module {imports} (func (export \"_start\")))")), "1001 imports; the limit is 1000"),
        ("globals", plain(&"(global i32 (i32.const 0))".repeat(100_001), ""), "100001 globals; the limit is 100000"),
        ("tables", plain(&"(table 1 funcref)".repeat(65), ""), "65 tables; the limit is 64"),
        (
            "data segments",
            plain(&format!("(memory 1) {}", "(data (i32.const 0) \"\")".repeat(100_001)), ""),
            "100001 data segments; the limit is 100000",
        ),
        (
            "element segments",
            plain(&format!("(table 1 funcref) {}", "(elem (i32.const 0) func)".repeat(100_001)), ""),
            "100001 element segments; the limit is 100000",
        ),
        ("locals in one run", locals(&[50_000]), "50000 locals in a function; the limit is 10000"),
        ("locals in many runs", locals(&[1; 10_001]), "10001 locals in a function; the limit is 10000"),
        ("locals without end", locals(&[u32::MAX as usize, u32::MAX as usize]), "locals"),
        (
            "a count of functions that are not there",
            module(&[section(1, &[1, 0x60, 0, 0]), section(3, &leb(300_001))]),
            "300001 functions; the limit is 300000",
        ),
        (
            "a count of types that are not there",
            module(&[section(1, &leb(u32::MAX as usize))]),
            "4294967295 types; the limit is 50000",
        ),
        (
            "a section longer than the file",
            [module(&[]), vec![1], leb(u32::MAX as usize)].concat(),
            "not a valid module",
        ),
        ("sections in the wrong order", module(&[section(3, &[0]), section(1, &[0])]), "not a valid module"),
        ("a section twice", module(&[section(1, &[0]), section(1, &[0])]), "not a valid module"),
        (
            "a name that is no text",
            module(&[section(1, &[1, 0x60, 0, 0]), section(3, &[1, 0]), section(7, b"\x01\x02\xff\xfe\x00\x00")]),
            "not a valid module",
        ),
        ("a name of a section that is no text", module(&[section(0, b"\x02\xff\xfe")]), "not a valid module"),
        ("names twice", plain("(export \"a\" (func $f)) (export \"a\" (func $f))", ""), "not a valid module"),
        ("code without functions", module(&[section(10, &[1, 2, 0, 0x0b])]), "not a valid module"),
        ("an unknown section", module(&[section(77, &[0])]), "not a valid module"),
        ("branches to nowhere", plain("", "(br 1000000)"), "not a valid module"),
        ("a number that does not end", module(&[[vec![1], vec![0x80; 100]].concat()]), "not a valid module"),
    ] {
        let refused = stage.bench.function(&bytes, "", runtime::InstanceSpec::default()).await;
        let error = refused.err().unwrap_or_else(|| panic!("{name} is accepted"));
        assert_eq!(error.reason, Reason::InvalidModule, "{name}: {error}");
        assert!(error.message.contains(expected), "{name}: {error}");
        assert!(!error.message.contains('\n') && error.message.len() < 400, "{name}: {error}");
        stage.echo(name).await;
    }
}

#[tokio::test]
async fn large_modules_below_the_limits_compile_and_run() {
    let mut stage = Stage::new().await;
    let nested = "(block ".repeat(3_000) + &")".repeat(3_000);
    let table = "(block (br_table ".to_owned() + &"0 ".repeat(100_000) + "(i32.const 77777)))";
    let functions = "(func)".repeat(5_000);
    let names: String = (0..3_000).fold(String::new(), |mut text, index| {
        write!(text, "(func $name{index}{} (unreachable))", "x".repeat(200)).unwrap();
        text
    });
    for (name, bytes) in [
        ("nested blocks", plain("", &nested)),
        ("a table of branches", plain("", &table)),
        ("functions", plain(&functions, "")),
        ("names", plain(&names, "")),
        ("custom sections", [module(&vec![section(0, b"\x01xyz"); 900]), plain("", "")[8..].to_vec()].concat()),
        ("a large custom section", [module(&[section(0, &vec![1; 1 << 20])]), plain("", "")[8..].to_vec()].concat()),
        ("a broken section of names", [plain("", ""), section(0, b"\x04name\x01\xff\xff\xff\xff\x0f")].concat()),
    ] {
        for compiler in super::COMPILERS {
            let made = stage.bench.function(&bytes, compiler, runtime::InstanceSpec::default()).await;
            let mut function = made.unwrap_or_else(|error| panic!("{name} ({compiler}): {error}"));
            function
                .invoke(api::Invocation::default())
                .await
                .unwrap_or_else(|error| panic!("{name} ({compiler}): {error}"));
            stage.echo(name).await;
        }
    }
}
