//! Ends what was started in a guest.

/// Returns a script that ends when its standard input does, which is the caller's to keep open. It gets no input itself.
pub fn while_called(script: &str) -> String {
    format!(
        "exec 3<&0 </dev/null\n\
         {{ read -r line <&3; kill -TERM 0; }} >/dev/null 2>&1 &\n\
         {script}\n\
         s=$?\n\
         kill -KILL \"$!\" 2>/dev/null\n\
         exit \"$s\"\n"
    )
}

/// Ends everything that was started from a process, with its sessions. `$1` is the process, and `$2`, if it is there,
/// another one that is left alone, with what it has started. The script is an argument of `sh`, in single quotes. It
/// reads proc_pid_stat(5): state, parent, group and session follow the name, which is in parentheses and may contain
/// anything.
pub const END_SCRIPT: &str = r#"
pids=" $1 " sids=" $1 " not=" $$ ${2-} "
look() {
    more=1
    while [ -n "$more" ]; do
        more= alive=
        for stat in /proc/[0-9]*/stat; do
            { IFS= read -r line <"$stat"; } 2>/dev/null || continue
            pid=${stat#/proc/} pid=${pid%/stat}
            case $not in *" $pid "*) continue ;; esac
            set -- ${line##*) }
            case $pids in
                *" $pid "*) ;;
                *)
                    case $sids in
                        *" $4 "*) ;;
                        *) case $pids in *" $2 "*) ;; *) continue ;; esac ;;
                    esac
                    pids="$pids$pid " sids="$sids$4 " more=1
                    ;;
            esac
            [ "$1" = Z ] || alive="$alive $pid"
        done
    done
    [ -n "$alive" ]
}
look && kill -TERM $alive
n=0
while look && [ $n -lt 12 ]; do sleep 0.4; n=$((n + 1)); done
n=0
while look && [ $n -lt 20 ]; do kill -KILL $alive; sleep 0.1; n=$((n + 1)); done
"#;

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::process::CommandExt, process::Stdio};

    use super::*;

    #[test]
    fn a_script_ends_with_its_caller() {
        let start = |script: &str| {
            std::process::Command::new("sh")
                .args(["-c", &while_called(script)])
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut child = start("echo a; exit_code() { return 3; }; exit_code");
        let _open = child.stdin.take();
        let mut said = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!((&*said, child.wait().unwrap().code()), ("a\n", Some(3)));
        let mut child = start("while :; do sleep 1000; done");
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success());
    }
}
