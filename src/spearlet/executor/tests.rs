#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::{sync::atomic::Ordering, time::Duration};
use types::{ErrorKind, ExecutionStatus as Status, Fault, Reason, TaskPriority, Timestamp};

use super::bench::{Machine, how};
use crate::agent::scripted::Scripted;

fn holding(registry: &Scripted, id: types::ExecutionId) -> bool {
    registry.log(id).iter().any(|line| line == "holding")
}

#[tokio::test]
async fn a_run_reports_result_and_log_and_leaves_nothing_but_a_mark() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("echo", |_| {});
    let id = machine.registry.place(machine.node, task, "hello\nworld");
    let ended = machine.registry.ended(id).await;
    assert_eq!(how(&ended), (Status::Completed, None));
    assert_eq!(ended.exit_code, Some(0));
    assert!(ended.started_at > Some(Timestamp(0)));
    assert_eq!(machine.registry.result(id), "hello\nworld");
    let log = machine.registry.log(id);
    assert!(log[0].starts_with("fetched: 4 bytes in "), "{log:?}");
    assert!(log[1].starts_with("compiled in "), "{log:?}");
    assert_eq!(log[2..5], ["started", "hello", "world"]);
    assert!(log[5].starts_with("ended: completed after "), "{log:?}");
    assert_eq!(machine.registry.world().finished_logs, [id]);
    machine.cleared().await;
    assert_eq!(machine.disk.keys("done/").await, [format!("done/{id}")]);
}

#[tokio::test]
async fn outcomes_become_the_right_status_reason_and_exit_code() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let failed = machine.ends("fail 7", "").await;
    assert_eq!((how(&failed), failed.exit_code), ((Status::Failed, Some(Reason::Exit)), Some(7)));
    assert_eq!(failed.message, "the guest ended with exit code 7");
    for (program, reason) in [
        ("trap", Reason::Trap),
        ("flood 3000000", Reason::Output),
        ("what is this", Reason::InvalidModule),
        ("panic", Reason::Internal),
    ] {
        let ended = machine.ends(program, "").await;
        assert_eq!(
            (how(&ended), ended.exit_code),
            ((Status::Failed, Some(reason)), None),
            "{program}: {}",
            ended.message
        );
        assert!(!ended.message.is_empty());
    }
    // After all that the node still works.
    assert_eq!(machine.ends("echo", "still").await.status, Status::Completed);
}

#[tokio::test]
async fn a_deadline_ends_a_run_and_the_longest_allowed_one_caps_what_is_asked() {
    let mut machine = Machine::new();
    machine.config.max_timeout = Duration::from_millis(300);
    let _process = machine.start().await;
    let short = machine.registry.task("hold", |_| {});
    let short = machine.registry.place_with(machine.node, short, "", |one| one.timeout_ms = Some(100));
    let capped = machine.registry.task("hold", |_| {});
    let capped = machine.registry.place_with(machine.node, capped, "", |one| one.timeout_ms = Some(3_600_000));
    for id in [short, capped] {
        let ended = machine.registry.ended(id).await;
        assert_eq!(how(&ended), (Status::Timeout, Some(Reason::Deadline)));
    }
    let by_task = machine.registry.task("hold", |task| drop(task.config.insert("timeout_ms".into(), "50".into())));
    let by_task = machine.registry.place(machine.node, by_task, "");
    assert_eq!(machine.registry.ended(by_task).await.status, Status::Timeout);
}

