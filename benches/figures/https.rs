//! An HTTPS server on 127.0.0.1 that sends one file to everybody who asks.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{Result, While};

pub(crate) struct Server {
    pub url: String,
    /// What a client has to trust.
    pub certificate: PathBuf,
}

/// Serves `file` until the program ends; the certificate goes to `folder`.
pub(crate) fn serve(file: &Path, folder: &Path) -> Result<Server> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()])
        .during("a certificate")?;
    let certificate = folder.join("server.pem");
    std::fs::write(&certificate, made.cert.pem()).during(certificate.display())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .during("a TLS server")?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).during("a port")?;
    let port = listener.local_addr().during("a port")?.port();
    let file = file.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, file) = (Arc::clone(&config), file.clone());
            std::thread::spawn(move || {
                // A client that goes away says so itself.
                let _ = answer(stream, config, &file);
            });
        }
    });
    Ok(Server {
        url: format!("https://127.0.0.1:{port}/image"),
        certificate,
    })
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, file: &Path) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut reader = BufReader::new(&mut stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let mut file = File::open(file)?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n",
        file.metadata()?.len()
    )?;
    let mut buffer = vec![0u8; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => stream.write_all(&buffer[..n])?,
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}
