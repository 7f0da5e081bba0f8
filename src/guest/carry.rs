//! Joins the streams of a command in a guest with those of this process.

use std::{
    fs::File,
    io::{self, Read, Write},
    thread,
};

use tokio::process::Child;

/// Passes on input, output and messages, until the output ends. Messages that are still on their way by then may be
/// lost: a ControlMaster that ssh leaves behind may keep that pipe open.
///
/// # Errors
/// If the child has no pipes, or the output cannot be passed on.
pub fn carry(
    child: &mut Child,
    mut from: File,
    mut to: File,
    mut messages: File,
) -> io::Result<()> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(said)) = pipes else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut input = File::from(input.into_owned_fd()?);
    let mut output = File::from(output.into_owned_fd()?);
    let mut said = File::from(said.into_owned_fd()?);
    // Both end with this process. A guest that reads no more shows why by its exit code.
    thread::spawn(move || pass_on(&mut from, &mut input));
    let (over, is_over) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = pass_on(&mut said, &mut messages);
        let _ = over.send(());
    });
    pass_on(&mut output, &mut to)?;
    let _ = is_over.recv_timeout(super::output::LINGER);
    Ok(())
}

/// How much is passed on at a time, in bytes.
const PIECE: usize = 1 << 17;

/// As `io::copy`, but never by splice(2): that locks the pipe into which it writes for as long as it waits for data, and
/// who would read there meanwhile is the ControlMaster of all.
fn pass_on(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&piece[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
