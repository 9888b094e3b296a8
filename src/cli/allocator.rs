//! How this process keeps memory: settings of the system's allocator, which training wants otherwise than a server.

/// Tells glibc to keep freed memory instead of giving it back to the system at once.
///
/// Tensors are large and short-lived. With glibc's defaults each is mapped anew and faults page by page, which halves the
/// speed of training. Call it before other threads begin.
pub fn keep_memory() {
    set(1 << 30, i32::MAX, 1);
}

/// Tells glibc to keep some freed memory: what decoding takes and frees at every step stays, what one long prompt took goes
/// back. Call it before other threads begin.
pub fn keep_some_memory() {
    set(32 << 20, 64 << 20, 4);
}

/// Bytes from which on memory is mapped by itself, bytes that stay at the end of the heap, and heaps.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(mapped: i32, kept: i32, heaps: i32) {
    // SAFETY: `mallopt` only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept);
        libc::mallopt(libc::M_ARENA_MAX, heaps);
    }
}

/// Nothing, on systems whose allocator has no such settings.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_mapped: i32, _kept: i32, _heaps: i32) {}
