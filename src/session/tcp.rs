//! What the kernel says of a TCP connection, for whoever looks at one session.
//!
//! One call of the system a look; nothing is kept.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::supervisor::closeup::SocketStats;

/// # Errors
/// The system does not tell, or it is no TCP connection.
pub fn stats(socket: impl AsFd, output_waiting_bytes: usize) -> io::Result<SocketStats> {
    let info = info(socket)?;
    let ms = |us: u32| f64::from(us) / 1000.0;
    Ok(SocketStats {
        rtt_ms: ms(info.tcpi_rtt),
        rtt_var_ms: ms(info.tcpi_rttvar),
        retransmit_timeout_ms: ms(info.tcpi_rto),
        retransmits_total: info.tcpi_total_retrans,
        retransmits_now: info.tcpi_retransmits,
        unacknowledged: info.tcpi_unacked,
        lost: info.tcpi_lost,
        since_data_received_ms: info.tcpi_last_data_recv,
        since_data_sent_ms: info.tcpi_last_data_sent,
        since_ack_received_ms: info.tcpi_last_ack_recv,
        congestion_window: info.tcpi_snd_cwnd,
        segment_bytes: info.tcpi_snd_mss,
        path_mtu: info.tcpi_pmtu,
        output_waiting_bytes,
    })
}

/// How long ago the peer was sent anything.
///
/// # Errors
/// The system does not tell, or it is no TCP connection.
pub fn since_sent(socket: impl AsFd) -> io::Result<Duration> {
    info(socket).map(|info| Duration::from_millis(info.tcpi_last_data_sent.into()))
}

#[expect(unsafe_code, reason = "no crate at hand has a safe form of TCP_INFO")]
fn info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: the struct is numbers alone, for which zero is a value; a kernel that knows less of them leaves the rest so.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `socket` is open while it is borrowed; the kernel writes at most `len` bytes, which is the struct's size.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if answer == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_told_of_and_a_file_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        here.write_all(b"ping").unwrap();
        there.read_exact(&mut [0; 4]).unwrap();
        let told = stats(&here, 7).unwrap();
        assert!(told.rtt_ms > 0.0 && told.segment_bytes > 0 && told.congestion_window > 0, "{told:?}");
        assert_eq!((told.output_waiting_bytes, told.retransmits_total), (7, 0));
        assert!(stats(std::io::stdin(), 0).is_err());
    }
}
