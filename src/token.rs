//! Device tokens: JWTs that anyone who holds a key may mint, be it the secret that is shared (HS256) or one of which
//! only the public half is known here ([`keys`]: EdDSA, ES256).
//!
//! - The key says the algorithm, whatever a token's header says. The header says no more than which key: the one that it
//!   names by `kid`, or the secret. No key, certificate or address that a header brings along is looked at.
//! - A header that asks for an extension to be understood (`crit`) is refused: none is.
//! - `exp` is required and holds to the second: a token's end is also its session's, so there is no grace.
//! - `nbf` and `iat` may be up to [`LEEWAY`] ahead, because the clock of who minted it may be.
//! - `aud` is looked at where an audience is set: then a token has to name it.
//! - No error says what the token was.

pub mod keys;
mod used;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, DeviceType};
use crate::secret::Secret;
use keys::KeyFile;
pub use used::{NotClaimed, UsedTokens};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4_096;

/// How far a token's `nbf` and `iat` may be ahead of this machine's clock.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The longest `jti`, in bytes: it is remembered until the token's end.
pub const MAX_JTI_BYTES: usize = 128;

/// The end of the year 9999: a token that says later ends then, so that times stay within RFC 3339.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub device_id: DeviceId,
    pub device_type: Option<DeviceType>,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
    /// The same: `iat`, or else `nbf`.
    pub issued_at: Option<i64>,
    pub jti: Option<String>,
}

/// What is remembered of a session's token: enough to know it again when it is revoked, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proof {
    /// A keyed hash of its `jti`, with a key of this process; none is 0.
    pub jti: u64,
    /// When it was issued, in seconds since the Unix epoch; 0 where it does not say.
    pub issued: u32,
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("the token is not a JWT that is signed by the algorithm of its key")]
    Malformed,
    #[error("the token's signature is not of its key")]
    BadSignature,
    #[error("the token's kid names no key of this installation")]
    UnknownKey,
    #[error("the token names no key by its kid, and one is asked for")]
    NoKey,
    #[error("the token is not for this audience")]
    WrongAudience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's claim {claim} is missing or malformed, allowed is {allowed}")]
    BadClaim { claim: &'static str, allowed: &'static str },
}

/// A token that was minted.
#[derive(Debug)]
pub struct Fresh {
    pub token: Secret,
    pub jti: String,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
}

/// Mints and verifies device tokens.
#[derive(Clone)]
pub struct DeviceTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    /// Whether tokens of the secret are good.
    of_secret: bool,
    keys: Option<Arc<KeyFile>>,
    audience: Option<Arc<str>>,
}

/// Claims as minted.
#[derive(Serialize)]
struct Minted<'a> {
    sub: &'a DeviceId,
    iat: i64,
    exp: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_type: Option<&'a DeviceType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Claims as they come: others mint them too, so each is looked at on its own.
#[derive(Deserialize)]
struct Given {
    sub: Option<serde_json::Value>,
    exp: Option<serde_json::Value>,
    iat: Option<serde_json::Value>,
    nbf: Option<serde_json::Value>,
    aud: Option<serde_json::Value>,
    jti: Option<serde_json::Value>,
    device_type: Option<serde_json::Value>,
}

impl DeviceTokens {
    pub fn new(secret: &Secret) -> Self {
        let key = secret.expose().as_bytes();
        let (signing, verifying) = (EncodingKey::from_secret(key), DecodingKey::from_secret(key));
        Self { signing, verifying, of_secret: true, keys: None, audience: None }
    }

    /// Takes tokens that these keys signed; and those of the secret only where `of_secret`.
    pub fn with_keys(self, keys: Arc<KeyFile>, of_secret: bool) -> Self {
        Self { keys: Some(keys), of_secret, ..self }
    }

    /// Takes tokens for this audience alone, and mints them so.
    pub fn for_audience(self, audience: Option<&str>) -> Self {
        Self { audience: audience.map(Arc::from), ..self }
    }

    /// Whether what is minted here is good here.
    pub fn takes_its_own(&self) -> bool {
        self.of_secret
    }

    /// A new token of the device, good from now for `ttl`.
    pub fn mint(&self, device: &DeviceId, device_type: Option<&DeviceType>, ttl: Duration) -> Fresh {
        let iat = unix_now();
        let exp = iat.saturating_add_unsigned(ttl.as_secs()).min(LAST_SECOND);
        let jti = uuid::Uuid::new_v4().to_string();
        let aud = self.audience.as_deref();
        let token = self.sign(&Minted { sub: device, iat, exp, jti: &jti, device_type, aud });
        Fresh { token: Secret::new(token), jti, expires_at: exp }
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
            .expect("plain data can be signed with a key of any length")
    }

