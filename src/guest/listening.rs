//! Waits in a guest until something listens on a TCP port.

/// 127.0.0.0/8, the same as IPv6 has it, and ::1.
const LOCAL: &str =
    "??????7F:* | 0000000000000000FFFF0000??????7F:* | 00000000000000000000000001000000:*) ;;";

/// Returns a script that ends as soon as something listens on the port; with `outside`, not only on addresses such as
/// 127.0.0.1. At each change until then, it says where: `stead-ports ADDRESS:PORT…`, in the kernel's hexadecimal form
/// (proc_net_tcp(5)).
pub fn listening_script(port: u16, outside: bool) -> String {
    let local = match outside {
        true => LOCAL,
        false => "",
    };
    // The kernel lists those that listen first: they have state 0A.
    format!(
        "before=none
look() {{
    now= found=
    for table in /proc/net/tcp /proc/net/tcp6; do
        [ -r \"$table\" ] || continue
        {{
            read -r _
            while read -r _ local _ state _ && [ \"$state\" = 0A ]; do
                case $local in *:{port:04X}) now=\"$now $local\" ;; *) continue ;; esac
                case $local in {local} *) found=1 ;; esac
            done
        }} <\"$table\"
    done
    [ \"$now\" = \"$before\" ] || printf '\\nstead-ports%s\\n' \"$now\"
    before=$now
    [ -n \"$found\" ]
}}
until look; do sleep 0.1; done"
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;

    fn start(port: u16, outside: bool) -> (Child, BufReader<ChildStdout>) {
        let mut child = Command::new("sh")
            .args(["-c", &listening_script(port, outside)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (child, out)
    }

    fn next(out: &mut BufReader<ChildStdout>) -> String {
        let mut line = String::new();
        while line.trim().is_empty() && out.read_line(&mut line).unwrap() > 0 {}
        line.trim().to_string()
    }

    #[test]
    fn it_says_where_something_listens_and_ends_when_that_is_enough() {
        let local = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = local.local_addr().unwrap().port();
        let (mut any, mut out) = start(port, false);
        assert_eq!(next(&mut out), format!("stead-ports 0100007F:{port:04X}"));
        assert!(any.wait().unwrap().success());
        let (mut outside, mut out) = start(port, true);
        assert_eq!(next(&mut out), format!("stead-ports 0100007F:{port:04X}"));
        drop(local);
        assert_eq!(next(&mut out), "stead-ports");
        let other = TcpListener::bind(("127.0.0.2", port)).unwrap();
        assert_eq!(next(&mut out), format!("stead-ports 0200007F:{port:04X}"));
        assert_eq!(outside.try_wait().unwrap(), None);
        drop(other);
        let _all = TcpListener::bind(("0.0.0.0", port)).unwrap();
        while !next(&mut out).contains(&format!("00000000:{port:04X}")) {}
        assert!(outside.wait().unwrap().success());
    }

    #[test]
    fn what_is_reached_within_the_guest_only_is_known() {
        for (address, is_local) in [
            ("0100007F", true),
            ("3500007F", true),
            ("0000000000000000FFFF00000100007F", true),
            ("00000000000000000000000001000000", true),
            ("00000000", false),
            ("0A004D0A", false),
            ("7F00A8C0", false),
            ("00000000000000000000000000000000", false),
            ("0000000000000000FFFF00000A004D0A", false),
            // 2001:db8::7f00:1
            ("B80D012000000000000000000100007F", false),
        ] {
            let script = format!("case {address}:0050 in {LOCAL} *) exit 1 ;; esac");
            let status = Command::new("sh").args(["-c", &script]).status().unwrap();
            assert_eq!(status.success(), is_local, "{address}");
        }
    }
}
