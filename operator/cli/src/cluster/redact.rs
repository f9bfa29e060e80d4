// SPDX-License-Identifier: EUPL-1.2
//! What leaves an installation in a support bundle: objects and logs without what opens something or names a person.
//!
//! Objects are judged by the names of their members, texts by what stands around a value. Both err on the side of taking out
//! too much: a bundle without a value costs a question, one with a password costs a rotation.

use serde_json::Value;

/// What stands in place of a value.
pub(super) const MARK: &str = "<redacted>";

/// Members that are part of an invitation, or reach a person.
const MEMBERS: &[&str] = &["joinurl", "roomid", "mailbox", "phone"];
/// A member with one of these in its name holds a secret, unless it only names where one lies.
const SECRET_LIKE: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "credential",
    "passphrase",
];
/// Endings of members that name where a secret lies.
const POINTERS: &[&str] = &["name", "ref", "refs", "namespace"];
/// Annotations that hold a copy of the object.
const COPIES: &[&str] = &["kubectl.kubernetes.io/last-applied-configuration"];
/// Words in a text after which a value stands that is nobody's business.
const WORDS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "access_token",
    "join_token",
    "apikey",
    "api_key",
    "apisecret",
    "api_secret",
    "authorization",
    "bearer",
    "passphrase",
    "privatekey",
    "private_key",
    "p",
    "k",
];

/// An object without its secrets. A `Secret` is not for this: it never gets into a bundle.
pub(super) fn object(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("managedFields");
            for (name, member) in members.iter_mut() {
                let plain = name.to_ascii_lowercase();
                match (plain.as_str(), &mut *member) {
                    ("annotations", Value::Object(annotations)) => {
                        for copy in COPIES {
                            annotations.remove(*copy);
                        }
                    }
                    ("env", Value::Array(variables)) => {
                        for variable in variables {
                            if let Some(value) = variable.get_mut("value") {
                                *value = MARK.into();
                            }
                        }
                        continue;
                    }
                    ("subject", Value::Object(subject)) => {
                        if let Some(id) = subject.get_mut("id") {
                            *id = MARK.into();
                        }
                    }
                    ("subjects", Value::Array(subjects)) => {
                        for subject in subjects {
                            if let Some(id) = subject.get_mut("id") {
                                *id = MARK.into();
                            }
                        }
                    }
                    (_, Value::String(text)) if is_secret(&plain) => {
                        *text = MARK.to_owned();
                        continue;
                    }
                    (_, Value::Array(items)) if is_secret(&plain) => {
                        for item in items.iter_mut().filter(|item| item.is_string()) {
                            *item = MARK.into();
                        }
                    }
                    _ => {}
                }
                object(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        Value::String(text) => *text = self::text(text),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    if MEMBERS.contains(&name) {
        return true;
    }
    SECRET_LIKE.iter().any(|like| name.contains(like))
        && !POINTERS.iter().any(|ending| name.ends_with(ending))
}

/// A text without tokens, passwords, private keys and credentials in URLs.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            // A key in one line, with its line breaks written out, ends where it begins.
            in_key = !line.contains("-----END");
            out.push_str(MARK);
            out.push('\n');
        } else if in_key {
            in_key = !line.contains("-----END");
        } else {
            self::line(line, &mut out);
        }
    }
    if !text.ends_with('\n') && out.ends_with('\n') {
        out.pop();
    }
    out
}

fn line(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if let Some(taken) = credentials(rest) {
            out.push_str("://");
            out.push_str(MARK);
            rest = &rest[taken..];
        } else if is_word(first) {
            let end = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if is_jwt(word) {
                out.push_str(MARK);
                rest = after;
            } else if let Some((kept, taken)) = value_after(word, after) {
                out.push_str(word);
                out.push_str(&after[..kept]);
                let (value, behind) = after[kept..].split_at(taken);
                if value.chars().all(is_word) && value_after(value, behind).is_some() {
                    // No value, but the next telling word: what opens something stands behind that.
                    rest = &after[kept..];
                } else {
                    out.push_str(MARK);
                    rest = behind;
                }
            } else {
                out.push_str(word);
                rest = after;
            }
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
}

fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.')
}

/// A token of RFC 7519: its head is an object of JSON in base64.
fn is_jwt(word: &str) -> bool {
    word.starts_with("eyJ") && word.matches('.').count() >= 2
}

/// `://USER:PASSWORD` before an `@`: how many bytes that is.
fn credentials(rest: &str) -> Option<usize> {
    let authority = rest.strip_prefix("://")?;
    let end = authority
        .find(|char: char| {
            char.is_whitespace() || matches!(char, '/' | '"' | '\'' | '?' | '#' | '<')
        })
        .unwrap_or(authority.len());
    authority[..end].rfind('@').map(|at| at + 3)
}

