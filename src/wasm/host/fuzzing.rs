//! The host functions driven by arbitrary bytes, for fuzz targets and property tests: without a module, over a memory
//! that holds useful paths, vectors and subscriptions beside noise.
//!
//! ```text
//!   input: [noise for the memory] [call] [call] …        call: function, then a byte or nine for each parameter
//! ```
//! Whatever comes: nothing panics, each function answers an error number of the interface or ends the guest, and of what
//! lies beside the granted directory nothing is read or changed.

use cap_std::{ambient_authority, fs::Dir};
use rustix::fs::{Timespec, Timestamps};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use wasmer::{Engine, Function, FunctionEnv, Memory, MemoryType, Store, Value, sys::NativeEngineExt};

use runtime::{LogBuffer, Streams};
use types::SystemClock;

use super::{
    End, Env, Kind, MODULES, Name, Process,
    files::{Grant, Quota, Tree},
    names::all,
    process::{Arguments, Start},
};
use crate::{
    control::Control,
    watchdog::{Until, Watchdog},
};

const PAGE: u32 = 65_536;
const SECRET_BYTES: usize = 32;
/// The moment at which everything outside was changed last.
const LONG_AGO: i64 = 1_000_000;
/// How long all calls of one input may take together.
const LIMIT: Duration = Duration::from_millis(200);
const BYTES: u64 = 100_000;
const ENTRIES: u64 = 20;

/// Where useful things lie in the memory.
const PATHS: u32 = 0x1000;
const PATH_BYTES: u32 = 16;
const VECTORS: u32 = 0x2000;
const SUBSCRIPTIONS: u32 = 0x3000;
const NOISE: u32 = 0x4000;

const PATH_LIST: [&str; 24] = [
    "f",
    "d",
    "d/g",
    "e",
    "new",
    "d/new",
    "lf",
    "ld/g",
    "ld",
    "up",
    "up/secret",
    "out",
    "abs",
    "dang",
    "loop",
    "..",
    "../secret",
    "../inside/f",
    "d/../../secret",
    "/etc/passwd",
    ".",
    "d/..",
    "pipe",
    "e/",
];

/// Functions that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Those that begin with `fd_`, and opening, so that there is something to use them on.
    Descriptors,
    /// Those that begin with `path_`, and reading directories.
    Files,
    /// Waiting, reading and writing.
    Poll,
    /// The process, clocks, random bytes, sockets.
    Process,
}

impl Group {
    fn has(self, name: &str) -> bool {
        match self {
            Self::Descriptors => name.starts_with("fd_") || name == "path_open",
            Self::Files => name.starts_with("path_") || matches!(name, "fd_readdir" | "fd_close" | "fd_write"),
            Self::Poll => matches!(name, "poll_oneoff" | "fd_read" | "fd_write" | "path_open" | "fd_close"),
            Self::Process => ["args_", "environ_", "proc_", "clock_", "random_", "sched_", "sock_"]
                .iter()
                .any(|start| name.starts_with(start)),
        }
    }
}

/// A directory with a tree for guests in it, and a secret beside that.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    /// Nobody in there may ever read these bytes. Another one in each room: a fuzzer learns what it is compared with, and
    /// would write it itself.
    secret: [u8; SECRET_BYTES],
}

