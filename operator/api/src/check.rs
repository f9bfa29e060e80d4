// SPDX-License-Identifier: EUPL-1.2
//! Judges a JSON object as an API server would on create or update: structural schema first, then the CEL rules.
//!
//! Stricter than a server in one thing: an unknown field is an error, not pruned. All violations are returned, in the
//! order of their position. A rule whose members are wrong in themselves is left out, so that one typing error is one
//! violation and not five.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube_cel::{CompiledSchema, ErrorKind, RootContext, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

use crate::{names, remedies, schema};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Which rule: a keyword of the schema, or the text of a CEL rule.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Checks an object of a kind; with `old`, transition rules too. Empty means valid.
#[must_use]
pub fn validate(kind: &str, object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let Some(schema) = schema::schema_of(kind) else {
        let remedy = format!("use one of {}", schema::KINDS.join(", "));
        return vec![violation(
            "/kind",
            "kind",
            format!("{} is no kind of {}", quote(kind), names::GROUP),
            remedy,
        )];
    };
    let mut object = object.clone();
    let mut walk = Walk {
        found: Vec::new(),
        suspects: Vec::new(),
    };
    walk.root(kind, schema, &object);
    default_in_place(kind, &mut object);
    let old = old.map(|old| {
        let mut old = old.clone();
        default_in_place(kind, &mut old);
        old
    });
    walk.rules(kind, &object, old.as_ref());
    walk.found.sort();
    walk.found.dedup();
    walk.found.truncate(VIOLATIONS_MAX);
    walk.found
}

/// Removes explicit nulls and fills in the defaults, as a server does before it looks at the rules.
pub fn default_in_place(kind: &str, object: &mut Value) {
    if let Some(schema) = schema::schema_of(kind) {
        fill(schema, object);
    }
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            for (name, property) in properties(schema) {
                if let Some(default) = property.get("default")
                    && !members.contains_key(name)
                {
                    members.insert(name.clone(), default.clone());
                }
                if let Some(member) = members.get_mut(name) {
                    fill(property, member);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill(schema, item));
            }
        }
        _ => {}
    }
}

struct Walk {
    found: Vec<Violation>,
    /// Pointers that are wrong in themselves, and where an unknown field was probably meant to be.
    suspects: Vec<String>,
}

impl Walk {
    fn add(
        &mut self,
        pointer: &str,
        rule: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.suspects.push(pointer.to_owned());
        self.found
            .push(violation(pointer, rule, message.into(), remedy.into()));
    }

    fn root(&mut self, kind: &str, schema: &Value, object: &Value) {
        let Some(members) = object.as_object() else {
            self.add(
                "",
                "type",
                "an object is wanted",
                "write apiVersion, kind, metadata and spec",
            );
            return;
        };
        let wanted = [("apiVersion", names::API_VERSION), ("kind", kind)];
        for (name, value) in wanted {
            if members.get(name).and_then(Value::as_str) != Some(value) {
                self.add(
                    &format!("/{name}"),
                    "enum",
                    format!("{name} must be {value}"),
                    format!("write {name}: {value}"),
                );
            }
        }
        self.metadata(members.get("metadata").unwrap_or(&Value::Null));
        let mut own = members.clone();
        for name in ["apiVersion", "kind", "metadata"] {
            own.remove(name);
        }
        self.node(schema, &Value::Object(own), "");
    }

