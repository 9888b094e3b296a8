//! How a command ends badly: an error with its causes, perhaps a hint, and an exit code.

use std::fmt::{self, Display};
use std::io::Write;

use brevity::api::auth::KeyError;
use brevity::api::server::BindError;
use brevity::engine::EngineError;
use brevity::engine::sequence::LoadError;
use brevity::family::hub::HubError;
use brevity_training::Error;

/// Anything that went wrong.
const FAILED: u8 = 1;
/// The command line asks for something that cannot be.
const USAGE: u8 = 2;
/// Somebody asked to stop: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// An error on its way to the terminal.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A mistake in the arguments.
    pub fn usage(message: impl Display) -> Self {
        Self { error: anyhow::anyhow!("{message}"), hint: None, code: USAGE }
    }

    /// Somebody asked to stop; `message` says what that means for the work.
    pub fn interrupted(message: impl Display) -> Self {
        Self { error: anyhow::anyhow!("{message}"), hint: None, code: INTERRUPTED }
    }

    /// The same with a line that says what to do.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let interrupted = matches!(error.downcast_ref(), Some(Error::Interrupted));
        Self { error, hint: None, code: if interrupted { INTERRUPTED } else { FAILED } }
    }
}

/// The errors that commands meet, one by one: a blanket implementation over all errors would collide with one over
/// associated types in a dependency of the engine.
macro_rules! fails_with {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from(anyhow::Error::from(error))
            }
        })+
    };
}

fails_with!(Error, std::io::Error, ctrlc::Error, EngineError, LoadError, KeyError, BindError, HubError);

impl fmt::Display for Failure {
    /// The error, its causes after it where they are not already part of the sentence, and the hint on a line of its own.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text.push_str(&format!(": {cause}"));
            }
        }
        formatter.write_str(&text)?;
        self.hint.iter().try_for_each(|hint| write!(formatter, "\nhint: {hint}"))
    }
}

/// Writes the error to standard error.
pub fn report(failure: &Failure) {
    // Where standard error is closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "error: {failure}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_kinds_apart() {
        assert_eq!(Failure::from(Error::config("no")).code(), 1);
        assert_eq!(Failure::from(Error::Interrupted).code(), 130);
        assert_eq!(Failure::usage("no").code(), 2);
        assert_eq!(Failure::interrupted("no").hint("yes").code(), 130);
    }
}
