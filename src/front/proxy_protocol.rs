//! The PROXY protocol, version 2, as a proxy begins a connection with it (haproxy's proxy-protocol.txt, section 2.2).
//!
//! What else the header may hold is passed over. Left out on purpose: version 1, which is text that anyone types, and
//! UDP and Unix sockets, for which the address of the proxy stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read.
pub const MOST: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;

/// A header.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// None where the proxy speaks for itself, or says nothing of whom it speaks for.
    pub client: Option<SocketAddr>,
    /// Of the header, in bytes.
    pub length: usize,
}

/// It is no header, or one that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad;

/// None where more has to come.
///
/// # Errors
/// What is there is no header.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    let there = bytes.len().min(SIGNATURE.len());
    if bytes[..there] != SIGNATURE[..there] {
        return Err(Bad);
    }
    let [.., version_command, family, high, low] = *bytes.get(..FIXED).unwrap_or_default() else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || length > MOST {
        return Err(Bad);
    }
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(None) };
    let client = match (version_command & 0x0f, family) {
        (0, _) => None,
        (1, 0x11) => Some(v4(rest).ok_or(Bad)?),
        (1, 0x21) => Some(v6(rest).ok_or(Bad)?),
        (1, _) => None,
        _ => return Err(Bad),
    };
    Ok(Some(Header { client, length }))
}

/// Source and destination address, source and destination port.
fn v4(rest: &[u8]) -> Option<SocketAddr> {
    let (address, port) = (rest.first_chunk::<4>()?, rest.get(8..10)?);
    rest.get(..12)?;
    Some(socket(Ipv4Addr::from(*address).into(), port))
}

fn v6(rest: &[u8]) -> Option<SocketAddr> {
    let (address, port) = (rest.first_chunk::<16>()?, rest.get(32..34)?);
    rest.get(..36)?;
    Some(socket(Ipv6Addr::from(*address).into(), port))
}

fn socket(address: IpAddr, port: &[u8]) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port.iter().fold(0, |port, byte| port << 8 | u16::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn the_client_is_found_whatever_else_is_told() {
        let mut rest = vec![192, 0, 2, 7, 10, 0, 0, 1];
        rest.extend(4711_u16.to_be_bytes());
        rest.extend(443_u16.to_be_bytes());
        rest.extend([0x20, 0, 1, 9]);
        let bytes = header(0x21, 0x11, &rest);
        let client = Some("192.0.2.7:4711".parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Some(Header { client, length: bytes.len() })));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        let followed = [&bytes[..], b"GET / HTTP/1.1"].concat();
        assert_eq!(parse(&followed).unwrap().unwrap().length, bytes.len());
        let mut rest = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        rest.extend([0; 16]);
        rest.extend([0x12, 0x34, 0, 80]);
        let parsed = parse(&header(0x21, 0x21, &rest)).unwrap().unwrap();
        assert_eq!(parsed.client, Some("[2001:db8::7]:4660".parse().unwrap()));
    }

    #[test]
    fn a_proxy_may_speak_for_itself_and_nobody_else_passes() {
        assert_eq!(parse(&header(0x20, 0, &[])), Ok(Some(Header { client: None, length: 16 })));
        assert_eq!(parse(&header(0x21, 0x31, &[0; 216])).unwrap().unwrap().client, None);
        assert_eq!(parse(&header(0x11, 0x11, &[0; 12])), Err(Bad), "another version");
        assert_eq!(parse(&header(0x22, 0x11, &[0; 12])), Err(Bad), "another command");
        assert_eq!(parse(&header(0x21, 0x11, &[0; 11])), Err(Bad), "too short for its family");
        assert_eq!(parse(&header(0x21, 0x11, &[0; 5000])), Err(Bad), "too long");
        assert_eq!(parse(b"GET /ws HTTP/1.1\r\n"), Err(Bad));
        assert_eq!(parse(b"PROXY TCP4 1.2.3.4"), Err(Bad));
        assert_eq!(parse(b""), Ok(None));
    }
}
