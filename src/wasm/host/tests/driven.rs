//! Arbitrary calls of each group of functions; the fuzz targets run the same for longer.

use crate::host::fuzzing::{Group, Room};
use proptest::prelude::*;

fn input() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..800)
}

fn drive(group: Group, input: &[u8]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::new(dir.path()).unwrap();
    room.drive(group, input).map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn descriptors_take_whatever_comes(input in input()) {
        drive(Group::Descriptors, &input)?;
    }

    #[test]
    fn files_take_whatever_comes_and_nothing_leads_out(input in input()) {
        drive(Group::Files, &input)?;
    }

    #[test]
    fn waiting_takes_whatever_comes(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        drive(Group::Poll, &input)?;
    }

    #[test]
    fn the_process_takes_whatever_comes(input in input()) {
        drive(Group::Process, &input)?;
    }
}

/// Else the guest would be blamed for what a fuzzer has put there.
#[test]
fn what_is_learned_in_one_room_is_no_secret_in_the_next() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, next] = [&dirs[0], &dirs[1]].map(|dir| Room::new(dir.path()).unwrap());
    let secret = std::fs::read(dirs[0].path().join("secret")).unwrap();
    let noise = u8::try_from(secret.len().div_ceil(4)).unwrap();
    let input = [vec![noise], secret].concat();
    assert!(first.drive(Group::Files, &input).is_err());
    next.drive(Group::Files, &input).unwrap();
}

#[test]
fn calls_reach_what_they_are_meant_to_reach() {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::new(dir.path()).unwrap();
    // No noise; which of its group's functions opens is found out by what it does.
    let made = (0..40u8).any(|function| {
        // fd 3, no lookup flags, the fifth path with its length, create, to read and write.
        let input = [0, function, 0, 0, 4, 0, 1, 3, 0, 0, 0];
        room.drive(Group::Files, &input).unwrap();
        dir.path().join("inside/new").exists()
    });
    assert!(made);
}