#[tokio::test]
async fn what_cannot_run_fails_with_a_reason_that_says_what_would_be_right() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let kind = |kind| move |task: &mut types::Task| task.executable.as_mut().unwrap().kind = kind;
    let task = machine.registry.task("echo", kind(types::ExecutableType::Container));
    let ended = machine.registry.ended(machine.registry.place(machine.node, task, "")).await;
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::Runtime)));
    assert_eq!(ended.message, "a container executable needs the container runtime; this node has: wasm");

    let task = machine.registry.task("echo", |task| task.executable = None);
    let ended = machine.registry.ended(machine.registry.place(machine.node, task, "")).await;
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::Task)));

    let task = machine.registry.task("echo", |task| drop(task.config.insert("memory_bytes".into(), "lots".into())));
    let ended = machine.registry.ended(machine.registry.place(machine.node, task, "")).await;
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::Task)));
    assert!(ended.message.contains("config.memory_bytes: \"lots\""), "{}", ended.message);

    let gone = format!("sms+file://{}", types::FileId::new());
    let task = machine.registry.task("echo", move |task| task.executable.as_mut().unwrap().uri = gone);
    let ended = machine.registry.ended(machine.registry.place(machine.node, task, "")).await;
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::Artifact)));
    assert_eq!(machine.probe.starts(), Vec::<String>::new());
}

#[tokio::test]
async fn a_fetch_that_fails_for_a_passing_reason_is_tried_again() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("echo", |_| {});
    machine.registry.refuse("open_file", Fault::unavailable("try later"));
    let id = machine.registry.place(machine.node, task, "x");
    assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
    machine.cleared().await;
    let log = machine.registry.log(id);
    assert!(log.iter().any(|line| line.starts_with("fetch failed, trying again")), "{log:?}");
}

#[tokio::test]
async fn the_same_assignment_again_is_not_run_again() {
    let machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.until("held", async || machine.probe.starts().len() == 1).await;
    let again = || {
        machine.registry.alter(|world| {
            world.assign(machine.node, id, task, 1, types::AssignmentKind::Run);
            world.rev
        })
    };
    let cursor = async || machine.disk.value("agent/cursor").await.unwrap()["rev"].as_u64().unwrap();
    // While it runs.
    let rev = again();
    machine.until("event handled", async || cursor().await + 1 >= rev).await;
    machine.probe.release();
    machine.registry.ended(id).await;
    machine.cleared().await;
    // After it is done, in this process and in the next, even if the registry has forgotten that.
    machine.registry.alter(|world| world.executions.get_mut(&id).unwrap().status = Status::Pending);
    let rev = again();
    machine.until("event handled", async || cursor().await + 1 >= rev).await;
    process.stop().await;
    let _next = machine.start().await;
    let rev = again();
    machine.until("event handled", async || cursor().await + 1 >= rev).await;
    assert_eq!(machine.ends("echo", "other").await.status, Status::Completed);
    assert_eq!(machine.probe.starts(), ["hold", "echo"]);
    assert_eq!(machine.registry.world().reports.len(), 2);
}

#[tokio::test]
async fn results_and_logs_of_an_outage_are_delivered_after_it() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine
        .registry
        .until("its log came while it runs", |world| {
            world.logs.get(&id).is_some_and(|lines| lines.iter().any(|line| line.message == "holding"))
        })
        .await;
    machine.registry.until("running", |world| world.executions[&id].status == Status::Running).await;
    machine.registry.down(true);
    machine.probe.release();
    machine.until("ended here", async || machine.disk.keys("outbox/").await.len() == 1).await;
    assert_eq!(machine.registry.world().executions[&id].status, Status::Running);
    machine.registry.down(false);
    assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
    assert_eq!(machine.registry.result(id), "held");
    let log = machine.registry.log(id);
    assert_eq!(log[3..5], ["holding", "released"], "{log:?}");
    assert!(log[5].starts_with("ended: completed"));
    machine.cleared().await;
    assert_eq!(machine.probe.starts().len(), 1);
}

#[tokio::test]
async fn the_registry_hears_how_far_a_run_is() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    let running = |world: &crate::agent::scripted::World| {
        let now = &world.executions[&id];
        now.status == Status::Running && now.progress.as_ref().is_some_and(|progress| progress.phase == "run")
    };
    machine.registry.until("runs", running).await;
}

