//! Connections: taken, limited, and ended without losing what was accepted.
use crate::app::App;
use crate::model::Served;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::routes::{self, Peer};
use crate::slow::Impatient;
use crate::{Config, ServeError};
use axum::http::StatusCode;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// How long a server that was stopped still takes connections, so that clients who have not heard of it lose nothing.
const LINGER: Duration = Duration::from_millis(200);
/// After the system refused a connection, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// The most bytes and headers of a request's head.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Networks behind HTTP.
///
/// ```no_run
/// use striate_serve::{Config, Served, Server, listen};
///
/// let server = Server::new(vec![Served::new("runs/flowers-1/model.safetensors")?], Config::default())?;
/// let listener = listen("127.0.0.1:8080".parse()?)?;
/// let handle = server.handle();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(3600));
///     handle.stop();
/// });
/// server.run(listener)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
}

/// Steers a server from other threads. Once the server is gone, nothing that it does has an effect.
#[derive(Debug, Clone)]
pub struct Handle(Weak<App>);

impl Handle {
    /// Ends the server: it takes no more connections, finishes what it accepted, and [`Server::serve`] returns.
    pub fn stop(&self) {
        if let Some(app) = self.0.upgrade() {
            app.stopping.send_replace(true);
        }
    }

    /// Reads all bundles again from their files, and exchanges all of them or none; requests go on meanwhile. Pictures that were
    /// decoded for a former bundle get their answers from it. Blocks until it is done.
    ///
    /// # Errors
    ///
    /// A bundle that can't be read or run: the former ones go on.
    pub fn reload(&self) -> Result<(), ServeError> {
        self.0.upgrade().map_or(Ok(()), |app| app.reload().map(|_| ()))
    }
}

/// Listens on an address; port 0 is one that the system chooses.
///
/// # Errors
///
/// A port that is in use or reserved, and an address that is not this machine's.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => "another program uses this port: choose another one".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine does not have that address: choose one of its own".to_owned(),
            ErrorKind::PermissionDenied => "ports below 1024 are the system's: choose another one".to_owned(),
            _ => error.to_string(),
        };
        ServeError::Listen { address, reason }
    })
}

impl Server {
    /// Opens the bundles, and starts a thread for each.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense, two bundles of one name, and a bundle that can't be read or run.
    pub fn new(bundles: Vec<Served>, config: Config) -> Result<Self, ServeError> {
        Ok(Self { app: Arc::new(App::new(bundles, config)?) })
    }

    /// What steers the server while it runs.
    pub fn handle(&self) -> Handle {
        Handle(Arc::downgrade(&self.app))
    }

    /// The routes, for a program that has others too. Limits on connections and on the time of heads are then that program's.
    pub fn router(&self) -> Router {
        routes::router(&self.app)
    }

    /// [`serve`](Self::serve) on a runtime of its own: for programs without one.
    ///
    /// # Errors
    ///
    /// A system that refuses threads.
    pub fn run(self, listener: TcpListener) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("http").enable_all().build()?;
        let served = runtime.block_on(self.serve(listener));
        // What still runs after the time for it is given up.
        runtime.shutdown_background();
        served
    }

    /// Answers until [`Handle::stop`].
    ///
    /// # Errors
    ///
    /// A socket that the system refuses.
    pub async fn serve(self, listener: TcpListener) -> Result<(), ServeError> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = self.router();
        let connections = Connections {
            router,
            slots: Arc::new(Semaphore::new(self.app.config.connections)),
            tls: self.app.config.tls.as_ref().map(|tls| tls.acceptor()),
            graceful: GracefulShutdown::new(),
            app: self.app,
        };
        let app = Arc::clone(&connections.app);
        let mut stopping = app.stopping.subscribe();
        let stopped = async {
            // The sender lives as long as `app`.
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => connections.take(stream, peer),
                    Err(error) => {
                        tracing::warn!("a connection could not be taken: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let open = connections.graceful.count();
        if tokio::time::timeout(app.config.drain_time, connections.graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were cut off after {} seconds: {open} were open", app.config.drain_time.as_secs_f64());
        }
        Ok(())
    }
}

/// What each connection takes.
struct Connections {
    router: Router,
    slots: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    graceful: GracefulShutdown,
    app: Arc<App>,
}

impl Connections {
    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            if self.tls.is_none() {
                tokio::spawn(refuse(stream));
            }
            return;
        };
        // Answers are small, and each is waited for.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            router: self.router.clone().layer(Extension(Peer(peer))),
            watcher: self.graceful.watcher(),
            app: Arc::clone(&self.app),
            _slot: slot,
        };
        match self.tls.clone() {
            None => drop(tokio::spawn(connection.answer(stream))),
            Some(tls) => drop(tokio::spawn(async move {
                // A handshake that fails or takes too long has nobody to tell.
                if let Ok(Ok(stream)) = tokio::time::timeout(connection.app.config.head_time, tls.accept(stream)).await {
                    connection.answer(stream).await;
                }
            })),
        }
    }
}

struct Connection {
    router: Router,
    watcher: Watcher,
    app: Arc<App>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let config = &self.app.config;
        let stream = Impatient::new(stream, config.body_time);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.head_time);
        http.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        self.app.metrics.connections.inc();
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!("a connection ended: {error}");
        }
        self.app.metrics.connections.dec();
    }
}

/// Says that there are too many connections, to whoever takes a few bytes at once.
async fn refuse(mut stream: TcpStream) {
    let detail = "the server has as many connections as it may: try again after the seconds of Retry-After";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {PROBLEM_JSON}\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let written = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(PAUSE, written).await;
}
