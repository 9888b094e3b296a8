//! A string or a list: `stop`, `content`, `prompt`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// One text, or a list of `T`. Unlike an untagged enum, it keeps the path of a faulty element.
#[derive(Debug, Clone, PartialEq)]
pub enum OneOrMany<T> {
    /// A single text.
    One(String),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The same with every element of the list made into another.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> OneOrMany<U> {
        match self {
            Self::One(text) => OneOrMany::One(text),
            Self::Many(list) => OneOrMany::Many(list.into_iter().map(make).collect()),
        }
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or a list")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let read = serde_json::from_str::<OneOrMany<String>>;
        assert_eq!(read("\"a\"").unwrap(), OneOrMany::One("a".into()));
        assert_eq!(read("[\"a\", \"b\"]").unwrap(), OneOrMany::Many(vec!["a".into(), "b".into()]));
        assert!(read("3").unwrap_err().to_string().contains("expected a string or a list"));
        assert!(read("[3]").is_err());
    }
}