#[tokio::test]
async fn many_executions_all_end_once_through_outages() {
    let mut machine = Machine::new();
    (machine.config.concurrency, machine.config.queue) = (4, 16);
    let _process = machine.start().await;
    let task = machine.registry.task("echo", |_| {});
    let mut all = Vec::new();
    for round in 0..5 {
        all.extend((0..40).map(|number| (number, machine.registry.place(machine.node, task, &number.to_string()))));
        machine.registry.down(true);
        tokio::task::yield_now().await;
        machine.registry.down(false);
        let sample = all[round * 40].1;
        machine.registry.ended(sample).await;
    }
    for (number, id) in &all {
        assert_eq!(machine.registry.ended(*id).await.status, Status::Completed);
        assert_eq!(machine.registry.result(*id), number.to_string());
    }
    machine.cleared().await;
    assert_eq!(machine.probe.starts().len(), all.len());
}

#[tokio::test]
async fn a_long_log_arrives_whole_in_bounded_batches() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("lines 1700", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.registry.ended(id).await;
    let log = machine.registry.log(id);
    let lines: Vec<_> = log.iter().filter(|line| line.starts_with("line ")).cloned().collect();
    assert_eq!(lines, (1..=1700).map(|number| format!("line {number}")).collect::<Vec<_>>());
    let world = machine.registry.world();
    assert!(world.logs[&id].iter().zip(1..).all(|(line, seq)| line.seq == seq));
}

#[tokio::test]
async fn a_registry_that_lost_part_of_a_log_gets_it_again() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.registry.until("log", |world| world.logs.get(&id).is_some_and(|lines| lines.len() == 4)).await;
    machine.registry.alter(|world| world.logs.get_mut(&id).unwrap().truncate(1));
    machine.probe.release();
    machine.registry.ended(id).await;
    assert_eq!(machine.registry.log(id)[2..5], ["started", "holding", "released"]);
}

#[tokio::test]
async fn what_was_accepted_but_had_not_begun_runs_after_a_crash() {
    let mut machine = Machine::new();
    machine.config.concurrency = 1;
    let process = machine.start().await;
    let held = machine.registry.task("hold", |_| {});
    let first = machine.registry.place(machine.node, held, "");
    let echo = machine.registry.task("echo", |_| {});
    let second = machine.registry.place(machine.node, echo, "second");
    machine.until("second accepted", async || process.executor.waiting() == 1).await;
    machine.until("first begun", async || holding(&machine.registry, first)).await;
    process.kill();
    machine.disk = machine.disk.after_crash().await;
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(second).await.status, Status::Completed);
    assert_eq!(machine.registry.result(second), "second");
    // The one that had begun is not run again, and says why.
    let lost = machine.registry.ended(first).await;
    assert_eq!(how(&lost), (Status::Failed, Some(Reason::NodeLost)));
    assert_eq!(lost.message, "the node restarted while it ran");
    assert_eq!(machine.registry.log(first).last().unwrap(), "ended: the node restarted while it ran");
    assert_eq!(machine.probe.starts(), ["hold", "echo"]);
    machine.cleared().await;
}

#[tokio::test]
async fn a_result_that_was_not_delivered_before_a_crash_is_delivered_after_it() {
    let mut machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    machine.registry.down(true);
    machine.probe.release();
    machine.until("ended here", async || machine.disk.keys("outbox/").await.len() == 1).await;
    process.kill();
    machine.disk = machine.disk.after_crash().await;
    machine.registry.down(false);
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
    assert_eq!(machine.registry.result(id), "held");
    machine.cleared().await;
    assert_eq!(machine.probe.starts().len(), 1);
}

