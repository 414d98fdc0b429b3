//! Users, and the logins that hang on their passwords.

use super::*;
use crate::ids::UserName;
use crate::role::Role;
use crate::store::users::{Credential, Login, LoginKind, NewLogin, Password, TokenHash, User};

fn name(text: &str) -> UserName {
    text.parse().expect("a user's name")
}

fn password(hash: &str) -> Password {
    Password { hash: Secret::new(hash), credential: Credential::new() }
}

fn user(text: &str, role: Role) -> User {
    User { name: name(text), role, password: password("$h$1"), created_at: at(1), changed_at: at(1) }
}

fn login(token: u8, of: &User, opened: i64) -> NewLogin {
    let credential = of.password.credential;
    let token = TokenHash([token; 32]);
    NewLogin { token, credential, kind: LoginKind::Cookie, at: at(opened), expires_at: at(opened + 100) }
}

pub fn users_come_and_go<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        assert!(store.users().await.unwrap().is_empty());
        assert!(store.add_user(user("zoe", Role::Reader)).await.unwrap());
        assert!(store.add_user(user("Ada@home", Role::Admin)).await.unwrap());
        assert!(!store.add_user(user("zoe", Role::Admin)).await.unwrap(), "a name was taken twice");
        let all = store.users().await.unwrap();
        assert_eq!(all.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["Ada@home", "zoe"]);
        let zoe = store.user(&name("zoe")).await.unwrap().unwrap();
        assert_eq!((zoe.role, zoe.created_at, zoe.changed_at), (Role::Reader, at(1), at(1)));
        assert!(store.user(&name("ada@home")).await.unwrap().is_none(), "names are told apart by case");

        let new = password("$h$2");
        let credential = new.credential;
        assert!(store.set_password(&name("zoe"), new, at(2)).await.unwrap());
        let zoe = store.user(&name("zoe")).await.unwrap().unwrap();
        assert_eq!((zoe.password.hash.expose(), zoe.password.credential), ("$h$2", credential));
        assert_eq!((zoe.created_at, zoe.changed_at), (at(1), at(2)));
        assert!(!store.set_password(&name("nobody"), password("$h$3"), at(3)).await.unwrap());
        assert!(store.remove_user(&name("zoe")).await.unwrap());
        assert!(!store.remove_user(&name("zoe")).await.unwrap());
        store.close().await;
    });
    block_on(async {
        let store = bench.open();
        assert_eq!(store.users().await.unwrap().len(), 1, "users are kept");
        store.close().await;
    });
}

pub fn a_login_lasts_as_long_as_its_password<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let (ada, zoe) = (user("ada", Role::Admin), user("zoe", Role::Reader));
        store.add_user(ada.clone()).await.unwrap();
        store.add_user(zoe.clone()).await.unwrap();
        let (first, second) = (login(1, &ada, 10), login(2, &zoe, 10));
        store.open_login(first).await.unwrap();
        store.open_login(second).await.unwrap();
        let found = store.login(first.token).await.unwrap();
        let (kind, used_at, expires_at) = (LoginKind::Cookie, at(10), at(110));
        let expected = Login { user: name("ada"), role: Role::Admin, kind, used_at, expires_at };
        assert_eq!(found, Some(expected));
        assert_eq!(store.login(TokenHash([3; 32])).await.unwrap(), None);
        store.touch_login(first.token, at(70)).await.unwrap();
        assert_eq!(store.login(first.token).await.unwrap().unwrap().used_at, at(70));

        store.set_password(&name("ada"), password("$h$2"), at(80)).await.unwrap();
        assert_eq!(store.login(first.token).await.unwrap(), None, "it outlived its password");
        // One that was checked against the old password just before.
        store.open_login(first).await.unwrap();
        assert_eq!(store.login(first.token).await.unwrap(), None, "the old password still opens");

        store.remove_user(&name("zoe")).await.unwrap();
        assert_eq!(store.login(second.token).await.unwrap(), None, "it outlived its user");
        store.add_user(user("zoe", Role::Admin)).await.unwrap();
        assert_eq!(store.login(second.token).await.unwrap(), None, "another of the same name has it");
        store.close().await;
    });
}

pub fn logins_end_and_are_bounded<B: Bench>() {
    let bench = B::new();
    block_on(async {
        let store = bench.open();
        let ada = user("ada", Role::Admin);
        store.add_user(ada.clone()).await.unwrap();
        for n in 0..=101 {
            store.open_login(login(n, &ada, i64::from(n))).await.unwrap();
        }
        for (n, there) in [(0, false), (1, false), (2, true), (101, true)] {
            let found = store.login(TokenHash([n; 32])).await.unwrap();
            assert_eq!(found.is_some(), there, "login {n} of 102");
        }
        store.end_login(TokenHash([101; 32])).await.unwrap();
        store.end_login(TokenHash([101; 32])).await.unwrap();
        assert_eq!(store.login(TokenHash([101; 32])).await.unwrap(), None);
        // The next that is opened sweeps out what is over.
        store.open_login(login(200, &ada, 150)).await.unwrap();
        assert_eq!(store.login(TokenHash([49; 32])).await.unwrap(), None);
        assert!(store.login(TokenHash([50; 32])).await.unwrap().is_some());
        store.close().await;
    });
}
