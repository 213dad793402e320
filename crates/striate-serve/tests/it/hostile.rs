//! Bad requests among good ones.
use crate::predict::form;
use crate::sandbox::{Sandbox, encoded, picture};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use striate::datasets::image::{ImageFormat, Rgb, RgbImage};

/// 32x32 pixels.
pub(crate) fn large_picture() -> Vec<u8> {
    encoded(RgbImage::from_pixel(32, 32, Rgb([1, 2, 3])), ImageFormat::Png)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((value ^ (value >> 31)) % limit as u64) as usize
    }

    /// A few bytes changed, left out or put in, or the end cut off.
    fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.extend_from_within(at..),
                _ if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        bytes
    }
}

fn request(kind: &str, body: &[u8], length: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/models/tints/predict?top=2 HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn among_bad_requests_every_good_one_is_answered() {
    let mut server = Sandbox::new(|config, _| config.body_time = Duration::from_millis(500));
    let red = picture([255, 0, 0]);
    let jpeg = encoded(RgbImage::from_fn(24, 24, |x, y| Rgb([x as u8 * 9, y as u8 * 9, 0])), ImageFormat::Jpeg);
    let json = format!(r#"{{"image": "{}"}}"#, BASE64_STANDARD.encode(&red)).into_bytes();
    let bodies = [
        ("image/png", red.clone()),
        ("image/jpeg", jpeg),
        ("application/json", json),
        ("multipart/form-data; boundary=XX", form(&[&red])),
    ];
    let done = AtomicBool::new(false);
    let send = |seed: u64| {
        let mut random = Random(seed);
        for number in 0..150 {
            let (kind, body) = &bodies[number % bodies.len()];
            let bytes = match number % 5 {
                // The request as a whole is changed: its head, most often.
                0 => random.changed(&request(kind, &body[..body.len().min(64)], body.len().min(64))),
                // More is announced than comes.
                1 => request(kind, body, body.len() + 1),
                _ => {
                    let changed = random.changed(body);
                    request(kind, &changed, changed.len())
                }
            };
            let mut stream = server.connect();
            let _ = std::io::Write::write_all(&mut stream, &bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let answer = crate::sandbox::read_to_end(stream);
            assert!(!answer.contains(" 500 "), "{answer}");
        }
    };
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut count = 0;
            while count < 50 || !done.load(Ordering::Relaxed) {
                assert_eq!(server.predict(&red).class(), "red");
                count += 1;
            }
        });
        let bad: Vec<_> = (0..2).map(|seed| scope.spawn(move || send(seed))).collect();
        let bad: Vec<_> = bad.into_iter().map(|bad| bad.join()).collect();
        done.store(true, Ordering::Relaxed);
        good.join().unwrap();
        assert!(bad.iter().all(Result::is_ok));
    });
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(100_000));
    assert!(server.raw(huge.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert!(server.raw(many.as_bytes()).starts_with("HTTP/1.1 431 "));
    assert_eq!(server.predict(&red).class(), "red");
    server.stop();
}