#[tokio::test]
async fn a_crash_at_any_commit_loses_nothing_and_runs_nothing_twice() {
    // How many commits an undisturbed run takes.
    let whole = {
        let machine = Machine::new();
        let _process = machine.start().await;
        machine.ends("echo", "x").await;
        machine.cleared().await;
        machine.disk.commits()
    };
    assert!(whole >= 4, "accepted, begun, ended, done: {whole}");
    for point in 0..=whole {
        let mut machine = Machine::new();
        let task = machine.registry.task("echo", |_| {});
        machine.disk.dies_after(point);
        let process = machine.start().await;
        let id = machine.registry.place(machine.node, task, "x");
        let over = async || machine.disk.dead() || machine.registry.world().executions[&id].status.terminal();
        machine.until("crash or end", over).await;
        process.kill();
        machine.disk = machine.disk.after_crash().await;
        let begun = machine.probe.starts().len();
        let _next = machine.start().await;
        let ended = machine.registry.ended(id).await;
        machine.cleared().await;
        let starts = machine.probe.starts().len();
        assert!(starts <= 1, "crash at commit {point}: begun {starts} times");
        match ended.status {
            Status::Completed => assert_eq!(machine.registry.result(id), "x", "crash at commit {point}"),
            _ => assert_eq!(
                how(&ended),
                (Status::Failed, Some(Reason::NodeLost)),
                "crash at commit {point}, begun {begun}"
            ),
        }
    }
}

#[tokio::test]
async fn a_queued_execution_is_cancelled_without_running() {
    let mut machine = Machine::new();
    machine.config.concurrency = 1;
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let first = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || holding(&machine.registry, first)).await;
    let second = machine.registry.place(machine.node, task, "");
    machine.until("queued", async || process.executor.waiting() == 1).await;
    machine.registry.cancel(second);
    let ended = machine.registry.ended(second).await;
    assert_eq!(how(&ended), (Status::Cancelled, Some(Reason::Cancelled)));
    assert_eq!(process.executor.waiting(), 0);
    machine.probe.release();
    machine.registry.ended(first).await;
    machine.cleared().await;
    assert_eq!(machine.probe.starts().len(), 1);
}

#[tokio::test]
async fn a_running_execution_is_cancelled() {
    let machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    assert_eq!((process.executor.running(), process.executor.waiting()), (1, 0));
    machine.registry.cancel(id);
    let ended = machine.registry.ended(id).await;
    assert_eq!(how(&ended), (Status::Cancelled, Some(Reason::Cancelled)));
    machine.cleared().await;
    assert_eq!(process.executor.running(), 0);
}

#[tokio::test]
async fn a_cancel_of_something_never_accepted_is_answered() {
    let machine = Machine::new();
    let task = machine.registry.task("echo", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.registry.cancel(id);
    let _process = machine.start().await;
    assert_eq!(machine.registry.ended(id).await.status, Status::Cancelled);
    machine.cleared().await;
    assert!(machine.probe.starts().is_empty());
}

#[tokio::test]
async fn an_execution_that_the_registry_ended_is_stopped_and_one_it_calls_lost_goes_on() {
    let machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let (gone, lost) = (machine.registry.place(machine.node, task, ""), machine.registry.place(machine.node, task, ""));
    machine.until("both begun", async || holding(&machine.registry, gone) && holding(&machine.registry, lost)).await;
    machine.registry.withdraw(lost, Status::Lost);
    machine.registry.withdraw(gone, Status::Timeout);
    machine.until("stopped", async || process.executor.running() == 1).await;
    machine.probe.release();
    machine.registry.until("late result", |world| world.executions[&lost].status == Status::Completed).await;
    machine.cleared().await;
    assert_eq!(machine.registry.world().executions[&gone].status, Status::Timeout, "its own end stands");
}

#[tokio::test]
async fn a_later_attempt_waits_for_the_earlier_and_its_log_goes_on() {
    let machine = Machine::new();
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    let before = machine.registry.log(id).len();
    machine.registry.alter(|world| {
        let now = world.executions.get_mut(&id).unwrap();
        (now.attempt, now.status) = (2, Status::Pending);
        world.assign(machine.node, id, task, 2, types::AssignmentKind::Run);
    });
    machine.until("begun again", async || machine.probe.starts().len() == 2).await;
    machine.probe.release();
    let ended = machine.registry.ended(id).await;
    assert_eq!((ended.status, ended.attempt), (Status::Completed, 2));
    machine.cleared().await;
    let world = machine.registry.world();
    assert!(world.logs[&id].len() > before);
    assert!(world.logs[&id].iter().zip(1..).all(|(line, seq)| line.seq == seq), "numbers without gaps");
    assert_eq!(process.executor.running(), 0);
}

#[tokio::test]
async fn a_run_that_another_attempt_has_followed_adds_nothing_to_its_log() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    let before = machine.registry.log(id);
    // Another node has it now; this one has not heard of that.
    machine.registry.alter(|world| world.executions.get_mut(&id).unwrap().attempt = 2);
    machine.probe.release();
    machine.cleared().await;
    assert_eq!(machine.registry.log(id), before);
    assert!(machine.registry.world().finished_logs.is_empty());
    assert!(!machine.registry.world().executions[&id].status.terminal());
}

