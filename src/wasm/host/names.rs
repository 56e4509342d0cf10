//! The table of host functions: names, types, and what implements them. The only place that lists them.

use std::fmt;
use wasmer::{Function, FunctionEnv, FunctionEnvMut, RuntimeError, Store};

use super::{End, Env, clock, enter, fd, files, poll, process, random, socket};

/// The older name of the interface.
const UNSTABLE: &str = "wasi_unstable";
/// Module names under which the functions are found.
pub(crate) const MODULES: [&str; 2] = ["wasi_snapshot_preview1", UNSTABLE];

/// Type of a parameter or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
}

/// Makes the function in a store.
pub(crate) type Link = fn(&mut Store, &FunctionEnv<Env>) -> Function;

/// One host function.
pub(crate) struct Name {
    /// Its name.
    pub(crate) name: &'static str,
    /// Types of its parameters.
    pub(crate) params: &'static [Kind],
    /// What they are called here.
    #[cfg(any(test, fuzzing))]
    pub(crate) called: &'static [&'static str],
    /// Types of its results.
    pub(crate) results: &'static [Kind],
    /// As `wasi_snapshot_preview1` has it.
    pub(crate) link: Link,
    /// As `wasi_unstable` has it, if it does.
    unstable: Option<Link>,
}

impl Name {
    /// What makes it for a module name.
    pub(crate) fn link_for(&self, module: &str) -> Option<Link> {
        if module == UNSTABLE { self.unstable } else { Some(self.link) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |kinds: &[Kind]| {
            kinds.iter().map(|kind| if *kind == Kind::I32 { "i32" } else { "i64" }).collect::<Vec<_>>().join(" ")
        };
        write!(f, "({}) -> ({})", list(self.params), list(self.results))
    }
}

/// The function of a name in a module.
pub(crate) fn find(module: &str, name: &str) -> Option<&'static Name> {
    if !MODULES.contains(&module) {
        return None;
    }
    all().find(|known| known.name == name && known.link_for(module).is_some())
}

macro_rules! kind {
    (u32) => {
        Kind::I32
    };
    (u64) => {
        Kind::I64
    };
}

/// A function that answers an errno.
macro_rules! link {
    (($($arg:ident: $ty:ident),*), $call:expr) => {
        |store, env| {
            let run = |env: FunctionEnvMut<'_, Env>, $($arg: $ty),*| enter(env, |call| $call(call, $($arg),*));
            Function::new_typed_with_env(store, env, run)
        }
    };
}

macro_rules! table {
    ($($name:ident($($arg:ident: $ty:ident),*) = $call:expr, $unstable:tt;)*) => {
        [$(Name {
            name: stringify!($name),
            params: &[$(kind!($ty)),*],
            #[cfg(any(test, fuzzing))]
            called: &[$(stringify!($arg)),*],
            results: &[Kind::I32],
            link: link!(($($arg: $ty),*), $call),
            unstable: table!(@unstable ($($arg: $ty),*), $call, $unstable),
        }),*]
    };
    (@unstable $args:tt, $call:expr, same) => { Some(link!($args, $call)) };
    (@unstable $args:tt, $call:expr, none) => { None };
    (@unstable $args:tt, $call:expr, ($old:expr)) => { Some(link!($args, $old)) };
}

/// `proc_exit`, the one that answers nothing.
static EXIT: Name = Name {
    name: "proc_exit",
    params: &[Kind::I32],
    #[cfg(any(test, fuzzing))]
    called: &["code"],
    results: &[],
    link: link_exit,
    unstable: Some(link_exit),
};

fn link_exit(store: &mut Store, env: &FunctionEnv<Env>) -> Function {
    let run = |_: FunctionEnvMut<'_, Env>, code: u32| -> Result<(), RuntimeError> {
        Err(RuntimeError::user(Box::new(End::Exit(code.cast_signed()))))
    };
    Function::new_typed_with_env(store, env, run)
}

