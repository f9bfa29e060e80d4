// SPDX-License-Identifier: EUPL-1.2
//! What to do where a CEL rule does not hold: a rule says what must be true, this says what to write.

/// What to do, by the message of a rule.
#[must_use]
pub fn remedy(message: &str) -> Option<&'static str> {
    REMEDIES
        .iter()
        .find(|(said, _)| *said == message)
        .map(|(_, remedy)| *remedy)
}

const REMEDIES: &[(&str, &str)] = &[
    (
        "set values exactly when operator is In or NotIn",
        "list values for In and NotIn; remove them for Exists and DoesNotExist",
    ),
    (
        "set exactly the member that type names: url for Url, secretRef for Secret",
        "write url with type: Url, or secretRef with type: Secret, and remove the other",
    ),
    (
        "issuer must be an https URL",
        "write the issuer as https://…, exactly as its tokens say it",
    ),
    (
        "url must be an https URL",
        "write the address as https://…, or use type: Secret",
    ),
    (
        "a range has at most 4096 ports",
        "bring min and max closer together",
    ),
    ("min must not exceed max", "exchange min and max"),
    (
        "set exactly the member that type needs: key for NodeLabel and NodeAnnotation, addresses for Static, server for Stun",
        "write the one member that the type needs, and remove the others",
    ),
    (
        "a webhook's url must be an https URL",
        "write the address as https://…",
    ),
    (
        "set exactly one of duration and until",
        "write duration or until, and remove the other",
    ),
    (
        "set exactly the member that type names",
        "write the member with the name of the type in lower case, and remove the others",
    ),
    (
        "a guest never moderates or records",
        "remove moderate and record, or give them to another role",
    ),
    (
        "announceBefore must not exceed 2160h",
        "write 2160h or less",
    ),
    (
        "a Freeze cannot be UrgentSecurity, which overrules a Freeze",
        "write another reason, or another action",
    ),
    (
        "select something by pools, nodes or sites",
        "name pools or sites, or select machines by their labels; nodes: {} means every machine",
    ),
    (
        "a pool's name has at most 63 characters, because it is a label of its nodes",
        "give the pool a shorter name",
    ),
    (
        "announceBefore must not exceed timeout",
        "shorten announceBefore, or lengthen timeout",
    ),
    ("closeAfter must not exceed 24h", "write 24h or less"),
    (
        "every preferred site must also be allowed",
        "add the preferred sites to allowed",
    ),
    (
        "expectedParticipants must not exceed maxParticipants",
        "lower expectedParticipants, or raise maxParticipants",
    ),
    (
        "hostNetwork must be set exactly when type is HostNetwork",
        "write hostNetwork.range, or remove hostNetwork where the type is another",
    ),
    (
        "hostNetwork.range must lie outside 30000-32767, which belongs to NodePorts",
        "use a range such as 20000-20255",
    ),
    (
        "hostPort must be set exactly when type is HostPort",
        "write hostPort.range, or remove hostPort where the type is another",
    ),
    (
        "hostPort.range must lie outside 30000-32767, which belongs to NodePorts",
        "use a range such as 20000-20255",
    ),
    (
        "loadBalancer must be set exactly when type is LoadBalancer",
        "write loadBalancer: {}, or remove loadBalancer where the type is another",
    ),
    (
        "maxSurge and maxUnavailable must not both be 0",
        "let one of the two be at least 1 or 1%",
    ),
    (
        "minReplicas must not exceed maxReplicas",
        "lower minReplicas, or raise maxReplicas",
    ),
    (
        "minReplicas of a schedule must not exceed maxReplicas",
        "lower minReplicas of the schedule, or raise maxReplicas",
    ),
    (
        "nodePort must be set exactly when type is NodePort",
        "write nodePort.range, or remove nodePort where the type is another",
    ),
    (
        "nodePort.range must lie inside 30000-32767",
        "use a range such as 31000-31255",
    ),
    ("openBefore must not exceed 24h", "write 24h or less"),
    (
        "participantsPerRoom must not exceed participants",
        "lower participantsPerRoom, or raise participants",
    ),
    (
        "publishersPerRoom must not exceed publishers",
        "lower publishersPerRoom, or raise publishers",
    ),
    ("timeout must not exceed 24h", "write 24h or less"),
    (
        "DedicatedPool needs at least one pool",
        "name a pool in spec.pools, or use another isolation",
    ),
    (
        "a webhook's signingKeyRef must be one of auth.apiKeySecretRefs",
        "add the Secret to spec.auth.apiKeySecretRefs, or name one that stands there",
    ),
    (
        "namespace.name is immutable once set",
        "restore the name; for another namespace declare another Tenant",
    ),
    (
        "openers of a class are subjects or groups; a key belongs to one conference",
        "move the key to the openers of the conference",
    ),
    (
        "poolRef is immutable",
        "restore poolRef; another pool makes nodes of its own",
    ),
    (
        "ports are immutable",
        "restore ports; a node with other ports is another node",
    ),
    (
        "revision is immutable",
        "restore revision; a node of another revision is another node",
    ),
    (
        "roomName is immutable once set",
        "restore roomName; for another room declare another Conference",
    ),
    (
        "set replicas or autoscaling",
        "write replicas, or autoscaling with minReplicas and maxReplicas",
    ),
    (
        "ttlAfterEnd needs a schedule that ends",
        "add COUNT or UNTIL to the recurrence, or remove lifecycle.ttlAfterEnd",
    ),
    (
        "a drain can be cancelled only before it is announced",
        "let the drain end; the pool makes a new node",
    ),
    (
        "a tenant's name has at most 56 characters, because tenant-<name> is a namespace",
        "use a shorter name; displayName may be long",
    ),
    (
        "from must be before to; write a range over midnight as two",
        "write two ranges, one to 24:00 and one from 00:00",
    ),
    (
        "protectionNeed High requires dedicated nodes or pool, e2ee Required and recording Forbidden",
        "write isolation: DedicatedPool with pools, and policy: {e2ee: Required, recording: Forbidden}",
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::schema::{KINDS, schema_of};

    fn messages(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for rule in members
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    found.extend(
                        rule.get("message")
                            .and_then(Value::as_str)
                            .map(str::to_owned),
                    );
                }
                members.values().for_each(|member| messages(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_rule_of_every_kind_has_a_remedy() {
        let mut found = Vec::new();
        for kind in KINDS {
            messages(schema_of(kind).expect("a kind"), &mut found);
        }
        assert!(found.len() > 40, "{}", found.len());
        let without: Vec<&String> = found
            .iter()
            .filter(|message| remedy(message).is_none())
            .collect();
        assert!(without.is_empty(), "{without:#?}");
    }
}
