//! Lists, shards and pictures with several classes, from training to prediction.
use crate::sandbox::{Sandbox, error_line};
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Few steps, each of few pictures.
const QUICK: [&str; 8] = ["--epochs", "2", "--batch-size", "8", "--threads", "1", "--out", "run"];

/// A picture whose channels are bright where `channels` says so.
fn write(sandbox: &Sandbox, name: &str, channels: [bool; 2], number: usize) {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let [red, green] = channels.map(|bright| if bright { 200 } else { 0 });
    RgbImage::from_fn(16, 16, |x, y| {
        let noise = ((x as usize * 31 + y as usize * 17 + number * 101) % 50) as u8;
        Rgb([red + noise, green + noise, noise])
    })
    .save(path)
    .unwrap();
}

/// Twelve red and twelve green pictures, `pictures/0.png` and so on, with lines of a list.
fn two_classes(sandbox: &Sandbox) -> Vec<String> {
    let line = |number: usize| {
        let red = number.is_multiple_of(2);
        write(sandbox, &format!("pictures/{number}.png"), [red, !red], number);
        format!("pictures/{number}.png,{}", if red { "red" } else { "green" })
    };
    (0..24).map(line).collect()
}

fn count(sandbox: &Sandbox, bundle: &str, data: &str) -> u64 {
    sandbox.json(&["eval", bundle, "--data", data, "--threads", "1", "--json"])["examples"].as_u64().unwrap()
}

#[test]
fn a_list_is_trained_on_judged_by_and_held_to_what_is_there() {
    let sandbox = Sandbox::new();
    let mut lines = two_classes(&sandbox);
    sandbox.write("list.csv", lines.join("\n"));
    sandbox.refused_with(&[&["train", "--data", "list.csv"], &QUICK[..]].concat(), &["has nothing to judge by", "--split"]);
    let summary = sandbox.json(&[&["train", "--data", "list.csv", "--split", "0.25", "--json"], &QUICK[..]].concat());
    assert_eq!((&summary["test"]["examples"], &summary["test"]["classes"]), (&6.into(), &serde_json::json!(["green", "red"])));
    let recipe = std::fs::read_to_string(sandbox.path("run/recipe.toml")).unwrap();
    assert!(recipe.contains(&format!("dir = \"{}\"", sandbox.path("list.csv").display())), "{recipe}");
    assert_eq!(count(&sandbox, "run/model.safetensors", "list.csv"), 24);
    let parts: Vec<String> =
        lines.iter().enumerate().map(|(n, line)| format!("{line},{}", if n < 16 { "train" } else { "val" })).collect();
    sandbox.write("parts.csv", format!("path,label,split\n{}\n", parts.join("\n")));
    assert_eq!(count(&sandbox, "run/model.safetensors", "parts.csv"), 8);

    lines[3] = "pictures/missing.png,red".to_owned();
    sandbox.write("list.csv", lines.join("\n"));
    let train = [&["train", "--data", "list.csv", "--split", "0.25"], &QUICK[..6], &["--out", "other"]].concat();
    sandbox.refused_with(&train, &["list.csv, line 4: there is no file pictures/missing.png"]);
    sandbox.refused_with(&["eval", "run/model.safetensors", "--data", "list.csv"], &["list.csv, line 4: "]);
    assert!(!sandbox.path("other").exists());
    let output = sandbox.striate(&[&train[..], &["--skip-bad"]].concat()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("left out 1 file: 1 that is not there ("), "{told}");
    sandbox.refused_with(
        &["train", "--data", "none.csv"],
        &["none.csv does not exist: name a folder of pictures, a list, shards, or a dataset"],
    );
    sandbox.refused_with(&["train", "--data", "run/recipe.toml"], &["is no folder, list (.csv, .tsv) or shard (.tar)"]);
}

