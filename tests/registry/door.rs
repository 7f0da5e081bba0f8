//! A proxy before a registry: it sees every request and may answer some itself, as token servers, object
//! storage and bad networks do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A request that the proxy has seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
}

pub(crate) enum Reply {
    /// Pass the request to the registry, and its answer back.
    Pass,
    /// Answer with these lines of the head after `HTTP/1.1 `, and this body.
    Say(String, String),
    /// Send nothing for as long as the client waits.
    Stall,
}

pub(crate) struct Door {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Door {
    /// `rule` gets its own `HOST:PORT` and the request.
    pub(crate) fn before(
        registry: &str,
        rule: impl Fn(&str, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (record, registry, rule) = (Arc::clone(&seen), registry.to_string(), Arc::new(rule));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (record, registry) = (Arc::clone(&record), registry.clone());
                let rule = Arc::clone(&rule);
                std::thread::spawn(move || {
                    // Clients may disconnect.
                    let own = format!("127.0.0.1:{port}");
                    let _ = answer(stream, &registry, &record, &|seen| rule(&own, seen));
                });
            }
        });
        Door { port, seen }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    registry: &str,
    record: &Mutex<Vec<Seen>>,
    rule: &dyn Fn(&Seen) -> Reply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first)?;
    // A client that tries TLS gets an error.
    let Ok(first) = String::from_utf8(first) else {
        return write!(stream, "HTTP/1.1 400 Bad Request\r\n\r\n");
    };
    let mut head = first.clone();
    let (mut length, mut authorization) = (0u64, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => authorization = Some(value.trim().to_string()),
                "connection" => continue,
                _ => {}
            }
        }
        head.push_str(&line);
    }
    let mut words = first.split(' ');
    let seen = Seen {
        method: words.next().unwrap_or_default().to_string(),
        path: words.next().unwrap_or_default().to_string(),
        authorization,
    };
    record.lock().unwrap().push(seen.clone());
    match rule(&seen) {
        Reply::Pass => {
            let mut there = TcpStream::connect(registry)?;
            write!(there, "{head}Connection: close\r\n\r\n")?;
            std::io::copy(&mut reader.take(length), &mut there)?;
            std::io::copy(&mut there, &mut stream)?;
        }
        Reply::Say(head, body) => {
            // Read the whole request, so that the answer is not lost in a reset.
            std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )?;
        }
        Reply::Stall => {
            std::io::copy(&mut reader, &mut std::io::sink())?;
        }
    }
    Ok(())
}
