//! The command line: arguments, and the few lines that call a room below.
//!
//! One file a subcommand. What is decided here: names of options, where files go, what is shown while something runs, and
//! how an error reads. Results go to standard output, everything else to standard error.

mod allocator;
mod bench;
mod columns;
mod command;
mod dtype;
mod eval;
mod failure;
mod interrupt;
mod load_test;
mod place;
mod progress;
mod remote;
mod serve;
mod tiers;
mod train;

use std::ffi::OsString;
use std::num::NonZeroUsize;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::{Failure, report};

/// Serve reasoning models whose `reasoning_effort` picks a trained tier
///
/// Without a command: answer OpenAI's API with a family of tiers. The commands train tiers and measure what each saves.
#[derive(Debug, Parser)]
#[command(name = "serve", version, propagate_version = true, max_term_width = 100, after_help = serve::EXAMPLES)]
pub struct Cli {
    /// Threads that compute [default: all cores; one when a small model is served]
    #[arg(long, global = true, env = "BREVITY_THREADS", hide_env_values = true, value_name = "N", value_parser = threads)]
    threads: Option<NonZeroUsize>,

    #[command(flatten)]
    serve: serve::Arguments,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Arguments),
    Eval(Box<eval::Arguments>),
    LoadTest(Box<load_test::Arguments>),
    Tiers(tiers::Arguments),
}

/// What every subcommand returns.
type Result<T> = std::result::Result<T, Failure>;

/// Reads the command line and runs what it asks for.
///
/// # Errors
/// Whatever the command fails with. Mistakes in the command line end the process here, as clap does.
pub fn run() -> Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = Cli::command();
    let matches = command.clone().get_matches_from(&arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let Some(subcommand) = cli.command else {
        allocator::keep_some_memory();
        return serve::run(&command, &arguments).and_then(|()| is_written());
    };
    refuse_server_options(&matches);
    set_threads(cli.threads);
    if matches!(subcommand, Command::Train(_) | Command::Eval(_)) {
        allocator::keep_memory();
    }
    interrupt::listen()?;
    match subcommand {
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::LoadTest(arguments) => load_test::run(&arguments),
        Command::Tiers(arguments) => tiers::run(&arguments),
    }?;
    is_written()
}

/// Refuses success when a result did not reach standard output.
fn is_written() -> Result<()> {
    match progress::is_output_lost() {
        true => Err(Failure::from(anyhow::anyhow!("a result could not be written to standard output"))),
        false => Ok(()),
    }
}

/// Ends the process when an option of the server stands before a subcommand, where it would mean nothing.
fn refuse_server_options(matches: &ArgMatches) {
    let server = serve::Arguments::augment_args(clap::Command::new("serve"));
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    if let Some(option) = server.get_arguments().find(|argument| given(argument.get_id().as_str())) {
        let (option, command) = (option.get_long().unwrap_or_default(), matches.subcommand_name().unwrap_or_default());
        let message = format!(
            "--{option} before `{command}` is an option of the server; leave it out, or write it after `{command}` if that has it too"
        );
        Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
}

fn threads(text: &str) -> std::result::Result<NonZeroUsize, String> {
    text.trim().parse().map_err(|_| "expected a number of threads, at least 1".to_owned())
}

/// Bounds the thread pools of this process.
///
/// Our own loops and the matrix products run on rayon's pool. candle's second pool, for element-wise operations, waits by
/// spinning: beside the first it takes more time than it saves, so it gets one thread unless the user wants otherwise.
/// The engine in this process keeps keys and values as 32-bit floats on a CPU; with its own default of 16 bits a request
/// could give another text beside others than alone.
fn set_threads(threads: Option<NonZeroUsize>) {
    let mut variables = Vec::new();
    if let Some(threads) = threads {
        variables.push(("RAYON_NUM_THREADS", threads.to_string()));
    }
    for name in ["CANDLE_NUM_THREADS", "MISTRALRS_CPU_KV_F32"] {
        if std::env::var_os(name).is_none() {
            variables.push((name, "1".to_owned()));
        }
    }
    for (name, value) in variables {
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
}
