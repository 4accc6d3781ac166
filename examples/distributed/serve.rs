//! A worker.

use crate::options::Serve;
use burn::server::{
    IrohIdentity, IrohRelays, IrohTransport, TokenAuthorizer, Transport, WebSocketTransport,
};
use std::error::Error;
use std::net::TcpListener;

pub(crate) fn serve(options: &Serve) -> Result<(), Box<dyn Error>> {
    let mut server = burn_wsam::remote::server(&crate::device(options.device)?);
    let transport: Transport = match &options.iroh {
        Some(file) => {
            let transport = IrohTransport::new(IrohIdentity::load_or_create(file)?)
                .with_relays(IrohRelays::Disabled)
                .with_port(options.port);
            println!("Serving as iroh:{}@ADDRESS:{}", transport.id(), options.port);
            transport.into()
        }
        None => {
            // Burn's WebSocketTransport::new would listen on all interfaces.
            let listener = TcpListener::bind((options.bind, options.port))?;
            println!("Serving at ws://{}", listener.local_addr()?);
            WebSocketTransport::from_listener(listener).into()
        }
    };
    match &options.token {
        Some(token) => {
            let authorizer =
                TokenAuthorizer::new(token.as_str()).map_err(|_| "--token is empty")?;
            server = server.with_authorizer(authorizer);
        }
        None if !options.bind.is_loopback() => {
            println!("Without --token, everyone who reaches {} can use this device", options.bind);
        }
        None => (),
    }
    Ok(server.serve(transport)?)
}
