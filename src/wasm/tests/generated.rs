//! Random modules through the whole runtime, compiling child included. Many more of them: `src/wasm/generated.rs`.

use runtime::{InstanceSpec, Limits};
use std::time::Duration;
use types::Reason;

use crate::{
    bench::{Bench, call},
    generate::generate,
    hostile::COMPILERS,
    isolation::count,
};

#[tokio::test]
async fn generated_modules_go_through_the_compiling_child() {
    let (modules, first) = (count("SPEAR_TEST_GENERATED_CHILD", 20), count("SPEAR_TEST_SEED", 1));
    let bench = Bench::new();
    let limits = Limits { wall: Duration::from_millis(50), memory_bytes: 16 << 20, ..Limits::default() };
    let (mut compiled, mut called) = (0, 0);
    for seed in first..first + modules {
        let Some(generated) = generate(seed as u64, seed % 2 == 0) else { continue };
        let spec = InstanceSpec { limits: limits.clone(), ..InstanceSpec::default() };
        let mut function = match bench.function(&generated.wasm, COMPILERS[seed / 2 % 2], spec).await {
            Ok(function) => function,
            Err(error) => {
                let expected = matches!(error.reason, Reason::InvalidModule | Reason::Compile | Reason::Memory);
                assert!(expected, "seed {seed}: {:?}: {error}", error.reason);
                continue;
            }
        };
        compiled += 1;
        for (name, many) in &generated.functions {
            let args = [name.as_str()].into_iter().chain(std::iter::repeat_n("1", *many));
            called += 1;
            match function.invoke(call(args)).await {
                Err(error) if error.reason == Reason::Internal => panic!("seed {seed}, {name}: {error}"),
                Err(error) if error.reason == Reason::Deadline => break,
                _ => {}
            }
        }
    }
    println!("{modules} modules from seed {first}: {compiled} compiled, {called} calls");
    assert!(compiled > modules / 3, "{compiled} of {modules}");
}
