//! Who asks, where a proxy asks for him.
//!
//! What a proxy says of its client (`X-Forwarded-For`, `X-Forwarded-Proto`) is believed of those that
//! `LASTPONG_TRUSTED_PROXIES` lists and of no other, for anyone can write it. The address is the last one in the list
//! that is no such proxy's, because each proxy adds whom it has seen at the end.

use std::net::{IpAddr, SocketAddr};

use actix_http::RequestHead;
use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(pub Vec<IpNet>);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub ip: IpAddr,
    /// He speaks TLS, to a proxy.
    pub tls: bool,
}

impl Proxies {
    /// `None` where the connection has no address, as in tests.
    pub fn peer(&self, head: &RequestHead) -> Option<Peer> {
        Some(self.behind(head.peer_addr?.ip(), head.headers()))
    }

    fn behind(&self, socket: IpAddr, headers: &HeaderMap) -> Peer {
        let socket = socket.to_canonical();
        if !self.trusts(socket) {
            return Peer { ip: socket, tls: false };
        }
        let tls = last_of(headers, "X-Forwarded-Proto").is_some_and(|p| p.eq_ignore_ascii_case("https"));
        let mut ip = socket;
        for said in all_of(headers, X_FORWARDED_FOR.as_str()).into_iter().rev() {
            let Some(before) = address(said) else { break };
            ip = before;
            if !self.trusts(ip) {
                break;
            }
        }
        Peer { ip, tls }
    }

    /// One that this network has an address in common with.
    pub fn within(&self, network: &IpNet) -> Option<&IpNet> {
        self.0.iter().find(|proxies| network.contains(*proxies) || proxies.contains(network))
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }
}

/// The entries of a list that may be spread over several headers.
fn all_of<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim).collect()
}

fn last_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    all_of(headers, name).pop()
}

/// Some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn behind(socket: &str, headers: &[(&'static str, &'static str)]) -> (String, bool) {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut request = TestRequest::get().peer_addr(SocketAddr::new(socket.parse().unwrap(), 1));
        for header in headers {
            request = request.append_header(*header);
        }
        let peer = proxies.peer(request.to_http_request().head()).unwrap();
        (peer.ip.to_string(), peer.tls)
    }

    #[test]
    fn a_network_with_a_proxy_in_it_is_known() {
        let proxies = Proxies(vec!["10.0.0.0/30".parse().unwrap(), "fd00::/8".parse().unwrap()]);
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
}
