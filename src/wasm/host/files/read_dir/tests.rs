#![allow(clippy::unwrap_used, reason = "tests")]

use cap_std::{ambient_authority, fs::Dir};

use super::*;

#[test]
fn of_a_large_directory_few_places_are_kept_and_each_leads_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(dir.path(), ambient_authority()).unwrap();
    let mut reading = Reading::new(reader(&dir).unwrap());
    // The system's cookies are as they like: here three times the number.
    let total = 3 * MOST_MARKS as u64 * SPACING;
    let mut number = 0;
    while number < total {
        let (cookie, between) = reading.begin(number);
        assert_eq!((cookie, between), (number * 3, 0), "where it goes on nothing is skipped");
        for _ in 0..1000 {
            reading.at(number, number * 3);
            number += 1;
        }
        reading.at(number, number * 3);
    }
    assert!(reading.marks.len() <= MOST_MARKS && reading.recent.len() <= 1001);
    for wanted in [1, 63, 64, 65, 999_999, total - 5000] {
        let (cookie, between) = reading.begin(wanted);
        assert_eq!(cookie / 3 + between, wanted);
        assert!(between < 4 * SPACING, "{between}");
    }
    assert_eq!(reading.begin(0), (0, 0));
    assert_eq!(reading.begin(64), (0, 64), "from the beginning on nothing is known");
}
