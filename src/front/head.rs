//! The head of a request, as it lies in the kernel: whether it is all there, and whether HTTP may have it.

use actix_http::StatusCode;
use httparse::{EMPTY_HEADER, Error, Request, Status};

use crate::problem::Problem;

/// Headers of a request, as many as HTTP takes.
const MOST_HEADERS: usize = 96;

/// Where the head ends, of which `seen` bytes were looked at before.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3).min(bytes.len());
    let ends = |at: &usize| {
        bytes[*at] == b'\n' && (bytes[*at + 1..].starts_with(b"\n") || bytes[*at + 1..].starts_with(b"\r\n"))
    };
    let last = (from..bytes.len()).find(ends)?;
    Some(if bytes[last + 1] == b'\n' { last + 2 } else { last + 3 })
}

/// Whether a whole head is one of HTTP/1.1 that can be understood in one way only.
///
/// # Errors
/// How it is refused.
pub fn check(head: &[u8]) -> Result<(), Problem> {
    if head.starts_with(b"PRI * HTTP/2") {
        let detail = "this speaks HTTP/1.1: HTTP/2 by prior knowledge is not understood";
        return Err(Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail));
    }
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(Problem::bad_request("the head of the request is not whole")),
        Err(Error::TooManyHeaders) => {
            let detail = format!("a request has at most {MOST_HEADERS} headers");
            return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
        }
        Err(error) => return Err(Problem::bad_request(format!("this is no request of HTTP/1.1: {error}"))),
    }
    let count = |name: &str| request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
    let (lengths, codings) = (count("Content-Length"), count("Transfer-Encoding"));
    if lengths + codings > 1 {
        // RFC 9112, section 6.3: two who read it differently disagree on where the next request begins.
        let detail = "a request says once how long its body is: by Content-Length or by Transfer-Encoding";
        return Err(Problem::bad_request(detail));
    }
    if codings > 0 && request.version == Some(0) {
        return Err(Problem::bad_request("HTTP/1.0 has no Transfer-Encoding"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_it_comes() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n"] {
            let whole = format!("{head}body\r\n\r\n");
            assert_eq!(end(whole.as_bytes(), 0), Some(head.len()));
            let mut seen = 0;
            let first = (1..=whole.len()).find(|n| {
                let found = end(&whole.as_bytes()[..*n], seen).is_some();
                seen = *n;
                found
            });
            assert_eq!(first, Some(head.len()), "byte by byte");
        }
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n", 0), None);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let status =
            |head: &str| check(format!("{head}\r\n\r\n").as_bytes()).err().map(|p| p.status.as_u16());
        assert_eq!(status("GET /ws HTTP/1.1\r\nHost: x"), None);
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 3"), None);
        assert_eq!(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked"), None);
        assert_eq!(status("PRI * HTTP/2.0"), Some(505));
        assert_eq!(status("nonsense"), Some(400));
        assert_eq!(status("GET / HTTP/1.1\r\nno colon"), Some(400));
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked"), Some(400));
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 3"), Some(400));
        assert_eq!(
            status("POST / HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked"),
            Some(400)
        );
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked"), Some(400));
        let many = "\r\na: b".repeat(97);
        assert_eq!(status(&format!("GET / HTTP/1.1{many}")), Some(431));
    }
}