#[tokio::test]
async fn no_more_run_than_may_and_what_does_not_fit_stays_with_the_registry() {
    let mut machine = Machine::new();
    (machine.config.concurrency, machine.config.queue) = (2, 2);
    let process = machine.start().await;
    let task = machine.registry.task("hold", |_| {});
    let all: Vec<_> = (0..12).map(|_| machine.registry.place(machine.node, task, "")).collect();
    machine.until("full", async || (process.executor.running(), process.executor.waiting()) == (2, 2)).await;
    machine
        .until("the rest was seen", async || {
            machine.disk.value("agent/cursor").await.is_some_and(|cursor| cursor["relist"] == true)
        })
        .await;
    assert_eq!(machine.disk.keys("inbox/").await.len(), 4);
    machine.probe.release();
    for id in all {
        assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
    }
    machine.cleared().await;
    assert_eq!(machine.probe.starts().len(), 12);
    assert!(machine.probe.most_running.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn urgent_work_goes_first() {
    let mut machine = Machine::new();
    machine.config.concurrency = 1;
    let process = machine.start().await;
    let hold = machine.registry.task("hold", |_| {});
    let first = machine.registry.place(machine.node, hold, "");
    machine.until("begun", async || holding(&machine.registry, first)).await;
    let words = [
        ("low", TaskPriority::Low),
        ("unknown", TaskPriority::Unknown),
        ("urgent", TaskPriority::Urgent),
        ("high", TaskPriority::High),
    ];
    for (name, priority) in words {
        let task = machine.registry.task("echo", |task| (task.name, task.priority) = (name.to_owned(), priority));
        machine.registry.place(machine.node, task, "");
    }
    machine.until("queued", async || process.executor.waiting() == 4).await;
    machine.probe.release();
    machine.until("all begun", async || machine.probe.starts().len() == 5).await;
    assert_eq!(machine.probe.starts(), ["hold", "urgent", "high", "unknown", "low"]);
}

#[tokio::test]
async fn a_result_nobody_wants_is_dropped_and_one_that_is_refused_is_told_as_a_failure() {
    let machine = Machine::new();
    let _process = machine.start().await;
    let stale = Fault::conflict("STALE_ATTEMPT", "another attempt");
    let task = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.registry.until("running", |world| world.executions[&id].status == Status::Running).await;
    machine.registry.refuse("report_execution", stale);
    machine.probe.release();
    machine.cleared().await;
    assert_eq!(machine.registry.world().executions[&id].status, Status::Running);

    let task = machine.registry.task("sleep 100", |_| {});
    let id = machine.registry.place(machine.node, task, "");
    machine.registry.until("running", |world| world.executions[&id].status == Status::Running).await;
    machine.registry.refuse("report_execution", Fault::new(ErrorKind::TooLarge, "TOO_LARGE", "result over 1 MiB"));
    let ended = machine.registry.ended(id).await;
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::Internal)));
    assert!(ended.message.contains("result over 1 MiB"), "{}", ended.message);
    machine.cleared().await;
}

