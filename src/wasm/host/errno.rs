//! Error numbers of WASI preview 1 (both versions use the same ones).

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Errno {
    /// Resource unavailable, try again.
    Again = 6,
    /// Bad file descriptor.
    Badf = 8,
    /// Bad address.
    Fault = 21,
    /// Invalid argument.
    Inval = 28,
    /// I/O error.
    Io = 29,
    /// Not a directory.
    Notdir = 54,
    /// Not a socket.
    Notsock = 57,
    /// Value too large.
    Overflow = 61,
    /// Invalid seek.
    Spipe = 70,
    /// Not allowed by the descriptor's rights.
    Notcapable = 76,
}
