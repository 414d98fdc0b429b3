//! What device tokens are verified with, and what remembers which were used.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Handle;

use crate::config::{Database, Settings, TokenReplay};
use crate::session::once::Once;
use crate::store::live::Live;
use crate::token::DeviceTokens;
use crate::token::keys::KeyFile;

/// What this node verifies tokens with.
pub(super) struct Tokens {
    pub verifier: DeviceTokens,
    keys: Option<Arc<KeyFile>>,
}

impl Tokens {
    /// # Errors
    /// The secret or the keys cannot be read.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let (secret, _) = settings.token_secret()?;
        let verifier = DeviceTokens::new(&secret).for_audience(settings.token_audience.as_deref());
        let Some(path) = &settings.token_keys else { return Ok(Self { verifier, keys: None }) };
        let keys = KeyFile::open(path).with_context(|| format!("LASTPONG_TOKEN_KEYS={}", path.display()))?;
        let keys = Arc::new(keys);
        Ok(Self { verifier: verifier.with_keys(keys.clone(), settings.token_hs256), keys: Some(keys) })
    }

    /// Has the keys come and go with their file.
    pub fn follow(&self, aside: &Handle) {
        if let Some(keys) = &self.keys {
            aside.spawn(keys.clone().follow());
        }
    }
}

/// What remembers which tokens were used, where each opens one session only.
pub(super) fn once(settings: &Settings, live: Option<&Live>, aside: &Handle) -> Option<Arc<Once>> {
    if settings.token_replay != TokenReplay::Once {
        return None;
    }
    let redis = live.and_then(Live::link).cloned();
    if redis.is_none() && matches!(settings.database(), Database::Postgres(_)) {
        log::warn!(
            "LASTPONG_TOKEN_REPLAY=once without REDIS_URL: each node knows only which tokens were used at it"
        );
    }
    let once = Arc::new(Once::new(redis, settings.token_replay_away, aside.clone()));
    let telling = once.clone();
    aside.spawn(async move { telling.keep_telling().await });
    Some(once)
}