    fn metadata(&mut self, metadata: &Value) {
        let Some(members) = metadata.as_object() else {
            self.add(
                "/metadata",
                "required",
                "metadata is missing",
                "write metadata with a name",
            );
            return;
        };
        for name in members
            .keys()
            .filter(|name| !METADATA.contains(&name.as_str()))
        {
            self.unknown("/metadata", name, METADATA.iter().copied());
        }
        match members.get("name") {
            Some(Value::String(name))
                if name.len() <= 253
                    && pattern(names::DNS_SUBDOMAIN).is_some_and(|p| p.is_match(name)) => {}
            Some(name) => {
                let message = format!("{} is no object name", quote_value(name));
                self.add(
                    "/metadata/name",
                    "pattern",
                    message,
                    "use at most 253 of a-z, 0-9, '-' and '.', letters or digits at both ends",
                );
            }
            None if members.contains_key("generateName") => {}
            None => self.add(
                "/metadata/name",
                "required",
                "name is missing",
                "add metadata.name",
            ),
        }
        if let Some(namespace) = members
            .get("namespace")
            .filter(|namespace| !namespace.is_null())
        {
            let fits = |text: &str| pattern(names::DNS_LABEL).is_some_and(|p| p.is_match(text));
            if !namespace.as_str().is_some_and(fits) {
                let message = format!("{} is no namespace", quote_value(namespace));
                self.add(
                    "/metadata/namespace",
                    "pattern",
                    message,
                    "use at most 63 of a-z, 0-9 and '-', letters or digits at both ends",
                );
            }
        }
        for name in ["labels", "annotations"] {
            match members.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(entries)) => {
                    for (key, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
                        let pointer = format!("/metadata/{name}/{}", escape(key));
                        self.add(
                            &pointer,
                            "type",
                            format!("{} is no string", quote_value(value)),
                            "put the value in quotes",
                        );
                    }
                }
                Some(_) => self.add(
                    &format!("/metadata/{name}"),
                    "type",
                    "a map of strings is wanted",
                    format!("write {name} as key: value"),
                ),
            }
        }
    }

    fn node(&mut self, schema: &Value, value: &Value, at: &str) {
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            match value {
                Value::String(text) => self.string(schema, text, at),
                Value::Number(number) if number.is_i64() || number.is_u64() => {
                    self.number(schema, value, at)
                }
                _ => self.add(
                    at,
                    "type",
                    format!(
                        "{} is neither a whole number nor a string",
                        quote_value(value)
                    ),
                    "write a whole number or a string",
                ),
            }
            return;
        }
        match (schema.get("type").and_then(Value::as_str), value) {
            (Some("object"), Value::Object(members)) => self.object(schema, members, at),
            (Some("array"), Value::Array(items)) => self.array(schema, items, at),
            (Some("string"), Value::String(text)) => self.string(schema, text, at),
            (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.number(schema, value, at)
            }
            (Some("number"), Value::Number(_)) => self.number(schema, value, at),
            (Some(wanted), _) => {
                let (article, remedy) = wanted_type(wanted);
                self.add(
                    at,
                    "type",
                    format!("{} is not {article}", quote_value(value)),
                    remedy,
                );
            }
        }
    }

    fn object(&mut self, schema: &Value, members: &Map<String, Value>, at: &str) {
        let known: BTreeMap<&String, &Value> = properties(schema).collect();
        let others = schema
            .get("additionalProperties")
            .filter(|others| others.is_object());
        for (name, value) in members {
            let below = format!("{at}/{}", escape(name));
            match (known.get(name), others) {
                // An explicit null means "not set".
                (Some(_), _) if value.is_null() => {}
                (Some(property), _) => self.node(property, value, &below),
                (None, Some(others)) => self.node(others, value, &below),
                (None, None) => self.unknown(at, name, known.keys().map(|name| name.as_str())),
            }
        }
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for name in required {
            if members.get(name).is_none_or(Value::is_null) {
                let hint = known
                    .iter()
                    .find(|(known, _)| known.as_str() == name)
                    .and_then(|(_, schema)| describe(schema));
                let remedy = hint.map_or_else(
                    || format!("add {name}"),
                    |hint| format!("add {name}: {hint}"),
                );
                self.add(
                    &format!("{at}/{}", escape(name)),
                    "required",
                    format!("{name} is missing"),
                    remedy,
                );
            }
        }
        if let Some(max) = bound(schema, "maxProperties").filter(|max| members.len() > *max) {
            self.add(
                at,
                "maxProperties",
                format!("{} entries; at most {max} are allowed", members.len()),
                "remove entries",
            );
        }
    }

    fn unknown<'a>(&mut self, at: &str, name: &str, known: impl Iterator<Item = &'a str>) {
        let known: Vec<&str> = known.collect();
        let nearest = nearest(name, &known);
        let remedy = match nearest {
            Some(nearest) => format!("did you mean {nearest}?"),
            None if known.len() <= 20 && !known.is_empty() => {
                format!("known here are {}", known.join(", "))
            }
            None => "remove it".to_owned(),
        };
        if let Some(nearest) = nearest {
            self.suspects.push(format!("{at}/{nearest}"));
        }
        self.add(
            &format!("{at}/{}", escape(name)),
            "unknownField",
            format!("unknown field {}", quote(name)),
            remedy,
        );
    }

    fn array(&mut self, schema: &Value, items: &[Value], at: &str) {
        if let Some(max) = bound(schema, "maxItems").filter(|max| items.len() > *max) {
            self.add(
                at,
                "maxItems",
                format!("{} entries; at most {max} are allowed", items.len()),
                "remove entries",
            );
        }
        if let Some(min) = bound(schema, "minItems").filter(|min| items.len() < *min) {
            self.add(
                at,
                "minItems",
                format!("{} entries; at least {min} are wanted", items.len()),
                "add entries",
            );
        }
        let keys: Option<Vec<&str>> =
            match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => Some(Vec::new()),
                Some("map") => schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .map(|keys| keys.iter().filter_map(Value::as_str).collect()),
                _ => None,
            };
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().take(ITEMS_MAX).enumerate() {
            let below = format!("{at}/{index}");
            if let Some(schema) = schema.get("items") {
                self.node(schema, item, &below);
            }
            let Some(keys) = &keys else { continue };
            let identity = match keys.as_slice() {
                [] => item.to_string(),
                keys => keys
                    .iter()
                    .map(|key| item.get(key).unwrap_or(&Value::Null).to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            if !seen.insert(identity.clone()) {
                let what = if keys.is_empty() {
                    "value".to_owned()
                } else {
                    keys.join(" and ")
                };
                let identity: String = identity.chars().take(ECHO_CHARS_MAX).collect();
                self.add(
                    &below,
                    "duplicate",
                    format!("{what} {identity} stands twice in the list"),
                    "remove or rename one of them",
                );
            }
        }
    }

    fn string(&mut self, schema: &Value, text: &str, at: &str) {
        let chars = text.chars().count();
        if let Some(max) = bound(schema, "maxLength").filter(|max| chars > *max) {
            self.add(
                at,
                "maxLength",
                format!("{chars} characters; at most {max} are allowed"),
                "shorten it",
            );
            return;
        }
        if let Some(min) = bound(schema, "minLength").filter(|min| chars < *min) {
            self.add(
                at,
                "minLength",
                format!("{chars} characters; at least {min} are wanted"),
                "write more, or leave the field out",
            );
            return;
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                let remedy = match nearest(text, &allowed) {
                    Some(nearest) => {
                        format!("did you mean {nearest}? Allowed are {}", allowed.join(", "))
                    }
                    None => format!("use one of {}", allowed.join(", ")),
                };
                self.add(
                    at,
                    "enum",
                    format!("{} is not allowed", quote(text)),
                    remedy,
                );
            }
        }
        if let Some(wanted) = schema.get("pattern").and_then(Value::as_str)
            && !pattern(wanted).is_some_and(|pattern| pattern.is_match(text))
        {
            let remedy = describe(schema).map_or_else(
                || format!("it must match {wanted}"),
                |hint| format!("{hint} It must match {wanted}"),
            );
            self.add(
                at,
                "pattern",
                format!("{} does not have the wanted form", quote(text)),
                remedy,
            );
        }
        if schema.get("format").and_then(Value::as_str) == Some("date-time")
            && serde_json::from_value::<Time>(Value::String(text.to_owned())).is_err()
        {
            self.add(
                at,
                "format",
                format!("{} is no moment", quote(text)),
                "write it as 2026-09-01T05:30:00Z",
            );
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(number) = value.as_f64() else { return };
        let limit = |name| schema.get(name).and_then(Value::as_f64);
        let (min, max) = match schema.get("format").and_then(Value::as_str) {
            Some("int32") => (
                limit("minimum").or(Some(f64::from(i32::MIN))),
                limit("maximum").or(Some(f64::from(i32::MAX))),
            ),
            _ => (limit("minimum"), limit("maximum")),
        };
        let range = match (min, max) {
            (Some(min), Some(max)) => format!("use a number from {min} to {max}"),
            (Some(min), None) => format!("use a number from {min}"),
            _ => "use another number".to_owned(),
        };
        if let Some(min) = min.filter(|min| number < *min) {
            self.add(at, "minimum", format!("{value} is less than {min}"), range);
        } else if let Some(max) = max.filter(|max| number > *max) {
            self.add(at, "maximum", format!("{value} is more than {max}"), range);
        }
    }

    fn rules(&mut self, kind: &str, object: &Value, old: Option<&Value>) {
        let Some(compiled) = COMPILED.get(kind) else {
            return;
        };
        let context = RootContext {
            api_version: names::API_VERSION.into(),
            api_group: names::GROUP.into(),
            kind: kind.into(),
        };
        let result =
            Validator::new().validate_compiled_with_context(compiled, object, old, Some(&context));
        for error in result.err().into_iter().flatten() {
            let pointer = pointer_of(&error.field_path);
            if self.is_consequence(&pointer, &error.rule, &error.kind) {
                continue;
            }
            let remedy = match error.kind {
                ErrorKind::ValidationFailure => remedies::remedy(&error.message).map_or_else(
                    || format!("make this rule hold: {}", error.rule),
                    str::to_owned,
                ),
                _ => "this rule cannot be evaluated on these values; check their form".to_owned(),
            };
            self.found.push(violation(
                &pointer,
                &error.rule,
                error.message.clone(),
                remedy,
            ));
        }
    }

    /// Whether a rule failed only because a member it names is wrong in itself.
    fn is_consequence(&self, pointer: &str, rule: &str, kind: &ErrorKind) -> bool {
        self.suspects.iter().any(|suspect| {
            let Some(below) = suspect.strip_prefix(pointer) else {
                return false;
            };
            if below.is_empty() || *kind != ErrorKind::ValidationFailure {
                return true;
            }
            below
                .strip_prefix('/')
                .and_then(|below| below.split('/').next())
                .is_some_and(|member| rule.contains(member))
        })
    }
}

