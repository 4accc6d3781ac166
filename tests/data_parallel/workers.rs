//! Worker processes: this program again, as a server on the loopback interface.

use super::nets::text;
use burn::remote::RemoteHost;
use burn::server::{TokenAuthorizer, WebSocketTransport};
use burn::tensor::Device;
use burn_wsam::remote;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// Names the worker's port, 0 for any, and turns the program into a worker.
const PORT: &str = "WSAM_TEST_WORKER_PORT";
pub(crate) const TOKEN: &str = "the tests' token";

/// Serves Burn's CPU device if the program was started as a worker, until the tests end.
pub(crate) fn serve_if_worker() {
    let Ok(port) = std::env::var(PORT) else { return };
    // The tests hold the other end of stdin.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let serve = || -> Result<(), String> {
        let port: u16 = port.parse().map_err(text)?;
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(text)?;
        println!("port {}", listener.local_addr().map_err(text)?.port());
        let server = remote::server(&Device::flex());
        let authorizer = TokenAuthorizer::new(TOKEN).map_err(|_| "an empty token".to_owned())?;
        let transport = WebSocketTransport::from_listener(listener);
        server.with_authorizer(authorizer).serve(transport).map_err(text)
    };
    if let Err(error) = serve() {
        eprintln!("worker: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// A worker process, killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    port: u16,
    _stdin: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn start() -> Result<Self, String> {
        Self::start_on(0)
    }

    /// Starts a worker at a port.
    fn start_on(port: u16) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(text)?;
        let mut command = Command::new(program);
        command.env(PORT, port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(text)?;
        let _stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        for line in lines.by_ref() {
            if let Some(port) = line.map_err(text)?.strip_prefix("port ") {
                let port = port.parse().map_err(text)?;
                // Reads what the server logs, so that the pipe never fills.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, port, _stdin });
            }
        }
        Err("the worker did not start".to_owned())
    }

    /// Starts a worker at the port of this one, which was killed.
    pub(crate) fn again(&self) -> Result<Self, String> {
        Self::start_on(self.port)
    }

    pub(crate) fn host(&self, token: &str) -> RemoteHost {
        RemoteHost::websocket(&format!("ws://127.0.0.1:{}", self.port)).with_credential(token)
    }

    /// Opens a session with the worker.
    pub(crate) fn device(&self) -> Result<Device, String> {
        remote::connect(&self.host(TOKEN), Duration::from_secs(30)).map_err(text)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, such as `KILL` or `STOP`, to a worker.
pub(crate) fn signal(worker: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), worker.to_string()]).status();
    if !sent.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("kill -{name} {worker}: {sent:?}");
    }
}
