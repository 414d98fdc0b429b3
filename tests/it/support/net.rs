//! A device behind a wire of its own, that can be cut: a network namespace and a pair of virtual interfaces.
//!
//! A cut is made by giving a neighbour an address on the wire that nobody has: packets leave, and nobody takes them.
//! Neither side is told anything, exactly as when a mast is out of reach. It needs root and `ip` (iproute2), and
//! fails, rather than passing over the test, where it may not.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

const NOWHERE: &str = "02:00:00:00:00:01";

/// A namespace with a device's end of a wire in it; it goes with this value.
pub struct Wire {
    name: String,
    near: String,
    far: String,
    /// The server's address on the wire.
    pub server: Ipv4Addr,
    device: Ipv4Addr,
}

impl Wire {
    /// Lays one.
    ///
    /// # Panics
    /// Where the kernel or the user's rights do not allow it.
    pub fn lay() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Interface names have 15 bytes. 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
        let id = format!("{:x}{n:x}", pid & 0xff_ffff);
        let net = 0xc612_0000 | ((pid.wrapping_mul(8).wrapping_add(n) & 0x7fff) << 2);
        let wire = Self {
            name: format!("lastpong-{id}"),
            near: format!("lpn{id}"),
            far: format!("lpf{id}"),
            server: Ipv4Addr::from_bits(net | 1),
            device: Ipv4Addr::from_bits(net | 2),
        };
        let Self { name, near, far, server, device } = &wire;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {near} type veth peer name {far} netns {name}"));
        ip(&format!("addr add {server}/30 dev {near}"));
        ip(&format!("link set {near} up"));
        ip(&format!("-n {name} addr add {device}/30 dev {far}"));
        ip(&format!("-n {name} link set {far} up"));
        wire
    }

    /// A socket from the device's end to `addr`.
    pub async fn connect(&self, addr: SocketAddr) -> TcpStream {
        let path = format!("/run/netns/{}", self.name);
        // A namespace is joined by a thread, and a socket stays where it was made: a short-lived thread makes it.
        let connected = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        let stream = connected.join().expect("the thread ends").expect("the server is reached over the wire");
        TcpStream::from_std(stream).expect("a socket of this runtime")
    }

    /// From now on nothing from the server reaches the device; what the device sends still arrives.
    pub fn cut_to_device(&self) {
        ip(&format!("neigh replace {} lladdr {NOWHERE} dev {} nud permanent", self.device, self.near));
    }

    /// From now on nothing gets through, either way.
    pub fn cut(&self) {
        self.cut_to_device();
        ip(&format!(
            "-n {} neigh replace {} lladdr {NOWHERE} dev {} nud permanent",
            self.name, self.server, self.far
        ));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The pair of interfaces goes with either of its ends.
        let _ = Command::new("ip").args(["link", "del", &self.near]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|e| panic!("ip (package iproute2) cannot be run: {e}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "`ip {arguments}` failed (it needs root and network namespaces): {error}"
    );
}
