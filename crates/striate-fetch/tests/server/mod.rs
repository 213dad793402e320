//! A server on this machine that misbehaves in the ways that servers do.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use striate_fetch::sha256_reader;

/// How the server answers.
#[derive(Clone, Copy)]
pub(crate) struct Behaviour {
    /// Answers a request for a range with that range.
    pub(crate) ranges: bool,
    /// Breaks the connection after so many bytes of each body.
    pub(crate) cut_after: Option<usize>,
    pub(crate) status: Option<u16>,
}

pub(crate) const GOOD: Behaviour = Behaviour { ranges: true, cut_after: None, status: None };

/// A server of one file, and the `Range` header of each request that it got.
pub(crate) struct Server {
    pub(crate) url: String,
    ranges_asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    pub(crate) fn start(content: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.bin", listener.local_addr().unwrap());
        let ranges_asked = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&ranges_asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &content, behaviour, &asked);
            }
        });
        Self { url, ranges_asked }
    }

    pub(crate) fn ranges_asked(&self) -> Vec<Option<String>> {
        self.ranges_asked.lock().unwrap().clone()
    }
}

/// Answers one request, and notes the range that it asked for.
fn answer(mut stream: TcpStream, content: &[u8], behaviour: Behaviour, ranges_asked: &Mutex<Vec<Option<String>>>) {
    let mut range = None;
    let mut if_range = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some(("range", value)) => range = Some(value.to_owned()),
            Some(("if-range", value)) => if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    ranges_asked.lock().unwrap().push(range.clone());
    let etag = etag(content);
    let start = range.as_deref().filter(|_| behaviour.ranges && if_range.is_none_or(|wanted| wanted == etag));
    let start = start.map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let status = behaviour.status.unwrap_or(match start {
        None => 200,
        Some(start) if start < content.len() => 206,
        Some(_) => 416,
    });
    let body = if status < 300 { &content[start.unwrap_or(0)..] } else { &[] };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nETag: {etag}\r\nConnection: close\r\n\r\n");
    let sent = &body[..behaviour.cut_after.unwrap_or(length).min(length)];
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent)).unwrap();
}

/// The ETag under which the server gives `content`.
pub(crate) fn etag(content: &[u8]) -> String {
    format!("\"{}\"", &sha256_reader(content).unwrap()[..8])
}
