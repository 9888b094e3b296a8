//! Processor time of this process: a generator that is busy all the time measures itself, not the server.

/// Seconds of processor time that this process took so far, user and system together; `None` where the system does not say.
#[cfg(unix)]
pub fn seconds() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for a `rusage`, which the call fills in.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(time(usage.ru_utime) + time(usage.ru_stime))
}

/// Seconds of processor time; not known on this system.
#[cfg(not(unix))]
pub fn seconds() -> Option<f64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::seconds;

    #[test]
    fn work_takes_time() {
        let before = seconds().unwrap();
        let sum = (0..20_000_000u64).fold(0, |sum: u64, next| std::hint::black_box(sum.wrapping_add(next)));
        assert!(sum > 0 && seconds().unwrap() > before);
    }
}
