// SPDX-License-Identifier: EUPL-1.2
//! The admission policies of the rendered chart, evaluated without an API server. `server` tries the same cases on a real one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use e2e::chart::{self, Document, Helm, OPERATOR};
use kube_cel::{AdmissionRequest, VapEvaluator, VapExpression};
use serde_json::{Value, json};

use crate::cases::{Case, cases};

/// Texts of an array of objects.
fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The evaluator knows no variables, so they are written out.
fn written_out(expression: &str, variables: &[Value]) -> String {
    let mut out = expression.to_owned();
    // Later ones may use earlier ones.
    for variable in variables.iter().rev() {
        if let (Some(name), Some(inner)) = (text(variable, "name"), text(variable, "expression")) {
            out = out.replace(&format!("variables.{name}"), &format!("({inner})"));
        }
    }
    escaped(&out)
}

/// The evaluator escapes the keys of every map, as the API server does with names of fields alone; so the keys that expressions ask for are
/// escaped too.
fn escaped(expression: &str) -> String {
    let mut parts = expression.split('\'');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let (Some(literal), Some(after)) = (parts.next(), parts.next()) {
        let key = out.ends_with('[') && after.starts_with(']') && !out.ends_with(" in [")
            || after.starts_with(" in ")
            || out.ends_with("k.startsWith(");
        let literal = if key {
            literal
                .replace('.', "__dot__")
                .replace('-', "__dash__")
                .replace('/', "__slash__")
        } else {
            literal.to_owned()
        };
        out.push_str(&format!("'{literal}'{after}"));
    }
    out
}

/// Is the request one that the policy is asked about?
fn concerns(policy: &Document, case: &Case) -> bool {
    let constraints = &policy.value["spec"]["matchConstraints"];
    let rule = list(constraints, "/resourceRules").iter().any(|rule| {
        let has = |field: &str, wanted: &str| {
            list(rule, &format!("/{field}"))
                .iter()
                .any(|value| value == wanted || value == "*")
        };
        has("apiGroups", case.group())
            && has("resources", case.resource)
            && has("operations", case.operation())
    });
    let labels = constraints
        .pointer("/namespaceSelector/matchLabels")
        .and_then(Value::as_object);
    rule && labels.is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| case.namespace_labels().get(key) == Some(value))
    })
}

/// Messages of the policy's rules that do not hold.
fn judge(policy: &Document, parameters: &Value, case: &Case) -> Result<Vec<String>> {
    let spec = &policy.value["spec"];
    let variables = list(spec, "/variables");
    let mut builder = VapEvaluator::builder()
        .object(case.object.clone())
        .params(parameters.clone())
        .namespace_object(
            json!({ "metadata": { "name": case.namespace, "labels": case.namespace_labels() } }),
        )
        .request(AdmissionRequest {
            operation: case.operation().to_owned(),
            username: case.user.to_owned(),
            namespace: case.namespace.to_owned(),
            ..AdmissionRequest::default()
        });
    if let Some(old) = &case.old {
        builder = builder.old_object(old.clone());
    }
    let evaluator = builder.build();
    let evaluate = |pointer: &str| -> Result<Vec<(bool, String)>> {
        let expressions: Vec<VapExpression> = list(spec, pointer)
            .iter()
            .map(|rule| VapExpression {
                expression: written_out(text(rule, "expression").unwrap_or_default(), variables),
                message: text(rule, "message").map(str::to_owned),
                message_expression: text(rule, "messageExpression")
                    .map(|inner| written_out(inner, variables)),
            })
            .collect();
        for compiled in evaluator.compile_expressions(&expressions) {
            if let Err(error) = compiled {
                bail!("{}: {error}", policy.id());
            }
        }
        let results = evaluator.evaluate(&expressions);
        Ok(results
            .into_iter()
            .map(|result| (result.passed, result.message.unwrap_or_default()))
            .collect())
    };
    for (holds, message) in evaluate("/matchConditions")? {
        // A condition that cannot be evaluated is a mistake of the chart, or of this evaluator.
        ensure!(
            !message.starts_with("evaluation error"),
            "{}: {}: {message}",
            case.name,
            policy.id()
        );
        if !holds {
            return Ok(Vec::new());
        }
    }
    Ok(evaluate("/validations")?
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, message)| message)
        .collect())
}

#[test]
fn each_policy_takes_and_refuses_as_declared() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let all = chart::documents(&helm.render(crate::cases::VALUES)?)?;
    let policies = chart::of_kind(&all, "ValidatingAdmissionPolicy");
    ensure!(policies.len() == 7, "{:?}", policies.keys());
    let parameters = &chart::of_kind(&all, "ConfigMap")["plenum-admission"].value;
    let mut seen: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for case in cases() {
        let mut refused = Vec::new();
        for (name, policy) in &policies {
            if concerns(policy, &case) {
                for message in judge(policy, parameters, &case)? {
                    refused.push((name.clone(), message));
                }
            }
        }
        let counts = seen.entry(case.policy).or_default();
        match case.refused {
            None => {
                ensure!(refused.is_empty(), "{}: {refused:?}", case.name);
                counts.0 += 1;
            }
            Some(part) => {
                let by = refused.iter().find(|(_, message)| message.contains(part));
                let (policy, _) =
                    by.with_context(|| format!("{}: {part:?} is not in {refused:?}", case.name))?;
                ensure!(
                    policy == &format!("{}.plenum.dev", case.policy),
                    "{}: refused by {policy}",
                    case.name
                );
                counts.1 += 1;
            }
        }
    }
    for name in policies.keys() {
        let counts = seen.get(name.trim_end_matches(".plenum.dev"));
        ensure!(
            counts.is_some_and(|(taken, refused)| *taken > 0 && *refused > 0),
            "{name} has no case of each sort: {counts:?}"
        );
    }
    Ok(())
}

#[test]
fn each_policy_is_bound_and_fails_closed() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let all = chart::documents(&helm.profile("default")?)?;
    let bindings = chart::of_kind(&all, "ValidatingAdmissionPolicyBinding");
    for (name, policy) in chart::of_kind(&all, "ValidatingAdmissionPolicy") {
        ensure!(
            policy.text_at("/spec/failurePolicy") == Some("Fail"),
            "{name}"
        );
        let binding = bindings
            .get(&name)
            .with_context(|| format!("{name} is bound"))?;
        ensure!(binding.text_at("/spec/policyName") == Some(name.as_str()));
        ensure!(binding.value["spec"]["validationActions"] == json!(["Deny"]));
        let parameters = policy.value["spec"].get("paramKind").is_some();
        ensure!(
            binding.value["spec"].get("paramRef").is_some() == parameters,
            "{name}"
        );
        if parameters {
            ensure!(
                binding.text_at("/spec/paramRef/parameterNotFoundAction") == Some("Deny"),
                "{name}"
            );
        }
        for rule in list(&policy.value, "/spec/validations") {
            ensure!(
                text(rule, "message")
                    .or(text(rule, "messageExpression"))
                    .is_some(),
                "{name}: {rule}"
            );
        }
    }
    ensure!(
        !chart::documents(&helm.render(&["--set", "admission.enabled=false"])?)?
            .iter()
            .any(|document| { document.kind().starts_with("ValidatingAdmission") })
    );
    ensure!(OPERATOR.contains(chart::NAMESPACE));
    Ok(())
}
