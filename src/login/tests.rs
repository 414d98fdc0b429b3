//! Logins over a real SQLite record.

use tempfile::TempDir;

use super::*;
use crate::store::users::{Credential, Password};

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const PASSWORD: &str = "correct horse battery";

struct House {
    logins: Arc<Logins>,
    store: Store,
    metrics: Arc<Metrics>,
    _dir: TempDir,
}

async fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lastpong.db");
    let opened = tokio::task::spawn_blocking(move || {
        let hash = password::hash(&Secret::new(PASSWORD)).unwrap();
        (Store::open_sqlite(&path).unwrap(), hash)
    });
    let (store, hash) = opened.await.unwrap();
    let (at, password) = (Timestamp::now(), Password { hash, credential: Credential::new() });
    let name = "ada".parse().unwrap();
    let user = User { name, role: Role::Reader, password, created_at: at, changed_at: at };
    assert!(store.add_user(user).await.unwrap());
    let metrics = Arc::new(Metrics::new());
    House { logins: Arc::new(Logins::new(store.clone(), metrics.clone())), store, metrics, _dir: dir }
}

impl House {
    async fn attempt(&self, name: &str, password: &str) -> Result<Opened, Refused> {
        self.logins.attempt(name, Secret::new(password), FROM, LoginKind::Cookie).await
    }

    async fn recognised(&self, token: &Secret, kind: LoginKind) -> bool {
        self.logins.recognise(token, kind, true).await.unwrap().is_some()
    }

    /// As if it had been used, and were to end, at these times.
    async fn kept(&self, kind: LoginKind, used: Timestamp, expires_at: Timestamp) -> Secret {
        let user = self.store.user(&"ada".parse().unwrap()).await.unwrap().unwrap();
        let (token, hash) = token::new();
        let credential = user.password.credential;
        self.store
            .open_login(NewLogin { token: hash, credential, kind, at: used, expires_at })
            .await
            .unwrap();
        token
    }
}

#[tokio::test]
async fn a_login_is_recognised_in_its_own_way_until_it_is_ended() {
    let house = house().await;
    let opened = house.attempt("ada", PASSWORD).await.unwrap();
    assert_eq!((opened.user.as_str(), opened.role), ("ada", Role::Reader));
    assert!(house.recognised(&opened.token, LoginKind::Cookie).await);
    assert!(!house.recognised(&opened.token, LoginKind::Bearer).await, "a cookie is no bearer's token");
    assert!(house.recognised(&opened.token, LoginKind::Cookie).await);
    house.logins.end(&opened.token).await.unwrap();
    assert!(!house.recognised(&opened.token, LoginKind::Cookie).await);
    for (name, password) in [("ada", "wrong"), ("nobody", PASSWORD), ("no name", PASSWORD), ("", "")] {
        assert!(matches!(house.attempt(name, password).await, Err(Refused::Wrong)), "{name:?}");
    }
}

#[tokio::test]
async fn it_is_over_when_its_time_is() {
    let house = house().await;
    let now = Timestamp::now();
    let (later, hour) = (now.saturating_add(COOKIE_LASTS), Duration::from_secs(3_700));
    for (kind, used, expires, good) in [
        (LoginKind::Cookie, now, later, true),
        (LoginKind::Cookie, now, now, false),
        (LoginKind::Cookie, now.saturating_sub(hour), later, false),
        (LoginKind::Bearer, now.saturating_sub(hour), later, true),
        (LoginKind::Bearer, now, now, false),
    ] {
        let token = house.kept(kind, used, expires).await;
        assert_eq!(house.recognised(&token, kind).await, good, "{kind:?} {used} {expires}");
    }
}

#[tokio::test]
async fn its_use_is_noted() {
    let house = house().await;
    let now = Timestamp::now();
    let before = now.saturating_sub(Duration::from_secs(1_800));
    let token = house.kept(LoginKind::Cookie, before, now.saturating_add(COOKIE_LASTS)).await;
    assert!(house.recognised(&token, LoginKind::Cookie).await);
    // The writer takes one job after the other, and the note was given to it first or is still to be.
    let hash = token::hash(token.expose()).unwrap();
    while house.store.login(hash).await.unwrap().unwrap().used_at < now {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_the_record_who_was_seen_may_look_and_not_act() {
    let house = house().await;
    let (seen, unseen) =
        (house.attempt("ada", PASSWORD).await.unwrap(), house.attempt("ada", PASSWORD).await.unwrap());
    assert!(house.recognised(&seen.token, LoginKind::Cookie).await);
    // No reader answers any more.
    let _held = house.logins.asking.acquire_many(ASKING as u32).await.unwrap();
    let ask = |token, acts| house.logins.recognise(token, LoginKind::Cookie, acts);
    let (looks, acts, stranger) =
        tokio::join!(ask(&seen.token, false), ask(&seen.token, true), ask(&unseen.token, false));
    assert!(looks.unwrap().is_some());
    assert!(acts.is_err() && stranger.is_err());
    assert!(ask(&Secret::new("nonsense"), true).await.unwrap().is_none());
}

#[tokio::test]
async fn a_name_that_is_not_there_takes_as_long_as_one_that_is() {
    let house = house().await;
    let mut spent = [Duration::ZERO; 2];
    for _ in 0..4 {
        for (name, spent) in ["ada", "nobody"].into_iter().zip(&mut spent) {
            let begun = std::time::Instant::now();
            assert!(matches!(house.attempt(name, "a wrong password").await, Err(Refused::Wrong)));
            *spent += begun.elapsed();
        }
    }
    // Without the work it would be a hundredth.
    assert!(spent[1] > spent[0] / 4, "{spent:?}");
}

#[tokio::test]
async fn guessing_is_held_up_and_knowing_is_not() {
    let house = house().await;
    for _ in 0..30 {
        house.attempt("ada", PASSWORD).await.unwrap();
    }
    let mut wrong = 0;
    let retry_after = loop {
        match house.attempt("ada", "a wrong password").await {
            Err(Refused::Wrong) => wrong += 1,
            Err(Refused::TooMany { retry_after }) => break retry_after,
            other => panic!("{other:?}"),
        }
        assert!(wrong < 100, "nobody is held up");
    };
    assert!(wrong >= 10 && retry_after <= Duration::from_secs(10), "{wrong} {retry_after:?}");
    assert!(matches!(house.attempt("ada", PASSWORD).await, Err(Refused::TooMany { .. })));
}

#[tokio::test]
async fn a_flood_is_told_to_come_back() {
    let house = house().await;
    let tries: Vec<_> = (0..200)
        .map(|n| {
            let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
            let logins = house.logins.clone();
            let name = format!("user-{n}");
            tokio::spawn(async move {
                logins.attempt(&name, Secret::new("some password"), from, LoginKind::Cookie).await
            })
        })
        .collect();
    let (mut wrong, mut busy) = (0, 0);
    for one in tries {
        match one.await.unwrap() {
            Err(Refused::Wrong) => wrong += 1,
            Err(Refused::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(wrong >= 30 && busy > 0, "{wrong} were checked, {busy} told to come back");
    let counted = house.metrics.queue_refused.with_label_values(&["logins"]).get();
    assert_eq!(counted, busy, "what a queue refuses is counted");
}
