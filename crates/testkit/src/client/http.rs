//! HTTP/1.1 over a kept connection: requests with a body, answers of known or chunked length.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection; reconnects when the server has closed it.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    timeout: Duration,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, complete.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, without its compression when that is gzip.
    ///
    /// # Panics
    /// When it says that it is gzip, and is not.
    pub fn decompressed(&self) -> Vec<u8> {
        if self.headers.get("content-encoding").is_none_or(|encoding| encoding != "gzip") {
            return self.body.clone();
        }
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut body).expect("the body is gzip");
        body
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|err| panic!("status {}, not JSON ({err}): {}", self.status, self.text()))
    }
}

impl Connection {
    /// A connection that is opened when it is first needed.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, timeout: Duration::from_secs(60) }
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, &[], &[])
    }

    /// Any request. A connection that the server has closed meanwhile is opened anew, once.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let was_open = self.stream.is_some();
        match self.exchange(method, path, headers, body) {
            Err(_) if was_open => {
                self.stream = None;
                self.exchange(method, path, headers, body)
            }
            other => other,
        }
    }

    /// As [`Self::send`], but never repeats the request.
    pub fn send_once(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.exchange(method, path, headers, body)
    }

    fn exchange(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let result = self.try_exchange(method, path, headers, body);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    fn try_exchange(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let reader = self.open()?;
        reader.get_mut().write_all(head.as_bytes())?;
        reader.get_mut().write_all(body)?;
        let answer = read_answer(reader, method == "HEAD")?;
        if answer.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.stream = None;
        }
        Ok(answer)
    }

    fn open(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_write_timeout(Some(self.timeout))?;
            self.stream = Some(BufReader::with_capacity(64 * 1024, stream));
        }
        Ok(self.stream.as_mut().expect("opened above"))
    }
}

fn read_answer(reader: &mut BufReader<TcpStream>, is_head: bool) -> io::Result<Answer> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"));
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| malformed(&line))?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let field = line.trim_end();
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| malformed(field))?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if is_head || status == 204 || status == 304 {
        return Ok(Answer { status, headers, body });
    }
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().map_err(|_| malformed(length))?, 0);
        reader.read_exact(&mut body)?;
    } else if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        read_chunks(reader, &mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
        headers.insert("connection".into(), "close".into());
    }
    Ok(Answer { status, headers, body })
}

fn read_chunks(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or(""), 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a chunk length: {line:?}")))?;
        let from = body.len();
        body.resize(from + length, 0);
        reader.read_exact(&mut body[from..])?;
        line.clear();
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}