fn violation(pointer: &str, rule: &str, message: String, remedy: String) -> Violation {
    Violation {
        pointer: pointer.to_owned(),
        rule: rule.to_owned(),
        message,
        remedy,
    }
}

/// `spec.openers[0].key` as a JSON pointer. No rule stands below a map, so no segment holds a dot.
fn pointer_of(path: &str) -> String {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| format!("/{}", escape(part.trim_end_matches(']'))))
        .collect()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn bound(schema: &Value, name: &str) -> Option<usize> {
    schema
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|bound| usize::try_from(bound).ok())
}

fn describe(schema: &Value) -> Option<&str> {
    schema.get("description").and_then(Value::as_str)
}

fn wanted_type(name: &str) -> (&'static str, &'static str) {
    match name {
        "object" => ("an object", "write key: value lines below it"),
        "array" => ("a list", "write it as a list: - item"),
        "string" => ("a string", "put it in quotes"),
        "boolean" => ("a boolean", "write true or false"),
        "integer" => ("a whole number", "write a whole number, without quotes"),
        _ => ("a number", "write a number, without quotes"),
    }
}

fn quote(text: &str) -> String {
    let cut: String = text.chars().take(ECHO_CHARS_MAX).collect();
    format!("{cut:?}{}", if cut.len() < text.len() { "…" } else { "" })
}