impl Room {
    /// Made in a directory that is empty.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let inside = dir.join("inside");
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
        fs::write(dir.join("secret"), secret)?;
        fs::create_dir_all(inside.join("d"))?;
        fs::create_dir(inside.join("e"))?;
        fs::write(inside.join("f"), "hello")?;
        fs::write(inside.join("d/g"), "inner")?;
        for (link, target) in
            [("lf", "f"), ("ld", "d"), ("up", ".."), ("out", "../secret"), ("dang", "nope"), ("loop", "loop")]
        {
            symlink(target, inside.join(link))?;
        }
        symlink(dir.join("secret"), inside.join("abs"))?;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, inside.join("pipe"), rustix::fs::FileType::Fifo, mode, 0)?;
        let long_ago = Timespec { tv_sec: LONG_AGO, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        for path in [dir.join("secret"), dir.to_owned()] {
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())?;
        }
        Ok(Self { dir: dir.to_owned(), secret })
    }

    /// Runs the calls of an input.
    ///
    /// # Errors
    /// What should never be, in a sentence.
    pub fn drive(&self, group: Group, input: &[u8]) -> Result<(), String> {
        let mut input = Input(input);
        let mut guest = Guest::new(&self.dir.join("inside"), group)?;
        guest.furnish(&mut input)?;
        while let Some(index) = input.byte() {
            let Some((name, function)) = guest.functions.get(usize::from(index) % guest.functions.len()) else { break };
            let (name, function) = (*name, function.clone());
            let mut path = None;
            let value = |(kind, called): (&Kind, &&str)| {
                let number = input.parameter(called, path.take());
                path = number.checked_sub(PATHS.into()).and_then(|at| PATH_LIST.get((at as u32 / PATH_BYTES) as usize));
                match kind {
                    Kind::I32 => Value::I32((number as u32).cast_signed()),
                    Kind::I64 => Value::I64(number.cast_signed()),
                }
            };
            let args: Vec<Value> = name.params.iter().zip(name.called).map(value).collect();
            match guest.call(&function, &args)? {
                Ended::Answered(errno) if errno <= 76 => {}
                Ended::Answered(errno) => return Err(format!("{}{args:?} answered {errno}", name.name)),
                Ended::By(End::Exit(_)) if name.name.starts_with("proc_") => {}
                Ended::By(End::Stopped) => break,
                Ended::By(end) => return Err(format!("{}{args:?} ended the guest: {end}", name.name)),
            }
        }
        guest.knows_nothing_of(&self.secret)?;
        drop(guest);
        self.untouched()
    }

    /// Is all that lies beside the tree as it was, and the tree within its bounds?
    fn untouched(&self) -> Result<(), String> {
        let read = |path: PathBuf| fs::symlink_metadata(&path).map_err(|error| format!("{}: {error}", path.display()));
        for path in [self.dir.join("secret"), self.dir.clone()] {
            if read(path.clone())?.mtime() != LONG_AGO {
                return Err(format!("{} was changed", path.display()));
            }
        }
        if fs::read(self.dir.join("secret")).ok().as_deref() != Some(&self.secret) {
            return Err("the secret was changed".to_owned());
        }
        let beside = fs::read_dir(&self.dir).map_err(|error| error.to_string())?.count();
        if beside == 2 { Ok(()) } else { Err(format!("there are {beside} names beside the tree")) }
    }
}

enum Ended {
    Answered(u32),
    By(End),
}

struct Guest {
    store: Store,
    memory: Memory,
    functions: Vec<(&'static Name, Function)>,
    control: Arc<Control>,
    _watch: Box<dyn std::any::Any>,
}

fn watchdog() -> Result<&'static Watchdog, String> {
    static WATCHDOG: OnceLock<io::Result<Watchdog>> = OnceLock::new();
    WATCHDOG.get_or_init(Watchdog::start).as_ref().map_err(ToString::to_string)
}

