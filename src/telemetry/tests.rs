#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;

use crate::{Format, Kind, MOST_SERIES, Metrics, Value};

fn text(metrics: &Metrics, format: Format) -> String {
    metrics.expose(format).unwrap().body
}

#[test]
fn a_counter_a_gauge_and_a_histogram_are_told_in_openmetrics() {
    let metrics = Metrics::new();
    metrics.counters("spear_doors_total", "Doors.", ["kind"]).with(["back"]).add(3);
    metrics.gauge("spear_rooms", "Rooms.").set(-2);
    let waits = metrics.histogram("spear_wait_seconds", "Waits.", &[0.5, 1.0]);
    [0.5, 0.7, 9.0].into_iter().for_each(|wait| waits.observe(wait));
    let expected = "\
# HELP spear_doors Doors.
# TYPE spear_doors counter
spear_doors_total{kind=\"back\"} 3.0
# HELP spear_rooms Rooms.
# TYPE spear_rooms gauge
spear_rooms -2.0
# HELP spear_wait_seconds Waits.
# TYPE spear_wait_seconds histogram
# UNIT spear_wait_seconds seconds
spear_wait_seconds_sum 10.2
spear_wait_seconds_count 3
spear_wait_seconds_bucket{le=\"0.5\"} 1
spear_wait_seconds_bucket{le=\"1.0\"} 2
spear_wait_seconds_bucket{le=\"+Inf\"} 3
# EOF
";
    assert_eq!(text(&metrics, Format::OpenMetrics), expected);
}

#[test]
fn the_older_format_names_the_family_of_a_counter_with_its_suffix_and_has_no_units() {
    let metrics = Metrics::new();
    metrics.counter("spear_read_bytes_total", "Bytes.").add(1);
    metrics.gauge("spear_size_bytes", "Size.").set(2);
    let expected = "\
# HELP spear_read_bytes_total Bytes.
# TYPE spear_read_bytes_total counter
spear_read_bytes_total 1.0
# HELP spear_size_bytes Size.
# TYPE spear_size_bytes gauge
spear_size_bytes 2.0
";
    assert_eq!(text(&metrics, Format::Prometheus), expected);
}

#[test]
fn the_format_is_what_is_asked_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let cases = [
        (None, Format::OpenMetrics),
        (Some("*/*"), Format::OpenMetrics),
        (Some(prometheus), Format::OpenMetrics),
        (Some("text/plain"), Format::Prometheus),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Prometheus),
        (Some("text/plain;q=0.2, application/openmetrics-text;q=0.9"), Format::OpenMetrics),
        (Some("nonsense;;q=x,,"), Format::OpenMetrics),
    ];
    for (accept, format) in cases {
        assert_eq!(Format::accepted(accept), format, "{accept:?}");
    }
}

#[test]
fn labels_may_hold_anything_and_are_escaped() {
    let metrics = Metrics::new();
    metrics.gauges("spear_odd", "Odd.", ["name"]).with(["a\"b\\c\nd"]).set(1);
    assert!(text(&metrics, Format::OpenMetrics).contains("spear_odd{name=\"a\\\"b\\\\c\\nd\"} 1.0\n"));
}

#[test]
fn a_family_does_not_grow_without_end_whatever_its_labels_are() {
    let metrics = Metrics::new();
    let family = metrics.counters("spear_bomb_total", "Bomb.", ["id"]);
    for id in 0..MOST_SERIES + 500 {
        family.with([&id.to_string()]).inc();
    }
    let figures = metrics.figures();
    let series = &figures[0].series;
    assert_eq!(series.len(), MOST_SERIES + 1);
    let others = series.iter().find(|series| series.labels[0].1 == "others").unwrap();
    assert!(matches!(others.value, Value::Number(count) if count == 500.0), "{others:?}");
}

#[test]
fn a_name_that_is_asked_for_again_is_the_same_family_and_owners_share_a_sampled_one() {
    let metrics = Metrics::new();
    metrics.counter("spear_same_total", "Same.").inc();
    metrics.counter("spear_same_total", "Same.").inc();
    for (owner, value) in [("a", 1.0), ("b", 2.0), ("b", 3.0)] {
        metrics.sampled("spear_shared", "Shared.", ["owner"], move || vec![([owner.to_owned()], value)]);
    }
    let text = text(&metrics, Format::OpenMetrics);
    for line in ["spear_same_total 2.0", "spear_shared{owner=\"a\"} 1.0", "spear_shared{owner=\"b\"} 5.0"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn handles_from_many_threads_lose_nothing() {
    let metrics = Metrics::new();
    let seconds = metrics.histograms("spear_busy_seconds", "Busy.", ["way"], &[0.5]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let seconds = &seconds;
            scope.spawn(move || {
                let own = seconds.with([if thread % 2 == 0 { "in" } else { "out" }]);
                (0..10_000).for_each(|_| own.observe(0.25));
            });
        }
    });
    for series in &metrics.figures()[0].series {
        let Value::Buckets { counts, sum, .. } = &series.value else { panic!("{series:?}") };
        assert_eq!((counts.as_slice(), *sum), (&[40_000u64, 0][..], 10_000.0));
    }
}

#[test]
fn a_held_gauge_lets_go_by_itself() {
    let gauge = Metrics::new().gauge("spear_open", "Open.");
    let held = (gauge.hold(), gauge.hold());
    assert_eq!(gauge.get(), 2);
    drop(held);
    assert_eq!(gauge.get(), 0);
}

#[test]
fn what_linux_knows_of_the_process_is_there_and_plausible() {
    let metrics = Metrics::new();
    metrics.process();
    let figures = metrics.figures();
    let value = |name: &str| match figures.iter().find(|figure| figure.name == name).map(|figure| &figure.series[..]) {
        Some([series]) => match series.value {
            Value::Number(value) => value,
            Value::Buckets { .. } => panic!("{name} is a histogram"),
        },
        other => panic!("{name}: {other:?}"),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 3600.0..now + 5.0).contains(&value("process_start_time_seconds")));
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    let cpu = figures.iter().find(|figure| figure.name == "process_cpu_seconds_total").unwrap();
    assert_eq!((cpu.kind, cpu.unit()), (Kind::Counter, Some("seconds")));
    let names: BTreeSet<_> = figures.iter().map(|figure| figure.name).collect();
    assert_eq!(names.len(), figures.len());
}
