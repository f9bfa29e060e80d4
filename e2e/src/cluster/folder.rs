// SPDX-License-Identifier: EUPL-1.2
//! Folders of a test, gone with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Set to anything, this keeps the folders for a look at them.
const KEEP: &str = "PLENUM_KEEP";

/// A folder that is removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes one; `name` is a letter or two. Its path is short: that of a Unix socket has a bound of 108 bytes.
    pub(crate) fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Process ids of two process namespaces may be the same, so the time has its say.
        let time = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .subsec_nanos();
        let path = std::env::temp_dir().join(format!(
            "plenum-{name}{number}-{}-{time:x}",
            std::process::id()
        ));
        std::fs::create_dir(&path)
            .with_context(|| format!("the folder {} is made", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os(KEEP).is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
