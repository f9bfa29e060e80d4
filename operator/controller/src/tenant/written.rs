// SPDX-License-Identifier: EUPL-1.2
//! What was written last. The watch lags a moment behind; who compares with it alone writes the same thing twice.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, PoisonError},
};

use kube::Resource;
use plenum_api::{Conference, ConferenceClass, Tenant};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::Context,
    ssa::{ApplyError, apply_status},
};

/// A kind with a status.
pub(crate) trait Reported:
    Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug
{
    /// Its status.
    type Status: Clone + Serialize;

    /// The place of the status.
    fn status_mut(&mut self) -> &mut Option<Self::Status>;
}

macro_rules! reported {
    ($kind:ty, $status:ty) => {
        impl Reported for $kind {
            type Status = $status;

            fn status_mut(&mut self) -> &mut Option<$status> {
                &mut self.status
            }
        }
    };
}

reported!(Tenant, plenum_api::tenant::TenantStatus);
reported!(Conference, plenum_api::ConferenceStatus);
reported!(ConferenceClass, plenum_api::ConferenceClassStatus);

/// Statuses that the watch has not shown yet, by uid, with the version of the object that they were written over.
pub(crate) struct Written<K: Reported>(Mutex<HashMap<String, (String, K::Status)>>);

impl<K: Reported> Default for Written<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Reported> Written<K> {
    /// The object with the status that was written last.
    pub(crate) fn over(&self, object: &K) -> K {
        let mut object = object.clone();
        let (Some(uid), Some(version)) = identity(&object) else {
            return object;
        };
        let mut all = self.lock();
        match all.get(&uid) {
            Some((over, status)) if *over == version => *object.status_mut() = Some(status.clone()),
            Some(_) => drop(all.remove(&uid)),
            None => {}
        }
        object
    }

    /// Writes a status where it differs.
    pub(crate) async fn report(
        &self,
        context: &Context,
        object: &mut K,
        status: K::Status,
    ) -> Result<bool, ApplyError> {
        let wrote = apply_status(&context.client, object, &status).await?;
        if wrote {
            if let (Some(uid), Some(version)) = identity(object) {
                self.lock().insert(uid, (version, status.clone()));
            }
            *object.status_mut() = Some(status);
        }
        Ok(wrote)
    }

    /// An object is gone.
    pub(crate) fn forget(&self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.lock().remove(uid);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, K::Status)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity<K: Resource>(object: &K) -> (Option<String>, Option<String>) {
    let meta = object.meta();
    (meta.uid.clone(), meta.resource_version.clone())
}
