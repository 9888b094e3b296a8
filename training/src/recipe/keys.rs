//! Reading typed values out of a TOML tree with errors that know which key they are about.
//!
//! Serde reports a wrong or unknown key as a sentence; here it becomes a [`KeyError`], a dotted key and what is wrong
//! with it, so that one place can add the line and look for the key that was meant. It knows nothing of recipes.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use toml::Value;

/// Likeness (Jaro-Winkler, 1 for equal words) from which on a word may have been meant.
pub(super) const LIKE: f64 = 0.8;

/// What is wrong with which key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeyError {
    /// The dotted key.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// There is no such key; these are those of its table.
    Unknown(&'static [&'static str]),
    /// It has to be there.
    Missing,
    /// Its value does not fit, in words.
    Value(String),
}

impl KeyError {
    /// A value that does not fit.
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), problem: Problem::Value(message.into()) }
    }

    fn bare(problem: Problem) -> Self {
        Self { key: String::new(), problem }
    }

    /// The same error seen from one table further out.
    fn under(mut self, parent: &str) -> Self {
        self.key = match (self.key.is_empty(), self.key.starts_with('[')) {
            (true, _) => parent.to_owned(),
            (false, true) => format!("{parent}{}", self.key),
            (false, false) => format!("{parent}.{}", self.key),
        };
        self
    }
}

impl Display for KeyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.problem {
            Problem::Unknown(_) => write!(formatter, "unknown key `{}`", self.key),
            Problem::Missing => write!(formatter, "missing key `{}`", self.key),
            Problem::Value(message) => write!(formatter, "`{}`: {message}", self.key),
        }
    }
}

impl std::error::Error for KeyError {}

impl serde::de::Error for KeyError {
    fn custom<T: Display>(message: T) -> Self {
        Self::bare(Problem::Value(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, got {}", plain(&expected.to_string()), plain(&found.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, got {length}", plain(&expected.to_string())))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(one_of(expected, variant))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self { key: field.to_owned(), problem: Problem::Unknown(expected) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { key: field.to_owned(), problem: Problem::Missing }
    }
}

/// `a`, `b`, `c`.
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// That one of `words` was expected where `found` was written, and which of them may have been meant.
pub(super) fn one_of(words: &[&str], found: &str) -> String {
    let near = words.iter().map(|word| (strsim::jaro_winkler(found, word), word));
    let meant = near.filter(|(likeness, _)| *likeness >= LIKE).max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = meant.map(|(_, word)| format!("; did you mean `{word}`?")).unwrap_or_default();
    format!("expected one of {}, got `{found}`{hint}", list(words))
}

/// A type as the author of a TOML file calls it.
fn plain(rust: &str) -> String {
    match rust {
        "f64" => "a number".to_owned(),
        "usize" | "u64" => "a whole number of at least 0".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        "path string" => "a string".to_owned(),
        other if other.starts_with("struct ") || other == "a map" => "a table".to_owned(),
        other => match other.strip_prefix("an array of length ") {
            Some(length) => format!("a list of {length}"),
            None => other.replace("floating point", "number"),
        },
    }
}

/// The value of type `T` that `value` holds.
pub(super) fn read<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, KeyError> {
    T::deserialize(Node(value))
}

#[derive(Clone, Copy)]
struct Node<'v>(&'v Value);

impl<'v> Deserializer<'v> for Node<'v> {
    type Error = KeyError;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, KeyError> {
        match self.0 {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
            Value::Datetime(_) => Err(KeyError::invalid_type(Unexpected::Other("a date"), &visitor)),
            Value::Array(items) => {
                let mut access = Items { items, next: 0 };
                let read = visitor.visit_seq(&mut access)?;
                if access.next < items.len() {
                    return Err(KeyError::custom(format_args!(
                        "expected a list of {}, got {}",
                        access.next,
                        items.len()
                    )));
                }
                Ok(read)
            }
            Value::Table(table) => visitor.visit_map(Entries { entries: table.iter(), pending: None }),
        }
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'v>>(self, _: &'static str, visitor: V) -> Result<V::Value, KeyError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        match self.0 {
            Value::Table(_) => self.deserialize_any(visitor),
            other => Err(KeyError::custom(format_args!("expected a table, got {}", found(other)))),
        }
    }

    fn deserialize_enum<V: Visitor<'v>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(Word(text)),
            other => Err(KeyError::custom(format_args!("expected one of {}, got {}", list(variants), found(other)))),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'v>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The value in the words in which serde reports one.
fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        other => format!("`{other}`"),
    }
}

struct Items<'v> {
    items: &'v [Value],
    next: usize,
}

impl<'v> SeqAccess<'v> for &mut Items<'v> {
    type Error = KeyError;

    fn next_element_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<Option<T::Value>, KeyError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|error| error.under(&format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'v> {
    entries: toml::map::Iter<'v, String, Value>,
    pending: Option<(&'v str, &'v Value)>,
}

impl<'v> MapAccess<'v> for Entries<'v> {
    type Error = KeyError;

    fn next_key_seed<K: DeserializeSeed<'v>>(&mut self, seed: K) -> Result<Option<K::Value>, KeyError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.pending = Some((key, value));
        let key: StrDeserializer<'_, KeyError> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<T::Value, KeyError> {
        let Some((key, value)) = self.pending.take() else {
            return Err(KeyError::custom("a value was asked for before its key"));
        };
        seed.deserialize(Node(value)).map_err(|error| error.under(key))
    }
}

/// A word that names a variant without content.
struct Word<'v>(&'v str);

impl<'v> EnumAccess<'v> for Word<'v> {
    type Error = KeyError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'v>>(self, seed: T) -> Result<(T::Value, Self), KeyError> {
        let word: StrDeserializer<'_, KeyError> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'v> VariantAccess<'v> for Word<'v> {
    type Error = KeyError;

    fn unit_variant(self) -> Result<(), KeyError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'v>>(self, _: T) -> Result<T::Value, KeyError> {
        Err(KeyError::custom("a word alone was expected"))
    }

    fn tuple_variant<V: Visitor<'v>>(self, _: usize, _: V) -> Result<V::Value, KeyError> {
        Err(KeyError::custom("a word alone was expected"))
    }

    fn struct_variant<V: Visitor<'v>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, KeyError> {
        Err(KeyError::custom("a word alone was expected"))
    }
}
