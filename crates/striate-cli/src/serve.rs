//! `serve`: networks behind HTTP.
use crate::cli::ServeArgs;
use crate::error::CliError;
use crate::{print, signals};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::time::Duration;
use striate::datasets::DecodeOptions;
use striate::devices;
use striate_serve::{Config, Handle, Keys, Secret, Server, Tls, listen};

pub(crate) fn serve(args: &ServeArgs) -> Result<(), CliError> {
    let config = config(args)?;
    let (scheme, is_open) = (if config.tls.is_some() { "https" } else { "http" }, config.keys.is_none());
    // A port in use is told before a large bundle is read.
    let listener = listen(args.listen)?;
    let address = listener.local_addr().unwrap_or(args.listen);
    let server = Server::new(args.bundles.clone(), config)?;
    watch_signals(server.handle())?;
    if is_open && !address.ip().is_loopback() {
        tracing::warn!("whoever reaches {address} may ask: --keys FILE says who may");
    }
    let names: Vec<&str> = args.bundles.iter().map(|bundle| bundle.name()).collect();
    print(&format!("serving {} on {scheme}://{address}\n", names.join(", ")))?;
    Ok(server.run(listener)?)
}

fn config(args: &ServeArgs) -> Result<Config, CliError> {
    let mut config = Config::default();
    let classifier = &mut config.classifier;
    classifier.devices = devices(&args.devices)?;
    classifier.precision = args.precision;
    classifier.top = args.top;
    classifier.decode = DecodeOptions { max_pixels: args.max_pixels };
    config.max_batch = args.max_batch;
    config.max_wait = Duration::from_millis(args.max_wait);
    config.queue = args.queue;
    config.max_body = args.max_body;
    config.max_body_memory = config.max_body_memory.max(args.max_body);
    config.request_time = args.timeout;
    config.connections = args.connections;
    config.drain_time = args.drain;
    config.explain = !args.no_explain;
    config.keys = args.keys.as_deref().map(Keys::read).transpose()?;
    config.admin_token = args.admin_token.as_deref().map(Secret::read).transpose()?;
    // clap holds the two together.
    config.tls = args.cert.as_deref().zip(args.key.as_deref()).map(|(cert, key)| Tls::read(cert, key)).transpose()?;
    Ok(config)
}

/// The first signal that asks the program to end stops the server in order, a second one ends it at once; SIGHUP exchanges bundles.
fn watch_signals(server: Handle) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot catch signals: {error}"));
    let mut caught = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP]).map_err(failed)?;
    signals::saves_itself();
    signals::goes_on_after_hangup();
    // One may have come before.
    if signals::stopped() {
        server.stop();
    }
    let watch = move || {
        for signal in caught.forever() {
            match signal {
                // What is wrong is logged, and the former bundles go on.
                SIGHUP => drop(server.reload()),
                _ => server.stop(),
            }
        }
    };
    std::thread::Builder::new().name("server's signals".to_owned()).spawn(watch).map_err(failed)?;
    Ok(())
}
