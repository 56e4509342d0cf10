//! S3 and MinIO, against moto's server.

use super::*;
use object_store::{ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path};
use secrecy::SecretString;
use std::process::{Child, Command, Stdio};

use crate::artifacts::S3;

const BODY: &[u8] = b"\0asm bucket";

struct Moto {
    child: Child,
    endpoint: String,
    // Its log; kept until it is stopped.
    _dir: TempDir,
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Moto {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("moto_server must be installed (PyPI: moto[server])");
        let moto = Self { child, endpoint: format!("http://127.0.0.1:{port}"), _dir: dir };
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), up).await.expect("moto_server answers");
        let bucket = reqwest::Client::new().put(format!("{}/wares", moto.endpoint)).send().await.unwrap();
        assert!(bucket.status().is_success(), "{bucket:?}");
        moto
    }

    async fn put(&self, key: &str, body: &'static [u8]) {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name("wares")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .build()
            .unwrap();
        store.put(&Path::from(key), PutPayload::from_static(body)).await.unwrap();
    }

    fn settings(&self) -> S3 {
        S3 {
            endpoint: Some(self.endpoint.clone()),
            access_key: Some("key".to_owned()),
            secret_key: Some(SecretString::from("secret")),
            allow_http: true,
            ..S3::default()
        }
    }
}

#[tokio::test]
async fn objects_of_s3_and_minio_are_fetched_with_all_the_checks() {
    let moto = Moto::start().await;
    moto.put("build/hello.wasm", BODY).await;
    moto.put("large.wasm", &[7; (1 << 20) + 1]).await;
    for service in ["s3", "minio"] {
        let settings = Some(moto.settings());
        let config = if service == "s3" {
            Config { s3: settings, ..Config::default() }
        } else {
            Config { minio: settings, ..Config::default() }
        };
        let bench = Bench::new(&config).await;
        let uri = format!("{service}://wares/build/hello.wasm");
        for checksum in [String::new(), sha256(BODY)] {
            assert_eq!(read(&bench.fetch(&uri, &checksum).await.unwrap()), BODY);
        }
        let fails = [
            (format!("{service}://wares/none.wasm"), String::new(), "ARTIFACT_NOT_FOUND"),
            (format!("{service}://nowhere/none.wasm"), String::new(), "ARTIFACT_NOT_FOUND"),
            (format!("{service}://wares/large.wasm"), String::new(), "ARTIFACT_TOO_LARGE"),
            (uri.clone(), sha256(b"other"), "ARTIFACT_CHECKSUM"),
        ];
        for (uri, checksum, code) in fails {
            let fault = bench.fetch(&uri, &checksum).await.unwrap_err();
            assert_eq!(fault.code, code, "{uri}: {fault:?}");
        }
        let other = if service == "s3" { "minio" } else { "s3" };
        let fault = bench.fetch(&format!("{other}://wares/build/hello.wasm"), "").await.unwrap_err();
        assert_eq!(fault.code, "ARTIFACT_UNAVAILABLE");
        assert!(fault.message.contains(other), "{}", fault.message);
    }
}

#[tokio::test]
async fn an_object_that_changes_is_fetched_again() {
    let moto = Moto::start().await;
    let bench = Bench::new(&Config { s3: Some(moto.settings()), ..Config::default() }).await;
    for body in [b"one".as_slice(), b"two"] {
        moto.put("x.wasm", body).await;
        for _ in 0..2 {
            assert_eq!(read(&bench.fetch("s3://wares/x.wasm", "").await.unwrap()), body);
        }
    }
    drop(moto);
    let fault = bench.fetch("s3://wares/x.wasm", "").await.unwrap_err();
    assert_eq!((&*fault.code, fault.kind.retry()), ("ARTIFACT_UNAVAILABLE", true));
    assert_eq!(read(&bench.fetch("s3://wares/x.wasm", &sha256(b"two")).await.unwrap()), b"two");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_the_start() {
    let secret = || Some(SecretString::from("geheim"));
    let cases = [
        (S3 { endpoint: Some("http://minio:9000".into()), ..S3::default() }, "endpoint"),
        (S3 { endpoint: Some("minio:9000".into()), ..S3::default() }, "endpoint"),
        (S3::default(), "endpoint"),
        (S3 { endpoint: Some("https://minio:9000".into()), secret_key: secret(), ..S3::default() }, "secret_key"),
    ];
    for (settings, field) in cases {
        assert!(!format!("{settings:?}").contains("geheim"));
        let config = Config { minio: Some(settings), ..Config::default() };
        let dir = tempfile::tempdir().unwrap();
        let fault = Fetcher::open(&config, dir.path().to_owned(), None).await.err().unwrap();
        assert_eq!(fault.errors[0].field, format!("spearlet.minio.{field}"));
    }
}
