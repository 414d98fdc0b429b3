//! Requests to lastpong as an operator, over one connection that is kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Http {
    addr: SocketAddr,
    admin: String,
    kept: Mutex<Option<BufReader<TcpStream>>>,
}

impl Http {
    pub fn new(addr: SocketAddr, admin: &str) -> Self {
        Self { addr, admin: admin.to_owned(), kept: Mutex::new(None) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The body at `path`.
    ///
    /// # Errors
    /// Another answer than 200, or none.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut connection) = kept.take()
            && let Ok(body) = self.ask(&mut connection, path)
        {
            *kept = Some(connection);
            return Ok(body);
        }
        // The one that was kept may have been closed meanwhile.
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = BufReader::new(stream);
        let body = self.ask(&mut connection, path).with_context(|| format!("GET {path}"))?;
        *kept = Some(connection);
        Ok(body)
    }

    /// # Errors
    /// Another answer than 200 with JSON, or none.
    pub fn json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    fn ask(&self, connection: &mut BufReader<TcpStream>, path: &str) -> anyhow::Result<String> {
        let (addr, admin) = (self.addr, &self.admin);
        write!(
            connection.get_mut(),
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {admin}\r\nAccept: */*;q=0.1, application/json\r\n\r\n"
        )?;
        let mut status = String::new();
        connection.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            connection.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        anyhow::ensure!(status.contains(" 200 "), "{}", status.trim_end());
        Ok(String::from_utf8(body)?)
    }
}
