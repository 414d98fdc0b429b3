//! Passwords: what one may be, how it is kept, and how it is checked.
//!
//! A password is kept as argon2id's PHC string, which names its parameters: those that were good years ago go on being
//! checked. A check costs memory and time by intent, so it belongs on a thread that may block.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};

use crate::secret::Secret;

/// In bytes. So long a password is not guessed at the rate that logins allow.
const SHORTEST: usize = 12;
const LONGEST: usize = 1_024;

/// Why a password will not do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("the password is of {0} bytes, allowed is {SHORTEST} to {LONGEST}")]
    Length(usize),
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// The password as it is kept. Blocks for some tens of milliseconds.
///
/// # Errors
/// One that is too short or too long.
pub fn hash(password: &Secret) -> Result<Secret, BadPassword> {
    let length = password.expose().len();
    if !(SHORTEST..=LONGEST).contains(&length) {
        return Err(BadPassword::Length(length));
    }
    hashed(password.expose().as_bytes()).map(Secret::new)
}

/// With the crate's defaults, which are what OWASP's Password Storage Cheat Sheet asks of argon2id: 19 MiB, two passes,
/// one lane.
fn hashed(password: &[u8]) -> Result<String, BadPassword> {
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password);
    hash.map(|hash| hash.to_string()).map_err(|error| BadPassword::Hash(error.to_string()))
}

/// Whether it is the password of which `kept` was made. Blocks as [`hash`] does. One that is longer than any password
/// may be is refused unread.
pub fn matches(password: &Secret, kept: &Secret) -> bool {
    let given = password.expose().as_bytes();
    let Ok(kept) = PasswordHash::new(kept.expose()) else {
        log::error!("the record holds a password that is no PHC string");
        return false;
    };
    given.len() <= LONGEST && Argon2::default().verify_password(given, &kept).is_ok()
}

/// What nobody's password is checked against, so that a name which is not there takes as long as one that is.
///
/// # Errors
/// Where the system gives no random numbers.
pub fn of_nobody() -> Result<Secret, BadPassword> {
    hashed(&rand::random::<[u8; 32]>()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let secret = Secret::new("correct horse battery");
        let kept = hash(&secret).unwrap();
        assert!(kept.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", kept.expose());
        assert!(matches(&secret, &kept));
        for other in ["", "correct horse batter", "correct horse battery ", "Correct horse battery"] {
            assert!(!matches(&Secret::new(other), &kept), "{other:?}");
        }
        assert_ne!(hash(&secret).unwrap().expose(), kept.expose(), "two of one password look alike");
        assert!(!matches(&secret, &of_nobody().unwrap()));
        assert!(!matches(&secret, &Secret::new("no phc string")));
    }

    #[test]
    fn a_length_is_asked_for() {
        for (length, good) in [(0, false), (11, false), (12, true), (1_024, true), (1_025, false)] {
            let refused = hash(&Secret::new("x".repeat(length))).err();
            assert_eq!(refused, (!good).then_some(BadPassword::Length(length)));
        }
        assert!(!BadPassword::Length(3).to_string().contains('x'));
    }
}
