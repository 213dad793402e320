use std::net::SocketAddr;
use std::path::PathBuf;
use striate_torch::Shown;

/// Why a server can't start, or why bundles were not exchanged. Every message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No bundle at all.
    #[error("there is nothing to serve: name a bundle")]
    NoBundle,
    /// Two bundles of one name.
    #[error("two bundles are named {}: give one of them another name", Shown(name))]
    TwoOfOneName {
        /// The name.
        name: String,
    },
    /// A name that can't be part of an address.
    #[error("a network can't be named {}: use letters, digits, dots, hyphens and underscores, 100 at most", Shown(name))]
    Name {
        /// The name.
        name: String,
    },
    /// A wrong value in the configuration.
    #[error("{option} {reason}")]
    Option {
        /// The option and its value.
        option: String,
        /// Why it can't be.
        reason: &'static str,
    },
    /// A bundle that can't be read or run.
    #[error("{}: {source}", Shown(name))]
    Bundle {
        /// The name that it is served under.
        name: String,
        /// What is wrong.
        source: Box<striate::Error>,
    },
    /// An address that can't be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file with keys, a token, a certificate or its key.
    #[error("{} {reason}", Shown(path.display()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The system refuses threads or sockets.
    #[error("the system refuses what a server takes: {0}")]
    System(#[from] std::io::Error),
}

impl ServeError {
    /// Whether something failed that was asked for rightly; otherwise what was given is wrong.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Bundle { source, .. } => source.is_failure(),
            Self::System(_) => true,
            _ => false,
        }
    }
}
