//! How a connection is refused that HTTP never had.

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::net::TcpStream;

use crate::problem::{CONTENT_TYPE, Problem};

/// Of what a refused peer has sent, so much is taken in, so that closing does not cut off the answer to it.
pub const TAKEN_IN: u64 = 64 * 1024;

/// Answers as far as the connection takes it at once: nobody waits for a peer that was refused.
pub fn refuse(stream: &TcpStream, problem: &Problem) {
    // Of the kernel itself: what Tokio knows of a socket that is this new is nothing yet, and so would be sent.
    let _ = send(stream, answer(problem).as_bytes(), SendFlags::NOSIGNAL);
    let mut scratch = [0; 4096];
    let mut taken = 0;
    while let Ok((n @ 1.., _)) = recv(stream, &mut scratch[..], RecvFlags::empty()) {
        taken += n as u64;
        if taken >= TAKEN_IN {
            break;
        }
    }
}

pub fn answer(problem: &Problem) -> String {
    let body = problem.body();
    let mut answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n",
        problem.status,
        body.len()
    );
    for (name, value) in &problem.headers {
        answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    answer.push_str("\r\n");
    answer.push_str(&body);
    answer
}
