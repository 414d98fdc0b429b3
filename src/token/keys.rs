//! The public keys of those who mint device tokens and share no secret with lastpong: a JWK Set (RFC 7517) in a file.
//!
//! - A key is Ed25519 (`EdDSA`) or P-256 (`ES256`), and its `kid` is the name that tokens call it by. What kind of key it
//!   is fixes the algorithm; an `alg` beside it may only say the same.
//! - Keys come and go with the file, without a restart: a new one is put beside the old, and the old is taken out when
//!   nobody signs with it any more. What it signed is refused from then on; sessions that began with it go on.
//! - A file that cannot be read, or has one bad key, changes nothing: the keys that were known stay, and the log says so.
//!   So a key is withdrawn by a file without it, never by a file that is gone.
//! - What is private has no place in it: a set with a private or a symmetric key is refused whole.
//!
//! Left out on purpose: sets behind a URL. Whoever publishes keys there copies them to the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The longest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 10;
/// The most keys of a set: those of many minters, each with an old and a new one.
const MAX_KEYS: usize = 256;
const MAX_KID_BYTES: usize = 128;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A key, with the one algorithm that it is for.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) verifying: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// Why a set of keys is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("more than {MAX_FILE_BYTES} bytes")]
    TooLong,
    #[error(
        "not a JWK Set as {{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"…\",\"x\":\"…\"}}]}}: {0}"
    )]
    Malformed(String),
    #[error("{0} keys, allowed are {MAX_KEYS}")]
    TooMany(usize),
    #[error("key {0}: {1}")]
    BadKey(usize, &'static str),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Given>,
}

/// A key as it comes; of a private part no more than that it is there.
#[derive(Deserialize)]
struct Given {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

/// The keys of a file, as they are now.
pub struct KeyFile {
    path: PathBuf,
    known: RwLock<HashMap<String, Key>>,
    seen: Mutex<Seen>,
}

/// What the file was like when it was last looked at.
#[derive(PartialEq)]
enum Seen {
    Good(Vec<u8>),
    Bad(String),
}

impl KeyFile {
    /// # Errors
    /// What is wrong with the file or with a key in it.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let text = read(path)?;
        let known = RwLock::new(parse(&text)?);
        Ok(Self { path: path.to_owned(), known, seen: Mutex::new(Seen::Good(text)) })
    }

    pub(super) fn get(&self, kid: &str) -> Option<Key> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    pub fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up what the file says by now. Each change is logged once, for good or bad.
    pub fn look(&self) {
        let found = read(&self.path).and_then(|text| Ok((parse(&text)?, text)));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.display();
        match found {
            Ok((keys, text)) => {
                let now = Seen::Good(text);
                if *seen != now {
                    log::info!(path:% = path, keys = keys.len(); "the keys of device tokens were read anew");
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = keys;
                    *seen = now;
                }
            }
            Err(error) => {
                let now = Seen::Bad(error.to_string());
                if *seen != now {
                    log::error!(path:% = path, error:% = error;
                        "the keys of device tokens cannot be read: those that are known stay");
                    *seen = now;
                }
            }
        }
    }

    /// Looks at the file for as long as the node runs.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let file = self.clone();
            // A file system that hangs holds up nothing but this.
            if tokio::task::spawn_blocking(move || file.look()).await.is_err() {
                log::error!("looking at the keys of device tokens panicked: those that are known stay");
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeysError> {
    // Looked at before it is opened, because opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file").into());
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(KeysError::TooLong) } else { Ok(text) }
}

fn parse(text: &[u8]) -> Result<HashMap<String, Key>, KeysError> {
    let malformed = |error: serde_json::Error| KeysError::Malformed(error.to_string());
    let set: Set = serde_json::from_slice(text).map_err(malformed)?;
    if set.keys.len() > MAX_KEYS {
        return Err(KeysError::TooMany(set.keys.len()));
    }
    let mut keys = HashMap::with_capacity(set.keys.len());
    for (n, given) in set.keys.into_iter().enumerate() {
        let bad = |what| KeysError::BadKey(n + 1, what);
        let (kid, key) = given.into_key().map_err(bad)?;
        if keys.insert(kid, key).is_some() {
            return Err(bad("another key has the same kid"));
        }
    }
    Ok(keys)
}

impl Given {
    fn into_key(self) -> Result<(String, Key), &'static str> {
        if self.d.is_some() || self.k.is_some() || self.kty == "oct" {
            return Err("it is private; only public keys belong here");
        }
        if self.purpose.is_some_and(|purpose| purpose != "sig") {
            return Err("its use is not sig");
        }
        let kid = self.kid.filter(|kid| (1..=MAX_KID_BYTES).contains(&kid.len()));
        let kid = kid.ok_or("it has no kid of 1 to 128 bytes")?;
        let not_base64 = |_| "a coordinate is not base64url";
        let (name, algorithm, bytes, verifying) = match (&*self.kty, self.crv.as_deref(), self.x, self.y) {
            ("OKP", Some("Ed25519"), Some(x), None) => {
                ("EdDSA", Algorithm::EdDSA, 32, DecodingKey::from_ed_components(&x).map_err(not_base64)?)
            }
            ("EC", Some("P-256"), Some(x), Some(y)) => {
                ("ES256", Algorithm::ES256, 65, DecodingKey::from_ec_components(&x, &y).map_err(not_base64)?)
            }
            _ => return Err("it is neither Ed25519 (kty OKP, x) nor P-256 (kty EC, x and y)"),
        };
        if verifying.as_bytes().len() != bytes {
            return Err("its coordinates are not of 32 bytes");
        }
        if self.alg.is_some_and(|alg| alg != name && !(alg == "Ed25519" && name == "EdDSA")) {
            return Err("its alg is not that of its curve (EdDSA of Ed25519, ES256 of P-256)");
        }
        Ok((kid, Key { verifying, algorithm }))
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
