//! Logins that this node has seen to be good, for the time in which the record cannot be asked.
//!
//! Whoever looks after devices needs to look most while the store is away. What was good a short while ago is then
//! good enough to look, never to act: it might have been ended meanwhile, elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use crate::store::users::{Login, TokenHash};
use crate::time::Mono;

/// How long one is good for.
const GOOD_FOR: Duration = Duration::from_secs(15 * 60);
const MOST: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Seen {
    logins: HashMap<TokenHash, (Login, Mono)>,
}

impl Seen {
    pub(super) fn note(&mut self, token: TokenHash, login: Login, now: Mono) {
        if self.logins.len() >= MOST && !self.logins.contains_key(&token) {
            self.logins.retain(|_, (_, at)| now.since(*at) < GOOD_FOR);
            if self.logins.len() >= MOST
                && let Some(oldest) = self.logins.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key)
            {
                self.logins.remove(&oldest);
            }
        }
        self.logins.insert(token, (login, now));
    }

    pub(super) fn forget(&mut self, token: TokenHash) {
        self.logins.remove(&token);
    }

    pub(super) fn find(&self, token: TokenHash, now: Mono) -> Option<Login> {
        let (login, at) = self.logins.get(&token)?;
        (now.since(*at) < GOOD_FOR).then(|| login.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;
    use crate::store::users::LoginKind;
    use crate::time::Timestamp;

    fn login() -> Login {
        let (used_at, expires_at) = (Timestamp(0), Timestamp(0));
        let user = "ada".parse().unwrap();
        Login { user, role: Role::Admin, kind: LoginKind::Cookie, used_at, expires_at }
    }

    #[test]
    fn it_is_good_for_a_while() {
        let mut seen = Seen::default();
        let (token, now) = (TokenHash([1; 32]), Mono(7));
        assert_eq!(seen.find(token, now), None);
        seen.note(token, login(), now);
        assert_eq!(seen.find(token, now), Some(login()));
        assert_eq!(seen.find(token, now + GOOD_FOR), None);
        seen.forget(token);
        assert_eq!(seen.find(token, now), None);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut seen = Seen::default();
        let token = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            TokenHash(bytes)
        };
        for n in 0..2 * MOST as u32 {
            seen.note(token(n), login(), Mono(u64::from(n)));
        }
        assert_eq!(seen.logins.len(), MOST);
        assert_eq!(seen.find(token(0), Mono(0)), None);
        assert!(seen.find(token(2 * MOST as u32 - 1), Mono(2_000)).is_some());
    }
}
