//! Those who mint device tokens with keys of their own, of which lastpong knows only the public half.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A minter with one key, made anew.
pub struct Minter {
    pub kid: String,
    pub algorithm: Algorithm,
    /// PKCS #8.
    private: Vec<u8>,
    pub public: Vec<u8>,
}

impl Minter {
    pub fn eddsa(kid: &str) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).expect("a key");
        let public = pair.public_key().as_ref().to_vec();
        Self { kid: kid.into(), algorithm: Algorithm::EdDSA, private: private.as_ref().to_vec(), public }
    }

    pub fn es256(kid: &str) -> Self {
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(kind, &SystemRandom::new()).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(kind, private.as_ref()).expect("a key");
        let public = pair.public_key().as_ref().to_vec();
        Self { kid: kid.into(), algorithm: Algorithm::ES256, private: private.as_ref().to_vec(), public }
    }

    /// The public half, as a JWK.
    pub fn jwk(&self) -> Value {
        match self.algorithm {
            Algorithm::EdDSA => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "alg": "EdDSA", "x": base64(&self.public)})
            }
            _ => {
                // 4, and both coordinates (SEC 1, section 2.3.3).
                let (x, y) = self.public[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "x": base64(x), "y": base64(y)})
            }
        }
    }

    /// A token that says this, under this minter's `kid`.
    pub fn mint(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        self.mint_under(&header, claims)
    }

    pub fn mint_under(&self, header: &Header, claims: &Value) -> String {
        let key = match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(&self.private),
            _ => EncodingKey::from_ec_der(&self.private),
        };
        jsonwebtoken::encode(header, claims, &key).expect("claims can be signed")
    }
}

/// The public halves, as a JWK Set.
pub fn set(minters: &[&Minter]) -> String {
    json!({"keys": minters.iter().map(|minter| minter.jwk()).collect::<Vec<_>>()}).to_string()
}

/// As JWTs are written: the URL alphabet, without padding.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let bits = chunk.iter().fold(0u32, |acc, b| acc << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

/// Claims under any header, with any signature.
pub fn forged(header: &Value, claims: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", base64(header.to_string()), base64(claims.to_string()))
}

/// One of the many ways in which a token can be changed, some of a letter and some of a part, by these tokens of others.
/// Never the token itself.
pub fn mutated(rng: &mut impl rand::Rng, token: &str, others: &[String]) -> String {
    loop {
        let mut bytes = token.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..8) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                2 => bytes.insert(at, *b"A.=-_ 0\n".get(rng.random_range(0..8)).unwrap_or(&b'x')),
                3 => _ = bytes.remove(at),
                4 => bytes.truncate(at.max(1)),
                5 => {
                    let end = rng.random_range(at..bytes.len());
                    let part = bytes[at..=end].to_vec();
                    drop(bytes.splice(at..at, part));
                }
                _ => bytes = part_of_another(rng, &bytes, others),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text != token && !others.contains(&text) {
            return text;
        }
    }
}

/// With a header, claims or signature that another token has, or that say something else.
fn part_of_another(rng: &mut impl rand::Rng, token: &[u8], others: &[String]) -> Vec<u8> {
    let text = String::from_utf8_lossy(token).into_owned();
    let mut parts: Vec<String> = text.split('.').map(str::to_owned).collect();
    let n = rng.random_range(0..parts.len());
    let headers = [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "typ": "JWT"}),
        json!({"alg": "HS512"}),
        json!({"alg": "EdDSA", "kid": "eddsa-1"}),
        json!({"alg": "ES256", "kid": "es256-1"}),
        json!({"alg": "HS256", "kid": "es256-1"}),
        json!({"alg": "HS256", "kid": "../../../../dev/null"}),
    ];
    parts[n] = match (n, rng.random_range(0..3)) {
        (0, 0) => base64(headers[rng.random_range(0..headers.len())].to_string()),
        (1, 0) => base64(json!({"sub": "mallory", "exp": 4_000_000_000u64}).to_string()),
        (_, 0) => String::new(),
        _ => {
            let other = &others[rng.random_range(0..others.len())];
            other.split('.').nth(n).unwrap_or_default().to_owned()
        }
    };
    parts.join(".").into_bytes()
}
