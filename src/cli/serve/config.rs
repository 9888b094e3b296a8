//! `brevity.toml`, and what wins over it: flag, then environment, then file, then default.
//!
//! The file's values become arguments of a second parse, for every option that neither a flag nor a variable set. So one
//! parser reads all sources, and a value that is wrong is wrong in the same words wherever it stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use brevity_training::{Error, files};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use toml::de::{DeTable, DeValue};

use crate::cli::{Failure, Result};

/// The file that is read where there is one and none is named.
const FILE: &str = "brevity.toml";
/// Options that make no sense in the file.
const FLAGS_ONLY: &[&str] = &["config", "print_config", "help", "version"];
/// Options whose values are never shown.
const SECRETS: &[&str] = &["api_key"];

/// Where the value of an option is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Variable,
    File,
    Default,
}

/// Options from all sources, parsed.
pub struct Configured {
    /// What clap made of them.
    pub matches: ArgMatches,
    /// The keys that are from the file.
    from_file: Vec<String>,
    file: Option<PathBuf>,
}

/// Parses `arguments` together with the configuration file they name.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has an unknown key or a value that its option does not take. Mistakes in
/// the arguments themselves end the process, as clap does.
pub fn configured(command: &Command, arguments: &[OsString]) -> Result<Configured> {
    let matches = command.clone().get_matches_from(arguments);
    let named = matches.get_one::<PathBuf>("config").cloned();
    let Some(path) = named.or_else(|| Some(PathBuf::from(FILE)).filter(|file| file.is_file())) else {
        return Ok(Configured { matches, from_file: Vec::new(), file: None });
    };
    let text = files::read_text(&path)?;
    let entries = entries(command, &text, &path)?;
    let is_free =
        |key: &str| !matches!(matches.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let from_file: Vec<String> = entries.keys().filter(|key| is_free(key)).cloned().collect();
    let added = from_file.iter().flat_map(|key| entries[key].clone()).map(OsString::from);
    let all: Vec<OsString> = arguments.iter().cloned().chain(added).collect();
    Ok(Configured { matches: command.clone().get_matches_from(all), from_file, file: Some(path) })
}

/// The file's entries as arguments, by key; each checked by itself.
fn entries(command: &Command, text: &str, path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let fault = |message: String| Failure::from(Error::format(path, message));
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        fault(format!("line {line}: {}", error.message()))
    })?;
    let mut entries = BTreeMap::new();
    for (key, value) in table.into_inner() {
        let line = line_of(text, key.span().start);
        let key = key.into_inner().into_owned();
        if !known(command).any(|known| known == key) {
            let near = nearest(&key, known(command));
            return Err(fault(format!("line {line}: unknown key `{key}`{near}")));
        }
        let values = values(value.get_ref()).ok_or_else(|| {
            fault(format!("line {line}: `{key}` takes a text, a number, true or false, or a list of these"))
        })?;
        let flag = format!("--{}", key.replace('_', "-"));
        let arguments: Vec<String> = values.iter().map(|value| format!("{flag}={value}")).collect();
        let alone = std::iter::once("serve").chain(arguments.iter().map(String::as_str));
        if let Err(error) = command.clone().try_get_matches_from(alone) {
            return Err(fault(format!("line {line}: `{key}`: {}", reason(&error))));
        }
        entries.insert(key, arguments);
    }
    Ok(entries)
}

/// A TOML value as values of an option; a table as `key=value`.
fn values(value: &DeValue<'_>) -> Option<Vec<String>> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    };
    match value {
        DeValue::Array(values) => values.iter().map(|value| scalar(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &toml::de::DeString<'_> = key.get_ref();
                scalar(value.get_ref()).map(|value| format!("{key}={value}"))
            };
            table.iter().map(entry).collect()
        }
        value => scalar(value).map(|value| vec![value]),
    }
}

/// What clap has against a value, without its own frame.
fn reason(error: &clap::Error) -> String {
    use std::error::Error as _;
    let cause = error.source().map(ToString::to_string);
    cause.unwrap_or_else(|| {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("For more")).map(str::trim).collect();
        lines.join(" ").trim().trim_start_matches("error: ").to_owned()
    })
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|&byte| byte == b'\n').count() + 1
}

fn known(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().map(|argument| argument.get_id().as_str()).filter(|id| !FLAGS_ONLY.contains(id))
}

fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known
        .map(|key| (strsim::damerau_levenshtein(wrong, &key.replace('-', "_")), key))
        .min()
        .filter(|(distance, key)| distance * 2 <= key.chars().count());
    match near {
        Some((_, key)) => format!(", did you mean `{key}`?"),
        None => ", see `serve --help` for the options; keys are named like them, with `_` for `-`".to_owned(),
    }
}

