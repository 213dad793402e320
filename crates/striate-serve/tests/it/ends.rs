//! A server that is stopped finishes what it accepted.
use crate::limits::request;
use crate::sandbox::{Sandbox, picture, read_to_end};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn what_was_sent_before_the_stop_is_answered() {
    let mut server = Sandbox::new(|config, _| {
        config.max_batch = 8;
        config.max_wait = Duration::from_millis(20);
    });
    let request = request(&picture([0, 255, 0]));
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 1000]).unwrap() > 0);
    let sent: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    server.stop();
    for stream in sent {
        let answer = read_to_end(stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""top":[{"class":"green""#), "{answer}");
    }
    assert_eq!(read_to_end(idle), "");
    assert!(TcpStream::connect(server.address).is_err());
    // Nothing is left to steer.
    server.handle.stop();
    server.handle.reload().unwrap();
}

#[test]
fn a_server_that_ends_says_so() {
    let mut server = Sandbox::plain();
    assert_eq!(server.get("/readyz").status, 200);
    server.handle.stop();
    // It takes connections for a moment, so that clients hear of it.
    let told = server.raw(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("connection: close\r\n"), "{told}");
    let told = server.raw(&request(&picture([255, 0, 0])));
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    server.stop();
}

#[test]
fn who_never_finishes_is_cut_off() {
    let mut server = Sandbox::new(|config, _| config.drain_time = Duration::from_millis(100));
    let mut endless = server.connect();
    endless.write_all(&crate::limits::head(1000)).unwrap();
    server.stop();
    assert_eq!(read_to_end(endless), "");
}
