//! A server in this process, with networks whose answers are known.
use serde_json::Value;
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use striate::datasets::image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use striate::datasets::{ImageSize, Interpolation, Normalise, Preprocess};
use striate::graph::Graph;
use striate::layers::{AdaptiveAvgPool2d, Conv2d, Flatten, Linear};
use striate::tch::{Device, Kind, Tensor};
use striate::{Answering, Bundle, BundleInfo, Unknown};
use striate_serve::{Config, Handle, Served, Server, listen};
use tempfile::TempDir;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The classes of the networks, in the order of a picture's channels.
pub(crate) const CLASSES: [&str; 3] = ["red", "green", "blue"];

/// The file of a picture of one colour.
pub(crate) fn picture(colour: [u8; 3]) -> Vec<u8> {
    encoded(RgbImage::from_pixel(30, 24, Rgb(colour)), ImageFormat::Png)
}

pub(crate) fn encoded(image: RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A network whose logits are `factor` times the mean of each channel, from 0 to 1. It says of a picture without colours that it is
/// unknown: below an energy of 2, where the logarithm of three equal terms is 1.1 and that of one bright channel `factor`.
pub(crate) fn bundle(classes: [&str; 3], factor: f64) -> Bundle {
    let graph = Graph::build(|net| {
        let x = net.input([3, 16, 16]);
        let x = net.add("conv", Conv2d::new(3, 1).no_bias(), x)?; // [3, 16, 16]
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [3, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [3]
        let x = net.add("fc", Linear::new(3).no_bias(), x)?; // [3]
        net.output("logits", x)
    });
    let preprocess = Preprocess {
        image: ImageSize::ShorterSide { shorter_side: 16 },
        input: [3, 16, 16],
        normalise: Normalise::identity(),
        interpolation: Interpolation::Bilinear,
    };
    let eye = || Tensor::eye(3, (Kind::Float, Device::Cpu));
    let mut info = BundleInfo::new(graph.unwrap(), &classes.map(str::to_owned), Some(preprocess));
    info.answering = Answering { unknown: Some(Unknown { energy: 2.0, accepted: 0.99 }), ..Answering::default() };
    let state = [("conv.weight".to_owned(), eye().view([3, 3, 1, 1])), ("fc.weight".to_owned(), eye() * factor)];
    Bundle { info, state: state.into() }
}

/// A server with one network, `tints`, that runs until this is dropped.
pub(crate) struct Sandbox {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    server: Option<JoinHandle<()>>,
    agent: Agent,
}

impl Sandbox {
    pub(crate) fn new(configure: impl FnOnce(&mut Config, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        bundle(CLASSES, 10.0).write(&path(&folder)).unwrap();
        let mut config = Config::default();
        configure(&mut config, folder.path());
        let server = Server::new(vec![Served::new(path(&folder)).unwrap()], config).unwrap();
        let (listener, handle) = (listen("127.0.0.1:0".parse().unwrap()).unwrap(), server.handle());
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || server.run(listener).unwrap());
        Self { folder, address, handle, server: Some(server), agent: agent() }
    }

    pub(crate) fn plain() -> Self {
        Self::new(|_, _| {})
    }

    /// The file that `tints` is read from.
    pub(crate) fn path(&self) -> PathBuf {
        path(&self.folder)
    }

    pub(crate) fn address(&self, route: &str) -> String {
        format!("http://{}{route}", self.address)
    }

    pub(crate) fn get(&self, route: &str) -> Answer {
        Answer::of(self.agent.get(self.address(route)).call().unwrap())
    }

    pub(crate) fn post(&self, route: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(route, headers, body).unwrap()
    }

    pub(crate) fn try_post(&self, route: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
        let request =
            headers.iter().fold(self.agent.post(self.address(route)), |request, (name, value)| request.header(*name, *value));
        Ok(Answer::of(request.send(body)?))
    }

    /// Asks what is in a picture.
    pub(crate) fn predict(&self, picture: &[u8]) -> Answer {
        self.post("/v1/models/tints/predict", &[("content-type", "image/png")], picture)
    }

    /// Sends these bytes on a connection of their own and reads what comes until it is closed.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        read_to_end(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Ends the server, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.handle.stop();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

pub(crate) fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("tints.safetensors")
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30)));
    config.build().into()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    fn of(mut response: Response<Body>) -> Self {
        let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned())
        };
        let headers = response.headers().iter().map(header).collect();
        Self { status: response.status().as_u16(), headers, text: response.body_mut().read_to_string().unwrap() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The likeliest class of the only picture.
    #[track_caller]
    pub(crate) fn class(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["predictions"][0]["top"][0]["class"].as_str().unwrap().to_owned()
    }

    /// Checks that this is a problem of this status, and returns its sentence.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")), "{self:?}");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["type"]), (&status.into(), &"about:blank".into()));
        assert!(problem["title"].is_string());
        problem["detail"].as_str().unwrap().to_owned()
    }
}
