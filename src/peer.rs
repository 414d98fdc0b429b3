//! Who is at the other end, where a proxy stands between.
//!
//! - What a proxy says of its client is believed of those that `LASTPONG_TRUSTED_PROXIES` lists and of no other, for
//!   anyone can write it: `X-Forwarded-For` or, by `LASTPONG_FORWARDED_BY`, `Forwarded` (RFC 7239), one of the two, since
//!   the proxy passes on untouched whichever it does not know.
//! - The address is the last one in the list that is no such proxy's, because each proxy adds whom it has seen at
//!   the end. An entry that is no address ends the list: what stands before it was vouched for by nobody.
//! - Every limit, ban, record and log line goes by this address, and by no other.
//!
//! Left out on purpose: names. An entry `unknown` or `_hidden` (RFC 7239 section 6.3) stands for the proxy that wrote it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_http::RequestHead;
use actix_http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

use crate::config::{ForwardedBy, Settings};

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    by: ForwardedBy,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The port is 0 where a proxy does not tell it.
    pub addr: SocketAddr,
    /// He speaks TLS, to a proxy.
    pub tls: bool,
}

impl Proxies {
    pub fn of(settings: &Settings) -> Self {
        Self { trusted: settings.trusted_proxies.clone(), by: settings.forwarded_by }
    }

    /// `None` where the connection has no address, as in tests.
    pub fn peer(&self, head: &RequestHead) -> Option<Peer> {
        Some(self.behind(head.peer_addr?, head.headers()))
    }

    /// One that this network has an address in common with.
    pub fn within(&self, network: &IpNet) -> Option<&IpNet> {
        self.trusted.iter().find(|proxies| network.contains(*proxies) || proxies.contains(network))
    }

    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    fn behind(&self, socket: SocketAddr, headers: &HeaderMap) -> Peer {
        let mut addr = SocketAddr::new(socket.ip().to_canonical(), socket.port());
        if !self.trusts(addr.ip()) {
            return Peer { addr, tls: false };
        }
        let (hops, proto) = match self.by {
            ForwardedBy::XForwardedFor => x_forwarded(headers),
            ForwardedBy::Forwarded => forwarded(headers),
        };
        for said in hops.into_iter().rev() {
            let Some(before) = said.and_then(address) else { break };
            addr = before;
            if !self.trusts(addr.ip()) {
                break;
            }
        }
        Peer { addr, tls: proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https")) }
    }
}

/// Whom an address stands for: one of IPv6 for its /64, which is what one subscriber has.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// The addresses that proxies have seen, in the order in which they stand, and what the last one says that its client
/// spoke.
type Hops<'a> = (Vec<Option<&'a str>>, Option<&'a str>);

fn x_forwarded(headers: &HeaderMap) -> Hops<'_> {
    let hops = entries(headers, X_FORWARDED_FOR.as_str()).map(Some).collect();
    (hops, entries(headers, "X-Forwarded-Proto").last())
}

/// RFC 7239, section 4: elements with commas between, of pairs with semicolons between.
fn forwarded(headers: &HeaderMap) -> Hops<'_> {
    let elements: Vec<&str> = lines(headers, "Forwarded").flat_map(|line| split(line, b',')).collect();
    let hops = elements.iter().map(|element| parameter(element, "for")).collect();
    (hops, elements.last().and_then(|element| parameter(element, "proto")))
}

fn entries<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    lines(headers, name).flat_map(|line| line.split(',')).map(str::trim)
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    headers.get_all(name).filter_map(|value| value.to_str().ok())
}

fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    split(element, b';').into_iter().find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case(name).then_some(bare)
    })
}

