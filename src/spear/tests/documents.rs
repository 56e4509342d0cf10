//! The API documents under `docs/openapi` are those that the program serves.

use std::{fs, path::Path};

use crate::support::{Client, Daemon};

#[tokio::test]
async fn the_api_documents_are_those_that_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), "all");
    let mut old = Vec::new();
    for (listener, name) in [("sms/http", "sms.json"), ("spearlet/http", "spearlet.json")] {
        let client = Client::new(&format!("http://{}", daemon.address(listener)));
        let (status, served) = client.get("/api/openapi.json").await;
        assert_eq!(status, 200);
        let served = serde_json::to_string_pretty(&served).unwrap() + "\n";
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi").join(name);
        if fs::read_to_string(&kept).unwrap_or_default() != served {
            let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            fs::write(&new, served).unwrap();
            old.push(format!("cp {} docs/openapi/", new.display()));
        }
    }
    assert!(old.is_empty(), "the interface has changed; if that is meant:\n{}", old.join("\n"));
}
