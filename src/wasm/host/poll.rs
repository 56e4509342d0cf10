//! `poll_oneoff`: waits for clocks and for the standard streams, and for a stop.
//!
//! Layout of a subscription: userdata u64 at 0, tag u8 at 8, then at 16 a clock {id u32, timeout u64, precision
//! u64, flags u16} or a descriptor u32. The older interface has another u64 in front of the clock's id.
//! An event: userdata u64, errno u16 at 8, type u8 at 10, {bytes u64 at 16, flags u16 at 24}.

use std::time::Instant;

use super::{
    Answer, Call, Errno,
    descriptor::{Descriptor, What as Open, rights},
    memory::{element, put, u16_at, u32_at, u64_at},
};

/// Most subscriptions of one call.
const MOST: u32 = 1024;

const EVENT_BYTES: usize = 32;
const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
const HANGUP: u16 = 1;
/// `subclockflags`: the timeout is a moment of its clock.
const ABSOLUTE: u16 = 1;

/// What a subscription waits for.
enum What {
    /// A moment; `None` never comes.
    Clock(Option<Instant>),
    /// Standard input.
    Input,
    /// Nothing: it is known already.
    Known(Result<(), Errno>),
}

struct Subscription {
    userdata: u64,
    kind: u8,
    what: What,
}

/// An event that has happened.
struct Event {
    errno: u16,
    bytes: u64,
    flags: u16,
}

pub(crate) fn poll_oneoff<const SIZE: usize>(
    call: &mut Call<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Answer {
    if count == 0 || count > MOST {
        return Err(Errno::Inval.into());
    }
    let size = u32::try_from(SIZE).map_err(|_| Errno::Overflow)?;
    call.memory.check(events, count * EVENT_BYTES as u32)?;
    call.memory.check(out, 4)?;
    // All clocks count from here: two of one length end together.
    let begun = Instant::now();
    let mut list = Vec::with_capacity(count as usize);
    for index in 0..count {
        let bytes: [u8; SIZE] = call.memory.array(element(subscriptions, index, size)?)?;
        list.push(parse(call, &bytes, begun)?);
    }
    let happened = loop {
        call.check()?;
        let now = Instant::now();
        let happened: Vec<(u64, u8, Event)> =
            list.iter().filter_map(|wanted| Some((wanted.userdata, wanted.kind, look(call, wanted, now)?))).collect();
        if !happened.is_empty() {
            break happened;
        }
        wait(call, &list);
    };
    for (index, (userdata, kind, event)) in (0u32..).zip(&happened) {
        let mut bytes = [0; EVENT_BYTES];
        put(&mut bytes, 0, &userdata.to_le_bytes());
        put(&mut bytes, 8, &event.errno.to_le_bytes());
        put(&mut bytes, 10, &[*kind]);
        put(&mut bytes, 16, &event.bytes.to_le_bytes());
        put(&mut bytes, 24, &event.flags.to_le_bytes());
        call.memory.write(element(events, index, EVENT_BYTES as u32)?, &bytes)?;
    }
    Ok(call.memory.write_u32(out, u32::try_from(happened.len()).map_err(|_| Errno::Overflow)?)?)
}

fn parse(call: &mut Call<'_>, bytes: &[u8], begun: Instant) -> Result<Subscription, Errno> {
    let kind = bytes.get(8).copied().unwrap_or(u8::MAX);
    let what = match kind {
        CLOCK => {
            // The extra field of the older layout shifts the rest by its eight bytes.
            let at = bytes.len() - 32;
            let (id, timeout, flags) = (u32_at(bytes, at), u64_at(bytes, at + 8), u16_at(bytes, at + 24));
            if flags > ABSOLUTE {
                return Err(Errno::Inval);
            }
            match call.process.clocks.moment(id, timeout, flags == ABSOLUTE, begun) {
                Ok(moment) => What::Clock(moment),
                Err(errno) => What::Known(Err(errno)),
            }
        }
        READ | WRITE => match call.process.descriptor(u32_at(bytes, 16)) {
            Ok(descriptor) => descriptor_wanted(descriptor, kind == READ),
            Err(errno) => What::Known(Err(errno)),
        },
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription { userdata: u64_at(bytes, 0), kind, what })
}

fn descriptor_wanted(descriptor: &Descriptor, reads: bool) -> What {
    match descriptor.what {
        _ if descriptor.need(rights::POLL_FD_READWRITE).is_err() => What::Known(Err(Errno::Notcapable)),
        Open::Stream(_) if descriptor.need(if reads { rights::FD_READ } else { rights::FD_WRITE }).is_err() => {
            What::Known(Err(Errno::Badf))
        }
        Open::Stream(_) if reads => What::Input,
        // Files are always ready.
        Open::Stream(_) | Open::File(_) => What::Known(Ok(())),
        Open::Directory(_) => What::Known(Err(Errno::Badf)),
    }
}

fn look(call: &Call<'_>, wanted: &Subscription, now: Instant) -> Option<Event> {
    match &wanted.what {
        What::Clock(moment) => {
            moment.is_some_and(|moment| moment <= now).then_some(Event { errno: 0, bytes: 0, flags: 0 })
        }
        What::Input => match call.control().input.ready() {
            Some(0) => None,
            Some(bytes) => Some(Event { errno: 0, bytes: bytes as u64, flags: 0 }),
            None => Some(Event { errno: 0, bytes: 0, flags: HANGUP }),
        },
        // Output never blocks; how much fits is the guest's own limit, which ends it anyway.
        What::Known(Ok(())) => Some(Event { errno: 0, bytes: 65_536, flags: 0 }),
        What::Known(Err(errno)) => Some(Event { errno: *errno as u16, bytes: 0, flags: 0 }),
    }
}

/// Sleeps until the first clock, until input if somebody waits for it, or until a stop.
fn wait(call: &Call<'_>, list: &[Subscription]) {
    let first =
        list.iter().filter_map(|wanted| if let What::Clock(moment) = wanted.what { moment } else { None }).min();
    let control = call.control();
    if list.iter().any(|wanted| matches!(wanted.what, What::Input)) {
        control.input.wait(first, || control.is_stopped());
    } else {
        control.sleep_until(first);
    }
}
