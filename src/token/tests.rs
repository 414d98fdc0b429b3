use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn tokens() -> DeviceTokens {
    DeviceTokens::new(&Secret::new(SECRET))
}

/// Signed by a foreign minter that has the secret.
fn signed_as(algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn signed(claims: Value) -> Result<Claims, TokenError> {
    tokens().verify(&signed_as(Algorithm::HS256, &claims))
}

/// Claims under any header, with any signature.
fn with_header(header: &Value, claims: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", base64(&header.to_string()), base64(&claims.to_string()))
}

/// As JWTs are written: the URL alphabet, without padding.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0u32, |acc, b| acc << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

fn minted(by: &DeviceTokens, kind: Option<&DeviceType>, seconds: u64) -> String {
    by.mint(&"d".parse().unwrap(), kind, Duration::from_secs(seconds)).token.expose().to_owned()
}

fn soon() -> i64 {
    unix_now() + 600
}

#[test]
fn a_minted_token_says_what_it_was_given() {
    let device: DeviceId = "d".parse().unwrap();
    let kind: DeviceType = "thermometer".parse().unwrap();
    let before = unix_now();
    let claims = tokens().verify(&minted(&tokens(), Some(&kind), 60)).unwrap();
    assert_eq!((claims.device_id, claims.device_type), (device.clone(), Some(kind)));
    assert!((before + 60..=unix_now() + 60).contains(&claims.expires_at));
    let other = tokens().verify(tokens().mint(&device, None, Duration::MAX).token.expose()).unwrap();
    assert_eq!((other.device_type, other.expires_at), (None, LAST_SECOND));
    assert!(claims.jti.is_some() && claims.jti != other.jti);
}

#[test]
fn a_foreign_token_with_the_least_is_good() {
    let least = Claims {
        device_id: "d".parse().unwrap(),
        device_type: None,
        expires_at: soon(),
        issued_at: None,
        jti: None,
    };
    assert_eq!(signed(json!({"sub": "d", "exp": least.expires_at})), Ok(least.clone()));
    let now = unix_now();
    let more = json!({"sub": "d", "exp": least.expires_at, "aud": ["x"], "iss": "y", "nbf": now, "z": [1]});
    assert_eq!(signed(more), Ok(Claims { issued_at: Some(now), ..least.clone() }));
    let both = json!({"sub": "d", "exp": least.expires_at, "iat": 7.9, "nbf": now});
    assert_eq!(signed(both), Ok(Claims { issued_at: Some(7), ..least.clone() }));
    assert_eq!(signed(json!({"sub": "d", "exp": least.expires_at as f64 + 0.3})), Ok(least));
    assert_eq!(signed(json!({"sub": "d", "exp": 1e18})).unwrap().expires_at, LAST_SECOND);
}

#[test]
fn only_hs256_is_taken_whatever_the_header_says() {
    let claims = json!({"sub": "d", "exp": soon()});
    let good = signed_as(Algorithm::HS256, &claims);
    let signature = good.rsplit('.').next().unwrap();
    assert!(tokens().verify(&good).is_ok());
    for alg in ["none", "None", "NONE", "", "RS256", "ES256", "EdDSA", "HS512", "hs256"] {
        for signature in [signature, ""] {
            let token = with_header(&json!({"alg": alg, "typ": "JWT"}), &claims, signature);
            assert_eq!(tokens().verify(&token), Err(TokenError::Malformed), "{alg}");
        }
    }
    // Rightly signed with the secret, but by another of its algorithms.
    assert_eq!(tokens().verify(&signed_as(Algorithm::HS512, &claims)), Err(TokenError::Malformed));
    assert_eq!(tokens().verify(&with_header(&json!({}), &claims, signature)), Err(TokenError::Malformed));
}

#[test]
fn an_audience_is_asked_for_where_it_is_set() {
    let ours = tokens().for_audience(Some("lastpong"));
    let aud = |aud: Value| {
        ours.verify(&signed_as(Algorithm::HS256, &json!({"sub": "d", "exp": soon(), "aud": aud})))
    };
    for good in [json!("lastpong"), json!(["x", "lastpong"])] {
        assert!(aud(good.clone()).is_ok(), "{good}");
    }
    for bad in
        [json!("lastpon"), json!("Lastpong"), json!(["x"]), json!([]), json!([["lastpong"]]), json!(null)]
    {
        assert_eq!(aud(bad.clone()), Err(TokenError::WrongAudience), "{bad}");
    }
    let without = signed_as(Algorithm::HS256, &json!({"sub": "d", "exp": soon()}));
    assert_eq!(ours.verify(&without), Err(TokenError::WrongAudience));
    assert!(ours.verify(&minted(&ours, None, 60)).is_ok());
}

#[test]
fn times_are_held_to() {
    let at = |exp: i64, nbf: i64| signed(json!({"sub": "d", "exp": exp, "nbf": nbf}));
    let leeway = LEEWAY.as_secs() as i64;
    assert!(at(soon(), unix_now() + leeway).is_ok());
    assert_eq!(at(soon(), unix_now() + leeway + 60), Err(TokenError::NotYetValid));
    let issued = |iat: i64| signed(json!({"sub": "d", "exp": soon(), "iat": iat}));
    assert!(issued(0).is_ok() && issued(unix_now() + leeway).is_ok());
    assert_eq!(issued(unix_now() + leeway + 60), Err(TokenError::NotYetValid));
    assert_eq!(issued(i64::MAX), Err(TokenError::NotYetValid));
    // Within the library's leeway, yet over.
    assert_eq!(at(unix_now(), 0), Err(TokenError::Expired));
    assert_eq!(at(unix_now() - 3_600, 0), Err(TokenError::Expired));
    assert_eq!(at(0, 0), Err(TokenError::Expired));
}

#[test]
fn a_missing_or_malformed_claim_is_named() {
    let long = "x".repeat(129);
    for (claims, name) in [
        (json!({"sub": "d"}), "exp"),
        (json!({"sub": "d", "exp": null}), "exp"),
        (json!({"sub": "d", "exp": "tomorrow"}), "exp"),
        (json!({"sub": "d", "exp": -1}), "exp"),
        (json!({"sub": "d", "exp": soon(), "nbf": "now"}), "nbf"),
        (json!({"sub": "d", "exp": soon(), "iat": "now"}), "iat"),
        (json!({"sub": "d", "exp": soon(), "jti": "a\u{0}b"}), "jti"),
        (json!({"exp": soon()}), "sub"),
        (json!({"sub": "", "exp": soon()}), "sub"),
        (json!({"sub": "a b", "exp": soon()}), "sub"),
        (json!({"sub": 7, "exp": soon()}), "sub"),
        (json!({"sub": long, "exp": soon()}), "sub"),
        (json!({"sub": "d", "exp": soon(), "device_type": "a/b"}), "device_type"),
        (json!({"sub": "d", "exp": soon(), "jti": 7}), "jti"),
        (json!({"sub": "d", "exp": soon(), "jti": ""}), "jti"),
        (json!({"sub": "d", "exp": soon(), "jti": long}), "jti"),
    ] {
        match signed(claims.clone()) {
            Err(TokenError::BadClaim { claim, .. }) => assert_eq!(claim, name, "{claims}"),
            other => panic!("{claims} gave {other:?}"),
        }
    }
    for odd in [json!([]), json!("d"), json!(null)] {
        assert!(signed(odd.clone()).is_err(), "{odd}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let good = minted(&tokens(), None, 60);
    let padded = json!({"sub": "d", "exp": soon(), "pad": "x".repeat(8_192)});
    assert_eq!(signed(padded), Err(TokenError::TooLong));
    assert_eq!(tokens().verify(&"x".repeat(8_192)), Err(TokenError::TooLong));
    for garbage in
        ["", ".", "..", "...", "a.b.c", "é", "Bearer x", &good[1..], &format!("{good}."), &format!(" {good}")]
    {
        assert!(tokens().verify(garbage).is_err(), "{garbage:?}");
    }
}

#[test]
fn no_changed_character_is_let_through() {
    let good = minted(&tokens(), None, 60);
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(tokens().verify(&bad).is_err(), "changed at {at}: {bad}");
    }
    let other = DeviceTokens::new(&Secret::new("another secret of thirty-two byte"));
    assert_eq!(other.verify(&good), Err(TokenError::BadSignature));
}

fn claim_of(jti: &str, expires_at: i64) -> Claims {
    Claims {
        device_id: "d".parse().unwrap(),
        device_type: None,
        expires_at,
        issued_at: None,
        jti: Some(jti.into()),
    }
}

#[test]
fn a_token_is_used_once_until_its_end() {
    let used = UsedTokens::new(10);
    assert_eq!(used.claim(&claim_of("a", 100), 0), Ok(()));
    assert_eq!(used.claim(&claim_of("a", 100), 99), Err(NotClaimed::AlreadyUsed));
    assert_eq!(used.claim(&claim_of("b", 100), 99), Ok(()));
    let without = Claims { jti: None, ..claim_of("", 100) };
    assert_eq!(used.claim(&without, 0), Err(NotClaimed::NoJti));
    // Another token may not borrow the jti, whatever its end.
    assert_eq!(used.claim(&claim_of("a", 200), 99), Err(NotClaimed::AlreadyUsed));
}

#[test]
fn what_is_remembered_is_bounded_and_given_back_at_its_end() {
    let used = UsedTokens::new(2);
    assert_eq!(used.claim(&claim_of("a", 100), 0), Ok(()));
    assert_eq!(used.claim(&claim_of("b", 200), 0), Ok(()));
    assert_eq!(used.claim(&claim_of("c", 300), 0), Err(NotClaimed::Full));
    assert_eq!(used.claim(&claim_of("b", 200), 0), Err(NotClaimed::AlreadyUsed));
    assert_eq!(used.claim(&claim_of("c", 300), 100), Ok(()));
    assert_eq!(used.claim(&claim_of("d", 300), 150), Err(NotClaimed::Full));
}

#[test]
fn of_many_at_once_one_has_it() {
    let used = UsedTokens::new(100);
    let won = std::thread::scope(|s| {
        let tries: Vec<_> = (0..8).map(|_| s.spawn(|| used.claim(&claim_of("a", 100), 0).is_ok())).collect();
        tries.into_iter().filter_map(|t| t.join().ok()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
}
