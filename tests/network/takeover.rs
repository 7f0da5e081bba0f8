//! A stead of another release: an older program is replaced while guests go on, and a newer one is left alone. No
//! release of another version is at hand here, so a stand-in answers as one would: a line of JSON with its version.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{sys::signal::kill, unistd::Pid};
use stead::{
    host::paths::DataDir,
    network::{ByHand, Cable, NetworkError, NetworkFiles, Scope, links, look, set},
};

use crate::{DB, Net, SOON, WEB, guest::Guest, shop};

/// The versions before today's.
const OLDER: [u32; 4] = [1, 2, 3, 4];
const NEWER: u32 = 1_000_000;

/// When a process began (proc_pid_stat(5), field 22).
fn started(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name.split(' ').nth(19).unwrap().to_string()
}

/// The program of another release, in the middle of its work.
struct StandIn {
    net: Net,
    program: Child,
    /// The requests that it got.
    heard: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    fn new(answer: String) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes).unwrap();
        let project = hex::encode(bytes);
        let files = NetworkFiles::of(&DataDir::at(data.path()), &project, Cable::Sockets);
        let sockets = files.sockets();
        fs::create_dir_all(&sockets).unwrap();
        for folder in [sockets.parent().unwrap(), &sockets] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let program = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let control = sockets.join("control");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = UnixListener::bind(&control).unwrap();
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                hears.lock().unwrap().push(line);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        // As version 2 wrote it.
        let state = format!(
            r#"{{"process":{{"pid":{},"started":{},"boot":"{}"}},"since":"2026-11-30T03:40:13.059805365Z","control":"{}","conditions":[{{"scope":{{"from":["db"],"to":["web"],"network":null,"one_way":false}},"settings":{{"latency":"20ms"}},"until":null}}]}}"#,
            program.id(),
            started(program.id()),
            fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap()
                .trim(),
            control.display()
        );
        let folder = data.path().join("networks");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("stead-net-{project}.json")), state).unwrap();
        StandIn {
            net: Net {
                files,
                wiring: shop(),
                _data: data,
            },
            program,
            heard,
        }
    }

    fn runs(&self) -> bool {
        kill(Pid::from_raw(self.program.id() as i32), None).is_ok()
    }

    /// All files, with what is in them.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let folders = [
            self.net._data.path().join("networks"),
            self.net.files.sockets(),
        ];
        let entries = folders
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut files: Vec<_> = (entries.flatten())
            .map(|entry| (entry.path(), fs::read(entry.path()).unwrap_or_default()))
            .collect();
        files.sort();
        files
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn restore() -> ByHand {
    ByHand {
        scope: Scope::default(),
        settings: None,
        until: None,
    }
}

#[test]
fn an_older_program_is_replaced() {
    for format in OLDER {
        let mut older = StandIn::new(format!("{{\"format\":{format},\"counts\":{{}}}}\n"));
        // QEMU's ends of the cables stay.
        let sockets = older.net.files.sockets();
        let cards = &older.net.wiring.networks[0].cards;
        let mut db = Guest::new(&sockets, cards[0].mac);
        let mut web = Guest::new(&sockets, cards[1].mac);
        db.configure(DB, 24);
        web.configure(WEB, 24);

        // Whoever only asks does not end it: nobody would start the other one.
        let asked = look(&older.net.files);
        assert!(matches!(asked, Err(NetworkError::Older)), "{asked:?}");
        let told = set(&older.net.files, restore());
        assert!(matches!(told, Err(NetworkError::Older)), "{told:?}");
        assert!(older.runs());

        let net = &older.net;
        std::thread::scope(|scope| {
            // A process whose parent has not asked for its end yet is still there.
            scope.spawn(|| older.program.wait());
            assert!(net.ensure(), "it was started");
        });
        assert!(db.ping(&mut [&mut web], WEB, SOON));
        // What `stead link` has set holds on.
        let by_hand = links(&older.net.files).unwrap().unwrap().1.by_hand;
        assert_eq!(by_hand.len(), 1, "{by_hand:?}");
        assert!(!older.net.ensure(), "it runs");
    }
}

#[test]
fn a_newer_program_is_left_alone() {
    for answer in [
        format!("{{\"format\":{NEWER},\"counts\":{{}}}}\n"),
        // Everything else may mean something else by then.
        format!("{{\"format\":{NEWER},\"counts\":[1],\"error\":{{}}}}\n"),
        format!("{{\"format\":{NEWER}}}\n"),
    ] {
        let newer = StandIn::new(answer);
        let before = newer.files();
        let mut command = Command::new("/bin/false");
        let told = stead::network::ensure(&newer.net.files, &newer.net.wiring, &mut command);
        assert!(matches!(told, Err(NetworkError::Newer)), "{told:?}");
        let asked = look(&newer.net.files);
        assert!(matches!(asked, Err(NetworkError::Newer)), "{asked:?}");
        let set = set(&newer.net.files, restore());
        assert!(matches!(set, Err(NetworkError::Newer)), "{set:?}");
        assert!(newer.runs());
        assert_eq!(newer.files(), before);
        // It can tell that it is not meant, whatever it is told.
        for line in newer.heard.lock().unwrap().iter() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys: Vec<_> = line.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["format", "request"]);
        }
    }
}

/// The other side: what today's program does when another release asks.
#[test]
fn what_another_release_asks_is_not_done() {
    let net = Net::new(shop());
    let before = links(&net.files).unwrap().unwrap().1;
    let empty = r#"{"domain":"other.internal","networks":[],"links":[],"guests":[]}"#;
    for line in [
        // As versions 1 to 3 said it.
        format!(r#"{{"wire":{empty}}}"#),
        r#"{"set":{"scope":{"from":[],"to":[],"network":null,"one_way":false},"settings":{"cut":true},"until":null}}"#.to_string(),
        r#""look""#.to_string(),
        format!(r#"{{"format":{NEWER},"request":{{"wire":{empty}}}}}"#),
        format!(r#"{{"format":{NEWER}}}"#),
    ] {
        let mut stream = UnixStream::connect(net.files.sockets().join("control")).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
        // By its version, the other one knows which of them is newer.
        let format = reply["format"].as_u64().unwrap();
        assert!(format > 4 && format < u64::from(NEWER), "{reply}");
        assert!(reply["error"].is_string(), "{reply}");
        let after = links(&net.files).unwrap().unwrap().1;
        assert_eq!(after.wiring, before.wiring, "{line}");
        assert!(after.by_hand.is_empty(), "{line}");
    }
}
