//! Keys by name: what signs for whom, what a set may hold, and what becomes of a file that changes.

#[path = "../../tests/support/minter.rs"]
mod minter;

use jsonwebtoken::{EncodingKey, Header};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::*;
use crate::secret::Secret;
use crate::token::{DeviceTokens, TokenError};
use minter::{Minter, forged, mutated, set};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// How often a token is changed and tried.
const TRIES: usize = 10_000;

struct World {
    dir: tempfile::TempDir,
    file: Arc<KeyFile>,
    ed: Minter,
    ec: Minter,
}

impl World {
    fn new() -> Self {
        let (ed, ec) = (Minter::eddsa("eddsa-1"), Minter::es256("es256-1"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        std::fs::write(&path, set(&[&ed, &ec])).unwrap();
        Self { file: Arc::new(KeyFile::open(&path).unwrap()), dir, ed, ec }
    }

    fn write(&self, text: &str) {
        std::fs::write(self.dir.path().join("keys.json"), text).unwrap();
        self.file.look();
    }

    fn tokens(&self, of_secret: bool) -> DeviceTokens {
        DeviceTokens::new(&Secret::new(SECRET)).with_keys(self.file.clone(), of_secret)
    }
}

fn claims() -> Value {
    json!({"sub": "d", "exp": jiff::Timestamp::now().as_second() + 600, "jti": "j"})
}

/// Signed by HS256 with these bytes, under this `kid`.
fn shared(secret: &[u8], kid: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
}

#[test]
fn each_key_signs_by_its_own_algorithm_under_its_own_name() {
    let world = World::new();
    for minter in [&world.ed, &world.ec] {
        let token = minter.mint(&claims());
        for of_secret in [true, false] {
            let good = world.tokens(of_secret).verify(&token).unwrap();
            assert_eq!((good.device_id.as_str(), good.jti.as_deref()), ("d", Some("j")));
        }
    }
    let (both, keys_only) = (world.tokens(true), world.tokens(false));
    assert!(both.verify(&shared(SECRET.as_bytes(), None)).is_ok());
    assert_eq!(keys_only.verify(&shared(SECRET.as_bytes(), None)), Err(TokenError::NoKey));

    // The name of another key, of none, or no name.
    let under = |minter: &Minter, kid: Option<&str>| {
        let mut header = Header::new(minter.algorithm);
        header.kid = kid.map(str::to_owned);
        minter.mint_under(&header, &claims())
    };
    assert_eq!(both.verify(&under(&world.ed, Some("es256-1"))), Err(TokenError::Malformed));
    assert_eq!(both.verify(&under(&Minter::eddsa("x"), Some("eddsa-1"))), Err(TokenError::BadSignature));
    assert_eq!(both.verify(&under(&world.ed, None)), Err(TokenError::Malformed));
    for kid in ["", "eddsa-2", "../../etc/passwd", "/dev/null", "' OR 1=1 --", "eddsa-1\0"] {
        assert_eq!(both.verify(&under(&world.ed, Some(kid))), Err(TokenError::UnknownKey), "{kid}");
        assert_eq!(both.verify(&shared(SECRET.as_bytes(), Some(kid))), Err(TokenError::UnknownKey), "{kid}");
    }
}

#[test]
fn a_public_key_is_no_secret_and_no_header_brings_a_key_along() {
    let world = World::new();
    let tokens = world.tokens(true);
    // HS256 keyed by what everybody knows: the raw key, or how it is written.
    for minter in [&world.ed, &world.ec] {
        let jwk = minter.jwk().to_string();
        for secret in [&minter.public[..], jwk.as_bytes(), b""] {
            assert_eq!(tokens.verify(&shared(secret, Some(&minter.kid))), Err(TokenError::Malformed));
            assert_eq!(tokens.verify(&shared(secret, None)), Err(TokenError::BadSignature));
        }
    }
    // A header with a key of its own, or with the address of one.
    let stranger = Minter::eddsa("stranger");
    for extra in [
        json!({"jwk": stranger.jwk()}),
        json!({"jku": "http://127.0.0.1:1/keys"}),
        json!({"x5u": "http://127.0.0.1:1/cert"}),
    ] {
        for kid in [Some("eddsa-1"), Some("stranger"), None] {
            let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
            header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            if kid.is_none() {
                header.as_object_mut().unwrap().remove("kid");
            }
            let Ok(header) = serde_json::from_value::<Header>(header) else { panic!("a header") };
            assert!(tokens.verify(&stranger.mint_under(&header, &claims())).is_err(), "{header:?}");
        }
    }
    // What has to be understood is not; and nobody signed these.
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("eddsa-1".into());
    header.crit = Some(vec!["b64".into()]);
    assert_eq!(tokens.verify(&world.ed.mint_under(&header, &claims())), Err(TokenError::Malformed));
    for alg in ["none", "None", "nOnE", "", "HS256", "HS384", "RS256", "ES384", "PS512"] {
        for kid in ["eddsa-1", "es256-1"] {
            for signature in ["", "AAAA", world.ed.mint(&claims()).rsplit('.').next().unwrap()] {
                let token = forged(&json!({"alg": alg, "kid": kid}), &claims(), signature);
                assert_eq!(tokens.verify(&token), Err(TokenError::Malformed), "{alg} {kid}");
            }
        }
    }
}

#[test]
fn no_changed_token_is_let_through() {
    let world = World::new();
    let tokens = world.tokens(true);
    let own = tokens.mint(&"d".parse().unwrap(), None, Duration::from_secs(600)).token.expose().to_owned();
    let good = [own, world.ed.mint(&claims()), world.ec.mint(&claims())];
    good.iter().for_each(|token| assert!(tokens.verify(token).is_ok()));
    // Of others, whose parts are as well formed.
    let stranger = Minter::eddsa("eddsa-1");
    let mut others = vec![
        stranger.mint(&json!({"sub": "mallory", "exp": 4_000_000_000u64})),
        Minter::es256("es256-1").mint(&json!({"sub": "mallory", "exp": 4_000_000_000u64})),
        shared(b"another secret of thirty-two byte", None),
    ];
    others.extend(good.iter().cloned());
    let seed = rand::random();
    let mut rng = SmallRng::seed_from_u64(seed);
    for n in 0..TRIES {
        let changed = mutated(&mut rng, &good[n % good.len()], &others);
        assert!(tokens.verify(&changed).is_err(), "seed {seed}, try {n}: {changed}");
    }
}

#[test]
fn keys_come_and_go_with_their_file() {
    let world = World::new();
    let tokens = world.tokens(false);
    let next = Minter::eddsa("eddsa-2");
    let (old, new) = (world.ed.mint(&claims()), next.mint(&claims()));
    assert_eq!(tokens.verify(&new), Err(TokenError::UnknownKey));
    world.write(&set(&[&world.ed, &next]));
    assert!(tokens.verify(&old).is_ok() && tokens.verify(&new).is_ok(), "while both are there");
    world.write(&set(&[&next]));
    assert_eq!(tokens.verify(&old), Err(TokenError::UnknownKey));
    assert!(tokens.verify(&new).is_ok());

    // What cannot be read changes nothing, and what can be read again does.
    for bad in ["", "{", r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#] {
        world.write(bad);
        assert!(tokens.verify(&new).is_ok(), "{bad}");
    }
    std::fs::remove_file(world.dir.path().join("keys.json")).unwrap();
    world.file.look();
    assert!(tokens.verify(&new).is_ok());
    world.write(r#"{"keys":[]}"#);
    assert!(world.file.is_empty());
    assert_eq!(tokens.verify(&new), Err(TokenError::UnknownKey));
}

#[test]
fn a_bad_key_is_told_by_its_number() {
    let (ed, ec) = (Minter::eddsa("a").jwk(), Minter::es256("b").jwk());
    let with = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    for (jwk, why) in [
        (with(&ed, "d", json!("AAAA")), "private"),
        (json!({"kty": "oct", "kid": "k", "k": "AAAA"}), "private"),
        (with(&ed, "kid", Value::Null), "kid"),
        (with(&ed, "kid", json!("")), "kid"),
        (with(&ed, "kid", json!("k".repeat(129))), "kid"),
        (with(&ed, "use", json!("enc")), "use"),
        (with(&ed, "alg", json!("HS256")), "alg"),
        (with(&ec, "alg", json!("EdDSA")), "alg"),
        (with(&ed, "crv", json!("X25519")), "neither"),
        (with(&ec, "crv", json!("P-384")), "neither"),
        (json!({"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"}), "neither"),
        (with(&ed, "x", json!("AAAA")), "32 bytes"),
        (with(&ec, "y", json!("AAAA")), "32 bytes"),
        (with(&ed, "x", json!("+/==")), "base64url"),
        (with(&ec, "kid", json!("a")), "same kid"),
    ] {
        let text = json!({"keys": [ed, jwk]}).to_string();
        let error = parse(text.as_bytes()).expect_err(&text).to_string();
        assert!(error.starts_with("key 2: ") && error.contains(why), "{error}: {text}");
    }
    let many: Vec<Value> = (0..=MAX_KEYS).map(|n| with(&ed, "kid", json!(n.to_string()))).collect();
    assert!(matches!(parse(json!({"keys": many}).to_string().as_bytes()), Err(KeysError::TooMany(_))));
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(KeyFile::open(dir.path()), Err(KeysError::File(_))), "a folder");
    assert!(matches!(KeyFile::open(&dir.path().join("none")), Err(KeysError::File(_))));
    let long = dir.path().join("long");
    std::fs::write(&long, vec![b' '; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert!(matches!(KeyFile::open(&long), Err(KeysError::TooLong)));
}
