//! Sockets: there are none, and no descriptor is one.

use super::{Answer, Call, Errno};

fn socket(call: &mut Call<'_>, fd: u32) -> Answer {
    call.process.descriptor(fd)?;
    Err(Errno::Notsock.into())
}

pub(crate) fn sock_accept(call: &mut Call<'_>, fd: u32, _flags: u32, _out: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_recv(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_send(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32) -> Answer {
    socket(call, fd)
}

pub(crate) fn sock_shutdown(call: &mut Call<'_>, fd: u32, _how: u32) -> Answer {
    socket(call, fd)
}
