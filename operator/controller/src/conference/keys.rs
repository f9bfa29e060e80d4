// SPDX-License-Identifier: EUPL-1.2
//! The password of a conference and the keys of its openers, where nobody has brought them.

use operator_core::{
    Name, SecretKey,
    tenant::secrets::{opener_key, opener_key_secret, password, password_secret},
};
use plenum_api::{Conference, names};

use super::facts::Place;
use crate::{
    context::Context,
    tenant::{Now, SecretError, is_there, make, random},
};

/// Makes what is missing. What the planner knows is there is not asked for again.
pub(super) async fn bring(
    context: &Context,
    now: &Now,
    place: &Place,
    conference: &Conference,
) -> Result<(), SecretError> {
    let (tenant, name) = (place.label.as_deref().unwrap_or_default(), &place.name);
    let wanted = conference.spec.password_secret_ref.is_none();
    if wanted && !now.planned.generated.passwords.contains_key(name) {
        let secret = password_secret(tenant, &name.namespace, conference, password(&random()?));
        make(context, &secret, names::SECRET_KEY_PASSWORD, &name.name).await?;
    }
    let openers = conference.spec.openers.iter();
    for key in openers.filter_map(|opener| opener.key.as_ref()) {
        let part = key.key.as_deref().unwrap_or(names::SECRET_KEY_OPENER);
        let at = SecretKey {
            secret: Name::new(&*name.namespace, &*key.name),
            key: part.to_owned(),
        };
        let known = now.planned.objects.secrets.contains_key(&at.secret)
            || now.planned.generated.opener_keys.contains_key(&at);
        if known || is_there(context, &name.namespace, &key.name).await? {
            // A Secret of somebody else's that lacks the key is told, not filled.
            continue;
        }
        let value = opener_key(&random()?);
        let secret = opener_key_secret(tenant, &name.namespace, &key.name, part, conference, value);
        make(context, &secret, part, &name.name).await?;
    }
    Ok(())
}
