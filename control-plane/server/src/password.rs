// SPDX-License-Identifier: EUPL-1.2
//! Passwords of conferences: argon2id in a bounded pool; what was right once is remembered as a keyed MAC.
//!
//! A lesson begins with thirty people typing the same password: the slow hash is worked out once per process, the others cost a MAC.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{digest, hmac};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Passwords longer than this are refused unread.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// MACs remembered: one per conference and a few old passwords of each.
const REMEMBERED_MAX: usize = 16_384;
/// Checks that wait for the pool; at some 20 ms each the last one waits about a second.
const WAITING_MAX: usize = 64;
/// Memory of one check in KiB: a record that asks for more is refused.
const MEMORY_KIB_MAX: u32 = 128 * 1024;
/// Passes and lanes of one check.
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

type Mac = [u8; 32];

/// The check of passwords of one process.
pub struct Passwords {
    pool: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    dummy: String,
}

/// A turn in the pool of checks.
pub struct Turn {
    _waiting: OwnedSemaphorePermit,
    _working: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Remembered {
    known: HashSet<Mac>,
    order: VecDeque<Mac>,
}

/// Why no answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many checks wait: try again.
    #[error("too many passwords are being checked")]
    Busy,
    /// The system has no randomness or the conference's hash cannot be used.
    #[error("the stored password hash cannot be used")]
    Unusable,
}