/// The parts between separators that are not quoted.
fn split(text: &str, at: u8) -> Vec<&str> {
    let (mut parts, mut from, mut quoted) = (Vec::new(), 0, false);
    for (n, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if byte == at && !quoted => {
                parts.push(&text[from..n]);
                from = n + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Some proxies add the port.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse().ok().map(|ip| SocketAddr::new(ip, 0));
    let addr = alone.or_else(|| text.parse::<SocketAddr>().ok())?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn peer(by: ForwardedBy, socket: &str, headers: &[(&'static str, &'static str)]) -> Peer {
        let trusted = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut request = TestRequest::get().peer_addr(SocketAddr::new(socket.parse().unwrap(), 1));
        for header in headers {
            request = request.append_header(*header);
        }
        Proxies { trusted, by }.peer(request.to_http_request().head()).unwrap()
    }

    fn behind(socket: &str, headers: &[(&'static str, &'static str)]) -> (String, bool) {
        let peer = peer(ForwardedBy::XForwardedFor, socket, headers);
        (peer.addr.ip().to_string(), peer.tls)
    }

    #[test]
    fn a_network_with_a_proxy_in_it_is_known() {
        let trusted = vec!["10.0.0.0/30".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let proxies = Proxies { trusted, by: ForwardedBy::default() };
        for (network, has) in [
            ("10.0.0.0/8", true),
            ("10.0.0.2/32", true),
            ("10.0.0.4/32", false),
            ("11.0.0.0/8", false),
            ("fd00::/16", true),
            ("fe00::/16", false),
        ] {
            assert_eq!(proxies.within(&network.parse().unwrap()).is_some(), has, "{network}");
        }
    }

    #[test]
    fn a_stranger_says_nothing_of_others() {
        let said = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")];
        assert_eq!(behind("203.0.113.9", &said), ("203.0.113.9".into(), false));
        assert_eq!(behind("11.0.0.1", &said), ("11.0.0.1".into(), false));
        let said = [("Forwarded", "for=192.0.2.1;proto=https")];
        assert_eq!(peer(ForwardedBy::Forwarded, "11.0.0.1", &said).addr.to_string(), "11.0.0.1:1");
    }

    #[test]
    fn a_trusted_proxy_names_its_client() {
        let client = |said| behind("10.0.0.1", &[("X-Forwarded-For", said)]).0;
        assert_eq!(client("192.0.2.1"), "192.0.2.1");
        assert_eq!(
            client("198.51.100.7, 192.0.2.1"),
            "192.0.2.1",
            "what the client wrote itself is believed"
        );
        assert_eq!(client("192.0.2.1, 10.9.9.9"), "192.0.2.1");
        assert_eq!(client("192.0.2.1:4711"), "192.0.2.1");
        assert_eq!(client("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(client("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(client("192.0.2.1, rubbish"), "10.0.0.1");
        assert_eq!(client(""), "10.0.0.1");
        assert_eq!(behind("::ffff:10.0.0.1", &[("X-Forwarded-For", "192.0.2.1")]).0, "192.0.2.1");
        let two = [("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-For", "192.0.2.1, fd00::2")];
        assert_eq!(behind("fd00::1", &two).0, "192.0.2.1");
        for (proto, tls) in
            [("https", true), ("HTTPS", true), ("http", false), ("https, http", false), ("", false)]
        {
            assert_eq!(behind("10.0.0.1", &[("X-Forwarded-Proto", proto)]).1, tls, "{proto:?}");
        }
    }

    #[test]
    fn the_port_is_kept_where_it_is_told() {
        let by = ForwardedBy::XForwardedFor;
        let addr = |said| peer(by, "10.0.0.1", &[("X-Forwarded-For", said)]).addr.to_string();
        assert_eq!(addr("192.0.2.1:4711"), "192.0.2.1:4711");
        assert_eq!(addr("192.0.2.1"), "192.0.2.1:0");
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_the_one() {
        let client = |said: &'static str| {
            let peer = peer(ForwardedBy::Forwarded, "10.0.0.1", &[("Forwarded", said)]);
            (peer.addr.to_string(), peer.tls)
        };
        let told = |addr: &str, tls| (addr.to_owned(), tls);
        assert_eq!(client("for=192.0.2.1;proto=https"), told("192.0.2.1:0", true));
        assert_eq!(client(r#"For="192.0.2.1:4711" ; Proto=HTTPS"#), told("192.0.2.1:4711", true));
        assert_eq!(client(r#"for="[2001:db8::1]:4711""#), told("[2001:db8::1]:4711", false));
        assert_eq!(
            client(r#"for=198.51.100.7, for=192.0.2.1;by="a,b;for=6.6.6.6", for=10.9.9.9"#).0,
            "192.0.2.1:0"
        );
        assert_eq!(client("for=192.0.2.1, for=unknown").0, "10.0.0.1:1");
        assert_eq!(client("for=192.0.2.1, by=10.0.0.1").0, "10.0.0.1:1");
        // The other header is anyone's there.
        let other = [("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=192.0.2.1")];
        assert_eq!(peer(ForwardedBy::Forwarded, "10.0.0.1", &other).addr.ip().to_string(), "192.0.2.1");
        assert_eq!(behind("10.0.0.1", &other).0, "6.6.6.6");
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        let stands = |text: &str| subscriber(text.parse().unwrap()).to_string();
        assert_eq!(stands("2001:db8:0:1::7"), "2001:db8:0:1::");
        assert_eq!(stands("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
