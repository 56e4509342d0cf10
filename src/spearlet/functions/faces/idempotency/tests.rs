#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use types::{Timestamp, clock::ManualClock};

fn repeats() -> (Arc<Repeats>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    (Arc::new(Repeats::new(clock.clone())), clock)
}

fn answered(bytes: usize) -> Answered {
    let reply = Reply { head: ReplyHead::default(), body: vec![0; bytes].into(), ended: Ended::default() };
    Answered { execution: ExecutionId::new(), result: Ok(reply), replayed: false }
}

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(&Invocation::default(), text.as_bytes())
}

fn known(repeats: &Arc<Repeats>, task: TaskId, key: &str) -> bool {
    match repeats.recall(task, key, print("")).unwrap() {
        Recall::Ended(answered) => answered.replayed,
        // Dropped without having landed, it leaves no trace.
        Recall::New(_) => false,
        Recall::UnderWay(_) => panic!("nothing is under way"),
    }
}

fn keep(repeats: &Arc<Repeats>, task: TaskId, key: &str, bytes: usize) {
    let Recall::New(flight) = repeats.recall(task, key, print("")).unwrap() else { panic!("{key} is known") };
    flight.land(answered(bytes));
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let ((repeats, clock), task) = (repeats(), TaskId::new());
    keep(&repeats, task, "k", 1);
    clock.advance(KEEP - Duration::from_secs(1));
    assert!(known(&repeats, task, "k"));
    clock.advance(Duration::from_secs(1));
    assert!(!known(&repeats, task, "k"));
}

#[test]
fn the_oldest_answers_go_when_there_are_too_many_or_they_are_too_large() {
    let ((repeats, _), task) = (repeats(), TaskId::new());
    for number in 0..=MOST {
        keep(&repeats, task, &number.to_string(), 0);
    }
    assert!(!known(&repeats, task, "0") && known(&repeats, task, "1"));
    assert_eq!(repeats.lock().known.len(), MOST);
    let half = MOST_BYTES / 2 - 2 * EACH * MOST;
    for key in ["a", "b", "c"] {
        keep(&repeats, task, key, half.max(MOST_BYTES / 2 - EACH));
    }
    let inner = repeats.lock();
    assert!(inner.bytes <= MOST_BYTES, "{}", inner.bytes);
    assert_eq!(inner.known.len(), inner.ended.len());
    drop(inner);
    assert!(!known(&repeats, task, "a") && known(&repeats, task, "c"));
    // One that alone is too large is never kept.
    keep(&repeats, task, "d", MOST_BYTES);
    assert!(!known(&repeats, task, "d"));
}

#[tokio::test]
async fn a_call_that_is_lost_frees_its_key_and_tells_who_waits() {
    let ((repeats, _), task) = (repeats(), TaskId::new());
    let Recall::New(flight) = repeats.recall(task, "k", print("")).unwrap() else { panic!("known") };
    let Recall::UnderWay(answer) = repeats.recall(task, "k", print("")).unwrap() else { panic!("not under way") };
    drop(flight);
    assert_eq!(answer.wait().await.unwrap_err().kind, ErrorKind::Internal);
    assert!(!known(&repeats, task, "k"));
}

#[test]
fn a_fingerprint_is_of_all_that_the_guest_gets_and_of_nothing_that_a_proxy_changes() {
    let with = |change: &dyn Fn(&mut Invocation)| {
        let mut call = Invocation::default();
        change(&mut call);
        Fingerprint::of(&call, b"in")
    };
    let plain = with(&|_| {});
    assert!(plain == with(&|call| call.head.headers.push(("via".into(), "proxy".into()))));
    assert!(plain == with(&|call| call.traceparent = Some("00".into())));
    assert!(plain != with(&|call| call.args.push(String::new())));
    assert!(plain != with(&|call| drop(call.env.insert("a".into(), "b".into()))));
    assert!(plain != with(&|call| drop(call.head.metadata.insert("a".into(), "b".into()))));
    assert!(plain != Fingerprint::of(&Invocation::default(), b"other"));
    let (one, two) =
        (with(&|call| call.args.push("ab".into())), with(&|call| call.args.extend(["a".into(), "b".into()])));
    assert!(one != two);
}
