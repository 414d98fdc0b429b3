//! What a login is proved by: 256 random bits in hexadecimal, of which the record holds the SHA-256 alone.
//!
//! The hash needs neither salt nor slowness, because a token cannot be guessed; and it makes the look-up take the same
//! time whatever is given.

use sha2::{Digest, Sha256};

use crate::secret::Secret;
use crate::store::users::TokenHash;

const BYTES: usize = 32;

/// A new token, and what is kept of it.
///
/// The generator is seeded by the operating system and made for secrets (`rand::rng`).
pub(super) fn new() -> (Secret, TokenHash) {
    let bytes: [u8; BYTES] = rand::random();
    let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let hash = hash_of(text.as_bytes());
    (Secret::new(text), hash)
}

/// What would be kept of it; `None` of what no token looks like.
pub(super) fn hash(text: &str) -> Option<TokenHash> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 2 * BYTES && text.bytes().all(digit)).then(|| hash_of(text.as_bytes()))
}

fn hash_of(text: &[u8]) -> TokenHash {
    TokenHash(Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash() {
        let (token, kept) = new();
        assert_eq!(hash(token.expose()), Some(kept));
        assert_ne!(new().1, kept);
        let other = if token.expose().starts_with('0') { "1" } else { "0" };
        assert_ne!(hash(&format!("{other}{}", &token.expose()[1..])), Some(kept));
        for bad in ["", "0", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(hash(bad), None, "{bad:?}");
        }
    }
}
