//! Certificates as people make them, by the command `openssl`, and a client that shows or checks them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::within;

/// Whoever issues certificates.
pub struct Authority {
    dir: TempDir,
}

/// A certificate with its key, as files.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a client does with TLS.
#[derive(Default)]
pub struct Client<'a> {
    pub shows: Option<&'a Issued>,
    /// All that it speaks; any that is known where there is none.
    pub version: Option<&'static SupportedProtocolVersion>,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { dir: tempfile::tempdir().expect("a directory") };
        let made = [
            "-x509",
            "-days",
            "30",
            "-subj",
            "/CN=an authority of the tests",
            "-out",
            "ca.pem",
            "-keyout",
            "ca.key",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ];
        authority.openssl(&[&REQUEST[..], &made].concat());
        authority
    }

    /// Its own certificate.
    pub fn pem(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// For a server on this machine.
    pub fn server(&self, name: &str) -> Issued {
        self.issue(name, name, "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    }

    /// For a client of this common name, and with these other names.
    pub fn client(&self, common_name: &str, others: &str) -> Issued {
        let others = if others.is_empty() { String::new() } else { format!("subjectAltName={others}\n") };
        self.issue("client", common_name, &format!("{others}extendedKeyUsage=clientAuth\n"))
    }

    /// Asks a server of this authority over TLS, and keeps no connection.
    pub fn https(&self) -> reqwest::Client {
        let pem = std::fs::read(self.pem()).expect("a certificate");
        let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]);
        client.build().expect("an HTTP client")
    }

    fn issue(&self, file: &str, common_name: &str, extensions: &str) -> Issued {
        let made = tempfile::Builder::new().prefix(file).tempdir_in(&self.dir).expect("a directory").keep();
        let issued = Issued { cert: made.join("cert.pem"), key: made.join("key.pem") };
        let asked = made.join("asked.pem");
        let usual = "keyUsage=digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
        std::fs::write(made.join("extensions"), format!("{usual}{extensions}")).expect("written");
        let subject = format!("/CN={common_name}");
        let (key, csr, cert) = (text(&issued.key), text(&asked), text(&issued.cert));
        self.openssl(&[&REQUEST[..], &["-subj", &subject, "-keyout", key, "-out", csr]].concat());
        let signed = ["x509", "-req", "-days", "30", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let extensions = made.join("extensions");
        let files = ["-in", csr, "-extfile", text(&extensions), "-out", cert];
        self.openssl(&[&signed[..], &files].concat());
        issued
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.dir).output();
        let output =
            output.unwrap_or_else(|e| panic!("openssl cannot be run: {e} (`scripts/setup` installs it)"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Connects, and holds that the server is one of this authority's.
    pub async fn connect(
        &self,
        to: SocketAddr,
        client: &Client<'_>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await.expect("the server listens");
        self.shake(stream, client).await
    }

    /// The same on a connection that is there already.
    pub async fn shake(
        &self,
        stream: TcpStream,
        client: &Client<'_>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        within("the TLS handshake", self.try_shake(stream, client)).await
    }

    /// The same, for however long it takes.
    pub async fn try_shake(
        &self,
        stream: TcpStream,
        client: &Client<'_>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config(client));
        connector.connect(localhost(), stream).await
    }

    /// What a client says first.
    pub fn hello(&self) -> Vec<u8> {
        let mut client =
            ClientConnection::new(self.config(&Client::default()), localhost()).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("room");
        hello
    }

    fn config(&self, client: &Client<'_>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pem()).expect("a certificate")).expect("an authority");
        let known = [client.version.unwrap_or(&rustls::version::TLS13)];
        let versions = if client.version.is_some() { &known[..] } else { rustls::ALL_VERSIONS };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("known");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match client.shows {
            Some(issued) => {
                let cert = CertificateDer::from_pem_file(&issued.cert).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(&issued.key).expect("a key");
                builder.with_client_auth_cert(vec![cert], key).expect("they fit")
            }
            None => builder.with_no_client_auth(),
        })
    }
}

impl Issued {
    /// The settings of a node that uses it.
    pub fn settings(&self) -> [(&'static str, &str); 2] {
        [("TLS_CERT", text(&self.cert)), ("TLS_KEY", text(&self.key))]
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).expect("a certificate")
    }

    /// Puts the other's files in place of this one's, as who renews a certificate does.
    pub fn replace_by(&self, other: &Issued) {
        for (from, to) in [(&other.key, &self.key), (&other.cert, &self.cert)] {
            let beside = to.with_extension("new");
            std::fs::copy(from, &beside).expect("copied");
            std::fs::rename(&beside, to).expect("renamed");
        }
    }
}

const REQUEST: [&str; 6] = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
