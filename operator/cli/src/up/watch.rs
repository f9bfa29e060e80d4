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
    time::{sleep, timeout},
};

/// Editors write in several steps; this much silence means that they are done.
const QUIET: Duration = Duration::from_millis(60);
/// How often a folder that is gone is looked for.
const LOST: Duration = Duration::from_secs(1);
/// A file that never comes to rest is read all the same.
const PATIENCE: usize = 20;

/// Watches the directories of the paths given.
pub(crate) struct Watch {
    changed: Arc<Notify>,
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
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
        let folders = folders(paths);
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            changed,
            watcher,
            folders,
        })
    }

    /// Tells of changes for ever, each time after a moment of rest.
    pub(crate) async fn tell(mut self, to: mpsc::Sender<()>) {
        let mut watched = true;
        loop {
            if watched {
                self.changed.notified().await;
            } else {
                // The folder was replaced, and the new one is not there yet: look again.
                sleep(LOST).await;
            }
            for _ in 0..PATIENCE {
                if timeout(QUIET, self.changed.notified()).await.is_err() {
                    break;
                }
            }
            watched = self.renew();
            if to.send(()).await.is_err() {
                return;
            }
        }
    }

    /// Watches what now stands at the paths: a folder that was replaced is another one to the kernel. What changes
    /// meanwhile is found, because the manifests are read after this.
    fn renew(&mut self) -> bool {
        let mut watched = true;
        for folder in &self.folders {
            // It may not be watched any more, which is what is wanted.
            let _ = self.watcher.unwatch(folder);
            watched &= self
                .watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .is_ok();
        }
        watched
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
