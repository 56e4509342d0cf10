//! What a person sees when the program is ready.

use std::fmt::Write as _;

use crate::compose::Running;

/// The addresses and the next thing to try, for a terminal.
pub fn banner(running: &Running, swagger: bool) -> String {
    let mut text = format!("\n  Spear {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, rest: String| {
        writeln!(text, "    {name:<9} {rest}").expect("writing to a string cannot fail");
    };
    for (name, part) in [("registry", "sms"), ("agent", "spearlet")] {
        let (http, grpc) = (running.address(&format!("{part}/http")), running.address(&format!("{part}/grpc")));
        if let (Some(http), Some(grpc)) = (http, grpc) {
            line(name, format!("REST http://{http}   gRPC {grpc}"));
        }
    }
    let registry = running.address("sms/http");
    if let (Some(http), true) = (registry, swagger) {
        line("API", format!("http://{http}/swagger-ui/"));
    }
    if let Some(made) = &running.token {
        let path = made.path.display();
        match made.new {
            true => line("token", format!("{}   (shown this once; kept in {path})", made.token.expose())),
            false => line("token", format!("in {path}")),
        }
    }
    match registry {
        Some(http) => {
            let bearer = match running.token {
                Some(_) => " -H \"authorization: Bearer $TOKEN\"",
                None => "",
            };
            text.push_str("\n  Next, in another terminal:\n\n");
            text.push_str("    spear sample write hello\n");
            let upload = format!(
                "    curl{bearer} -H 'x-file-name: hello.wasm' --data-binary @hello.wasm http://{http}/api/v1/files\n"
            );
            text.push_str(&upload);
            text.push_str("\n  README.md goes on from there. Ctrl-C stops.\n\n");
        }
        None => text.push_str("\n  Ctrl-C stops.\n\n"),
    }
    text
}
