//! What is done to the machine under a test, undone when the guard of it goes.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

fn run(what: &str, program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output();
    let said = match &done {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("this test {what}: it must run as root, where mounting is allowed. `{program} {}`: {said}", args.join(" "));
}

/// A file system of its own, with so many bytes.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an empty one at `path`, which is made.
    pub fn small(path: &Path, bytes: u64) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={bytes},mode=0700");
        run("mounts a small tmpfs", "mount", &["-t", "tmpfs", "-o", &options, "bad-day", path.to_str().unwrap()]);
        Self(path.to_owned())
    }

    /// Makes what lies at `path` readable only, for root too.
    pub fn read_only(path: &Path) -> Self {
        let place = path.to_str().unwrap();
        run("mounts a directory read-only", "mount", &["--bind", place, place]);
        let mounted = Self(path.to_owned());
        run("mounts a directory read-only", "mount", &["-o", "remount,ro,bind", place]);
        mounted
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Writes a file of zeros that takes everything but `leave` bytes.
    pub fn fill(&self, name: &str, leave: u64) -> PathBuf {
        let path = self.0.join(name);
        let mut file = File::create(&path).unwrap();
        while self.free() > leave {
            let step = usize::try_from((self.free() - leave).min(64 << 10)).unwrap();
            match file.write(&vec![0; step]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there ends with the test.
        let done = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(std::thread::panicking() || done.is_ok_and(|status| status.success()), "unmount {}", self.0.display());
    }
}

/// What the kernel counts for a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time on processors, of all its threads.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
}

/// Of a running process.
pub fn usage(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in parentheses, which may hold anything: field 3 is first.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    Usage { cpu: Duration::from_millis(ticks * 10), resident: kilobytes.parse::<u64>().unwrap() * 1024 }
}

/// Files that a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Sets how many files a running process may have open.
pub fn limit_files(pid: u32, most: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let limit = Rlimit { current: Some(most), maximum: getrlimit(Resource::Nofile).maximum };
    let old = prlimit(Some(pid), Resource::Nofile, limit);
    old.unwrap_or_else(|error| panic!("this test changes limits of another process and must run as root: {error}"));
}