impl Configured {
    /// The effective options as a file with which the same server starts, except for secrets; what each is from as a comment.
    pub fn to_toml(&self, command: &Command) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new(FILE)).display().to_string();
        let mut lines = Vec::new();
        for key in known(command) {
            let values: Vec<String> = self.matches.get_raw(key).into_iter().flatten().map(literal).collect();
            let is_list =
                command.get_arguments().any(|a| a.get_id() == key && matches!(a.get_action(), ArgAction::Append));
            let origin = match self.origin(key) {
                Origin::Flag => "flag".to_owned(),
                Origin::Variable => "environment".to_owned(),
                Origin::File => file.clone(),
                Origin::Default => "default".to_owned(),
            };
            let value = match values.as_slice() {
                [] => {
                    lines.push((format!("# {key} ="), "not set".to_owned()));
                    continue;
                }
                values if SECRETS.contains(&key) => format!("[{}]", vec!["\"(secret)\""; values.len()].join(", ")),
                values if is_list => format!("[{}]", values.join(", ")),
                values => values.concat(),
            };
            lines.push((format!("{key} = {value}"), origin));
        }
        let width = lines.iter().map(|(entry, _)| entry.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (entry, origin) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{entry:width$}  # {origin}");
        }
        text
    }

    fn origin(&self, key: &str) -> Origin {
        if self.from_file.iter().any(|from_file| from_file == key) {
            return Origin::File;
        }
        match self.matches.value_source(key) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Variable,
            _ => Origin::Default,
        }
    }
}

/// A raw value as TOML writes it.
fn literal(raw: &std::ffi::OsStr) -> String {
    let text = raw.to_string_lossy();
    if matches!(&*text, "true" | "false") || text.parse::<i64>().is_ok_and(|number| number.to_string() == text) {
        return text.into_owned();
    }
    toml::Value::String(text.into_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn read(text: &str) -> std::result::Result<BTreeMap<String, Vec<String>>, String> {
        entries(&Cli::command(), text, Path::new("brevity.toml")).map_err(|failure| failure.to_string())
    }

    fn parse(text: &str, arguments: &[&str]) -> Configured {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        std::fs::write(&path, text).unwrap();
        let fixed = [OsString::from("serve"), "--config".into(), path.into()];
        let arguments: Vec<OsString> = fixed.into_iter().chain(arguments.iter().map(OsString::from)).collect();
        configured(&Cli::command(), &arguments).unwrap()
    }

    #[test]
    fn values_of_all_kinds_become_arguments() {
        let text = "port = 0x1F90\ndeadline = 2.5\nallow_partial = true\ncors_origin = [\"https://a.b\", \"*\"]\n\
                    [thinking_budget]\nlow = 256\n";
        let entries = read(text).unwrap();
        assert_eq!(entries["port"], ["--port=8080"]);
        assert_eq!(entries["deadline"], ["--deadline=2.5"]);
        assert_eq!(entries["allow_partial"], ["--allow-partial=true"]);
        assert_eq!(entries["cors_origin"], ["--cors-origin=https://a.b", "--cors-origin=*"]);
        assert_eq!(entries["thinking_budget"], ["--thinking-budget=low=256"]);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, parts) in [
            ("\nprot = 1", &["line 2", "unknown key `prot`", "did you mean `port`?"][..]),
            ("config = \"x\"", &["line 1", "unknown key `config`"]),
            ("port = \"abc\"", &["line 1", "`port`", "invalid digit"]),
            ("max_body = \"4 apples\"", &["`max_body`", "4 apples", "4MiB"]),
            ("log_format = \"yaml\"", &["`log_format`", "yaml", "json"]),
            ("port = 1979-05-27", &["line 1", "`port`", "a number"]),
            ("port = [1, [2]]", &["`port`"]),
            ("a = 1\nport 1", &["line 2"]),
        ] {
            let message = read(text).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "no `{part}` in: {message}");
            }
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let configured = parse("port = 9000\nhost = \"::1\"\nmax_queue = 7\n", &["--port", "9100"]);
        assert_eq!(configured.matches.get_one::<u16>("port"), Some(&9100));
        assert_eq!(configured.matches.get_one::<String>("host").unwrap(), "::1");
        assert_eq!(configured.matches.get_one::<usize>("max_queue"), Some(&7));
        let origins = ["port", "host", "heartbeat"].map(|key| configured.origin(key));
        assert_eq!(origins, [Origin::Flag, Origin::File, Origin::Default]);
    }

    #[test]
    fn what_is_printed_can_be_read_again_and_hides_secrets() {
        let text = "api_key = [\"alice=verysecret\", \"othersecret\"]\nmax_body = \"1MiB\"\n[thinking_budget]\nlow = 256\nhigh = 9\n";
        let configured = parse(text, &["--allow-partial", "--cors-origin", "*"]);
        let printed = configured.to_toml(&Cli::command());
        assert!(!printed.contains("verysecret") && !printed.contains("othersecret"), "{printed}");
        for line in ["port = 8080", "allow_partial = true", "cors_origin = [\"*\"]", "# isq ="] {
            assert!(printed.lines().any(|found| found.starts_with(line)), "no `{line}` in:\n{printed}");
        }
        let again = read(&printed).unwrap();
        assert_eq!(again["thinking_budget"].len(), 2);
        assert_eq!(again["max_body"], ["--max-body=1MiB"]);
        assert_eq!(again["allow_partial"], ["--allow-partial=true"]);
    }
}
