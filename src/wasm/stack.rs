//! The end of a guest's stack, and who may meet it.
//!
//! ```text
//!   │ guard │ slack │ second reserve │ first reserve │ what the guest may use │ top
//!                    └────────── no access ─────────┘▲
//!                                                    └ a guest's own code ends here: "call stack exhausted";
//!                                                      the engine's is let through, and the guest ends at its next check
//! ```
//! The engine runs on the guest's stack, too: for every trap that code raises by a call, for tables and for memories.
//! It takes locks of the whole process there (of backtraces, of the allocator). If it met the end of the stack with
//! one of them, it would be thrown away like a guest, and the lock with it: every later trap of any guest would wait
//! for ever. So the reserves belong to the engine.
//!
//! Once the first one is open the guest may come to its next check with one more frame in it, of any size. The trap of
//! that check has the second one. What the guest may put on the stack before, without a frame, is less than the first
//! one: the scan bounds the operands of a function.
//!
//! Signals that are for the program are not delivered to threads of guests: their handlers would run on this stack.

use std::{
    cell::Cell,
    io,
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::mm::{MprotectFlags, mprotect};
use wasmer::sys::vm::{TrapHandlerFn, VMConfig, catch_traps};

use crate::{stop::Flag, touched::PAGE};

/// Bytes of each reserve. The first must hold the operands of a function, eight bytes each (`scan.rs`).
const RESERVE: usize = 256 << 10;
/// More than lies between the top of a stack and the frame that looks for it.
const SLACK: usize = 64 << 10;

/// Bytes of every stack: what the guest with the largest one needs. The engine hands a thread the same stack again as
/// long as none is asked for that is larger.
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Where the program's own code lies.
static OWN_CODE: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// The stack of a thread.
#[derive(Clone, Copy)]
struct Stack {
    length: usize,
    top: usize,
    /// What guests may use of it.
    limit: usize,
}

/// What the handler of faults knows of the thread. Plain cells: it may look at any moment.
struct Reserve {
    stack: Cell<Option<Stack>>,
    /// How many are open.
    opened: Cell<u8>,
    flag: Cell<Option<Flag>>,
}

thread_local! {
    static RESERVE_OF_THREAD: Reserve =
        const { Reserve { stack: Cell::new(None), opened: Cell::new(0), flag: Cell::new(None) } };
}

/// Bytes to ask the engine for, so that guests may use `limit` of them.
pub(crate) fn length(limit: usize) -> usize {
    let wanted = limit.next_multiple_of(PAGE).saturating_add(2 * RESERVE + SLACK);
    LENGTH.fetch_max(wanted, Ordering::Relaxed).max(wanted)
}

/// Finds the program's own code. Once, before anything else of this.
///
/// # Errors
/// The system does not tell.
pub(crate) fn know_own_code() -> io::Result<()> {
    if OWN_CODE.get().is_none() {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let own: Vec<_> = maps.lines().filter_map(own_code).collect();
        if own.is_empty() {
            return Err(io::Error::other("/proc/self/maps shows no code of this program"));
        }
        // Somebody else may have been first; it is the same.
        OWN_CODE.get_or_init(|| own);
    }
    Ok(())
}

/// The range of a line of `/proc/self/maps` that is code from a file; that of guests is from none.
/// `start-end permissions offset device inode path`, see proc_pid_maps(5).
fn own_code(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let executable = words.next()?.contains('x');
    let inode: u64 = words.nth(2)?.parse().ok()?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    (executable && inode != 0).then_some(range)
}

/// A guest that runs on this thread.
#[derive(Debug)]
pub(crate) struct Guarded(());

impl Guarded {
    /// Makes the thread's stack one of which guests may use `limit` bytes.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new(limit: usize, flag: Flag) -> io::Result<Self> {
        let limit = limit.next_multiple_of(PAGE);
        let length = LENGTH.load(Ordering::Relaxed);
        RESERVE_OF_THREAD.with(|reserve| {
            match reserve.stack.get() {
                Some(stack) if stack.length >= length && stack.limit == limit => {
                    if reserve.opened.get() > 0 {
                        protect(stack.reserve(), MprotectFlags::empty())?;
                    }
                }
                known => {
                    let kept = known.filter(|stack| stack.length >= length);
                    let stack = match kept {
                        Some(stack) => Stack { limit, ..stack },
                        None => {
                            block_signals()?;
                            Stack { length, top: top(length)?, limit }
                        }
                    };
                    reserve.stack.set(None);
                    let closed = stack.reserve();
                    // It may have been another thread's, with another reserve.
                    protect(closed.start..stack.top, MprotectFlags::READ | MprotectFlags::WRITE)?;
                    protect(closed, MprotectFlags::empty())?;
                    reserve.stack.set(Some(stack));
                }
            }
            reserve.opened.set(0);
            reserve.flag.set(Some(flag));
            Ok(Self(()))
        })
    }

    /// Did the engine need the reserve? Then the guest was, or would have been, at its end.
    pub(crate) fn exhausted(&self) -> bool {
        RESERVE_OF_THREAD.with(|reserve| reserve.opened.get() > 0)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        RESERVE_OF_THREAD.with(|reserve| reserve.flag.set(None));
    }
}

