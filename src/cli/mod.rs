//! The command line: arguments, and the few lines that call a room below.
//!
//! One file a subcommand. What is decided here: names of options, where files go, what is shown while something runs, and
//! how an error reads. Results go to standard output, everything else to standard error.

mod bench;
mod eval;
mod failure;
mod interrupt;
mod load_test;
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
    LoadTest(load_test::Arguments),
}

/// What every subcommand returns.
type Result<T> = std::result::Result<T, Failure>;

/// Runs the command.
///
/// # Errors
/// Whatever the subcommand fails with.
pub fn run(cli: Cli) -> Result<()> {
    set_threads(cli.threads);
    interrupt::listen()?;
    match cli.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::LoadTest(arguments) => load_test::run(&arguments),
    }
}

/// Bounds the thread pools of this process.
///
/// Our own loops and the matrix products run on rayon's pool. candle's second pool, for element-wise operations, waits by
/// spinning: beside the first it takes more time than it saves, so it gets one thread unless the user wants otherwise.
fn set_threads(threads: Option<NonZeroUsize>) {
    let mut variables = Vec::new();
    if let Some(threads) = threads {
        variables.push(("RAYON_NUM_THREADS", threads.to_string()));
    }
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        variables.push(("CANDLE_NUM_THREADS", "1".to_owned()));
    }
    for (name, value) in variables {
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
}
