// SPDX-License-Identifier: EUPL-1.2
//! Wrong values are refused in words, and no value stands outside the schema.

use anyhow::{Result, ensure};
use e2e::chart::{self, Helm};
use serde_json::Value;

/// Arguments, and what the message must hold: the place and what would be right.
const WRONG: &[(&[&str], &[&str])] = &[
    (&["store=Redises"], &["/store", "'Redis', 'Memory'"]),
    (
        &["replica=2"],
        &["additional properties 'replica' not allowed"],
    ),
    (
        &["controlPlane.replica=2"],
        &["/controlPlane", "'replica' not allowed"],
    ),
    (&["operator.replicas=0"], &["/operator/replicas", "minimum"]),
    (
        &["operator.replicas=two"],
        &["/operator/replicas", "want integer"],
    ),
    (
        &["gateway.publicUrl=http://meet.example"],
        &["/gateway/publicUrl", "https://"],
    ),
    (
        &["gateway.service.type=Ingress"],
        &["/gateway/service/type", "'NodePort'"],
    ),
    (
        &["images.operator.digest=sha256:1"],
        &["/images/operator/digest", "sha256:"],
    ),
    (&["site.jurisdiction=Germany"], &["/site/jurisdiction"]),
    (
        &["admission.retention.chat=30 days"],
        &["/admission/retention/chat"],
    ),
    (
        &["networkPolicies.nodeCidrs={10.0.0.1}"],
        &["/networkPolicies/nodeCidrs/0"],
    ),
    (
        &["admission.ceiling.conferences=2000"],
        &["/admission/ceiling/conferences", "1,500"],
    ),
    // What a schema cannot say, the chart says itself.
    (
        &["store=Memory"],
        &[
            "controlPlane.replicas",
            "set controlPlane.replicas=1, or store=Redis",
        ],
    ),
    (
        &["redis.demonstration.enabled=false"],
        &["redis.existingSecret", "redis.demonstration.enabled=true"],
    ),
    (
        &["redis.existingSecret=x"],
        &[
            "exclude each other",
            "set redis.demonstration.enabled=false",
        ],
    ),
    (
        &[
            "mediaNamespaces[0].name=plenum-system",
            "mediaNamespaces[0].create=true",
            "mediaNamespaces[0].podSecurity=restricted",
        ],
        &["mediaNamespaces: plenum-system is the namespace of the installation"],
    ),
    (
        &["gateway.service.nodePort=30443"],
        &[
            "gateway.service.nodePort",
            "set gateway.service.type=NodePort",
        ],
    ),
];

#[test]
fn wrong_values_are_refused_with_place_and_remedy() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    for (values, parts) in WRONG {
        let args: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        let output = helm.try_render(&args)?;
        ensure!(!output.status.success(), "{values:?} is taken");
        let message = String::from_utf8_lossy(&output.stderr);
        for part in *parts {
            ensure!(
                message.contains(part),
                "{values:?}: {part:?} is not in:\n{message}"
            );
        }
    }
    Ok(())
}

fn schema() -> Result<Value> {
    let text = std::fs::read_to_string(chart::folder().join("values.schema.json"))?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn no_object_of_the_schema_takes_what_it_does_not_know() -> Result<()> {
    fn look(path: &str, schema: &Value) -> Result<()> {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            ensure!(
                schema.get("additionalProperties") == Some(&Value::Bool(false)),
                "{path} is open"
            );
            for (name, inner) in properties {
                look(&format!("{path}/{name}"), inner)?;
            }
        }
        match schema.get("type") {
            Some(Value::String(kind)) if kind == "array" => {
                ensure!(
                    schema.get("maxItems").is_some() || path.ends_with("/claims"),
                    "{path} has no bound"
                );
                if let Some(items) = schema.get("items") {
                    look(&format!("{path}[]"), items)?;
                }
            }
            Some(Value::String(kind)) if kind == "string" => ensure!(
                schema.get("enum").is_some()
                    || schema.get("pattern").is_some()
                    || schema.get("maxLength").is_some(),
                "{path} has no bound"
            ),
            _ => {}
        }
        Ok(())
    }
    look("", &schema()?)
}

#[test]
fn the_schema_and_the_defaults_have_the_same_values() -> Result<()> {
    fn compare(path: &str, schema: &Value, value: &Value) -> Result<()> {
        let (Some(properties), Some(members)) = (
            schema.get("properties").and_then(Value::as_object),
            value.as_object(),
        ) else {
            return Ok(());
        };
        // Objects that are a Kubernetes type have members that are left out.
        if path.ends_with("/resources") || path.ends_with("/issuerRef") {
            return Ok(());
        }
        let (declared, given): (Vec<_>, Vec<_>) =
            (properties.keys().collect(), members.keys().collect());
        for name in &given {
            ensure!(
                declared.contains(name),
                "{path}/{name} is not in values.schema.json"
            );
        }
        for name in declared {
            ensure!(given.contains(&name), "{path}/{name} is not in values.yaml");
            compare(&format!("{path}/{name}"), &properties[name], &members[name])?;
        }
        Ok(())
    }
    let text = std::fs::read_to_string(chart::folder().join("values.yaml"))?;
    compare("", &schema()?, &serde_saphyr::from_str(&text)?)
}

/// What is not the operator's it does not issue: no certificate of that name, and no right to renew one is used.
#[test]
fn certificates_of_ones_own_are_left_alone_by_the_operator() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let own = "controlPlane.tls.existingSecret=grpc-of-ours";
    for (args, foreign) in [(&[][..], false), (&["--set", own][..], true)] {
        let all = chart::documents(&helm.render(args)?)?;
        let deployment = |name: &str| {
            let mut deployments = all
                .iter()
                .filter(|document| document.kind() == "Deployment");
            deployments
                .find(|document| document.text_at("/metadata/name") == Some(name))
                .map(|document| document.text.as_str())
                .unwrap_or_default()
        };
        let operator = deployment("plenum-operator");
        ensure!(operator.contains("--site="), "the operator is rendered");
        ensure!(
            operator.contains("--foreign-control-plane-certificate") == foreign,
            "{args:?}"
        );
        let secret = if foreign {
            "grpc-of-ours"
        } else {
            "plenum-control-plane-tls"
        };
        let mounted = format!("secretName: {secret}");
        ensure!(
            deployment("plenum-control-plane").contains(&mounted),
            "{args:?}"
        );
    }
    Ok(())
}
