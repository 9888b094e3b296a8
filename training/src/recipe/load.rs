//! From file and `--set` arguments to a checked [`Recipe`], and from a mistake to a message that says where it is.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::Recipe;
use super::keys::{self, KeyError, LIKE, Problem, list};
use crate::{Error, Result, files};

impl Recipe {
    /// Reads the recipe at `path`, sets `overrides` in it, and checks every value.
    ///
    /// An override is a dotted key and a TOML value, `("optimizer.learning_rate", "1e-4")`; text that is not TOML is a
    /// string.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read. [`Error::Format`] with line, dotted key and the way out for a
    /// mistake in the file; [`Error::Config`] for one in an override.
    pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<Self> {
        let text = files::read_text(path)?;
        Source { path: Some(path), text: &text, overrides }.recipe()
    }

    /// Reads a recipe from TOML text; otherwise as [`Recipe::load`].
    ///
    /// # Errors
    /// [`Error::Config`] for every mistake.
    pub fn parse(text: &str, overrides: &[(String, String)]) -> Result<Self> {
        Source { path: None, text, overrides }.recipe()
    }

    /// The whole recipe as TOML, every default written out; reading it gives the same recipe.
    ///
    /// # Errors
    /// [`Error::Config`] when a value cannot be expressed, which no recipe that was read has.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::config(format!("recipe `{}`: {error}", self.name)))
    }
}

/// Where a recipe comes from.
struct Source<'a> {
    path: Option<&'a Path>,
    text: &'a str,
    overrides: &'a [(String, String)],
}

impl Source<'_> {
    fn recipe(&self) -> Result<Recipe> {
        let mut table: Table = toml::from_str(self.text).map_err(|error| {
            self.at(error.span().map(|span| line_of(self.text, span.start)), error.message().trim_end_matches('.'))
        })?;
        for (key, value) in self.overrides {
            set(&mut table, key, value)?;
        }
        let recipe: Recipe = keys::read(&Value::Table(table)).map_err(|error| self.explain(&error))?;
        recipe.check().map_err(|error| self.explain(&error))?;
        Ok(recipe)
    }

    /// An error about the file.
    fn at(&self, line: Option<usize>, message: &str) -> Error {
        let message = match line {
            Some(line) => format!("line {line}: {message}"),
            None => message.to_owned(),
        };
        match self.path {
            Some(path) => Error::format(path, message),
            None => Error::config(message),
        }
    }

    /// A mistake about a key, told where the key was written.
    fn explain(&self, error: &KeyError) -> Error {
        let mut message = error.to_string();
        if let Problem::Unknown(siblings) = error.problem {
            message.push_str(&suggestion(&error.key, siblings));
        }
        let same = |key: &str| contains(key, &error.key) || contains(&error.key, key);
        match self.overrides.iter().rev().find(|(key, _)| same(key)) {
            Some((key, value)) => Error::config(format!("--set {key}={value}: {message}")),
            None => self.at(self.line(&error.key), &message),
        }
    }

    /// The line of `key` in the file, or of the innermost table around it.
    fn line(&self, key: &str) -> Option<usize> {
        let document = DeTable::parse(self.text).ok()?;
        let mut table = Some(document.get_ref());
        let mut line = None;
        for part in key.split(['.', '[']) {
            let Some((name, value)) = table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == part))
            else {
                break;
            };
            line = Some(line_of(self.text, name.span().start));
            table = match value.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            };
        }
        line
    }
}

/// Whether `inner` is `outer` or lies in it.
fn contains(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The line, from 1, that byte `offset` is in.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// Sets dotted `key` to `value`, making tables on the way.
fn set(table: &mut Table, key: &str, value: &str) -> Result<()> {
    let refuse = |message: &str| Error::config(format!("--set {key}={value}: {message}"));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    if last.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(refuse("expected `KEY=VALUE` with a dotted key such as `optimizer.learning_rate`"));
    }
    let mut place = table;
    for part in parts {
        let inner = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = inner.as_table_mut().ok_or_else(|| refuse(&format!("`{part}` is a value, not a table")))?;
    }
    let value = value.parse().unwrap_or_else(|_| Value::String(value.to_owned()));
    place.insert(last.to_owned(), value);
    Ok(())
}

/// `; did you mean …?`, or else the keys there are.
fn suggestion(key: &str, siblings: &[&str]) -> String {
    let (prefix, leaf) = key.rsplit_once('.').map_or(("", key), |(prefix, leaf)| (prefix, leaf));
    let full = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    let elsewhere =
        known_keys().into_iter().find(|known| known.rsplit('.').next() == Some(leaf)).map(|known| (1.0, known));
    let beside = siblings.iter().map(|name| (strsim::jaro_winkler(leaf, name), full(name)));
    let near = beside.chain(elsewhere).max_by(|(a, _), (b, _)| a.total_cmp(b));
    match near {
        Some((likeness, name)) if likeness >= LIKE => format!("; did you mean `{name}`?"),
        _ => format!("; known here are {}", list(siblings)),
    }
}

/// The dotted keys of all sections that every recipe has.
fn known_keys() -> Vec<String> {
    fn collect(prefix: &str, table: &Table, into: &mut Vec<String>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Value::Table(inner) = value {
                collect(&key, inner, into);
            }
            into.push(key);
        }
    }
    let mut keys = Vec::new();
    if let Ok(table) = Table::try_from(Recipe::bare()) {
        collect("", &table, &mut keys);
    }
    keys
}

#[cfg(test)]
mod tests;