impl Passwords {
    /// A pool of `workers` checks at a time.
    ///
    /// # Errors
    /// [`PasswordError::Unusable`] without randomness.
    pub fn new(workers: usize) -> Result<Self, PasswordError> {
        let mut random = [0_u8; 48];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| PasswordError::Unusable)?;
        let (key, salt) = random.split_at(32);
        let dummy: PasswordHash = Argon2::default()
            .hash_password_with_salt(b"no conference has this password", salt)
            .map_err(|_| PasswordError::Unusable)?;
        Ok(Self {
            pool: Arc::new(Semaphore::new(workers.max(1))),
            queue: Arc::new(Semaphore::new(WAITING_MAX)),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            remembered: Mutex::default(),
            dummy: dummy.to_string(),
        })
    }

    /// Was this password found right before? Costs a MAC.
    #[must_use]
    pub fn is_known(&self, hash: Option<&str>, password: &str) -> bool {
        hash.filter(|_| password.len() <= PASSWORD_BYTES_MAX)
            .is_some_and(|hash| self.lock().known.contains(&self.mac(hash, password)))
    }

    /// A turn in the pool.
    ///
    /// # Errors
    /// [`PasswordError::Busy`]: too many wait already.
    pub async fn turn(&self) -> Result<Turn, PasswordError> {
        let waiting = Arc::clone(&self.queue)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let working = Arc::clone(&self.pool)
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::Busy)?;
        Ok(Turn {
            _waiting: waiting,
            _working: working,
        })
    }

    /// Is `password` the one of `hash` (PHC string)? Without a hash the answer is no and takes as long. Gives the turn back, so that the
    /// caller may hold it a little longer.
    ///
    /// # Errors
    /// [`PasswordError::Unusable`].
    pub async fn check(
        &self,
        turn: Turn,
        hash: Option<&str>,
        password: &str,
    ) -> Result<(bool, Turn), PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok((false, turn));
        }
        // Somebody who waited before us may have typed the same.
        if self.is_known(hash, password) {
            return Ok((true, turn));
        }
        let mac = hash.map(|hash| self.mac(hash, password));
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        let password = password.to_owned();
        // The turn is held by the work itself: whoever hangs up does not make room for the next one.
        let work = move || verify(&hash, &password).map(|right| (right, turn));
        let (right, turn) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| PasswordError::Unusable)??;
        match mac {
            Some(mac) if right => {
                self.lock().insert(mac);
                Ok((true, turn))
            }
            _ => Ok((false, turn)),
        }
    }

    fn mac(&self, hash: &str, password: &str) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(hash.len() as u64).to_be_bytes());
        context.update(hash.as_bytes());
        context.update(password.as_bytes());
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn insert(&mut self, mac: Mac) {
        if self.known.insert(mac) {
            self.order.push_back(mac);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

fn verify(hash: &str, password: &str) -> Result<bool, PasswordError> {
    let parsed = PasswordHash::new(hash).map_err(|_| PasswordError::Unusable)?;
    let params = argon2::Params::try_from(&parsed).map_err(|_| PasswordError::Unusable)?;
    if params.m_cost() > MEMORY_KIB_MAX
        || params.t_cost() > PASSES_MAX
        || params.p_cost() > LANES_MAX
    {
        return Err(PasswordError::Unusable);
    }
    Ok(Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok())
}

/// Is `key` the opener key with this SHA-256? In constant time.
#[must_use]
pub fn is_opener_key(key: &str, sha256: &[u8]) -> bool {
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_ref(), sha256).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(password: &str) -> String {
        let params = argon2::Params::new(64, 1, 1, None).expect("params");
        let hash: PasswordHash =
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password_with_salt(password.as_bytes(), b"sixteen bytes ..")
                .expect("hash");
        hash.to_string()
    }

    impl Passwords {
        async fn try_it(&self, hash: Option<&str>, password: &str) -> Result<bool, PasswordError> {
            if self.is_known(hash, password) {
                return Ok(true);
            }
            let turn = self.turn().await?;
            self.check(turn, hash, password)
                .await
                .map(|(right, _)| right)
        }
    }

    #[tokio::test]
    async fn the_right_password_is_right_twice_and_others_never() {
        let passwords = Passwords::new(1).expect("passwords");
        let hash = hash_of("gelbe-birnen");
        for _ in 0..2 {
            assert_eq!(
                passwords.try_it(Some(&hash), "gelbe-birnen").await,
                Ok(true)
            );
            assert_eq!(
                passwords.try_it(Some(&hash), "gelbe-birne").await,
                Ok(false)
            );
            assert_eq!(passwords.try_it(None, "gelbe-birnen").await, Ok(false));
        }
        let other = hash_of("andere-birnen");
        assert_eq!(
            passwords.try_it(Some(&other), "gelbe-birnen").await,
            Ok(false),
            "remembered per hash"
        );
    }

    #[tokio::test]
    async fn the_dummys_own_password_opens_nothing() {
        let passwords = Passwords::new(1).expect("passwords");
        assert_eq!(
            passwords
                .try_it(None, "no conference has this password")
                .await,
            Ok(false)
        );
    }

    #[tokio::test]
    async fn a_remembered_password_needs_no_turn_in_the_pool() {
        let passwords = Passwords::new(1).expect("passwords");
        let hash = hash_of("gelbe-birnen");
        assert_eq!(
            passwords.try_it(Some(&hash), "gelbe-birnen").await,
            Ok(true)
        );
        let _all = Arc::clone(&passwords.queue)
            .acquire_many_owned(WAITING_MAX as u32)
            .await
            .expect("open");
        assert_eq!(
            passwords.try_it(Some(&hash), "gelbe-birnen").await,
            Ok(true)
        );
        assert_eq!(
            passwords.try_it(Some(&hash), "another").await,
            Err(PasswordError::Busy)
        );
    }

    #[tokio::test]
    async fn a_hash_that_would_eat_the_memory_is_refused() {
        let passwords = Passwords::new(1).expect("passwords");
        let hash = hash_of("x").replace("m=64", "m=4000000");
        assert_eq!(
            passwords.try_it(Some(&hash), "x").await,
            Err(PasswordError::Unusable)
        );
        assert_eq!(
            passwords.try_it(Some("plain text"), "x").await,
            Err(PasswordError::Unusable)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::default();
        for number in 0..REMEMBERED_MAX as u32 + 10 {
            let mut mac = [0; 32];
            mac[..4].copy_from_slice(&number.to_be_bytes());
            remembered.insert(mac);
        }
        assert_eq!(
            (remembered.known.len(), remembered.order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(
            !remembered.known.contains(&[0; 32]),
            "the oldest goes first"
        );
    }

    #[test]
    fn an_opener_key_is_recognised_by_its_hash_alone() {
        let hash = digest::digest(&digest::SHA256, b"the key");
        assert!(is_opener_key("the key", hash.as_ref()));
        assert!(!is_opener_key("the kez", hash.as_ref()));
        assert!(!is_opener_key("the key", &[]));
    }
}
