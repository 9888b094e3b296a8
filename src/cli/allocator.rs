//! How this process keeps memory: a setting of the system's allocator that training wants, and a server does not.

/// Tells glibc to keep freed memory instead of giving it back to the system at once.
///
/// Tensors are large and short-lived. With glibc's defaults each is mapped anew and faults page by page, which halves the
/// speed of training. Call it before other threads begin.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_memory() {
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Nothing, on systems whose allocator has no such setting.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_memory() {}
