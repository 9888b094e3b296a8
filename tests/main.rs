//! The command line as people meet it: through the real binary, one module a theme.

mod errors;
mod help;
mod resume;
mod support;
mod train;
