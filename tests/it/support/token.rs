//! Tokens, minted here as anyone who holds the secret may: HS256 over the secret's bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

/// The secret of every program that these tests start.
pub const SECRET: &str = "a secret of the tests, at least 32 bytes long";

/// A token in the making.
pub struct Token {
    claims: Map<String, Value>,
    secret: String,
    algorithm: Algorithm,
}

impl Token {
    /// For `device`, good for an hour.
    pub fn of(device: &str) -> Self {
        let mut claims = Map::new();
        claims.insert("sub".into(), json!(device));
        claims.insert("exp".into(), json!(now() + 3600));
        Self { claims, secret: SECRET.into(), algorithm: Algorithm::HS256 }
    }

    /// With one claim more, or another value of one.
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(claim.into(), value.into());
        self
    }

    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    /// Running out `seconds` from now; negative for one that has.
    pub fn expires_in(self, seconds: i64) -> Self {
        self.with("exp", now() + seconds)
    }

    pub fn signed_with(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    pub fn by(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    pub fn mint(self) -> String {
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        jsonwebtoken::encode(&Header::new(self.algorithm), &self.claims, &key).expect("claims can be signed")
    }
}

/// A good token for `device`.
pub fn token(device: &str) -> String {
    Token::of(device).mint()
}

/// Unix seconds.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64
}