#[tokio::test]
async fn a_stop_lets_running_work_end_starts_nothing_and_says_goodbye() {
    let mut machine = Machine::new();
    machine.config.concurrency = 1;
    let process = machine.start().await;
    let hold = machine.registry.task("hold", |_| {});
    let first = machine.registry.place(machine.node, hold, "");
    machine.until("begun", async || holding(&machine.registry, first)).await;
    let echo = machine.registry.task("echo", |_| {});
    let second = machine.registry.place(machine.node, echo, "later");
    machine.until("queued", async || process.executor.waiting() == 1).await;
    let probe = machine.probe.clone();
    let registry = machine.registry.clone();
    let (stopping, ()) = tokio::join!(process.stop(), async move {
        registry.until("draining", |world| world.left == ["draining"]).await;
        probe.release();
    });
    let () = stopping;
    let world = machine.registry.world().executions.clone();
    assert_eq!(world[&first].status, Status::Completed, "it ended by itself and was reported");
    assert_eq!(world[&second].status, Status::Pending);
    assert_eq!(machine.registry.world().left, ["draining", "offline"]);
    // The next process runs what waited.
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(second).await.status, Status::Completed);
    assert_eq!(machine.registry.result(second), "later");
}

#[tokio::test]
async fn a_stop_ends_what_does_not_end_by_itself_and_reports_it() {
    let mut machine = Machine::new();
    machine.budget.total = Duration::from_secs(4);
    let process = machine.start().await;
    let hold = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, hold, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    process.stop().await;
    let ended = machine.registry.world().executions[&id].clone();
    assert_eq!(how(&ended), (Status::Failed, Some(Reason::NodeLost)));
    assert_eq!(ended.message, "the node stopped");
}

#[tokio::test]
async fn a_registry_that_is_away_does_not_hold_the_stop_up_and_the_result_waits_on_disk() {
    let machine = Machine::new();
    let process = machine.start().await;
    let hold = machine.registry.task("hold", |_| {});
    let id = machine.registry.place(machine.node, hold, "");
    machine.until("begun", async || holding(&machine.registry, id)).await;
    machine.registry.down(true);
    machine.probe.release();
    machine.until("ended here", async || machine.disk.keys("outbox/").await.len() == 1).await;
    process.stop().await;
    assert_eq!(machine.disk.keys("outbox/").await.len(), 1);
    machine.registry.down(false);
    let _next = machine.start().await;
    assert_eq!(machine.registry.ended(id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_torn_log_line_is_cut_when_the_log_is_opened() {
    use super::logs::{LogFile, path};
    let dir = tempfile::tempdir().unwrap();
    let id = types::ExecutionId::new();
    let clock = types::SystemClock::new();
    let mut log = LogFile::open(dir.path(), id, 5).await;
    log.finish(&clock, "info", "one".to_owned()).await;
    let file = path(dir.path(), id);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..], b"{\"ts_ms\":1,\"se"].concat()).unwrap();
    let mut log = LogFile::open(dir.path(), id, 1).await;
    assert_eq!(log.next_seq(), 6);
    log.finish(&clock, "info", "two".to_owned()).await;
    let lines: Vec<types::LogLine> =
        std::fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| (line.seq, line.message.as_str())).collect();
    assert_eq!(seen, [(5, "one"), (6, "two")]);
}

#[tokio::test]
async fn records_keep_the_form_they_have_on_disk() {
    use super::records::{Accepted, Ending};
    let accepted = r#"{"execution_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"task_id":"01890a5d-ac96-774b-bcce-b302099a8058","priority":"urgent","log_id":"01890a5d-ac96-774b-bcce-b302099a8059","started_at":5}"#;
    let read: Accepted = serde_json::from_str(accepted).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), accepted);
    let ending = r#"{"execution_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":2,"status":"failed","reason":"node_lost","message":"m","started_at":1,"completed_at":2,"exit_code":3}"#;
    let read: Ending = serde_json::from_str(ending).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), ending);
}
