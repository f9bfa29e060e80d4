// SPDX-License-Identifier: EUPL-1.2
//! Manifests as files hold them: YAML documents whose every member remembers its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Most bytes of one file: far above a full object, far below what could hurt.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;

/// Deepest nesting of a document; the deepest valid object of the kinds has about 12 levels.
const DEPTH_MAX: usize = 64;

/// Most documents of one file: a namespace has at most 1,500 conferences.
const DOCUMENTS_MAX: usize = 4096;

/// One YAML document, with the line of everything in it.
#[derive(Debug)]
pub(crate) struct Document {
    /// The document as an API server would get it.
    pub(crate) value: Value,
    lines: Vec<(String, u64)>,
}

impl Document {
    /// The line (from 1) of what a JSON pointer names, or of its nearest ancestor that exists.
    #[must_use]
    pub(crate) fn line(&self, pointer: &str) -> u64 {
        let mut wanted = pointer;
        loop {
            if let Some((_, line)) = self.lines.iter().find(|(at, _)| at == wanted) {
                return *line;
            }
            match wanted.rfind('/') {
                Some(cut) => wanted = &wanted[..cut],
                None => return 1,
            }
        }
    }
}

/// Text that is no YAML, or more of it than is sensible.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    /// The line (from 1) where reading ended.
    pub(crate) line: u64,
    /// What the parser says.
    pub(crate) message: String,
}

/// Reads every document of a text; empty ones are skipped.
///
/// # Errors
/// The first place that is no YAML, repeats a key, or exceeds the parser's budget (aliases, depth, size).
pub(crate) fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let documents: Vec<Spanned<Tree>> = serde_saphyr::from_multiple_with_options(text, options())
        .map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        SyntaxError {
            line,
            message: plainly(&error.without_snippet().to_string()),
        }
    })?;
    Ok(documents
        .into_iter()
        .filter(|document| !matches!(document.value, Tree::Scalar(Value::Null)))
        .map(|document| {
            let mut lines = Vec::new();
            let value = place(document, String::new(), &mut lines);
            Document { value, lines }
        })
        .collect())
}

/// The parser's words without its places, which are told apart, its options, which nobody here can set, and with its
/// budgets named by what they are for.
fn plainly(message: &str) -> String {
    if let Some(breach) = message.strip_prefix("budget breached: ") {
        let what = breach.split([' ', '{']).next().unwrap_or_default();
        return match what {
            "Depth" => format!("lists and maps stand more than {DEPTH_MAX} deep in each other"),
            "Documents" => {
                format!("the file holds more than {DOCUMENTS_MAX} documents; split it")
            }
            "Aliases" | "Anchors" | "Nodes" | "Events" | "ScalarBytes" | "MergeKeys" => {
                "anchors and aliases multiply to more than is read".to_owned()
            }
            _ => "the file holds more than is read".to_owned(),
        };
    }
    let message = message.split(" at line ").next().unwrap_or(message);
    message.split(", set ").next().unwrap_or(message).to_owned()
}

/// The parser's own bounds on aliases, anchors and size, with a depth that no object of ours comes near and that
/// recursion bears.
fn options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEPTH_MAX;
        budget.max_documents = DOCUMENTS_MAX;
    }
    options
}

fn place(node: Spanned<Tree>, pointer: String, lines: &mut Vec<(String, u64)>) -> Value {
    let line = node.referenced.line();
    let value = match node.value {
        Tree::Scalar(value) => value,
        Tree::List(items) => {
            let items = items.into_iter().enumerate();
            Value::Array(
                items
                    .map(|(index, item)| place(item, format!("{pointer}/{index}"), lines))
                    .collect(),
            )
        }
        Tree::Members(members) => {
            let mut object = Map::new();
            for (key, member) in members {
                let escaped = key.value.replace('~', "~0").replace('/', "~1");
                let at = format!("{pointer}/{escaped}");
                // The key's line is where a reader looks; a block value begins one line below.
                lines.push((at.clone(), key.referenced.line()));
                object.insert(key.value, place(member, at, lines));
            }
            Value::Object(object)
        }
    };
    lines.push((pointer, line));
    value
}

/// An untyped node.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Members(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML node")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        // Infinities and NaN have no JSON form; as text they fail the schema's type with the field's name.
        let value =
            Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number);
        Ok(Tree::Scalar(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Members(members))
    }
}