#[test]
fn what_is_packed_is_the_same_data_and_comes_back() {
    let sandbox = Sandbox::new();
    for number in 0..24 {
        let (red, part) = (number % 2 == 0, if number < 16 { "train" } else { "test" });
        let class = if red { "red" } else { "green" };
        write(&sandbox, &format!("folder/{part}/{class}/{number}.png"), [red, !red], number);
    }
    let told = sandbox.ok(&["data", "pack", "folder", "shards", "--shard-size", "10"]);
    assert!(told.starts_with("24 pictures (") && told.ends_with(" bytes) in 3 shards in shards\n"), "{told}");
    assert_eq!(sandbox.names("shards"), ["classes.txt", "test-000000.tar", "train-000000.tar", "train-000001.tar"]);
    sandbox.ok(&["data", "pack", "shards", "back"]);
    for number in 0..24 {
        let (red, part) = (number % 2 == 0, if number < 16 { "train" } else { "test" });
        let name = format!("{part}/{}/{number}.png", if red { "red" } else { "green" });
        let bytes = |root: &str| std::fs::read(sandbox.path(root).join(&name)).unwrap();
        assert_eq!(bytes("back"), bytes("folder"), "{name}");
    }
    let refused = sandbox.refused(&["data", "pack", "folder", "shards"]);
    assert!(refused.contains("shards"), "{refused}");
    sandbox.refused_with(&["data", "pack", "digits", "new"], &["digits: name a folder of pictures, a list or shards"]);
    sandbox.refused_with(
        &["data", "pack", "folder", "new", "--shard-size", "0MB"],
        &["give a number of pictures, or a size such as 500MB"],
    );

    sandbox.write("buffered.toml", "[data]\nsampler = { buffered = 4 }\n[train]\nepochs = 2\nbatch_size = 8\nthreads = 1\n");
    sandbox.ok(&["train", "buffered.toml", "--data", "shards", "--out", "run"]);
    let figures = |data: &str| sandbox.json(&["eval", "run/model.safetensors", "--data", data, "--threads", "1", "--json"]);
    let (of_folder, of_shards) = (figures("folder"), figures("shards"));
    assert_eq!((&of_shards["confusion"], &of_shards["examples"]), (&of_folder["confusion"], &8.into()));
    assert_eq!(count(&sandbox, "run/model.safetensors", "shards/train-{000000..000001}.tar"), 16);
    sandbox.refused_with(
        &["train", "buffered.toml", "--data", "folder", "--out", "x"],
        &["must be `each` where the data are in no shards"],
    );

    let shard = std::fs::read(sandbox.path("shards/test-000000.tar")).unwrap();
    sandbox.write("shards/test-000000.tar", &shard[..shard.len() / 2]);
    sandbox.refused_with(&["eval", "run/model.safetensors", "--data", "shards"], &["test-000000.tar: it is cut off"]);
}

/// What a server sends for a request.
struct Sent {
    /// The lines of its head.
    head: String,
    body: Vec<u8>,
}

impl Sent {
    fn file(body: Vec<u8>) -> Self {
        Self { head: format!("200 OK\r\nContent-Length: {}", body.len()), body }
    }

    fn moved(to: &str) -> Self {
        Self { head: format!("302 Found\r\nContent-Length: 0\r\nLocation: {to}"), body: Vec::new() }
    }

    fn nothing() -> Self {
        Self { head: "404 Not Found\r\nContent-Length: 0".to_owned(), body: Vec::new() }
    }
}

/// A server that ends with the test, and how often it was asked for each name.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> Sent + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let name = text.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                let Sent { head, body } = answer(&name);
                log.lock().unwrap().push(name);
                let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        });
        Self { address, asked }
    }

    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

/// Twenty-four pictures in two shards below `served`.
fn two_shards() -> Sandbox {
    let sandbox = Sandbox::new();
    let lines = two_classes(&sandbox);
    sandbox.write("list.csv", lines.join("\n"));
    sandbox.ok(&["data", "pack", "list.csv", "served", "--shard-size", "12"]);
    sandbox
}

#[test]
fn shards_come_from_a_server_once() {
    let sandbox = two_shards();
    let root = sandbox.path("served");
    let server = Server::start(move |name| match name.strip_prefix("old/") {
        Some(name) => Sent::moved(&format!("/new/{name}")),
        None => std::fs::read(root.join(name.trim_start_matches("new/"))).map_or_else(|_| Sent::nothing(), Sent::file),
    });
    let address = format!("{}/old/pictures-00000{{0..1}}.tar", server.address);
    let home = sandbox.path("home");
    let mut train = sandbox.striate(&[&["train", "--data", &address, "--split", "0.25"], &QUICK[..]].concat());
    train.env("STRIATE_HOME", &home).assert().success();
    let eval = ["eval", "run/model.safetensors", "--data", &address, "--threads", "1", "--json"];
    let output = sandbox.striate(&eval).env("STRIATE_HOME", &home).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["examples"], &report["classes"]), (&24.into(), &serde_json::json!(["green", "red"])));
    for name in ["classes.txt", "pictures-000000.tar", "pictures-000001.tar"] {
        assert_eq!(server.asked(&format!("new/{name}")), 1, "{name}");
    }
}

