//! The command of this process, as it would be typed again.

use brevity::load::client::without_credentials;

/// The arguments of this process behind the name of the binary, quoted for a POSIX shell. User names and passwords in
/// addresses are left out: commands are written to reports.
pub fn typed() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| without_credentials(&argument.to_string_lossy()));
    std::iter::once("serve".to_owned()).chain(arguments.map(|argument| quoted(&argument))).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_typed() {
        assert_eq!(quoted("--set"), "--set");
        assert_eq!(quoted("objective.alpha=0.1,0.2"), "objective.alpha=0.1,0.2");
        assert_eq!(quoted("alpha=[0.1, 0.2]"), "'alpha=[0.1, 0.2]'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert!(typed().starts_with("serve"));
    }
}
