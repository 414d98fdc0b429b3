//! The certificates of now, which change while connections come and go.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::files::{Files, Loaded, TlsError};
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// What handshakes are made with. One for all workers.
pub struct Tls {
    files: Files,
    now: RwLock<Loaded>,
    metrics: Arc<Metrics>,
}

impl Tls {
    /// # Errors
    /// What is wrong with the files.
    pub fn open(files: Files, metrics: Arc<Metrics>) -> Result<Arc<Self>, TlsError> {
        let loaded = files.load(&files.read()?)?;
        let tls = Self { files, now: RwLock::new(loaded), metrics };
        tls.tell();
        Ok(Arc::new(tls))
    }

    /// For the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Takes up what is in the files, if that is another than before. False where it is not.
    ///
    /// # Errors
    /// What is wrong with them; what they held before goes on.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        if self.now.read().unwrap_or_else(PoisonError::into_inner).digest == contents.digest() {
            return Ok(false);
        }
        let loaded = self.files.load(&contents)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.tell();
        Ok(true)
    }

    /// Reloads at each SIGHUP, and when so much time went by.
    ///
    /// # Errors
    /// SIGHUP cannot be caught.
    pub fn follow(self: Arc<Self>, every: Duration) -> std::io::Result<impl Future<Output = ()> + Send> {
        let mut hangups = signal(SignalKind::hangup())?;
        Ok(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failed = None;
            loop {
                let asked = tokio::select! {
                    _ = ticks.tick() => false,
                    _ = hangups.recv() => true,
                };
                let (tls, told) = (self.clone(), failed.take());
                // The files may be on a disk that does not answer.
                let looked = tokio::task::spawn_blocking(move || tls.look(asked, told)).await;
                failed = looked.unwrap_or_else(|panicked| {
                    log::error!(error:% = panicked; "the certificates could not be looked at");
                    None
                });
            }
        })
    }

    /// Once. A failure that was told of is told again only to who asks.
    fn look(&self, asked: bool, told: Option<String>) -> Option<String> {
        match self.reload() {
            Ok(false) => None,
            Ok(true) => {
                self.metrics.tls.reloads.with_label_values(&["loaded"]).inc();
                log::info!("the certificates were read anew: new connections get them");
                None
            }
            Err(error) => {
                self.metrics.tls.reloads.with_label_values(&["failed"]).inc();
                let error = error.to_string();
                if asked || told.as_ref() != Some(&error) {
                    log::error!("the certificates could not be read anew, those from before go on: {error}");
                }
                Some(error)
            }
        }
    }

    fn tell(&self) {
        let good_until = self.now.read().unwrap_or_else(PoisonError::into_inner).good_until;
        self.metrics.tls.good_until.set(good_until);
        if good_until < Timestamp::now().0 / 1_000_000 {
            log::warn!("the certificate of LASTPONG_TLS_CERT is no longer good: clients will refuse it");
        }
    }
}
