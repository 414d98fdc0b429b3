//! The files that TLS is set up from: what is in them, and what rustls makes of that.
//!
//! Nothing is taken of files that do not fit each other, and a key that everyone may read is refused, for it may be known.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::client::good_until;
use crate::config::{Settings, TlsClients};

const CERT: &str = "LASTPONG_TLS_CERT";
const KEY: &str = "LASTPONG_TLS_KEY";
const CLIENT_CA: &str = "LASTPONG_TLS_CLIENT_CA";

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whose certificates clients may show; none where they are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Nobody comes in without one.
    pub clients_must: bool,
}

/// Why TLS cannot be set up. Names the setting and the file, and nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{setting}: {}: {error}", path.display())]
    Unreadable { setting: &'static str, path: PathBuf, error: io::Error },
    #[error("{setting}: {}: {problem}; allowed is {allowed}", path.display())]
    Unusable { setting: &'static str, path: PathBuf, problem: &'static str, allowed: &'static str },
    #[error("{CERT} and {KEY}: {0}")]
    Unfit(rustls::Error),
    #[error("{CLIENT_CA}: {}: {problem}", path.display())]
    Authorities { path: PathBuf, problem: String },
}

/// What the files came to.
pub(super) struct Loaded {
    pub config: Arc<ServerConfig>,
    /// Of what was in them; two that are alike need no reload.
    pub digest: [u8; 32],
    /// Seconds since the Unix epoch, up to which the certificate is good.
    pub good_until: i64,
}

/// What is in the files.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    /// None where the settings ask for no TLS.
    pub fn of(settings: &Settings) -> Option<Self> {
        let (cert, key) = settings.tls_cert.clone().zip(settings.tls_key.clone())?;
        let clients_must = settings.tls_clients == TlsClients::All;
        Some(Self { cert, key, client_ca: settings.tls_client_ca.clone(), clients_must })
    }

    /// # Errors
    /// What is wrong with them now.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load(&self.read()?).map(drop)
    }

    /// # Errors
    /// The first file that cannot be read.
    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        let mode = std::fs::metadata(&self.key)
            .map_err(|error| unreadable(KEY, &self.key, error))?
            .permissions()
            .mode();
        if mode & 0o007 != 0 {
            let problem = "everyone on this machine may use it";
            return Err(unusable(KEY, &self.key, problem, "a file of mode 0600, 0400, 0640 or 0440"));
        }
        Ok(Contents {
            cert: read(CERT, &self.cert)?,
            key: read(KEY, &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read(CLIENT_CA, path)).transpose()?,
        })
    }

    /// # Errors
    /// What does not hold together.
    pub(super) fn load(&self, contents: &Contents) -> Result<Loaded, TlsError> {
        let chain = certificates(CERT, &self.cert, &contents.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            unusable(
                KEY,
                &self.key,
                "it has no private key",
                "PEM: PKCS#8, PKCS#1 or SEC1, without a passphrase",
            )
        })?;
        let good_until = Certificate::from_der(&chain[0]).map(|first| good_until(&first)).map_err(|_| {
            unusable(
                CERT,
                &self.cert,
                "its first certificate cannot be read",
                "X.509, the server's own first",
            )
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Unfit)?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let authorities = |problem: String| TlsError::Authorities { path: path.clone(), problem };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(CLIENT_CA, path, pem)? {
                    roots.add(certificate).map_err(|error| authorities(error.to_string()))?;
                }
                let mut clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                if !self.clients_must {
                    clients = clients.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(
                    clients.build().map_err(|error| authorities(error.to_string()))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Unfit)?;
        // Devices that all return at once are spared the costly half. The keys of tickets are made anew with each
        // reload, so that nobody comes in by what he showed to another certificate, or for an authority that is gone.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unfit)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Loaded { config: Arc::new(config), digest: contents.digest(), good_until })
    }
}

impl Contents {
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.cert, &self.key, self.client_ca.as_ref().unwrap_or(&Vec::new())] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(setting, path, error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unusable(setting, path, "it is too large", "at most 1 MiB"));
    }
    Ok(bytes)
}

/// At least one.
fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    if found.is_empty() {
        return Err(unusable(setting, path, "it has no certificate", "certificates in PEM"));
    }
    Ok(found)
}

fn unreadable(setting: &'static str, path: &Path, error: io::Error) -> TlsError {
    TlsError::Unreadable { setting, path: path.to_owned(), error }
}

fn unusable(setting: &'static str, path: &Path, problem: &'static str, allowed: &'static str) -> TlsError {
    TlsError::Unusable { setting, path: path.to_owned(), problem, allowed }
}