fn quote_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => quote(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The known name that is most like a wrong one, if any is like it.
fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    if wrong.len() > ECHO_CHARS_MAX {
        return None;
    }
    let lower = wrong.to_lowercase();
    known
        .iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (name.chars().count() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance. *Cost*: product of the lengths, both at most 64.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn pattern(text: &str) -> Option<&'static Regex> {
    PATTERNS.get(text)
}

static COMPILED: LazyLock<BTreeMap<&'static str, CompiledSchema>> = LazyLock::new(|| {
    schema::KINDS
        .iter()
        .filter_map(|kind| Some((*kind, compile_schema(schema::schema_of(kind)?))))
        .collect()
});

static PATTERNS: LazyLock<BTreeMap<String, Regex>> = LazyLock::new(|| {
    let mut patterns =
        BTreeSet::from([names::DNS_LABEL.to_owned(), names::DNS_SUBDOMAIN.to_owned()]);
    for kind in schema::KINDS {
        collect_patterns(
            schema::schema_of(kind).unwrap_or(&Value::Null),
            &mut patterns,
        );
    }
    patterns
        .into_iter()
        .map(|text| {
            (
                text.clone(),
                Regex::new(&text).expect("invariant: tested for every pattern"),
            )
        })
        .collect()
});

fn collect_patterns(value: &Value, patterns: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(pattern)) = members.get("pattern") {
                patterns.insert(pattern.clone());
            }
            members
                .values()
                .for_each(|member| collect_patterns(member, patterns));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_patterns(item, patterns)),
        _ => {}
    }
}

/// Members of `metadata` that a manifest may hold.
const METADATA: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// More than anybody reads; keeps a hostile file from filling memory with messages.
const VIOLATIONS_MAX: usize = 1_000;
/// Items looked at in one list; the largest bound of the schemas is 64.
const ITEMS_MAX: usize = 1_000;
/// Characters of a wrong value that a message repeats.
const ECHO_CHARS_MAX: usize = 64;