#[test]
fn a_server_that_does_not_give_a_whole_shard_is_told_and_asked_again() {
    let sandbox = two_shards();
    let [first, second] =
        [0, 1].map(|number| std::fs::read(sandbox.path(&format!("served/pictures-00000{number}.tar"))).unwrap());
    let half = first[..first.len() / 2].to_vec();
    let is_whole = Arc::new(AtomicBool::new(false));
    let whole = Arc::clone(&is_whole);
    let server = Server::start(move |name| match name {
        "cut/pictures-000000.tar" | "short/pictures-000000.tar" if whole.load(SeqCst) => Sent::file(first.clone()),
        "cut/pictures-000000.tar" => Sent { body: half.clone(), ..Sent::file(first.clone()) },
        "short/pictures-000000.tar" => Sent::file(half.clone()),
        "some/pictures-000000.tar" => Sent::file(second.clone()),
        "loop/pictures-000000.tar" => Sent::moved("/loop/pictures-000000.tar"),
        "away/pictures-000000.tar" => Sent::moved("http://127.0.0.1:1/pictures-000000.tar"),
        _ => Sent::nothing(),
    });
    let home = sandbox.path("home");
    let unpack = |address: &str, out: &str| {
        let mut command = sandbox.striate(&["data", "pack", address, out]);
        command.env("STRIATE_HOME", &home);
        command
    };
    let put = "check the network, or put the file pictures-00000";
    for (place, told) in [
        ("cut/pictures-000000.tar", vec!["was cut off after ", "try again to resume it", put]),
        ("none/pictures-000000.tar", vec!["answers with HTTP status 404", put]),
        // The second of two.
        (
            "some/pictures-00000{0..1}.tar",
            vec!["pictures-000001.tar answers with HTTP status 404", "put the file pictures-000001.tar"],
        ),
        ("loop/pictures-000000.tar", vec!["too many redirects", put]),
        ("away/pictures-000000.tar", vec!["cannot reach ", put]),
        // The server says that this is all of it.
        (
            "short/pictures-000000.tar",
            vec!["home/shards/", "pictures-000000.tar is damaged (it is cut off: ", "delete it, then try again to download it"],
        ),
        ("none/pictures.zip", vec!["it is no address of a shard: name one that ends with .tar"]),
    ] {
        let address = format!("{}/{place}", server.address);
        let line = error_line(unpack(&address, "x"), 2);
        assert!(told.iter().all(|part| line.contains(part)), "{place}: {line}");
    }
    is_whole.store(true, SeqCst);
    unpack(&format!("{}/cut/pictures-000000.tar", server.address), "unpacked").assert().success();
    let nobody = error_line(unpack("http://127.0.0.1:1/pictures-000000.tar", "x"), 2);
    assert!(nobody.contains("cannot reach http://127.0.0.1:1/classes.txt") && nobody.contains(put), "{nobody}");
}

