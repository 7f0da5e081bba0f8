//! An HTTPS server on 127.0.0.1 that serves files, well or with faults.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// How a file is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// The first answer ends half-way.
    CutOnce,
    /// Every answer ends half-way of what is left.
    CutAlways,
    /// The first answer ends half-way, and ranges are not supported.
    CutOnceNoRanges,
    /// The first answer sends half, and then nothing more.
    StallOnce,
    /// No answer sends anything.
    StallAlways,
    /// The first request is told to come back later.
    BusyOnce,
    /// The first request for a range gets another range.
    WrongRangeOnce,
    /// Redirects to the same server without TLS.
    ToHttp,
}

#[derive(Default)]
struct Served {
    files: HashMap<String, (Manner, Vec<u8>)>,
    /// Path and Range of every request.
    requests: Vec<(String, Option<String>)>,
}

pub(crate) struct Server {
    port: u16,
    certificate: PathBuf,
    _folder: tempfile::TempDir,
    served: Arc<Mutex<Served>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // In some tests another user runs stead.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let certificate = folder.path().join("server.pem");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::new(Mutex::new(Served::default()));
        let shared = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    // Clients may disconnect.
                    let _ = answer(StreamOwned::new(connection, stream), &shared);
                });
            }
        });
        Server {
            port,
            certificate,
            _folder: folder,
            served,
        }
    }

    /// The value of SSL_CERT_FILE by which this server is trusted.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Serves these bytes from now on; returns their URL.
    pub(crate) fn serve(&self, name: &str, manner: Manner, bytes: &[u8]) -> String {
        let path = format!("/{name}");
        self.served
            .lock()
            .unwrap()
            .files
            .insert(path.clone(), (manner, bytes.to_vec()));
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The Range of every request for a file so far.
    pub(crate) fn requests(&self, name: &str) -> Vec<Option<String>> {
        let served = self.served.lock().unwrap();
        served
            .requests
            .iter()
            .filter(|(path, _)| path[1..] == *name)
            .map(|(_, range)| range.clone())
            .collect()
    }
}

fn answer(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    shared: &Mutex<Served>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let head = words.next() == Some("HEAD");
    let path = words.next().unwrap_or_default().to_string();
    let mut range = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_string());
        }
    }
    let (found, count) = {
        let mut served = shared.lock().unwrap();
        served.requests.push((path.clone(), range.clone()));
        let count = served.requests.iter().filter(|(p, _)| *p == path).count();
        (served.files.get(&path).cloned(), count)
    };
    let first = count == 1;
    let Some((manner, bytes)) = found else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    };
    let start = range
        .as_deref()
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .filter(|_| manner != Manner::CutOnceNoRanges)
        .unwrap_or(0usize);
    match manner {
        Manner::BusyOnce if first => {
            return write!(
                stream,
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Manner::ToHttp => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        _ => {}
    }
    let etag = format!("\"{}\"", bytes.len());
    let body = &bytes[start.min(bytes.len())..];
    let shown = if manner == Manner::WrongRangeOnce && count == 2 {
        start + 1
    } else {
        start
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    if start > 0 {
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {shown}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        )?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "ETag: {etag}\r\n{length}Connection: close\r\n\r\n")?;
    if head {
        return Ok(());
    }
    let half = &body[..body.len() / 2];
    match manner {
        Manner::CutOnce | Manner::CutOnceNoRanges | Manner::WrongRangeOnce if first => {
            stream.write_all(half)?;
        }
        Manner::CutAlways => stream.write_all(half)?,
        Manner::StallOnce if first => {
            stream.write_all(half)?;
            stream.flush()?;
            // Wait until the client gives up.
            let _ = stream.sock.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = stream.read(&mut [0]);
        }
        Manner::StallAlways => {
            stream.flush()?;
            let _ = stream.sock.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = stream.read(&mut [0]);
        }
        _ => stream.write_all(body)?,
    }
    stream.conn.send_close_notify();
    stream.flush()
}
