//! The examples, each run as its doc comment says.
use crate::tints;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use striate::datasets::image::{DynamicImage, ImageFormat};
use striate::datasets::{ImageSize, Normalise};
use striate::graph::{InitOptions, Network};
use striate::models::find;
use striate::tch::{Device, Kind, Tensor};
use striate::{Bundle, BundleInfo, Classifier};

/// A command that runs an example in `folder`; cargo has built it before the tests.
fn example(name: &str, folder: &Path) -> Command {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test.parent().unwrap().with_file_name("examples").join(name));
    command.current_dir(folder).env("OMP_NUM_THREADS", "1");
    command
}

/// What an example prints, which must succeed.
#[track_caller]
fn printed(mut command: Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A folder `tints` with pictures of these classes to train with and to judge by.
fn tints_folder(folder: &Path, names: [&str; 3]) {
    tints::write(&folder.join("tints/train"), names, 8);
    tints::write(&folder.join("tints/val"), names, 2);
}

/// What stands after `start` in the only line that starts so.
#[track_caller]
fn after<'a>(lines: &'a [String], start: &str) -> &'a str {
    let found: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(start)).collect();
    let [one] = found.as_slice() else { panic!("{} lines start with `{start}`: {lines:#?}", found.len()) };
    one
}

#[test]
fn train_folder() {
    let folder = tempfile::tempdir().unwrap();
    tints_folder(folder.path(), tints::CLASSES);
    let mut command = example("train_folder", folder.path());
    command.args(["tints", "resnet-tiny", "20"]);
    let lines = printed(command);
    assert!(lines[0].starts_with("the recipe for training from scratch on small pictures was taken, because "), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("epoch ")).count(), 20);
    let accuracy = after(&lines, "accuracy ").strip_suffix(" on 6 pictures").unwrap();
    assert!(accuracy.parse::<f64>().unwrap() > 0.9, "{lines:#?}");
    let bundle = after(&lines, "bundle ");
    assert_eq!(bundle, "runs/resnet-tiny-tints-1/model.safetensors");
    // The picture is a blue one, for its class is the first by name.
    let answers: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(answers.len(), 3);
    assert!(answers[0].ends_with(" blue"), "{lines:#?}");
    after(&lines, "tints/train/blue/0.png:");
    assert_eq!(Classifier::open(folder.path().join(bundle)).unwrap().info().classes, ["blue", "green", "red"]);
}

/// A bundle of a network with random weights, for classes `a` and `b`, that wants unusual inputs.
fn trained(folder: &Path) -> PathBuf {
    let model = find("resnet-tiny").unwrap().model(&[("classes", json!(2))]).unwrap();
    let normalise = Normalise { mean: vec![0.3, 0.4, 0.5], std: vec![0.2, 0.2, 0.1] };
    let mut preprocess = tints::preprocess();
    (preprocess.input, preprocess.normalise) = (model.input(), normalise);
    preprocess.image = ImageSize::ShorterSide { shorter_side: 32 };
    let info = BundleInfo::of_model(&model, &["a".to_owned(), "b".to_owned()], Some(preprocess)).unwrap();
    let network = Network::new(info.graph.clone(), &InitOptions::default()).unwrap();
    let path = folder.join("trained.safetensors");
    Bundle { info, state: network.state() }.write(&path).unwrap();
    path
}

#[test]
fn fine_tune() {
    let folder = tempfile::tempdir().unwrap();
    tints_folder(folder.path(), ["apple", "leaf", "sky"]);
    let weights = trained(folder.path());
    let mut command = example("fine_tune", folder.path());
    command.arg(&weights).args(["resnet-tiny", "tints", "1"]);
    let lines = printed(command);
    assert_eq!(after(&lines, "the recipe for fine-tuning was taken"), ", because it starts from trained weights");
    assert_eq!(lines.iter().filter(|line| line.starts_with("epoch ")).count(), 1);
    assert!(after(&lines, "accuracy ").ends_with(" on 6 pictures"));
    assert_eq!(after(&lines, "mean "), "[0.3, 0.4, 0.5], deviation [0.2, 0.2, 0.1]");
    assert_eq!(after(&lines, "classes "), "apple, leaf, sky");
    let tuned = Bundle::read(&folder.path().join(after(&lines, "bundle "))).unwrap();
    let before = Bundle::read(&weights).unwrap();
    // An epoch at a small rate moves a convolution by little, where other random weights would be
    // far away.
    let distance = |name: &str| (&tuned.state[name] - &before.state[name]).norm().double_value(&[]);
    let size = before.state["conv1.weight"].norm().double_value(&[]);
    assert!((1e-9..0.2).contains(&(distance("conv1.weight") / size)), "{}", distance("conv1.weight") / size);
    assert_eq!(tuned.state["fc.weight"].size()[0], 3);
}

