//! Debian's docker-registry on 127.0.0.1, as a test starts and stops it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// bcrypt of `correct horse`, for the user `me`.
const HTPASSWD: &str = "me:$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e\n";

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    (sha2::Sha256::digest(bytes).iter())
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) struct Registry {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// A registry that requires a user and a password.
    pub(crate) fn with_password() -> Self {
        Self::with("auth: { htpasswd: { realm: r, path: FOLDER/htpasswd } }\n")
    }

    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{ level: info }}\nstorage:\n  filesystem: {{ rootdirectory: FOLDER/data }}\n  delete: {{ enabled: true }}\nhttp: {{ addr: \"127.0.0.1:0\", secret: test }}\n{more}"
        );
        let config_path = folder.path().join("config.yml");
        fs::write(&config_path, config.replace("FOLDER", &path)).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config_path)
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("access.log")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is needed: `./dev setup` installs it");
        // It prints the port that it got.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("docker-registry ended: {said}");
            };
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
            said.push_str(&line);
        };
        std::thread::spawn(move || lines.for_each(drop));
        Registry {
            child,
            port,
            folder,
        }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the file in which it stores a blob.
    pub(crate) fn blob(&self, sha256: &str) -> PathBuf {
        self.folder.path().join(format!(
            "data/docker/registry/v2/blobs/sha256/{}/{sha256}/data",
            &sha256[..2]
        ))
    }

    /// Method and path of every request so far, and its status.
    pub(crate) fn requests(&self) -> Vec<(String, String, u16)> {
        // Once this request is in the log, all earlier ones are.
        let mark = format!("/v2/mark/{}", uuid());
        self.ask("GET", &mark, &[], b"");
        loop {
            let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap();
            if log.contains(&mark) {
                return log.lines().filter_map(line).collect();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Returns the blobs that were requested with GET, and how often.
    pub(crate) fn fetched(&self) -> BTreeMap<String, usize> {
        let mut blobs = BTreeMap::new();
        for (method, path, _) in self.requests() {
            if let Some((_, sha256)) = path.split_once("/blobs/sha256:")
                && method == "GET"
            {
                *blobs.entry(sha256.to_string()).or_default() += 1;
            }
        }
        blobs
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        ask(&self.host(), method, path, headers, body)
    }

    /// Stores a blob without stead.
    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let started = self.ask(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
        );
        let location = started.header("location").unwrap();
        let path = location.split_once(&self.host()).unwrap().1;
        let digest = format!("sha256:{}", sha256(bytes));
        let put = self.ask("PUT", &format!("{path}&digest={digest}"), &[], bytes);
        assert_eq!(put.status, 201, "{}", put.text());
        digest
    }

    /// Stores a manifest without stead.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, manifest: &serde_json::Value) {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let put = self.ask(
            "PUT",
            &format!("/v2/{repository}/manifests/{tag}"),
            &[&format!("Content-Type: {media_type}")],
            manifest.to_string().as_bytes(),
        );
        assert_eq!(put.status, 201, "{}", put.text());
    }
}

/// Parses a line of Apache's combined log: `… "GET /v2/ HTTP/1.1" 200 …`.
fn line(line: &str) -> Option<(String, String, u16)> {
    let (request, rest) = line.split_once("] \"")?.1.split_once("\" ")?;
    let mut words = request.split(' ');
    Some((
        words.next()?.to_string(),
        words.next()?.to_string(),
        rest.split(' ').next()?.parse().ok()?,
    ))
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-mark", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// Sends one request over its own connection.
pub(crate) fn ask(host: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    Answer {
        status: status.parse().unwrap(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        body: all[end + 4..].to_vec(),
    }
}
