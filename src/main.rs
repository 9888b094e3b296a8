//! The `serve` command: parse, dispatch, report errors. Nothing else lives here.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_memory();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::report(&failure);
            ExitCode::from(failure.code())
        }
    }
}

/// Tells glibc to keep freed memory instead of giving it back to the system at once.
///
/// Tensors are large and short-lived. With glibc's defaults each is mapped anew and faults page by page, which halves the
/// speed of training.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_memory() {
    // SAFETY: `mallopt` only sets parameters of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_memory() {}
