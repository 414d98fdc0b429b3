//! Device tokens: JWTs signed with HS256 over the bytes of one secret, that anyone who holds it may mint.
//!
//! - Only HS256 is accepted, whatever a token's header says.
//! - `exp` is required and holds to the second: a token's end is also its session's, so there is no grace.
//! - `nbf` may be up to [`LEEWAY`] ahead, because the clock of who minted it may be.
//! - `aud` is not looked at: one secret belongs to one installation.
//! - No error says what the token was.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, DeviceType};
use crate::secret::Secret;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4_096;

/// How far a token's `nbf` may be ahead of this machine's clock.
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
    pub jti: Option<String>,
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("the token is not a JWT signed with HS256")]
    Malformed,
    #[error("the token's signature is not of this installation's secret")]
    BadSignature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's claim {claim} is missing or malformed, allowed is {allowed}")]
    BadClaim { claim: &'static str, allowed: &'static str },
}

/// Mints and verifies device tokens.
#[derive(Clone)]
pub struct DeviceTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    rules: Validation,
}

/// Claims as minted.
#[derive(Serialize)]
struct Minted<'a> {
    sub: &'a DeviceId,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_type: Option<&'a DeviceType>,
}

/// Claims as they come: others mint them too, so each is looked at on its own.
#[derive(Deserialize)]
struct Given {
    sub: Option<serde_json::Value>,
    exp: Option<serde_json::Value>,
    jti: Option<serde_json::Value>,
    device_type: Option<serde_json::Value>,
}

impl DeviceTokens {
    pub fn new(secret: &Secret) -> Self {
        let key = secret.expose().as_bytes();
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = LEEWAY.as_secs();
        rules.validate_nbf = true;
        rules.validate_aud = false;
        Self { signing: EncodingKey::from_secret(key), verifying: DecodingKey::from_secret(key), rules }
    }

    /// A new token of the device, good from now for `ttl`.
    pub fn mint(&self, device: &DeviceId, device_type: Option<&DeviceType>, ttl: Duration) -> String {
        let iat = unix_now();
        let exp = iat.saturating_add_unsigned(ttl.as_secs()).min(LAST_SECOND);
        let jti = uuid::Uuid::new_v4().to_string();
        self.sign(&Minted { sub: device, iat, exp, jti, device_type })
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
        let given = jsonwebtoken::decode::<Given>(token, &self.verifying, &self.rules)
            .map_err(|e| refusal(e.kind()))?
            .claims;
        let claims = given.check()?;
        if claims.expires_at <= unix_now() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

impl Given {
    fn check(self) -> Result<Claims, TokenError> {
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
            Some(v) => Some(
                text(v)
                    .filter(|s| (1..=MAX_JTI_BYTES).contains(&s.len()))
                    .ok_or(bad("jti", "a string of 1-128 bytes"))?,
            ),
        };
        // The cast saturates.
        Ok(Claims { device_id, device_type, expires_at: (exp as i64).min(LAST_SECOND), jti })
    }
}

const BAD_SUB: TokenError =
    TokenError::BadClaim { claim: "sub", allowed: "a device id: 1-128 of [A-Za-z0-9._:@-]" };
const BAD_EXP: TokenError =
    TokenError::BadClaim { claim: "exp", allowed: "a number of seconds since the Unix epoch" };

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::MissingRequiredClaim(_) => BAD_EXP,
        ErrorKind::InvalidClaimFormat(claim) if claim == "exp" => BAD_EXP,
        ErrorKind::InvalidClaimFormat(_) => {
            TokenError::BadClaim { claim: "nbf", allowed: "a number of seconds since the Unix epoch" }
        }
        _ => TokenError::Malformed,
    }
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Why a token may not open a session, where each may open one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotClaimed {
    #[error("the token was already used")]
    AlreadyUsed,
    #[error("too many tokens are in use, try again later")]
    Full,
    #[error("the token has no jti, and each token may be used only once")]
    NoJti,
}

/// Which tokens have opened a session, each remembered until its end: for `LASTPONG_TOKEN_REPLAY=once`.
///
/// Holds at most as many as it was made for, and refuses further ones rather than forgetting one that could
/// still be used. What it knows is this process's alone, and is gone with it.
pub struct UsedTokens {
    capacity: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    ids: HashSet<Arc<str>>,
    by_end: BTreeSet<(i64, Arc<str>)>,
}

impl UsedTokens {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, used: Mutex::default() }
    }

    /// Takes the token for one session. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// A token that was taken before, or has no `jti`; or no place to remember it.
    pub fn claim(&self, claims: &Claims, now: i64) -> Result<(), NotClaimed> {
        let jti: Arc<str> = claims.jti.as_deref().ok_or(NotClaimed::NoJti)?.into();
        // A panic cannot leave it half changed in a way that matters: at worst one id is remembered for good.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_ended(now);
        if used.ids.contains(&jti) {
            return Err(NotClaimed::AlreadyUsed);
        }
        if used.ids.len() >= self.capacity {
            return Err(NotClaimed::Full);
        }
        used.by_end.insert((claims.expires_at, jti.clone()));
        used.ids.insert(jti);
        Ok(())
    }
}

impl Used {
    fn forget_ended(&mut self, now: i64) {
        while let Some((end, _)) = self.by_end.first()
            && *end <= now
            && let Some((_, jti)) = self.by_end.pop_first()
        {
            self.ids.remove(&jti);
        }
    }
}

#[cfg(test)]
mod tests;