impl Stack {
    /// Both.
    fn reserve(&self) -> Range<usize> {
        let end = self.top - self.limit;
        end - 2 * RESERVE..end
    }

    fn first(&self) -> Range<usize> {
        let end = self.top - self.limit;
        end - RESERVE..end
    }
}

/// The top of the stack that the engine will use on this thread: seen from a function that runs on it.
#[expect(unsafe_code, reason = "runs a function on a guest's stack")]
fn top(length: usize) -> io::Result<usize> {
    #[inline(never)]
    fn place() -> usize {
        let here = 0u8;
        std::ptr::from_ref(std::hint::black_box(&here)).addr()
    }
    let config = VMConfig { wasm_stack_size: Some(length) };
    // SAFETY: the function has nothing to be dropped.
    let found = unsafe { catch_traps(None, &config, place) };
    Ok(found.map_err(|_| io::Error::other("the engine has no stack for a guest"))?.next_multiple_of(PAGE))
}

#[expect(unsafe_code, reason = "changes the protection of a stack on which nothing runs")]
fn protect(range: Range<usize>, flags: MprotectFlags) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: `Stack` says that the range lies in a stack of this thread, on which nothing runs, or, in the handler,
    // that the range is its reserve and is only opened.
    Ok(unsafe { mprotect(start, range.len(), flags) }?)
}

/// Handlers of signals would run on the guest's stack, and fail at its end. The first thread takes them all.
#[expect(unsafe_code, reason = "a system call that no crate wraps")]
fn block_signals() -> io::Result<()> {
    if rustix::thread::gettid() == rustix::process::getpid() {
        return Ok(());
    }
    // SAFETY: a set of signals is plain bits, and every function is given a valid one.
    let failed = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        // Those that code brings upon itself, and those of tools.
        for own in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
            libc::SIGPROF,
        ] {
            libc::sigdelset(&mut set, own);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// For the engine to ask first when there is a fault on a guest's stack.
pub(crate) fn handler() -> Box<TrapHandlerFn<'static>> {
    Box::new(|signal, info, context| {
        if signal != libc::SIGSEGV {
            return false;
        }
        // SAFETY: the kernel's own, of this very fault.
        #[expect(unsafe_code, reason = "reads what the kernel tells of a fault")]
        let (address, code) = unsafe { ((*info).si_addr().addr(), code_address(context)) };
        let own = OWN_CODE.get().is_some_and(|all| all.iter().any(|range| range.contains(&code)));
        own && open(address)
    })
}

/// Opens the reserve in which `address` lies. Nothing here allocates or waits.
fn open(address: usize) -> bool {
    RESERVE_OF_THREAD.with(|reserve| {
        let (Some(stack), Some(flag)) = (reserve.stack.get(), reserve.flag.get()) else { return false };
        let (range, opened) = match reserve.opened.get() {
            0 if stack.first().contains(&address) => (stack.first(), 1),
            0 | 1 if stack.reserve().contains(&address) => (stack.reserve(), 2),
            _ => return false,
        };
        if protect(range, MprotectFlags::READ | MprotectFlags::WRITE).is_err() {
            return false;
        }
        reserve.opened.set(opened);
        // SAFETY: the guard of the call that runs on this thread knows it, and its instance lives.
        #[expect(unsafe_code, reason = "raises the flag of the guest that runs here")]
        unsafe {
            flag.raise();
        }
        true
    })
}

/// Where the code was that met the fault.
///
/// # Safety
/// `context` is what the kernel gave to a handler of signals.
#[expect(unsafe_code, reason = "reads what the kernel tells of a fault")]
unsafe fn code_address(context: *const std::ffi::c_void) -> usize {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller's promise.
    #[cfg(target_arch = "x86_64")]
    let code = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    #[cfg(target_arch = "aarch64")]
    let code = unsafe { (*context).uc_mcontext.pc };
    code as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn code_from_files_is_the_programs_own() {
        let line = "5581c0400000-5581c0a00000 r-xp 00100000 fe:00 1234                       /usr/bin/spear (deleted)";
        assert_eq!(own_code(line), Some(0x5581_c040_0000..0x5581_c0a0_0000));
        for other in [
            "7f0000000000-7f0000001000 r-xp 00000000 00:00 0 ",
            "7f0000000000-7f0000001000 rw-p 00000000 fe:00 1234 /usr/lib/libc.so",
            "7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]",
            "",
            "nonsense",
        ] {
            assert_eq!(own_code(other), None, "{other}");
        }
        know_own_code().unwrap();
        let here = code_from_files_is_the_programs_own as *const () as usize;
        assert!(OWN_CODE.get().unwrap().iter().any(|range| range.contains(&here)));
        let there = Box::new(0u8);
        let heap = std::ptr::from_ref(&*there).addr();
        assert!(!OWN_CODE.get().unwrap().iter().any(|range| range.contains(&heap)));
    }
}
