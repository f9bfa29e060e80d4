// SPDX-License-Identifier: EUPL-1.2
//! Makes Secrets that nobody has brought. What is there already is never changed, unless it holds nothing.

use aws_lc_rs::rand;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::PostParams};
use plenum_api::names::MANAGER_OPERATOR;

use crate::{
    context::Context,
    ssa::{self, ApplyError},
};

/// Why there is no Secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refused, or is away.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
}

impl SecretError {
    /// CamelCase reason for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Random => "NoRandomness",
        }
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(bytes)
}

/// Whether there is a Secret of a name.
pub(crate) async fn is_there(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<bool, SecretError> {
    Ok(get(context, namespace, name).await?.is_some())
}

async fn get(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Secret>, SecretError> {
    Ok(ssa::get::<Secret>(&context.client, Some(namespace), name).await?)
}

fn holds(secret: &Secret, part: &str) -> bool {
    let data = secret.data.as_ref();
    data.and_then(|data| data.get(part))
        .is_some_and(|value| !value.0.is_empty())
}

/// Makes a Secret. Another operator may have been faster, and somebody may have emptied it.
pub(crate) async fn make(
    context: &Context,
    secret: &Secret,
    part: &str,
    owner: &str,
) -> Result<(), SecretError> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(MANAGER_OPERATOR.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, secret).await {
        Ok(_) => {
            tracing::info!(
                event = "SecretMade",
                namespace,
                secret = name,
                owner,
                "a Secret that nobody had brought was made"
            );
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let found = get(context, &namespace, &name).await?;
            if found.is_some_and(|found| !holds(&found, part)) {
                ssa::apply_child(&context.client, secret, MANAGER_OPERATOR).await?;
            }
            Ok(())
        }
        Err(error) => {
            Err(ApplyError::api::<Secret>("create", format!("{namespace}/{name}"))(error).into())
        }
    }
}