/// After a telling word: how many bytes lead to the value, and how long it is.
fn value_after(word: &str, after: &str) -> Option<(usize, usize)> {
    let plain = word.to_ascii_lowercase().replace('-', "_");
    let bearer = plain == "bearer";
    let last = plain.rsplit('.').next().unwrap_or(&plain);
    let telling = WORDS.contains(&last)
        || ["_password", "_secret", "_token", "_key"]
            .iter()
            .any(|ending| last.ends_with(ending));
    if !telling {
        return None;
    }
    let lead = |text: &str| {
        text.bytes()
            .take_while(|byte| matches!(byte, b' ' | b'"' | b'\'' | b'\\'))
            .count()
    };
    let mut kept = lead(after);
    let separated = matches!(after.as_bytes().get(kept), Some(b'=' | b':'));
    // `--flag value` and `Bearer value` have a blank only; a blank after a common word is a sentence.
    if separated {
        kept += 1;
        kept += lead(&after[kept..]);
    } else if !(bearer && kept > 0) {
        return None;
    }
    // One letter is telling in a link only: `#p=`, `&k=`.
    if plain.len() == 1 && !after.starts_with('=') {
        return None;
    }
    let mut value = &after[kept..];
    let mut taken = 0;
    if let Some(scheme) = value
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("bearer "))
    {
        taken += scheme.len();
        value = &value[scheme.len()..];
    }
    let quoted = after[..kept].ends_with(['"', '\'']);
    let end = value
        .find(|char: char| match char {
            '"' | '\'' | '\n' | '\r' => true,
            '&' | ',' | ';' | ' ' | '\t' | '}' | ')' => !quoted,
            _ => false,
        })
        .unwrap_or(value.len());
    (end > 0).then_some((kept, taken + end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn members_of_objects_keep_names_of_secrets_and_lose_secrets() {
        let mut found = json!({
            "metadata": {
                "name": "council", "managedFields": [{ "manager": "x" }],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{\"password\":\"correct horse\"}", "a": "b" },
            },
            "spec": {
                "passwordSecretRef": { "name": "council-password", "key": "password" },
                "contacts": [{ "type": "Technical", "mailbox": "video@city.example.org", "phone": "+49 000" }],
                "openers": [{ "type": "Subject", "subject": { "id": "7f3a-11" } }, { "type": "Key", "key": { "name": "k" } }],
                "roles": [{ "role": "Moderator", "subjects": [{ "id": "7f3a-12", "issuer": "main" }] }],
                "containers": [{ "env": [{ "name": "PLENUM_REDIS_URL", "value": "redis://u:p@h" }, { "name": "POD", "valueFrom": {} }],
                    "args": ["--redis", "rediss://user:hunter2@redis:6379"] }],
                "token": "abc", "volumes": [{ "secret": { "secretName": "plenum-seal-key" } }],
                "accessTokens": ["one", "two"],
            },
            "status": { "joinURL": "https://meet.example.org/c/abc", "roomId": "abc", "passwordSecretName": "council-password" },
        });
        object(&mut found);
        let text = found.to_string();
        for gone in [
            "correct horse",
            "video@",
            "+49",
            "7f3a",
            "hunter2",
            "redis://u:p",
            "\"abc\"",
            "/c/abc",
            "managedFields",
            "\"one\"",
        ] {
            assert!(!text.contains(gone), "{gone} is still in {text}");
        }
        assert_eq!(
            found["spec"]["passwordSecretRef"]["name"],
            "council-password"
        );
        assert_eq!(
            found["spec"]["volumes"][0]["secret"]["secretName"],
            "plenum-seal-key"
        );
        assert_eq!(found["status"]["passwordSecretName"], "council-password");
        assert_eq!(found["spec"]["roles"][0]["subjects"][0]["issuer"], "main");
        assert_eq!(
            found["spec"]["containers"][0]["args"][1],
            "rediss://<redacted>@redis:6379"
        );
    }

    #[test]
    fn texts_lose_what_opens_something() {
        for (given, wanted) in [
            (
                "GET /rtc?access_token=abc.def&x=1 200",
                "GET /rtc?access_token=<redacted>&x=1 200",
            ),
            (
                "authorization: Bearer abcdef next",
                "authorization: <redacted> next",
            ),
            ("sent Bearer abcdef next", "sent Bearer <redacted> next"),
            (
                r#"{"password":"correct horse","room":3}"#,
                r#"{"password":"<redacted>","room":3}"#,
            ),
            (
                r#"{"inner":"{\"api_secret\":\"abc\"}"}"#,
                r#"{"inner":"{\"api_secret\":\"<redacted>"}"}"#,
            ),
            (
                "https://meet.example.org/c/abc#p=one-two",
                "https://meet.example.org/c/abc#p=<redacted>",
            ),
            (
                "redis://user:pw@host:6379/0 is away",
                "redis://<redacted>@host:6379/0 is away",
            ),
            (
                "a token of somebody is refused",
                "a token of somebody is refused",
            ),
            ("rooms=3 seal_key=AAAA", "rooms=3 seal_key=<redacted>"),
            (
                r#"map= "password":"correct horse""#,
                r#"map= "password":"<redacted>""#,
            ),
            (r#"p= "password":"abc""#, r#"p= "password":"<redacted>""#),
            (
                "head eyJhbGciOiJIUzI1NiJ9.e30.c2ln tail",
                "head <redacted> tail",
            ),
        ] {
            assert_eq!(text(given), wanted);
        }
        let pem = "before\n-----BEGIN PRIVATE KEY-----\nMIIE\nvQ\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(text(pem), "before\n<redacted>\nafter");
    }

    proptest! {
        #[test]
        fn a_secret_never_survives_its_surroundings(
            before in "[ -~äß]{0,40}",
            after in "[ -~äß]{0,40}",
            lead in prop::sample::select(vec![
                "\"password\":\"", "password=", "access_token=", "\"apiSecret\": \"", "Authorization: Bearer ", "#p=", "#k=",
            ]),
            secret in "[A-Za-z0-9]{12,40}",
        ) {
            let given = format!("{before} {lead}{secret}\" {after}");
            let redacted = text(&given);
            prop_assert!(
                !redacted.contains(&secret) || before.contains(&secret) || after.contains(&secret),
                "{given:?} became {redacted:?}"
            );
        }

        #[test]
        fn any_text_is_borne(given in "\\PC{0,200}") {
            let _ = text(&given);
        }
    }
}
