// SPDX-License-Identifier: EUPL-1.2
//! Tells when manifests may have changed. What changed is found by reading them: an event is a hint only.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

/// Editors write in several steps; this much silence means that they are done.
const QUIET: Duration = Duration::from_millis(60);
/// A file that never comes to rest is read all the same.
const PATIENCE: usize = 20;

/// Watches the directories of the paths given.
pub(crate) struct Watch {
    changed: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(paths: &[PathBuf]) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let read_only = event.as_ref().is_ok_and(|event| match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
                    EventKind::Access(_) => true,
                    _ => false,
                });
                // An error may have swallowed an event.
                if !read_only {
                    told.notify_one();
                }
            })?;
        for folder in folders(paths) {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            changed,
            _watcher: watcher,
        })
    }

    /// Tells of changes for ever, each time after a moment of rest.
    pub(crate) async fn tell(self, to: mpsc::Sender<()>) {
        loop {
            self.changed.notified().await;
            for _ in 0..PATIENCE {
                if timeout(QUIET, self.changed.notified()).await.is_err() {
                    break;
                }
            }
            if to.send(()).await.is_err() {
                return;
            }
        }
    }
}

/// A file is watched by its directory: editors replace it.
fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let folder = |path: &PathBuf| {
        if path.is_dir() {
            return path.clone();
        }
        match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    };
    paths.iter().map(folder).collect()
}
