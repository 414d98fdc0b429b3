//! Who a client is by its certificate.
//!
//! The certificate was verified in the handshake: it is of an authority that `LASTPONG_TLS_CLIENT_CA` lists, for
//! clients, and its key is in the client's hands. What is left is to read which device it names: by its one URI of the
//! form `urn:lastpong:device:ID` (RFC 5280 section 4.2.1.6), or, where it has none of these, by its one common name.
//! Two names are no name, for then which one counts would be the reader's choice.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use crate::ids::DeviceId;

/// What the URI of a device begins with.
const URN: &str = "urn:lastpong:device:";

/// A device that showed a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub device_id: DeviceId,
    /// Seconds since the Unix epoch, from which the certificate is good.
    pub issued_at: i64,
    /// Seconds since the Unix epoch, up to which the certificate is good.
    pub expires_at: i64,
}

/// Why a certificate is not that of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    #[error("the client certificate cannot be read")]
    Malformed,
    #[error(
        "the client certificate names no device: allowed is one URI {URN}DEVICE_ID as subject alternative name, or else \
         one common name that is a device id"
    )]
    NoName,
}

impl Client {
    /// What a verified certificate says.
    ///
    /// # Errors
    /// It is not that of a device.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NoDevice> {
        let certificate = Certificate::from_der(certificate).map_err(|_| NoDevice::Malformed)?;
        let mut names = uris(&certificate)?;
        if names.is_empty() {
            names = common_names(&certificate);
        }
        let [name] = &names[..] else { return Err(NoDevice::NoName) };
        let device_id = name.parse().map_err(|_| NoDevice::NoName)?;
        let (issued_at, expires_at) = (good_from(&certificate), good_until(&certificate));
        Ok(Self { device_id, issued_at, expires_at })
    }
}

/// The first second in which a certificate is good.
fn good_from(certificate: &Certificate) -> i64 {
    seconds(&certificate.tbs_certificate.validity.not_before)
}

/// The last second in which a certificate is good.
pub(super) fn good_until(certificate: &Certificate) -> i64 {
    seconds(&certificate.tbs_certificate.validity.not_after)
}

fn seconds(at: &Time) -> i64 {
    i64::try_from(at.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// The ids that it gives as URIs.
fn uris(certificate: &Certificate) -> Result<Vec<String>, NoDevice> {
    let Some((_, names)) =
        certificate.tbs_certificate.get::<SubjectAltName>().map_err(|_| NoDevice::Malformed)?
    else {
        return Ok(Vec::new());
    };
    let id = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => uri.as_str().strip_prefix(URN).map(str::to_owned),
        _ => None,
    };
    Ok(names.0.iter().filter_map(id).collect())
}

/// Its common names; one in an encoding that is neither of today's two counts as one that is no device's.
fn common_names(certificate: &Certificate) -> Vec<String> {
    let parts = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let names = parts.filter(|part| part.oid == COMMON_NAME);
    let text = |value: &x509_cert::der::Any| {
        let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
    };
    names.map(|part| text(&part.value).unwrap_or_default()).collect()
}
