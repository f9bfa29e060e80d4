// SPDX-License-Identifier: EUPL-1.2
//! `docs/api-reference.md`: every field of every kind with type, bounds, default and description, from the schema that an API
//! server gets.

use std::fmt::Write as _;

use plenum_api::{
    Conference, ConferenceClass, GoDuration, KINDS, MaintenanceWindow, MediaNode, MediaPool,
    Period, Tenant, crd, names, schema_of,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use crate::{WRITTEN, cell};

/// The page.
pub(crate) fn page() -> String {
    let mut text = format!(
        "{WRITTEN}# API reference\n\n\
        All kinds are of `{}`; `kubectl explain` shows the same texts. Lists with a key are merged by it under server-side apply. \
        A duration is written as `90s`, `15m` or `1h30m`, a period as `P10D`, `P12M` or `P2Y`. What a condition means stands in \
        [conditions.md](conditions.md).\n\n\
        | kind | short | scope | what it is |\n|---|---|---|---|\n",
        names::API_VERSION
    );
    let definitions = || {
        KINDS
            .iter()
            .filter_map(|kind| Some((*kind, crd(kind)?, schema_of(kind)?)))
    };
    for (kind, definition, schema) in definitions() {
        let short = definition
            .spec
            .names
            .short_names
            .clone()
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "| [{kind}](#{}) | {} | {} | {} |",
            kind.to_lowercase(),
            short.join(", "),
            definition.spec.scope,
            cell(schema["description"].as_str().unwrap_or_default())
        );
    }
    for (kind, definition, schema) in definitions() {
        let _ = write!(
            text,
            "\n## {kind}\n\n{}\n",
            schema["description"].as_str().unwrap_or_default()
        );
        columns(&mut text, definition);
        for part in ["spec", "status"] {
            let _ = write!(
                text,
                "\n### {kind} {part}\n\n| field | type | default | meaning |\n|---|---|---|---|\n"
            );
            let described = described(kind, part);
            let mut rules = Vec::new();
            fields(
                &mut text,
                &schema["properties"][part],
                described.as_ref(),
                part,
                &mut rules,
            );
            if part == "spec" {
                own_rules(schema, "the object", &mut rules);
                own_rules(&schema["properties"]["spec"], "spec", &mut rules);
            }
            if !rules.is_empty() {
                text.push_str("\nRules:\n\n");
                for (at, message) in rules {
                    let _ = writeln!(text, "- `{at}`: {message}");
                }
            }
        }
    }
    text
}

fn columns(
    text: &mut String,
    definition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) {
    let columns = definition
        .spec
        .versions
        .first()
        .and_then(|version| version.additional_printer_columns.clone())
        .unwrap_or_default();
    if columns.is_empty() {
        return;
    }
    let named = |wide: bool| -> Vec<String> {
        columns
            .iter()
            .filter(|column| (column.priority.unwrap_or(0) > 0) == wide)
            .map(|column| column.name.to_uppercase())
            .collect()
    };
    let _ = write!(text, "\n`kubectl get` shows {}", named(false).join(", "));
    let wide = named(true);
    if !wide.is_empty() {
        let _ = write!(text, "; with `-o wide` also {}", wide.join(", "));
    }
    text.push_str(".\n");
}

/// The schema before it is made structural: there the values of an enum still have their descriptions.
fn described(kind: &str, part: &str) -> Option<Described> {
    fn root<T: JsonSchema>() -> Schema {
        SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>()
    }
    let root = match kind {
        "Tenant" => root::<Tenant>(),
        "ConferenceClass" => root::<ConferenceClass>(),
        "Conference" => root::<Conference>(),
        "MediaPool" => root::<MediaPool>(),
        "MediaNode" => root::<MediaNode>(),
        "MaintenanceWindow" => root::<MaintenanceWindow>(),
        _ => return None,
    };
    let whole = Value::from(root);
    let defs = whole["$defs"].as_object().cloned().unwrap_or_default();
    let found = whole["properties"][part].clone();
    Some(Described {
        at: resolved(&found, &defs),
        defs,
    })
}

#[derive(Clone)]
struct Described {
    at: Value,
    defs: Map<String, Value>,
}

impl Described {
    fn member(&self, name: &str) -> Option<Self> {
        let found = self.at["properties"].get(name)?;
        Some(Self {
            at: resolved(found, &self.defs),
            defs: self.defs.clone(),
        })
    }

    fn item(&self) -> Option<Self> {
        let found = self.at.get("items")?;
        Some(Self {
            at: resolved(found, &self.defs),
            defs: self.defs.clone(),
        })
    }

    /// Values with their descriptions.
    fn values(&self) -> Vec<(String, String)> {
        let several = self.at["oneOf"].as_array().into_iter().flatten();
        several
            .filter_map(|one| {
                let value = one["const"].as_str()?;
                Some((
                    value.to_owned(),
                    one["description"].as_str().unwrap_or_default().to_owned(),
                ))
            })
            .collect()
    }
}