    /// # Errors
    /// The first thing that is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let given = match (&self.keys, header.kid) {
            (Some(keys), Some(kid)) => {
                let key = keys.get(&kid).ok_or(TokenError::UnknownKey)?;
                decode(token, &key.verifying, key.algorithm)?
            }
            _ if self.of_secret => decode(token, &self.verifying, Algorithm::HS256)?,
            _ => return Err(TokenError::NoKey),
        };
        let claims = given.check(self.audience.as_deref())?;
        let now = unix_now();
        if claims.expires_at <= now {
            return Err(TokenError::Expired);
        }
        // One of the future would be newer than whatever is revoked until then.
        if claims.issued_at.is_some_and(|at| at > now.saturating_add_unsigned(LEEWAY.as_secs())) {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }
}

/// What a token says that this key signed by this algorithm.
fn decode(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Given, TokenError> {
    let mut rules = Validation::new(algorithm);
    rules.leeway = LEEWAY.as_secs();
    rules.validate_nbf = true;
    rules.validate_aud = false;
    let data = jsonwebtoken::decode::<Given>(token, key, &rules).map_err(|e| refusal(e.kind()))?;
    Ok(data.claims)
}

impl Given {
    fn check(self, audience: Option<&str>) -> Result<Claims, TokenError> {
        let bad = |claim, allowed| TokenError::BadClaim { claim, allowed };
        let text = |v: serde_json::Value| v.as_str().map(str::to_owned);
        let device_id = self.sub.and_then(text).and_then(|s| s.parse().ok()).ok_or(BAD_SUB)?;
        // RFC 7519 allows fractions of a second; what is cut off is the token's own.
        let exp = self.exp.and_then(|v| v.as_f64()).ok_or(BAD_EXP)?;
        let device_type = match self.device_type {
            None => None,
            Some(v) => Some(
                text(v)
                    .and_then(|s| s.parse().ok())
                    .ok_or(bad("device_type", "1-128 of [A-Za-z0-9._:@-]"))?,
            ),
        };
        let jti = match self.jti {
            None => None,
            Some(v) => Some(text(v).filter(|s| is_jti(s)).ok_or(bad("jti", JTI))?),
        };
        if audience.is_some_and(|wanted| !names(self.aud.as_ref(), wanted)) {
            return Err(TokenError::WrongAudience);
        }
        let issued_at = match (self.iat, self.nbf) {
            (Some(iat), _) => Some(iat.as_f64().ok_or(bad("iat", SECONDS))?),
            (None, nbf) => nbf.and_then(|v| v.as_f64()),
        };
        // The casts saturate.
        let issued_at = issued_at.map(|at| at as i64);
        Ok(Claims { device_id, device_type, expires_at: (exp as i64).min(LAST_SECOND), issued_at, jti })
    }
}

/// Whether `aud` names this audience: it is one, or a list of some (RFC 7519, section 4.1.3).
fn names(aud: Option<&serde_json::Value>, wanted: &str) -> bool {
    match aud {
        Some(serde_json::Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(wanted)),
        Some(one) => one.as_str() == Some(wanted),
        None => false,
    }
}

/// Whether a token may have this `jti`: then it may also be revoked by it.
pub fn is_jti(text: &str) -> bool {
    (1..=MAX_JTI_BYTES).contains(&text.len()) && !text.contains(char::is_control)
}

/// What [`is_jti`] lets through, in words.
pub const JTI: &str = "a string of 1-128 bytes without control characters";
const SECONDS: &str = "a number of seconds since the Unix epoch";
const BAD_SUB: TokenError =
    TokenError::BadClaim { claim: "sub", allowed: "a device id: 1-128 of [A-Za-z0-9._:@-]" };
const BAD_EXP: TokenError = TokenError::BadClaim { claim: "exp", allowed: SECONDS };

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::MissingRequiredClaim(_) => BAD_EXP,
        ErrorKind::InvalidClaimFormat(claim) if claim == "exp" => BAD_EXP,
        ErrorKind::InvalidClaimFormat(_) => TokenError::BadClaim { claim: "nbf", allowed: SECONDS },
        _ => TokenError::Malformed,
    }
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests;