#[test]
fn several_classes_are_kept_from_the_list_to_the_answer() {
    let sandbox = Sandbox::new();
    let names = ["neither", "red", "green", "both"];
    let mut lines = vec!["red,file,green,split".to_owned()];
    for number in 0..64 {
        let [red, green] = [number % 2 == 1, number % 4 >= 2];
        let name = format!("{}/{number}.png", names[number % 4]);
        write(&sandbox, &name, [red, green], number);
        lines.push(format!("{},{name},{},{}", u8::from(red), u8::from(green), if number < 48 { "train" } else { "test" }));
    }
    sandbox.write("list.csv", lines.join("\n"));
    let args = [
        "train",
        "resnet20-cifar",
        "--data",
        "list.csv",
        "--epochs",
        "8",
        "--batch-size",
        "16",
        "--lr",
        "0.05",
        "--threads",
        "1",
        "--out",
        "run",
    ];
    let told = sandbox.ok(&args);
    assert!(told.starts_with("test exact match "), "{told}");
    let summary: Value = serde_json::from_slice(&std::fs::read(sandbox.path("run/summary.json")).unwrap()).unwrap();
    let bundle = "run/model.safetensors";
    let report = sandbox.json(&["eval", bundle, "--data", "list.csv", "--threads", "1", "--json"]);
    for key in ["accuracy", "threshold", "mean_average_precision", "micro_f1", "macro_f1", "per_class"] {
        assert_eq!(report[key], summary["test"][key], "{key}");
    }
    assert_eq!((report["examples"].as_u64(), report.get("confusion")), (Some(16), None));
    assert!(report["mean_average_precision"].as_f64().unwrap() > 0.9 && report["accuracy"].as_f64().unwrap() > 0.7, "{report}");
    let text = sandbox.ok(&["eval", bundle, "--data", "list.csv", "--threads", "1", "--threshold", "0.9"]);
    assert!(text.starts_with("16 images: exact match ") && text.contains("at threshold 0.9: F1 "), "{text}");

    // The bundle says that its classes do not exclude each other: an answer for each.
    let predict = |more: &[&str]| sandbox.json(&[&["predict", bundle, "--json"], more].concat());
    let all = predict(&["both/3.png", "neither/0.png", "--threshold", "0"]);
    for picture in all.as_array().unwrap() {
        assert_eq!(picture["top"].as_array().unwrap().len(), 2, "{picture}");
    }
    let sum =
        |picture: &Value| picture["top"].as_array().unwrap().iter().map(|a| a["probability"].as_f64().unwrap()).sum::<f64>();
    assert!(sum(&all[0]) > 1.2 && sum(&all[1]) < 0.8, "{all}");
    let none = predict(&["neither/0.png", "--threshold", "1"]);
    assert_eq!(none[0]["top"], serde_json::json!([]));
    assert_eq!(sandbox.ok(&["predict", bundle, "neither/0.png", "--threshold", "1"]), "neither/0.png: none of the classes\n");

    // One class for each picture is a set of one; the other way round there is no answer.
    for (number, name) in ["red", "green"].into_iter().enumerate() {
        write(&sandbox, &format!("folders/{name}/1.png"), [number == 0, number == 1], number);
    }
    assert_eq!(sandbox.json(&["eval", bundle, "--data", "folders", "--json"])["per_class"][0]["examples"], 1);
    sandbox.bundle("single.safetensors", 2);
    let single = ["predict", "single.safetensors", "both/3.png", "--threshold", "0.5"];
    sandbox.refused_with(&single, &["threshold = 0.5 takes a network whose classes do not exclude each other"]);
    sandbox.refused_with(&["predict", bundle, "both/3.png", "--threshold", "2"], &["threshold = 2 must be from 0 to 1"]);
    sandbox.refused_with(&["lab", "run", "degradation", "--data", "list.csv", "--quick"], &["pictures with several classes"]);
    sandbox.refused_with(&["lab", "confusion", bundle, "--data", "list.csv"], &["several classes"]);
    sandbox.write("balanced.toml", "[data]\nsampler = 'balanced'\n");
    let balanced = ["train", "balanced.toml", "--data", "list.csv", "--out", "x"];
    sandbox.refused_with(&balanced, &["must be `each` or `repeated` where a picture has several classes"]);
    let paper = ["train", "lenet5-paper", "--data", "list.csv", "--out", "x"];
    sandbox.refused_with(&paper, &["has a loss of its own for one class a picture"]);
    sandbox.write("mixed.toml", "[train]\nepochs = 1\nlabel_smoothing = 0.1\n[[transforms]]\nkind = 'mix-up-or-cut-mix'\n");
    sandbox.ok(&["train", "mixed.toml", "--data", "list.csv", "--out", "mixed"]);
}

#[test]
fn a_pattern_stands_for_pictures() {
    let sandbox = Sandbox::new();
    two_classes(&sandbox);
    let bundle = sandbox.bundle("model.safetensors", 3);
    let names = |args: &[&str]| -> Vec<String> {
        let all = sandbox.json(&[&["predict", bundle.to_str().unwrap(), "--json"], args].concat());
        all.as_array().unwrap().iter().map(|picture| picture["image"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["pictures/1?.png"]).len(), 10);
    assert_eq!(names(&["pictures/2[01].png", "pictures/3.png"]), ["pictures/20.png", "pictures/21.png", "pictures/3.png"]);
    let told = "pictures/*.jpg: no file has a name of this pattern";
    sandbox.refused_with(&["predict", "model.safetensors", "pictures/*.jpg"], &[told]);
}