/// All the others: they answer an errno.
static ANSWERING: [Name; 45] = table! {
    args_get(pointers: u32, bytes: u32) = process::args_get, same;
    args_sizes_get(count: u32, size: u32) = process::args_sizes_get, same;
    clock_res_get(id: u32, out: u32) = clock::clock_res_get, same;
    clock_time_get(id: u32, precision: u64, out: u32) = clock::clock_time_get, same;
    environ_get(pointers: u32, bytes: u32) = process::environ_get, same;
    environ_sizes_get(count: u32, size: u32) = process::environ_sizes_get, same;
    fd_advise(fd: u32, offset: u64, length: u64, advice: u32) = fd::fd_advise, same;
    fd_allocate(fd: u32, offset: u64, length: u64) = fd::fd_allocate, same;
    fd_close(fd: u32) = fd::fd_close, same;
    fd_datasync(fd: u32) = fd::fd_datasync, same;
    fd_fdstat_get(fd: u32, out: u32) = fd::fd_fdstat_get, same;
    fd_fdstat_set_flags(fd: u32, flags: u32) = fd::fd_fdstat_set_flags, same;
    fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64) = fd::fd_fdstat_set_rights, same;
    fd_filestat_get(fd: u32, out: u32) = fd::fd_filestat_get::<64>, (fd::fd_filestat_get::<56>);
    fd_filestat_set_size(fd: u32, size: u64) = fd::fd_filestat_set_size, same;
    fd_filestat_set_times(fd: u32, access: u64, change: u64, which: u32) = fd::fd_filestat_set_times, same;
    fd_pread(fd: u32, vectors: u32, count: u32, offset: u64, out: u32) = fd::fd_pread, same;
    fd_prestat_dir_name(fd: u32, path: u32, length: u32) = fd::fd_prestat_dir_name, same;
    fd_prestat_get(fd: u32, out: u32) = fd::fd_prestat_get, same;
    fd_pwrite(fd: u32, vectors: u32, count: u32, offset: u64, out: u32) = fd::fd_pwrite, same;
    fd_read(fd: u32, vectors: u32, count: u32, out: u32) = fd::fd_read, same;
    fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, out: u32) = files::fd_readdir, same;
    fd_renumber(from: u32, to: u32) = fd::fd_renumber, same;
    fd_seek(fd: u32, offset: u64, whence: u32, out: u32) = fd::fd_seek, (fd::fd_seek_unstable);
    fd_sync(fd: u32) = fd::fd_sync, same;
    fd_tell(fd: u32, out: u32) = fd::fd_tell, same;
    fd_write(fd: u32, vectors: u32, count: u32, out: u32) = fd::fd_write, same;
    path_create_directory(fd: u32, path: u32, length: u32) = files::path_create_directory, same;
    path_filestat_get(fd: u32, flags: u32, path: u32, length: u32, out: u32)
        = files::path_filestat_get::<64>, (files::path_filestat_get::<56>);
    path_filestat_set_times(fd: u32, flags: u32, path: u32, length: u32, access: u64, change: u64, which: u32)
        = files::path_filestat_set_times, same;
    path_link(fd: u32, flags: u32, path: u32, length: u32, to: u32, new_path: u32, new_length: u32)
        = files::path_link, same;
    path_open(fd: u32, look: u32, path: u32, length: u32, open: u32, base: u64, inheriting: u64, flags: u32, out: u32)
        = files::path_open, same;
    path_readlink(fd: u32, path: u32, length: u32, buffer: u32, size: u32, out: u32) = files::path_readlink, same;
    path_remove_directory(fd: u32, path: u32, length: u32) = files::path_remove_directory, same;
    path_rename(fd: u32, path: u32, length: u32, to: u32, new_path: u32, new_length: u32)
        = files::path_rename, same;
    path_symlink(path: u32, length: u32, fd: u32, new_path: u32, new_length: u32) = files::path_symlink, same;
    path_unlink_file(fd: u32, path: u32, length: u32) = files::path_unlink_file, same;
    poll_oneoff(subscriptions: u32, events: u32, count: u32, out: u32)
        = poll::poll_oneoff::<48>, (poll::poll_oneoff::<56>);
    proc_raise(signal: u32) = process::proc_raise, same;
    random_get(buffer: u32, length: u32) = random::random_get, same;
    sched_yield() = process::sched_yield, same;
    sock_accept(fd: u32, flags: u32, out: u32) = socket::sock_accept, none;
    sock_recv(fd: u32, vectors: u32, count: u32, flags: u32, out: u32, out_flags: u32) = socket::sock_recv, same;
    sock_send(fd: u32, vectors: u32, count: u32, flags: u32, out: u32) = socket::sock_send, same;
    sock_shutdown(fd: u32, how: u32) = socket::sock_shutdown, same;
};

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Name> {
    ANSWERING.iter().chain([&EXIT])
}
