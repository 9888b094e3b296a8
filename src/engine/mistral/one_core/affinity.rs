//! On which cores a thread of this process may run (`sched_setaffinity(2)`). Elsewhere than on Linux nothing is known.

/// The thread that asks.
pub const SELF: i32 = 0;

/// The cores on which the thread may run, in their order.
#[cfg(target_os = "linux")]
pub fn of_thread(thread: i32) -> Option<Vec<usize>> {
    // SAFETY: a set of cores is plain bits, for which zero is a value; the call fills in as many bytes as it is told.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &mut set) == 0).then_some(set)?
    };
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: only numbers that a set has.
    Some((0..most).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Lets the thread run on these cores only; whether the system did it.
#[cfg(target_os = "linux")]
pub fn bind(thread: i32, cores: &[usize]) -> bool {
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: a set of cores is plain bits, for which zero is a value; only numbers that it has are set; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores.iter().filter(|core| **core < most) {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

/// The threads of this process that may run on this core and no other.
#[cfg(target_os = "linux")]
pub fn bound_to(core: usize) -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let numbers = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    numbers.filter(|thread| of_thread(*thread).is_some_and(|cores| cores == [core])).collect()
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn of_thread(_thread: i32) -> Option<Vec<usize>> {
    None
}

/// Not possible on this system.
#[cfg(not(target_os = "linux"))]
pub fn bind(_thread: i32, _cores: &[usize]) -> bool {
    false
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn bound_to(_core: usize) -> Vec<i32> {
    Vec::new()
}
