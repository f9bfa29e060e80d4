// SPDX-License-Identifier: EUPL-1.2
//! The directory of a running system: one instance each, readable by its owner alone.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held while the process lives; the kernel lets go of it, whatever happens.
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another process holds it.
    #[error(
        "{path} is in use by another plenum up; stop it with `plenum down`, or give this one --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("--state-dir {path}: {source}")]
    Io {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket's path is too long for the kernel.
    #[error(
        "--state-dir {path}: the path of the socket in it has {bytes} bytes, at most {SOCKET_BYTES_MAX} are possible; give a shorter one"
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
        /// Length of the socket's path.
        bytes: usize,
    },
}

/// `sun_path` has 108 bytes, one of them the terminating zero. *Source*: unix(7).
const SOCKET_BYTES_MAX: usize = 107;

impl StateDir {
    /// Makes the directory where needed, and takes hold of it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let bytes = socket(&path).as_os_str().len();
        if bytes > SOCKET_BYTES_MAX {
            return Err(StateError::TooLong { path, bytes });
        }
        let io = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"));
        let lock = lock.map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // Nobody else holds the lock, so a socket that is still there belongs to nobody.
        match fs::remove_file(socket(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the running system answers.
    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// A directory below, for the owner alone.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, StateError> {
        let path = self.path.join(name);
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path);
        made.map(|()| path.clone())
            .map_err(|source| StateError::Io { path, source })
    }

    /// Content of a file; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(content) => {
                // Made by us with 0600; somebody may have copied a backup since.
                let tight = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
                tight.map_err(|source| StateError::Io { path, source })?;
                Ok(Some(content))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Replaces a file as a whole, readable by the owner alone.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, StateError> {
        let path = self.path.join(name);
        let new = path.with_extension("new");
        let written = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(content)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        written()
            .map(|()| path.clone())
            .map_err(|source| StateError::Io { path, source })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A socket left behind is harmless: the next start removes it.
        let _ = fs::remove_file(self.socket());
    }
}

/// Where a system with this directory answers.
pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("plenum.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_files_for_the_owner_alone() {
        let base = std::env::temp_dir().join(format!("plenum-state-{}", std::process::id()));
        let held = StateDir::open(&base).expect("a new directory");
        assert!(matches!(
            StateDir::open(&base),
            Err(StateError::InUse { .. })
        ));
        let path = held.write("secrets.json", b"{}").expect("a file");
        held.write("secrets.json", b"{\"a\":1}")
            .expect("the file again");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(held.path())), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
        assert_eq!(
            held.read("secrets.json").expect("content"),
            Some(b"{\"a\":1}".to_vec())
        );
        assert_eq!(mode(&path), 0o600);
        fs::write(held.socket(), b"").expect("a stale socket");
        drop(held);
        let again = StateDir::open(&base).expect("free again");
        assert!(!again.socket().exists());
        let deep = base.join("x".repeat(120));
        assert!(matches!(
            StateDir::open(&deep),
            Err(StateError::TooLong { .. })
        ));
        drop(again);
        fs::remove_dir_all(&base).expect("gone");
    }
}