impl Guest {
    fn new(inside: &Path, group: Group) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let dir = Dir::open_ambient_dir(inside, ambient_authority()).map_err(|error| text(&error))?;
        let read_only = dir.try_clone().map_err(|error| text(&error))?;
        let quota = Some(Quota::new(BYTES, ENTRIES));
        let grants = vec![
            Grant { name: "/data".to_owned(), dir, tree: Tree { writable: true, quota } },
            Grant { name: "/read".to_owned(), dir: read_only, tree: Tree { writable: false, quota: None } },
        ];
        let control = Arc::new(Control::default());
        let clock = Arc::new(SystemClock::new());
        let (logs, _) = LogBuffer::new(clock.clone(), 1000, 1);
        let arguments = Arguments::new(["name", "one"], [("KEY", "value")]).map_err(|error| text(&error))?;
        let start = Start {
            arguments: Arc::new(arguments),
            stdout_bytes: 1 << 20,
            stderr_bytes: 1 << 20,
            streams: Streams::logged(logs),
            holds_logs: false,
            clock,
            grants,
            descriptors: 32,
        };
        let process = Process::new(start, control.clone()).map_err(|error| text(&error))?;
        let mut store = Store::new(Engine::headless());
        let memory = Memory::new(&mut store, MemoryType::new(1, Some(2), false)).map_err(|error| text(&error))?;
        let env = FunctionEnv::new(&mut store, Env { process: Some(process), memory: Some(memory.clone()) });
        let mut functions = Vec::new();
        for module in MODULES {
            for name in all().filter(|name| group.has(name.name)) {
                if let Some(link) = name.link_for(module) {
                    functions.push((name, link(&mut store, &env)));
                }
            }
        }
        control.input.fill("from standard input".into());
        let until = Until { deadline: Instant::now() + LIMIT, limit: LIMIT, cpu: None };
        let watch = watchdog()?.watch(until, control.clone());
        Ok(Self { store, memory, functions, control, _watch: Box::new(watch) })
    }

    /// Puts into its memory what calls may be about.
    fn furnish(&mut self, input: &mut Input<'_>) -> Result<(), String> {
        let noise = usize::from(input.byte().unwrap_or(0)) * 4;
        self.write(NOISE, input.take(noise))?;
        for (index, path) in (0u32..).zip(PATH_LIST) {
            self.write(PATHS + index * PATH_BYTES, path.as_bytes())?;
        }
        for (index, (address, length)) in (0u32..).zip([
            (0x8000u32, 10u32),
            (0x8000, 0),
            (0x9000, 5000),
            (PAGE - 4, 4),
            (PAGE - 4, 5),
            (0, PAGE),
            (u32::MAX, 1),
            (0x100, u32::MAX),
        ]) {
            self.write(VECTORS + index * 8, &address.to_le_bytes())?;
            self.write(VECTORS + index * 8 + 4, &length.to_le_bytes())?;
        }
        // Kinds: clock, read, write, and none; of descriptors 0 and on, or clocks of that number.
        for index in 0..16u8 {
            let at = SUBSCRIPTIONS + u32::from(index) * 48;
            self.write(at, &[index])?;
            self.write(at + 8, &[index % 4])?;
            self.write(at + 16, &[index / 4])?;
            self.write(at + 24, &(u64::from(index) * 100_000).to_le_bytes())?;
        }
        Ok(())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), String> {
        self.memory.view(&self.store).write(u64::from(at), bytes).map_err(|error| error.to_string())
    }

    fn call(&mut self, function: &Function, args: &[Value]) -> Result<Ended, String> {
        match function.call(&mut self.store, args) {
            Ok(results) => {
                let errno = results.first().and_then(Value::i32).unwrap_or(0);
                Ok(Ended::Answered(errno.cast_unsigned()))
            }
            Err(error) => error.downcast::<End>().map(Ended::By).map_err(|error| error.to_string()),
        }
    }

    /// Is the secret nowhere in its memory?
    fn knows_nothing_of(&self, secret: &[u8]) -> Result<(), String> {
        let memory = self.memory.view(&self.store).copy_to_vec().map_err(|error| error.to_string())?;
        let found = memory.windows(secret.len()).any(|bytes| bytes == secret);
        if found { Err("the guest has read the secret".to_owned()) } else { Ok(()) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.control.stop(types::Reason::Cancelled, "over");
    }
}

/// What is left of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(most).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    /// A parameter: mostly one that means something.
    fn parameter(&mut self, called: &str, path: Option<&&str>) -> u64 {
        let byte = self.byte().unwrap_or(0);
        let low = u64::from(byte);
        if byte >= 0xf0 {
            return self.any();
        }
        match called {
            "fd" | "to" | "from" => [3, 3, 3, 4, 5, 6, 0, 1].get(usize::from(byte % 8)).copied().unwrap_or(low),
            "path" | "new_path" => u64::from(PATHS) + low % PATH_LIST.len() as u64 * u64::from(PATH_BYTES),
            "length" | "new_length" => path.map_or(low, |path| path.len() as u64),
            "base" | "inheriting" => [0, 2, 64, 66, u64::MAX].get(usize::from(byte % 5)).copied().unwrap_or(low),
            "vectors" => u64::from(VECTORS) + low % 8 * 8,
            "subscriptions" => u64::from(SUBSCRIPTIONS) + low % 16 * 48,
            "count" => low % 16,
            "look" | "flags" if byte < 0xc0 => low % 2,
            "look" | "flags" | "open" | "which" | "advice" | "whence" | "how" | "signal" | "id" => low % 17,
            "access" | "change" | "precision" | "cookie" | "code" => low,
            "offset" | "size" => low * 100,
            _ => 0x8000 + low * 8,
        }
    }

    /// Any number, more often one at a bound.
    fn any(&mut self) -> u64 {
        let byte = self.byte().unwrap_or(0);
        let low = u32::from(byte & 0x1f);
        match byte >> 5 {
            0 | 1 => u64::from(byte),
            2 => u64::from(PATHS + low * PATH_BYTES),
            3 => u64::from(VECTORS + low * 8),
            4 => u64::from(PAGE - 16 + low),
            5 => 1 << low,
            6 => u64::MAX - u64::from(low),
            _ => u64::from_le_bytes(self.take(8).first_chunk().copied().unwrap_or([byte; 8])),
        }
    }
}
