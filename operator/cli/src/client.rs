// SPDX-License-Identifier: EUPL-1.2
//! The verbs that talk to a running `plenum up` through the socket in its state directory.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    FAILED,
    args::{Form, Kind},
    cluster::args::{Status, StatusForm},
    fail, table,
    up::{
        protocol::{Answer, Request},
        state_dir,
    },
};

/// How long an answer may take; stopping is waited for without end.
const PATIENCE: Duration = Duration::from_secs(10);
/// More objects than a system has fit into this.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Rows of one table of a status.
const ROWS_MAX: usize = 25;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody listens.
    #[error(
        "no system is running with --state-dir {0}; start one with `plenum up -f DIR`, or name its --state-dir; a cluster is \
        meant only with --context or --kubeconfig, or as `kubectl plenum`"
    )]
    NotRunning(String),
    /// The connection failed.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// No JSON.
    #[error(
        "the running system answers in a form that this plenum does not know: {0}; use the same version"
    )]
    Unknown(serde_json::Error),
    /// It said no.
    #[error("{message}; {remedy}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        remedy: String,
    },
}

pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    shown: String,
}

pub(crate) fn call(state_dir: &Path, request: &Request) -> Result<(Value, Connection), CallError> {
    let path = state_dir::socket(state_dir);
    let shown = path.display().to_string();
    let io = |error| CallError::Io(shown.clone(), error);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            CallError::NotRunning(state_dir.display().to_string())
        }
        _ => io(error),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(CallError::Unknown)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream
        .by_ref()
        .take(ANSWER_BYTES_MAX)
        .read_line(&mut answer)
        .map_err(io)?;
    match serde_json::from_str(&answer).map_err(CallError::Unknown)? {
        Answer::Done(value) => Ok((value, Connection { stream, shown })),
        Answer::Refused { message, remedy } => Err(CallError::Refused { message, remedy }),
    }
}

/// `plenum get`.
pub(crate) fn get(
    state_dir: &Path,
    kind: Kind,
    name: Option<&str>,
    form: Option<Form>,
) -> ExitCode {
    let request = Request::List {
        kind,
        name: name.map(str::to_owned),
    };
    let value = match call(state_dir, &request) {
        Ok((value, _)) => value,
        Err(error) => return fail(FAILED, &error.to_string()),
    };
    let objects = value.as_array().cloned().unwrap_or_default();
    // One object asked for by name is itself, as with kubectl; several are a list.
    let whole = || match (name, objects.first()) {
        (Some(_), Some(one)) => one.clone(),
        _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
    };
    match form {
        Some(Form::Json) => sayln!("{:#}", whole()),
        Some(Form::Yaml) => say!("{}", yaml(&whole())),
        None | Some(Form::Wide) if objects.is_empty() => eprintln!("none are declared"),
        None | Some(Form::Wide) => say!(
            "{}",
            table::render(kind, &objects, form == Some(Form::Wide))
        ),
    }
    ExitCode::SUCCESS
}

/// `plenum status`: the tables of all kinds, as `plenum get` has them.
pub(crate) fn status(state_dir: &Path, options: &Status) -> ExitCode {
    let kinds = [
        (Kind::Replicas, "replicas"),
        (Kind::Pools, "pools"),
        (Kind::Nodes, "nodes"),
        (Kind::Tenants, "tenants"),
        (Kind::Conferences, "conferences"),
    ];
    let mut all = serde_json::Map::new();
    let mut text = String::new();
    for (kind, heading) in kinds {
        let value = match call(state_dir, &Request::List { kind, name: None }) {
            Ok((value, _)) => value,
            Err(error) => return fail(FAILED, &error.to_string()),
        };
        let objects = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let capitals = heading.to_uppercase();
        match objects.len() {
            0 => text.push_str(&format!("{capitals}: none\n\n")),
            count => {
                let shown = if options.all {
                    count
                } else {
                    count.min(ROWS_MAX)
                };
                text.push_str(&format!("{capitals}: {count}\n"));
                text.push_str(&table::render(kind, &objects[..shown], false));
                if count > shown {
                    text.push_str(&format!("… and {} more; --all shows them\n", count - shown));
                }
                text.push('\n');
            }
        }
        all.insert(heading.to_owned(), value);
    }
    match options.output {
        StatusForm::Text => say!("{}", text.trim_end_matches('\n').to_owned() + "\n"),
        StatusForm::Json => sayln!("{:#}", Value::Object(all)),
        StatusForm::Yaml => say!("{}", yaml(&Value::Object(all))),
    }
    ExitCode::SUCCESS
}

/// `plenum describe`.
pub(crate) fn describe(state_dir: &Path, kind: Kind, name: &str) -> ExitCode {
    match call(
        state_dir,
        &Request::Describe {
            kind,
            name: name.to_owned(),
        },
    ) {
        Ok((value, _)) => {
            say!("{}", describe_text(&value));
            ExitCode::SUCCESS
        }
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

fn describe_text(value: &Value) -> String {
    let object = &value["object"];
    let mut text = String::new();
    let mut line = |heading: &str, value: &Value| match value {
        Value::Null => {}
        Value::String(value) => text.push_str(&format!("{heading:<14}{value}\n")),
        value => text.push_str(&format!("{heading:<14}{value}\n")),
    };
    line("Name:", &object["metadata"]["name"]);
    line("Namespace:", &object["metadata"]["namespace"]);
    line("Kind:", &object["kind"]);
    let access = &value["access"];
    line("State:", &access["stateText"]);
    line("Guest link:", &access["guestLink"]);
    for link in access["openerLinks"].as_array().into_iter().flatten() {
        line("Opener link:", link);
    }
    line("Password:", &access["password"]);
    for (heading, member) in [("Spec:", "spec"), ("Status:", "status")] {
        if !object[member].is_null() {
            text.push_str(heading);
            text.push('\n');
            for line in yaml(&object[member]).lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    let events = value["events"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if events.is_empty() {
        text.push_str("Events:       none\n");
        return text;
    }
    text.push_str("Events:\n");
    let cell = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            vec![
                format!("  {}", cell(event, "at")),
                cell(event, "reason"),
                cell(event, "message"),
            ]
        })
        .collect();
    text.push_str(&table::align(&rows));
    text
}

/// `plenum down`.
pub(crate) fn down(state_dir: &Path) -> ExitCode {
    let mut connection = match call(state_dir, &Request::Down) {
        Ok((_, connection)) => connection,
        Err(error) => return fail(FAILED, &error.to_string()),
    };
    // The connection ends with the process.
    let waited = connection
        .stream
        .get_ref()
        .set_read_timeout(None)
        .and_then(|()| {
            let mut rest = Vec::new();
            connection.stream.read_to_end(&mut rest)
        });
    match waited {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => return fail(FAILED, &format!("{}: {error}", connection.shown)),
    }
    sayln!("stopped");
    ExitCode::SUCCESS
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# {error}\n"))
}