#[test]
fn fast() {
    let folder = tempfile::tempdir().unwrap();
    tints_folder(folder.path(), tints::CLASSES);
    // (data, pictures to judge by, channels, batch size, accuracy); a few steps teach nothing.
    for (data, pictures, channels, batch, accuracy) in [("tints", 6, 3, "24", 0.0), ("digits", 899, 1, "64", 0.7)] {
        let mut command = example("fast", folder.path());
        command.args([data, "--epochs", "6", "--batch-size", batch, "--width", "8", "--out", &format!("{data}-run")]);
        let lines = printed(command);
        assert_eq!(lines.iter().filter(|line| line.starts_with("epoch ")).count(), 6);
        let (got, rest) = after(&lines, "accuracy ").split_once(' ').unwrap();
        assert!(rest.starts_with(&format!("on {pictures} pictures, ")), "{lines:#?}");
        assert!(got.parse::<f64>().unwrap() >= accuracy, "{lines:#?}");
        let bundle = Bundle::read(&folder.path().join(after(&lines, "bundle "))).unwrap();
        assert_eq!(bundle.info.answering.tta.to_string(), "flip-shift");
        // Eigenvectors are at right angles to each other, with a length of 1 / sqrt(variance + 5e-4).
        let filters = bundle.state["whiten.weight"].flatten(1, -1);
        assert_eq!(filters.size(), [8 * channels, 4 * channels]);
        let [first, second] = [0, 4 * channels].map(|start| filters.narrow(0, start, 4 * channels));
        assert_eq!(first, -second);
        let products = first.matmul(&first.tr());
        let lengths = products.diagonal(0, 0, 1).sqrt();
        let cosines = &products / lengths.outer(&lengths) - Tensor::eye(4 * channels, (Kind::Float, Device::Cpu));
        assert!(cosines.abs().max().double_value(&[]) < 1e-2, "{data}");
        assert!(lengths.max().double_value(&[]) <= 1.0 / 5e-4_f64.sqrt() * 1.001 && lengths.std(false).double_value(&[]) > 0.1);
    }
}

#[test]
fn an_example_that_is_called_wrongly_says_how_to_call_it() {
    for name in ["train_folder", "fine_tune", "fast", "serve"] {
        let output = example(name, Path::new(".")).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.starts_with(&format!("error: usage: {name} ")), "{error}");
    }
}

/// The server, which ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(bundle: &Path, folder: &Path) -> Self {
        let mut process = example("serve", folder).arg(bundle).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap_or_default().to_owned();
        Self { process, address }
    }

    /// The status and the body that come back for this body.
    fn post(&self, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /classify HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn serve() {
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let bundle = tints::write_bundle(folder.path());
    let mut server = Server::start(&bundle, folder.path());
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);

    let image = tints::picture(1, 0);
    let path = folder.path().join("green.png");
    image.save(&path).unwrap();
    let (status, body) = server.post(&std::fs::read(&path).unwrap());
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let expected = Classifier::open(&bundle).unwrap().classify(&DynamicImage::from(image)).unwrap();
    assert_eq!(expected.top[0].class, "green");
    assert_eq!(answer, json!(expected));

    for bad in [b"no picture".as_slice(), b""] {
        let (status, body) = server.post(bad);
        assert_eq!(status, 400, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("the picture cannot be read: "), "{error}");
    }
    // A picture of 36 megapixels, which compresses well.
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::new_luma8(6000, 6000).write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(server.post(bytes.get_ref()).0, 400);
    let (status, body) = server.post(&vec![0; 10 * 1024 * 1024 + 1]);
    assert!(status == 413 && body.starts_with("{\"error\":"), "{status} {body}");

    // Ctrl-C.
    let id = server.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(server.process.wait().unwrap().success());
}
