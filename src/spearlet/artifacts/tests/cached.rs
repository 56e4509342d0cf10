//! What is kept on disk.

use super::*;

const BODY: &[u8] = b"\0asm cached";

#[tokio::test]
async fn a_pinned_artifact_needs_no_network_once_it_is_here() {
    let server = Server::always("200 OK", BODY).await;
    let config = allowing(&[&server]);
    let bench = Bench::new(&config).await;
    let pin = sha256(BODY);
    drop(bench.fetch(&server.url(), &pin).await.unwrap());
    // Nothing listens at these addresses, and some could never be fetched from.
    for uri in ["https://127.0.0.1:1/x", "http://192.0.2.1/x", "sms+file://93f9a7ca-e033-4bb7-8b5a-c0899f9a52b8"] {
        assert_eq!(read(&bench.fetch(uri, &pin).await.unwrap()), BODY);
    }
    let bench = bench.again(&config).await;
    assert_eq!(read(&bench.fetch("https://127.0.0.1:1/x", &pin).await.unwrap()), BODY);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_found_and_fetched_again() {
    let server = Server::always("200 OK", BODY).await;
    let config = allowing(&[&server]);
    let mut bench = Bench::new(&config).await;
    let pin = sha256(BODY);
    let path = bench.fetch(&server.url(), &pin).await.unwrap().path.clone();
    let mut flipped = BODY.to_vec();
    flipped[6] ^= 1;
    let damages: [&[u8]; 4] = [&flipped, &BODY[..5], b"", b"\0asm cached and more"];
    for (number, damage) in damages.into_iter().enumerate() {
        std::fs::write(&path, damage).unwrap();
        // In the same process and in a new one.
        if number % 2 == 1 {
            bench = bench.again(&config).await;
        }
        let held = bench.fetch(&server.url(), &pin).await.unwrap();
        assert_eq!((read(&held), held.size), (BODY.to_vec(), BODY.len() as u64));
        assert_eq!(server.requests(), number + 2);
        assert_eq!(bench.files(), [pin.as_str()]);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read(&bench.fetch(&server.url(), &pin).await.unwrap()), BODY);
}

#[tokio::test]
async fn a_damaged_file_is_an_error_when_its_source_is_gone() {
    let server = Server::start(|number, _| {
        let status = if number == 0 { "200 OK" } else { "404 Not Found" };
        vec![Step::Send(answer(status, "", BODY))]
    })
    .await;
    let config = allowing(&[&server]);
    let bench = Bench::new(&config).await;
    let path = bench.fetch(&server.url(), &sha256(BODY)).await.unwrap().path.clone();
    std::fs::write(&path, b"other").unwrap();
    assert_eq!(bench.fetch(&server.url(), &sha256(BODY)).await.unwrap_err().code, "ARTIFACT_NOT_FOUND");
}

#[tokio::test]
async fn the_least_recently_used_leave_and_those_in_use_stay() {
    let server = Server::start(|_, head| {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        vec![Step::Send(answer("200 OK", "", path.repeat(1000).as_bytes()))]
    })
    .await;
    // Each has 2000 bytes, so there is room for three.
    let config = Config { max_cache_bytes: 7000, ..allowing(&[&server]) };
    let bench = Bench::new(&config).await;
    let get = async |name: &str| bench.fetch(&format!("http://{}/{name}", server.address), "").await.unwrap();
    let used = get("a").await;
    for name in ["b", "c", "d", "e"] {
        drop(get(name).await);
    }
    let names = |names: &[&str]| -> Vec<String> {
        let mut digests: Vec<_> = names.iter().map(|name| sha256(format!("/{name}").repeat(1000).as_bytes())).collect();
        digests.sort();
        digests
    };
    let files = || {
        let mut files = bench.files();
        files.sort();
        files
    };
    assert_eq!(files(), names(&["a", "d", "e"]));
    assert_eq!(read(&used), "/a".repeat(1000).as_bytes());
    drop(used);
    drop(get("f").await);
    assert_eq!(files(), names(&["d", "e", "f"]), "a was used before d and e, and nobody has it now");
    // All in use: there is more than there should be, until they are not.
    let all = [get("d").await, get("e").await, get("f").await, get("g").await];
    assert_eq!(files().len(), 4);
    drop(all);
    assert_eq!(files(), names(&["e", "f", "g"]));
    assert_eq!(bench.fetcher.inner.cache.bytes(), 6000);
}

#[tokio::test]
async fn an_artifact_larger_than_the_cache_can_be_used_and_is_not_kept() {
    let server = Server::always("200 OK", BODY).await;
    let bench = Bench::new(&Config { max_cache_bytes: 5, ..allowing(&[&server]) }).await;
    let held = bench.fetch(&server.url(), "").await.unwrap();
    assert_eq!(read(&held), BODY);
    drop(held);
    assert!(bench.files().is_empty());
}

#[tokio::test]
async fn what_an_earlier_process_left_half_done_is_swept() {
    let config = Config::default();
    let bench = Bench::new(&config).await;
    let dir = bench.dir.path().join("artifacts");
    std::fs::write(dir.join("tmp-0190"), b"half").unwrap();
    std::fs::write(dir.join("README"), b"not ours").unwrap();
    let bench = bench.again(&config).await;
    assert_eq!(bench.files(), ["README"]);
}
