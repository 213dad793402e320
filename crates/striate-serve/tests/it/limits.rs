//! What is too much is refused at once, and holds nobody up.
use crate::sandbox::{Sandbox, picture, read_to_end};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

const PREDICT: &str = "/v1/models/tints/predict";
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

/// A request whose head says that so many bytes follow.
pub(crate) fn head(length: usize) -> Vec<u8> {
    format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// A whole request, on a connection that is closed after it.
pub(crate) fn request(picture: &[u8]) -> Vec<u8> {
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", picture.len());
    [head.as_bytes(), picture].concat()
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_again() {
    let server = Sandbox::new(|config, _| {
        config.queue = 2;
        config.max_batch = 3;
        config.max_wait = NEVER;
    });
    let red = picture([255, 0, 0]);
    // Two wait for a third, which has no place.
    let mut waiting = [(); 2].map(|()| server.connect());
    for stream in &mut waiting {
        stream.write_all(&request(&red)).unwrap();
    }
    while !server.get("/metrics").text.contains("striate_waiting_pictures{model=\"tints\"} 2\n") {
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..20 {
        let refused = server.predict(&red);
        assert_eq!(refused.problem(429), "the queue is full: try again after the seconds of Retry-After");
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    // Who is refused keeps the connection, even if the body comes late.
    let mut refused = server.connect();
    refused.write_all(&head(30_000)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    refused.write_all(&[0; 30_000]).unwrap();
    refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let answers = read_to_end(refused);
    assert!(answers.starts_with("HTTP/1.1 429 ") && answers.contains("HTTP/1.1 200 OK"), "{answers}");
    // Those who go leave their places to others.
    drop(waiting);
    let last = server.post(PREDICT, &[("request-timeout", "0.05")], &red);
    assert!([429, 504].contains(&last.status), "{last:?}");
}

#[test]
fn an_answer_that_would_come_too_late_is_not_computed() {
    let server = Sandbox::new(|config, _| {
        config.max_batch = 2;
        config.max_wait = NEVER;
    });
    let red = picture([255, 0, 0]);
    let late = server.post(PREDICT, &[("request-timeout", "0.05")], &red);
    assert!(late.problem(504).starts_with("there was no answer within the seconds of Request-Timeout"), "{late:?}");
    // The time runs while the body comes, too.
    let mut slow = server.connect();
    slow.write_all(
        format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\nrequest-timeout: 0.05\r\ncontent-length: 9\r\n\r\n").as_bytes(),
    )
    .unwrap();
    assert!(read_to_end(slow).starts_with("HTTP/1.1 504 "));
    // The first one still waits for a second one, and is left out when that comes.
    assert_eq!(server.predict(&red).class(), "red");
    assert!(server.get("/metrics").text.contains("striate_pictures_total{model=\"tints\"} 1\n"));
    // A server's own limit is told in other words.
    let hasty = Sandbox::new(|config, _| {
        config.max_batch = 2;
        config.max_wait = NEVER;
        config.request_time = Duration::from_millis(50);
    });
    assert_eq!(hasty.predict(&red).problem(504), "there was no answer in time: try again when the server has less to do");
}

#[test]
fn slow_senders_hold_nobody_up_and_are_sent_away() {
    let server = Sandbox::new(|config, _| {
        config.body_time = Duration::from_millis(400);
        config.head_time = Duration::from_millis(400);
    });
    let red = picture([255, 0, 0]);
    let slow: Vec<_> = (0..20)
        .map(|number| {
            let mut stream = server.connect();
            let bytes = if number % 2 == 0 { head(1000) } else { b"POST /v1/mod".to_vec() };
            stream.write_all(&bytes).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(server.predict(&red).class(), "red");
    }
    for (number, stream) in slow.into_iter().enumerate() {
        let told = read_to_end(stream);
        match number % 2 {
            0 => assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("the body did not arrive in time"), "{told}"),
            _ => assert!(!told.contains("200 OK"), "{told}"),
        }
    }
}

#[test]
fn bodies_share_a_limited_memory() {
    let server = Sandbox::new(|config, _| {
        config.max_body = 20_000;
        config.max_body_memory = 32_768;
    });
    let red = picture([255, 0, 0]);
    // Announced bytes take no memory, and those that came do.
    let announced = || {
        let mut stream = server.connect();
        stream.write_all(&head(20_000)).unwrap();
        stream
    };
    let _silent = announced();
    assert_eq!(server.predict(&red).class(), "red");
    let large = vec![0; 19_000];
    let (held, refused) = loop {
        let mut stream = announced();
        stream.write_all(&large).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let answer = server.predict(&large);
        // Otherwise the other one came too late, and may have been refused itself.
        if answer.status != 422 {
            break (stream, answer);
        }
    };
    assert!(refused.problem(503).starts_with("the server holds as many bytes of requests as it may"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.predict(&red).class(), "red");
    held.shutdown(Shutdown::Both).unwrap();
    while server.predict(&large).status != 422 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Sandbox::new(|config, _| config.connections = 2);
    let mut open = [(); 2].map(|()| server.connect());
    for stream in &mut open {
        // Its answer shows that it was taken.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
    }
    let told = server.raw(b"");
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\r\nretry-after: 1\r\n"), "{told}");
    assert!(told.contains("as many connections as it may"), "{told}");
    drop(open);
    while !server.raw(b"GET /healthz HTTP/1.0\r\n\r\n").ends_with("alive\n") {
        std::thread::sleep(Duration::from_millis(1));
    }
}