/// Follows references and steps over "or null".
fn resolved(schema: &Value, defs: &Map<String, Value>) -> Value {
    let mut at = schema;
    // A schema refers to others a few deep; a ring is impossible, because the types are no rings.
    for _ in 0..16 {
        let reference = at["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        if let Some(next) = reference.and_then(|name| defs.get(name)) {
            at = next;
            continue;
        }
        let alternatives = ["anyOf", "allOf"]
            .iter()
            .find_map(|name| at[*name].as_array());
        match alternatives.and_then(|all| all.iter().find(|one| one["type"] != "null")) {
            Some(next) => at = next,
            None => break,
        }
    }
    at.clone()
}

fn fields(
    text: &mut String,
    schema: &Value,
    described: Option<&Described>,
    at: &str,
    rules: &mut Vec<(String, String)>,
) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}.{name}");
        let described = described.and_then(|described| described.member(name));
        own_rules(property, &path, rules);
        let mut type_ = type_of(property);
        if required.contains(&name.as_str()) {
            type_.push_str("; required");
        }
        let default = property
            .get("default")
            .map(|value| format!("`{value}`"))
            .unwrap_or_default();
        let inner = if property["items"].is_object() {
            described.as_ref().and_then(Described::item)
        } else {
            described.clone()
        };
        let mut meaning = property["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for (value, what) in inner.as_ref().map(Described::values).unwrap_or_default() {
            let _ = write!(meaning, "<br>`{value}`: {what}");
        }
        let _ = writeln!(
            text,
            "| `{path}` | {} | {} | {} |",
            cell(&type_),
            cell(&default),
            cell(&meaning)
        );
        if property["items"].is_object() {
            let items = &property["items"];
            own_rules(items, &format!("{path}[]"), rules);
            fields(text, items, inner.as_ref(), &format!("{path}[]"), rules);
        } else {
            fields(text, property, inner.as_ref(), &path, rules);
        }
    }
}

fn own_rules(schema: &Value, at: &str, rules: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let message = rule["message"].as_str().unwrap_or_default();
        rules.push((at.to_owned(), message.to_owned()));
    }
}

fn type_of(schema: &Value) -> String {
    let number = |name: &str| schema[name].as_i64();
    if schema["x-kubernetes-int-or-string"] == true {
        return "number or text".to_owned();
    }
    match schema["type"].as_str() {
        Some("array") => {
            let mut text = format!("list of {}", plural(&type_of(&schema["items"])));
            if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
                let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
                let _ = write!(text, ", by `{}`", keys.join("`, `"));
            } else if schema["x-kubernetes-list-type"] == "set" {
                text.push_str(", each once");
            }
            match (number("minItems"), number("maxItems")) {
                (Some(min), Some(max)) if min == max => drop(write!(text, ", exactly {max}")),
                (Some(min), Some(max)) => drop(write!(text, ", {min} to {max}")),
                (None, Some(max)) => drop(write!(text, ", at most {max}")),
                _ => {}
            }
            text
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            match number("maxProperties") {
                Some(max) => format!("map, at most {max} entries"),
                None => "map".to_owned(),
            }
        }
        Some("string") if schema["enum"].is_array() => "one of the values".to_owned(),
        Some("string") => string(schema),
        Some("integer" | "number") => match (number("minimum"), number("maximum")) {
            (Some(min), Some(max)) => format!("number, {min} to {max}"),
            (Some(min), None) => format!("number, {min} or more"),
            _ => "number".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
    }
}

fn plural(one: &str) -> String {
    match one.split_once(',') {
        _ if one == "object" => "objects".to_owned(),
        _ if one == "one of the values" => "values".to_owned(),
        Some(("text", rest)) => format!("texts,{rest}"),
        _ => one.to_owned(),
    }
}

fn string(schema: &Value) -> String {
    if schema["format"] == "date-time" {
        return "moment (RFC 3339)".to_owned();
    }
    let pattern = schema["pattern"].as_str();
    let named = [
        (GoDuration::PATTERN, "duration"),
        (Period::PATTERN, "period"),
        (names::DNS_LABEL, "DNS label"),
        (names::DNS_SUBDOMAIN, "name of an object"),
    ];
    if let Some((_, name)) = named.iter().find(|(known, _)| Some(*known) == pattern) {
        return (*name).to_owned();
    }
    let mut text = "text".to_owned();
    match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
        (Some(min), Some(max)) => drop(write!(text, ", {min} to {max} characters")),
        (None, Some(max)) => drop(write!(text, ", at most {max} characters")),
        _ => {}
    }
    if let Some(pattern) = pattern {
        let _ = write!(text, ", `{pattern}`");
    }
    text
}
