//! The command line: arguments, and the few lines that call a room below.
//!
//! One file a subcommand. What is decided here: names of options, where files go, what is shown while something runs, and
//! how an error reads. Results go to standard output, everything else to standard error.

mod bench;
mod eval;
mod failure;
mod interrupt;
mod place;
mod progress;
mod train;

use std::num::NonZeroUsize;

use clap::{Parser, Subcommand};

pub use failure::{Failure, report};

/// Train reasoning models into effort tiers, and measure what each tier saves.
#[derive(Debug, Parser)]
#[command(name = "serve", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Threads that compute; all cores by default
    #[arg(long, global = true, env = "BREVITY_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<NonZeroUsize>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Arguments),
    Eval(eval::Arguments),
}

/// What every subcommand returns.
type Result<T> = std::result::Result<T, Failure>;

/// Runs the command.
///
/// # Errors
/// Whatever the subcommand fails with.
pub fn run(cli: Cli) -> Result<()> {
    if let Some(threads) = cli.threads {
        use_threads(threads);
    }
    interrupt::listen()?;
    match cli.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
    }
}

/// Bounds every thread pool of this process: rayon's own and the one of the matrix products both ask this variable.
fn use_threads(threads: NonZeroUsize) {
    // SAFETY: no other thread exists yet that could read the environment at the same time.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
}
