//! A bad day: what the machine, the network and the clock do to a running product, and what its operator sees.
//!
//! Every test runs the real program, does the harm from outside (a full or read-only file system, signals, a clock
//! that jumps, failing system calls, frozen links), prints what an operator would read, and asserts on that text.
//! They need root, mounts, `strace` and `libfaketime`; where one is missing the test says so and fails.

mod clock;
mod cloned;
mod descriptors;
mod disk_full;
mod fsync;
mod killed;
mod links;
mod logs;
mod machine;
mod paused;
mod proxy;
mod read_only;
mod seen;
mod slow_clients;
