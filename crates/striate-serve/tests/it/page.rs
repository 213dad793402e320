//! The page and the description of the addresses.
use crate::sandbox::Sandbox;

#[test]
fn the_pages_need_nothing_from_elsewhere() {
    let server = Sandbox::plain();
    for (route, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/docs.js", "text/javascript; charset=utf-8"),
    ] {
        let file = server.get(route);
        assert_eq!((file.status, file.header("content-type")), (200, Some(kind)), "{route}");
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let text = file.text.replace("http://www.w3.org/", "");
        for outside in ["http://", "https://", "src=\"//", "@import", " onclick=", " style=", "<style", "eval("] {
            assert!(!text.contains(outside), "{route} has {outside}");
        }
    }
}

#[test]
fn every_address_is_described() {
    let api = Sandbox::plain().get("/openapi.json").json();
    let paths: Vec<&str> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/admin/reload",
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/models",
        "/v1/models/{name}/network.svg",
        "/v1/models/{name}/predict",
    ];
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let predict = &api["paths"]["/v1/models/{name}/predict"]["post"];
    for status in ["200", "400", "401", "404", "406", "408", "413", "415", "422", "429", "500", "503", "504"] {
        assert!(predict["responses"][status].is_object(), "{status}");
    }
    for kind in ["image/*", "application/octet-stream", "multipart/form-data", "application/json"] {
        assert!(predict["requestBody"]["content"][kind].is_object(), "{kind}");
    }
    // Whatever is referred to is there.
    let text = api.to_string();
    for schema in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(api["components"]["schemas"][schema].is_object(), "{schema}");
    }
}
