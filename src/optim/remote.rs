//! Workers on other machines, for [`Replicas`](crate::Replicas), through Burn's remote devices.
//!
//! A worker serves its device; the training process connects, and adds the device as a replica. Nothing else is
//! needed on the worker: the passes are sent to it as operations.
//!
//! ```no_run
//! use burn::remote::RemoteHost;
//! use burn::server::{TokenAuthorizer, WebSocketTransport};
//! use burn::tensor::Device;
//! use std::net::TcpListener;
//! use std::time::Duration;
//!
//! # fn worker() -> Result<(), Box<dyn std::error::Error>> {
//! // On the worker. `WebSocketTransport::new(port)` would listen on all interfaces.
//! let listener = TcpListener::bind("192.168.1.2:3000")?;
//! burn_wsam::remote::server(&Device::flex())
//!     .with_authorizer(TokenAuthorizer::new("secret")?)
//!     .serve(WebSocketTransport::from_listener(listener))?;
//! # Ok(())
//! # }
//!
//! # fn training(replicas: &mut burn_wsam::Replicas<burn::nn::Linear, ()>) -> Result<(), Box<dyn std::error::Error>> {
//! // In the training process.
//! let host = RemoteHost::websocket("ws://192.168.1.2:3000").with_credential("secret");
//! let device = burn_wsam::remote::connect(&host, Duration::from_secs(30))?;
//! replicas.add("192.168.1.2", &device)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Security
//!
//! A server runs every operation that a client sends, with all of the device's memory and time, and without a
//! token it accepts every client that reaches its port. WebSocket is not encrypted: a token stops stray clients,
//! not someone who reads the network's traffic. Bind the listener to one interface of a trusted network, or to
//! `127.0.0.1` behind a tunnel; elsewhere serve over Iroh, which encrypts and authenticates, with a token.

use burn::remote::{ConnectError, RemoteHost};
use burn::server::RemoteServer;
use burn::tensor::Device;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Sessions that one client may open with a worker, one after the other or at the same time.
pub const SESSIONS: usize = 1024;

/// Error of [`connect`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Burn could not connect: no server there, a wrong token, another version of Burn.
    #[error("{0}")]
    Connect(ConnectError),
    /// The server lists fewer sessions than this process has opened with it.
    #[error(
        "this process has opened all {sessions} sessions of the worker: serve it with burn_wsam::remote::server, \
         or restart it on another port"
    )]
    NoSession {
        /// Number of devices that the server lists.
        sessions: usize,
    },
    /// The server did not answer in time.
    #[error("the worker did not answer within {timeout:?}")]
    TimedOut {
        /// The timeout.
        timeout: Duration,
    },
    /// Burn panicked while it connected.
    #[error("the connection failed: {message}")]
    Panicked {
        /// What failed.
        message: String,
    },
}

/// A server of `device`, as a worker. Call its `serve` with a transport, which blocks until the process is asked to
/// stop.
///
/// It lists the device [`SESSIONS`] times, because Burn's client opens one session with each listed device and
/// cannot open it again after it broke.
pub fn server(device: &Device) -> RemoteServer {
    RemoteServer::new(vec![device.clone().without_autodiff(); SESSIONS])
}

/// Sessions of each host.
static HOSTS: Mutex<Option<HashMap<RemoteHost, Sessions>>> = Mutex::new(None);

#[derive(Default)]
struct Sessions {
    /// Number of the next session.
    next: usize,
    /// Numbers whose session could not be opened.
    unused: Vec<usize>,
}

fn with_sessions<T>(host: &RemoteHost, act: impl FnOnce(&mut Sessions) -> T) -> T {
    let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
    act(hosts.get_or_insert_default().entry(host.clone()).or_default())
}

/// Opens a new session with a worker, and returns its device. Each call opens another session, so a worker that was
/// lost and runs again at the same address gets a new one, and its device can be added to the replicas.
///
/// Burn tries again for about 16 s while nothing answers at the address.
///
/// # Errors
///
/// [`RemoteError`] if there is no worker, it refuses the token, or it does not answer within `timeout`.
pub fn connect(host: &RemoteHost, timeout: Duration) -> Result<Device, RemoteError> {
    let session = with_sessions(host, |sessions| {
        sessions.unused.pop().unwrap_or_else(|| {
            sessions.next += 1;
            sessions.next - 1
        })
    });
    let (sender, result) = channel();
    let options = Device::remote_options(host).device_index(session);
    let connect = move || {
        // Nothing waits for the result after the timeout.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(|| options.init())));
    };
    let failed = |message: String| RemoteError::Panicked { message };
    let thread = std::thread::Builder::new().name("connect".to_owned());
    thread.spawn(connect).map_err(|error| failed(error.to_string()))?;
    match result.recv_timeout(timeout) {
        Ok(Ok(Ok(device))) => Ok(device),
        Ok(Ok(Err(ConnectError::NoSuchDevice { device_count }))) => {
            Err(RemoteError::NoSession { sessions: device_count })
        }
        Ok(Ok(Err(error))) => {
            with_sessions(host, |sessions| sessions.unused.push(session));
            Err(RemoteError::Connect(error))
        }
        Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(failed("Burn panicked".to_owned())),
        Err(RecvTimeoutError::Timeout) => Err(RemoteError::TimedOut { timeout }),
    }
}
