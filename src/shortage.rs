//! Errors of a process that can open no more files or sockets, told from those of what it wanted to open.

use std::borrow::Cow;
use std::io;

use rustix::io::Errno;

/// The remedy for an error that [`lacks_descriptor`] accepts.
pub const OPEN_FILES_REMEDY: &str = "raise the limit of open files (LimitNOFILE, ulimit -n)";

/// The message of an error of opening or reading a file. One that says nothing about the file has the remedy
/// for its own cause.
pub fn io_words(error: &io::Error) -> Cow<'static, str> {
    match lacks_descriptor(error) {
        true => format!("too many open files; {OPEN_FILES_REMEDY}").into(),
        false => error.to_string().into(),
    }
}

/// True for an error that says that the process or the machine has no descriptor left (accept(2)).
pub fn lacks_descriptor(error: &io::Error) -> bool {
    // Windows has one limit, which rustix knows by this name.
    #[cfg(windows)]
    const EXHAUSTED: [Errno; 1] = [Errno::MFILE];
    #[cfg(unix)]
    const EXHAUSTED: [Errno; 2] = [Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| EXHAUSTED.contains(&errno))
}

/// True for an error that says that this process or machine has no descriptor or memory left, so that it
/// says nothing about the peer (socket(2), connect(2)).
pub fn lacks_resource(error: &io::Error) -> bool {
    #[cfg(unix)]
    if matches!(Errno::from_io_error(error), Some(Errno::NOMEM | Errno::NOBUFS)) {
        return true;
    }
    lacks_descriptor(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_other_errors() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(lacks_descriptor(&error(Errno::MFILE)) && lacks_descriptor(&error(Errno::NFILE)));
        assert!(!lacks_descriptor(&error(Errno::NOMEM)));
        assert!(lacks_resource(&error(Errno::MFILE)) && lacks_resource(&error(Errno::NOMEM)));
        assert!(!lacks_resource(&error(Errno::CONNREFUSED)));
        assert!(!lacks_descriptor(&io::ErrorKind::ConnectionAborted.into()));
        let words = io_words(&error(Errno::NFILE));
        assert_eq!(words, format!("too many open files; {OPEN_FILES_REMEDY}"));
        assert!(io_words(&error(Errno::ISDIR)).starts_with("Is a directory"));
    }
}
