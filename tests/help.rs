//! `--help` of every command, word for word. `UPDATE_GOLDEN=1 cargo test` writes the files anew.

use std::path::Path;

use crate::support::Workspace;

fn compare(name: &str, arguments: &[&str]) {
    let found = Workspace::new().succeed(arguments).stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "`serve {}` differs from {}", arguments.join(" "), path.display());
}

#[test]
fn help_is_what_it_was() {
    compare("help.txt", &["--help"]);
    compare("help-train.txt", &["train", "--help"]);
    compare("help-eval.txt", &["eval", "--help"]);
    compare("help-load-test.txt", &["load-test", "--help"]);
    compare("help-tiers.txt", &["tiers", "--help"]);
    for name in ["list", "show", "verify", "add", "remove", "set-default", "set-effort", "merge", "fold"] {
        compare(&format!("help-tiers-{name}.txt"), &["tiers", name, "--help"]);
    }
}

#[test]
fn versions_are_those_of_the_package() {
    let expected = format!("serve {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Workspace::new().succeed(&["--version"]).stdout, expected);
}

#[test]
fn usage_errors_have_an_exit_code_of_their_own() {
    let space = Workspace::new();
    for wrong in [&["trian"][..], &["train"], &["train", "--recipe"], &["eval", "--samples", "many"]] {
        assert_eq!(space.serve(wrong).code, Some(2), "{wrong:?}");
    }
    space.fail(&["eval", "--suite", "mimi"], 2, &["mimi", "gsm8k:FILE"]);
}
