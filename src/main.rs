//! The `serve` command: parse, dispatch, report errors. Nothing else lives here.
fn main() {}
