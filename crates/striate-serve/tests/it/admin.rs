//! Exchanging bundles, keys and HTTPS.
use crate::sandbox::{CLASSES, Sandbox, bundle, picture};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use striate_serve::{Keys, Secret, Tls};

const TOKEN: &str = "0123456789abcdef";
const PREDICT: &str = "/v1/models/tints/predict";

fn bearer(secret: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {secret}"))
}

#[test]
fn bundles_are_exchanged_under_load_and_no_request_is_lost() {
    let server = Sandbox::plain();
    let red = picture([255, 0, 0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || {
            let mut seen = [0; 2];
            while !done.load(Ordering::Relaxed) {
                let answer = server.predict(&red).json();
                let (generation, top) = (answer["generation"].as_u64().unwrap(), &answer["predictions"][0]["top"][0]);
                // All of an answer is of one bundle: its number, its class and its probability.
                let (class, factor) = if generation % 2 == 0 { ("red", 10.0_f64) } else { ("rot", 2.0) };
                let probability = factor.exp() / (factor.exp() + 2.0);
                assert_eq!(top["class"], class, "{answer}");
                assert!((top["probability"].as_f64().unwrap() - probability).abs() < 1e-6, "{answer}");
                seen[generation as usize % 2] += 1;
            }
            seen
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for number in 1..=40 {
            let next = if number % 2 == 0 { bundle(CLASSES, 10.0) } else { bundle(["rot", "grün", "blau"], 2.0) };
            next.write(&server.path()).unwrap();
            server.handle.reload().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let seen: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!((0..2).all(|parity| seen.iter().any(|seen| seen[parity] > 0)), "{seen:?}");
    });
    assert!(server.get("/metrics").text.contains("striate_exchanges_total{outcome=\"done\"} 40\n"));
}

#[test]
fn a_bad_bundle_leaves_the_former_one_serving() {
    let server = Sandbox::new(|config, _| config.admin_token = Secret::new(TOKEN));
    let red = picture([255, 0, 0]);
    let (name, value) = bearer(TOKEN);
    let reload = || server.post("/admin/reload", &[(name, &value)], b"");
    let good = std::fs::read(server.path()).unwrap();
    std::fs::write(server.path(), &good[..good.len() - 1]).unwrap();
    let told = reload().problem(422);
    assert!(told.starts_with("no bundle was exchanged, the former ones go on: tints: "), "{told}");
    assert_eq!(server.predict(&red).json()["generation"], 0);
    assert_eq!(server.handle.reload().unwrap_err().to_string(), told.split_once("go on: ").unwrap().1);
    bundle(["rot", "grün", "blau"], 2.0).write(&server.path()).unwrap();
    assert_eq!(reload().json()["generation"], 1);
    assert_eq!(server.predict(&red).class(), "rot");
    let metrics = server.get("/metrics").text;
    assert!(metrics.contains("striate_exchanges_total{outcome=\"refused\"} 2\n"), "{metrics}");
}

#[test]
fn only_who_has_the_token_exchanges() {
    let server = Sandbox::new(|config, _| config.admin_token = Secret::new(TOKEN));
    for secret in ["", "0123456789abcdeg", "0123456789abcdef0"] {
        let (name, value) = bearer(secret);
        let refused = server.post("/admin/reload", &[(name, &value)], b"");
        assert!(refused.problem(401).contains("Authorization: Bearer TOKEN"));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(server.post("/admin/reload", &[], b"").status, 401);
    let without = Sandbox::plain().post("/admin/reload", &[], b"").problem(403);
    assert_eq!(without, "the server was started without an administrator's token: give it one");
}

#[test]
fn with_keys_nobody_else_asks() {
    let server = Sandbox::new(|config, folder| {
        let path = folder.join("keys");
        std::fs::write(&path, format!("ann {TOKEN}\nbob {TOKEN}x\n")).unwrap();
        config.keys = Some(Keys::read(&path).unwrap());
    });
    let red = picture([255, 0, 0]);
    for secret in [TOKEN.to_owned(), format!("{TOKEN}x")] {
        let (name, value) = bearer(&secret);
        assert_eq!(server.post(PREDICT, &[(name, &value)], &red).class(), "red");
    }
    let (name, value) = bearer("0123456789abcdeg");
    let refused = server.post(PREDICT, &[(name, &value)], &red);
    assert_eq!(
        (refused.problem(401).as_str(), refused.header("www-authenticate")),
        ("this takes a key: send Authorization: Bearer KEY", Some("Bearer"))
    );
    for route in ["/v1/models", "/v1/models/tints/network.svg", "/metrics"] {
        assert_eq!(server.get(route).status, 401, "{route}");
    }
    for route in ["/", "/docs", "/openapi.json", "/healthz", "/readyz"] {
        assert_eq!(server.get(route).status, 200, "{route}");
    }
}

fn tls(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

#[test]
fn with_a_certificate_it_speaks_https() {
    let server = Sandbox::new(|config, _| config.tls = Some(Tls::read(&tls("server.pem"), &tls("server.key")).unwrap()));
    let trusting = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(trusting).build().into();
    let address = server.address(PREDICT).replace("http:", "https:");
    let answer = agent.post(address).send(&picture([0, 0, 255])[..]).unwrap().body_mut().read_to_string().unwrap();
    assert!(answer.contains(r#""top":[{"class":"blue""#), "{answer}");
    // Who speaks plain HTTP is not understood, and disturbs nobody.
    assert!(!server.raw(b"GET /healthz HTTP/1.0\r\n\r\n").contains("alive"));
}

#[test]
fn a_certificate_that_does_not_fit_is_refused_in_one_line() {
    let refused = |certificate: &str, key: &str| Tls::read(&tls(certificate), &tls(key)).unwrap_err().to_string();
    let misfit = refused("server.pem", "other.key");
    assert!(misfit.contains("server.pem can't be used with the key ") && misfit.contains("other.key: "), "{misfit}");
    assert!(refused("missing.pem", "server.key").contains("missing.pem can't be used as a certificate ("));
    assert!(refused("server.key", "server.key").ends_with("can't be used as a certificate (it has none): give a PEM file"));
    assert!(refused("server.pem", "server.pem").contains("server.pem can't be used as a private key ("));
    assert_eq!(misfit.lines().count(), 1);
}
